//! Results: a table for people, and a line of JSON for each measured case.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::harness::{Sample, Spread};

/// The side that the others are compared with, unless a case says otherwise.
pub(crate) const OURS: &str = "ours";

/// One side of a case, with what was measured in each round.
#[derive(Debug)]
pub(crate) struct Measured {
    /// The name of the side.
    pub(crate) side: &'static str,
    /// A sample for each round.
    pub(crate) samples: Vec<Sample>,
}

/// All sides of one case.
#[derive(Debug)]
pub(crate) struct Case {
    /// The part of the benchmark.
    pub(crate) part: &'static str,
    /// The case.
    pub(crate) case: &'static str,
    /// How many writers there were at a time.
    pub(crate) writers: usize,
    /// How much later than it would the network delivered, in microseconds.
    pub(crate) delay_us: u64,
    /// The side that the others are compared with.
    pub(crate) subject: &'static str,
    /// The sides.
    pub(crate) sides: Vec<Measured>,
}

/// A case in which ours is below what is asked of it.
#[derive(Debug, PartialEq)]
pub(crate) struct Miss {
    /// The case, and the sides compared.
    pub(crate) what: String,
    /// The ratio found.
    pub(crate) found: f64,
    /// The least ratio asked for.
    pub(crate) least: f64,
}

impl Measured {
    fn spread(&self, read: impl Fn(&Sample) -> f64) -> Spread {
        Spread::of(self.samples.iter().map(read))
    }
}

impl Case {
    /// A case of one writer and no network, of the sides with these names.
    pub(crate) fn new(
        part: &'static str,
        case: &'static str,
        sides: impl IntoIterator<Item = &'static str>,
        samples: Vec<Vec<Sample>>,
    ) -> Self {
        Self {
            part,
            case,
            writers: 1,
            delay_us: 0,
            subject: OURS,
            sides: sides
                .into_iter()
                .zip(samples)
                .map(|(side, samples)| Measured { side, samples })
                .collect(),
        }
    }

    /// With so many writers at a time.
    pub(crate) fn with_writers(self, writers: usize) -> Self {
        Self { writers, ..self }
    }

    /// With this side in place of ours, for the others to be compared with.
    pub(crate) fn comparing(self, subject: &'static str) -> Self {
        Self { subject, ..self }
    }

    /// The name of the case with its number of writers.
    fn title(&self) -> String {
        let writers = match self.writers {
            1 => "1 writer".to_owned(),
            several => format!("{several} writers"),
        };
        format!("{}, {writers}", self.case)
    }

    /// The ratio of the subject's commits per second to those of another side.
    pub(crate) fn ratio(&self, side: &str) -> Option<Spread> {
        let samples = |side| {
            let measured = self.sides.iter().find(|measured| measured.side == side);
            measured.map(|measured| measured.samples.as_slice())
        };
        Some(Spread::of_ratios(samples(self.subject)?, samples(side)?))
    }

    /// The sides that the subject is not as far above as is asked: each bar is the name of a side and
    /// the least ratio to it.
    pub(crate) fn misses(&self, bars: &[(&str, f64)]) -> Vec<Miss> {
        let mut misses = Vec::new();
        for &(side, least) in bars {
            match self.ratio(side) {
                Some(ratio) if ratio.median < least => misses.push(Miss {
                    what: format!("{} {}: {}/{side}", self.part, self.title(), self.subject),
                    found: ratio.median,
                    least,
                }),
                _ => {}
            }
        }
        misses
    }

    /// The table of the case.
    pub(crate) fn table(&self) -> String {
        let mut lines = vec![
            format!("{}: {}", self.part, self.title()),
            format!(
                "  {:<15}{:>27}{:>27}{:>27}{:>24}",
                "side",
                "per second",
                "p50 us",
                "p99 us",
                format!("{}/side", self.subject)
            ),
        ];
        for measured in &self.sides {
            let ratio = self
                .ratio(measured.side)
                .filter(|_| measured.side != self.subject)
                .map_or_else(String::new, |ratio| cell(ratio, 2));
            lines.push(format!(
                "  {:<15}{:>27}{:>27}{:>27}{:>24}",
                measured.side,
                cell(measured.spread(|sample| sample.per_s), 0),
                cell(measured.spread(|sample| sample.p50_us), 0),
                cell(measured.spread(|sample| sample.p99_us), 0),
                ratio,
            ));
        }
        lines.join("\n")
    }

