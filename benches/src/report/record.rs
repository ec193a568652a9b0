//! Lines of the file of results.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// A line: medians of the rounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) part: String,
    pub(super) case: String,
    pub(super) side: String,
    pub(super) writers: usize,
    pub(super) delay_us: u64,
    pub(super) per_s: Option<f64>,
    pub(super) p50_us: Option<f64>,
    pub(super) p99_us: Option<f64>,
    /// What it counts where it is no rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) amount: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) unit: Option<String>,
}

/// What tells records apart: part, case, side, writers, delay.
type Key = (String, String, String, usize, u64);

impl Record {
    fn key(&self) -> Key {
        let Self {
            part, case, side, ..
        } = self.clone();
        (part, case, side, self.writers, self.delay_us)
    }
}

/// What was last recorded of each side of each case.
#[derive(Debug, Default)]
pub(super) struct History(HashMap<Key, Record>);

impl History {
    /// Reads a file of results. Lines that another version wrote in another form are left out.
    pub(super) fn parse(lines: &str) -> Self {
        let records = lines
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        Self(
            records
                .map(|record: Record| (record.key(), record))
                .collect(),
        )
    }

    /// The ratio of two records at the last run, by this value of them.
    pub(super) fn ratio(
        &self,
        record: &Record,
        other: &Record,
        value: impl Fn(&Record) -> Option<f64>,
    ) -> Option<f64> {
        let (before, other) = (self.0.get(&record.key())?, self.0.get(&other.key())?);
        let ratio = value(before)? / value(other)?;
        ratio.is_finite().then_some(ratio)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(side: &str, writers: usize, per_s: f64) -> String {
        format!(
            "{{\"part\":\"write\",\"case\":\"create\",\"side\":\"{side}\",\"writers\":{writers},\
             \"delay_us\":0,\"per_s\":{per_s},\"p50_us\":1.0,\"p99_us\":2.0}}"
        )
    }

    #[test]
    fn the_last_record_with_the_same_keys_counts() {
        let lines = [
            line("ours", 1, 100.0),
            line("single", 1, 100.0),
            line("ours", 8, 700.0),
            "a line of another kind".to_owned(),
            line("ours", 1, 120.0),
        ];
        let history = History::parse(&lines.join("\n"));
        let record =
            |index: usize| serde_json::from_str::<Record>(&lines[index]).expect("a record");
        let rate = |record: &Record| record.per_s;
        let ratio = |one, other| history.ratio(&record(one), &record(other), rate);
        assert_eq!(ratio(0, 1), Some(1.2));
        assert_eq!(ratio(2, 1), Some(7.0));
        let unknown = Record {
            delay_us: 500,
            ..record(0)
        };
        assert_eq!(history.ratio(&unknown, &record(1), rate), None);
    }
}
