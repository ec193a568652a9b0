//! Where results go: standard output, `bench/results.jsonl` in cargo's target directory, and a
//! chart beside it for each part.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::chart::{self, Panel};
use super::goal::{self, Goal};
use super::record::{History, Record};
use super::{Amounts, By, Case, OURS};

/// What was measured, and what was asked for.
#[derive(Debug)]
pub(crate) struct Results {
    directory: PathBuf,
    file: File,
    history: History,
    goals: Vec<Goal>,
    panels: BTreeMap<&'static str, Vec<Panel>>,
}

/// The directory of all that the benchmarks write.
///
/// # Errors
///
/// Where it cannot be made.
pub(crate) fn directory() -> Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")),
        PathBuf::from,
    );
    let directory = target.join("bench");
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("creating {}", directory.display()))?;
    Ok(directory)
}

impl Results {
    /// Opens the file to append to it, and reads what was recorded last.
    ///
    /// # Errors
    ///
    /// Where it cannot be read or written.
    pub(crate) fn open() -> Result<Self> {
        Self::open_in(&directory()?)
    }

    fn open_in(directory: &Path) -> Result<Self> {
        let path = directory.join("results.jsonl");
        let recorded = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            read => read.with_context(|| format!("reading {}", path.display()))?,
        };
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("opening {}", path.display()))?;
        Ok(Self {
            directory: directory.to_owned(),
            file,
            history: History::parse(&recorded),
            goals: Vec::new(),
            panels: BTreeMap::new(),
        })
    }

    /// Prints the case, and appends a line for each of its sides.
    ///
    /// # Errors
    ///
    /// Where the file cannot be written.
    pub(crate) fn add(&mut self, case: &Case) -> Result<()> {
        let by = case.by;
        let value = move |record: &Record| match by {
            By::Rate => record.per_s,
            By::P50 => record.p50_us,
            By::P99 => record.p99_us,
        };
        let records: Vec<Record> = case.records().collect();
        let before = |side: &str| self.before(&records, &case.subject, side, value);
        println!("\n{}", case.table(before));
        self.keep(case.part, &records, case.panel())
    }

    /// As [`add`](Self::add), of amounts.
    ///
    /// # Errors
    ///
    /// Where the file cannot be written.
    pub(crate) fn add_amounts(&mut self, amounts: &Amounts) -> Result<()> {
        let records: Vec<Record> = amounts.records().collect();
        let before = |side: &str| self.before(&records, OURS, side, |record| record.amount);
        println!("\n{}", amounts.table(before));
        self.keep(amounts.part, &records, amounts.panel())
    }

    /// Prints what was asked for, and remembers it for the end.
    pub(crate) fn expect(&mut self, goals: impl IntoIterator<Item = Goal>) {
        for goal in goals {
            println!("  {goal}");
            self.goals.push(goal);
        }
    }

    /// Writes the charts, and returns the goals in a table, and whether all are met.
    ///
    /// # Errors
    ///
    /// Where a chart cannot be written.
    pub(crate) fn finish(&self) -> Result<(String, bool)> {
        for (part, panels) in &self.panels {
            let path = self.directory.join(format!("{part}.svg"));
            std::fs::write(&path, chart::svg(part, panels))
                .with_context(|| format!("writing {}", path.display()))?;
        }
        let are_met = self.goals.iter().all(Goal::is_met);
        Ok((goal::table(&self.goals), are_met))
    }

    /// The ratio of two sides at the last run.
    fn before(
        &self,
        records: &[Record],
        subject: &str,
        side: &str,
        value: impl Fn(&Record) -> Option<f64>,
    ) -> Option<f64> {
        let find = |side| records.iter().find(|record| record.side == side);
        self.history.ratio(find(subject)?, find(side)?, value)
    }

    fn keep(&mut self, part: &'static str, records: &[Record], panel: Panel) -> Result<()> {
        for record in records {
            let line = serde_json::to_string(record)? + "\n";
            self.file
                .write_all(line.as_bytes())
                .context("writing results.jsonl")?;
        }
        self.panels.entry(part).or_default().push(panel);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::Sample;
    use crate::report::Bound;

    fn case(rate: f64) -> Case {
        let samples = [rate, 100.0].map(|per_s| {
            vec![Sample {
                per_s,
                p50_us: 1.0,
                p99_us: 2.0,
            }]
        });
        Case::new("write", "create", [OURS, "single"], samples.to_vec())
    }

    #[test]
    fn a_run_is_compared_with_the_last_and_drawn() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut first = Results::open_in(directory.path()).expect("it is new");
        first.add(&case(150.0)).expect("it can be written");
        let mut second = Results::open_in(directory.path()).expect("it was written");
        let records: Vec<Record> = case(120.0).records().collect();
        let before = second.before(&records, OURS, "single", |record| record.per_s);
        assert_eq!(before, Some(1.5));

        second.add(&case(120.0)).expect("it can be written");
        second.expect(case(120.0).goals(&[("single", Bound::AtLeast(1.3))]));
        let (table, are_met) = second.finish().expect("a chart can be written");
        assert!(!are_met && table.lines().count() == 2, "{table}");
        let lines = std::fs::read_to_string(directory.path().join("results.jsonl"));
        assert_eq!(lines.expect("two runs").lines().count(), 4);
        let chart = std::fs::read_to_string(directory.path().join("write.svg"));
        assert!(chart.expect("a chart").contains("single"));
    }
}