    fn records(&self) -> impl Iterator<Item = Record<'_>> {
        self.sides.iter().map(|measured| Record {
            part: self.part,
            case: self.case,
            side: measured.side,
            writers: self.writers,
            delay_us: self.delay_us,
            per_s: measured.spread(|sample| sample.per_s).median,
            p50_us: measured.spread(|sample| sample.p50_us).median,
            p99_us: measured.spread(|sample| sample.p99_us).median,
        })
    }
}

/// `median (min..max)`.
fn cell(spread: Spread, decimals: usize) -> String {
    let Spread { min, median, max } = spread;
    format!("{median:.decimals$} ({min:.decimals$}..{max:.decimals$})")
}

/// A line of the results: medians of the rounds.
#[derive(Serialize)]
struct Record<'c> {
    part: &'c str,
    case: &'c str,
    side: &'c str,
    writers: usize,
    delay_us: u64,
    per_s: f64,
    p50_us: f64,
    p99_us: f64,
}

/// The file of the results: `bench/results.jsonl` in cargo's target directory.
#[derive(Debug)]
pub(crate) struct Results {
    file: File,
    path: PathBuf,
}

impl Results {
    /// Opens the file, to append to it.
    ///
    /// # Errors
    ///
    /// Where it cannot be written.
    pub(crate) fn open() -> Result<Self> {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
            || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")),
            PathBuf::from,
        );
        let directory = target.join("bench");
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("creating {}", directory.display()))?;
        let path = directory.join("results.jsonl");
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("opening {}", path.display()))?;
        Ok(Self { file, path })
    }

    /// Prints the case, and appends a line for each of its sides.
    ///
    /// # Errors
    ///
    /// Where the file cannot be written.
    pub(crate) fn add(&mut self, case: &Case) -> Result<()> {
        println!("\n{}", case.table());
        for record in case.records() {
            let mut line = serde_json::to_string(&record)?;
            line.push('\n');
            self.file
                .write_all(line.as_bytes())
                .with_context(|| format!("writing {}", self.path.display()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(side: &'static str, rates: &[f64]) -> Measured {
        let sample = |&per_s| Sample {
            per_s,
            p50_us: 100.0,
            p99_us: 200.0,
        };
        Measured {
            side,
            samples: rates.iter().map(sample).collect(),
        }
    }

    fn case() -> Case {
        Case {
            part: "write",
            case: "create",
            writers: 8,
            delay_us: 0,
            subject: OURS,
            sides: vec![
                measured("ours", &[1000.0, 2000.0, 900.0]),
                measured("single", &[1000.0, 1600.0, 1000.0]),
            ],
        }
    }

    #[test]
    fn a_ratio_below_its_bar_is_a_miss_that_names_the_case() {
        assert!(case().misses(&[("single", 0.9)]).is_empty());
        assert_eq!(
            case().misses(&[("single", 1.4)]),
            [Miss {
                what: "write create, 8 writers: ours/single".to_owned(),
                found: 1.0,
                least: 1.4
            }]
        );
    }

    #[test]
    fn a_side_that_was_not_measured_is_no_miss() {
        assert!(case().misses(&[("steps", 1.4)]).is_empty());
    }

    #[test]
    fn the_table_has_a_row_for_each_side() {
        let table = case().table();
        assert_eq!(table.lines().count(), 4);
        assert!(table.contains("1000 (900..2000)"));
        assert!(table.contains("1.00 (0.90..1.25)"));
    }

    #[test]
    fn a_record_has_the_agreed_keys() {
        let records: Vec<_> = case()
            .records()
            .map(|record| serde_json::to_string(&record).expect("it is plain data"))
            .collect();
        assert_eq!(
            records[1],
            "{\"part\":\"write\",\"case\":\"create\",\"side\":\"single\",\"writers\":8,\
             \"delay_us\":0,\"per_s\":1000.0,\"p50_us\":100.0,\"p99_us\":200.0}"
        );
    }
}
