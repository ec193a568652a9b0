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
use super::{Amounts, Case};

/// What was measured, and what was asked for.
#[derive(Debug)]
pub(crate) struct Results {
    directory: PathBuf,
    file: File,
    history: History,
    /// The part that runs, and its arguments.
    line: String,
    goals: Vec<Goal>,
    panels: BTreeMap<&'static str, Vec<Panel>>,
}

/// Of what a run's charts are, which have a directory for each: none is mistaken for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Everything, as it is planned.
    Whole,
    /// The short run, of everything or of a part.
    Quick,
    /// A part that was named, with whatever arguments.
    Part,
}

impl Extent {
    fn directory(self) -> &'static str {
        match self {
            Self::Whole => "",
            Self::Quick => "quick",
            Self::Part => "parts",
        }
    }
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

    /// As [`open`](Self::open), in a directory.
    ///
    /// # Errors
    ///
    /// Where the file cannot be read or written.
    pub(crate) fn open_in(directory: &Path) -> Result<Self> {
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
            line: String::new(),
            goals: Vec::new(),
            panels: BTreeMap::new(),
        })
    }

    /// What is added from now on is of this part, with these arguments.
    pub(crate) fn begin(&mut self, line: &str) {
        line.clone_into(&mut self.line);
    }

    /// Prints the case, and appends a line for each of its sides.
    ///
    /// # Errors
    ///
    /// Where the file cannot be written.
    pub(crate) fn add(&mut self, case: &Case) -> Result<()> {
        let records = self.with_arguments(case.records());
        let before = |side: &str| self.before(&records, side);
        println!("\n{}", case.table(before));
        self.keep(case.part, &records, case.panel())
    }

    /// As [`add`](Self::add), of amounts.
    ///
    /// # Errors
    ///
    /// Where the file cannot be written.
    pub(crate) fn add_amounts(&mut self, amounts: &Amounts) -> Result<()> {
        let records = self.with_arguments(amounts.records());
        let before = |side: &str| self.before(&records, side);
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

    /// Writes the charts of a run, and returns the goals in a table, and whether all are met.
    ///
    /// # Errors
    ///
    /// Where a chart cannot be written.
    pub(crate) fn finish(&self, extent: Extent) -> Result<(String, bool)> {
        let directory = self.directory.join(extent.directory());
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("creating {}", directory.display()))?;
        for (part, panels) in &self.panels {
            let path = directory.join(format!("{part}.svg"));
            std::fs::write(&path, chart::svg(part, panels))
                .with_context(|| format!("writing {}", path.display()))?;
        }
        let are_met = self.goals.iter().all(Goal::is_met);
        Ok((goal::table(&self.goals), are_met))
    }

    fn with_arguments(&self, records: impl Iterator<Item = Record>) -> Vec<Record> {
        let arguments = &self.line;
        records
            .map(|record| Record {
                arguments: arguments.clone(),
                ..record
            })
            .collect()
    }

    /// The ratio to a side at the last run with the same arguments.
    fn before(&self, records: &[Record], side: &str) -> Option<f64> {
        let record = records.iter().find(|record| record.side == side)?;
        self.history.ratio(record)
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
    use crate::report::{Bound, OURS};

    fn case(rate: f64) -> Case {
        let samples = [rate, 100.0].map(|per_s| {
            vec![Sample {
                per_s,
                latencies: Vec::new(),
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
        let before = |results: &Results| {
            let records = results.with_arguments(case(120.0).records());
            results.before(&records, "single")
        };
        assert_eq!(before(&second), Some(1.5));
        second.begin("write --rounds 1");
        assert_eq!(before(&second), None, "that is other work");
        second.begin("");

        second.add(&case(120.0)).expect("it can be written");
        second.expect(case(120.0).goals(&[("single", Bound::AtLeast(1.3))]));
        let (table, are_met) = second
            .finish(Extent::Whole)
            .expect("a chart can be written");
        assert!(!are_met && table.lines().count() == 2, "{table}");
        let lines = std::fs::read_to_string(directory.path().join("results.jsonl"));
        assert_eq!(lines.expect("two runs").lines().count(), 4);
        let chart = std::fs::read_to_string(directory.path().join("write.svg"));
        assert!(chart.expect("a chart").contains("single"));
        for (extent, place) in [(Extent::Quick, "quick"), (Extent::Part, "parts")] {
            let path = directory.path().join(place).join("write.svg");
            assert!(!path.exists(), "it is of another run");
            second.finish(extent).expect("a chart can be written");
            assert!(path.exists());
        }
    }
}
