//! Lines of the file of results.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// A line: what is reported of all rounds.
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
    /// The ratio of the subject of the case to this side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ratio: Option<f64>,
    /// The part and its arguments, as they were told.
    #[serde(default)]
    pub(super) arguments: String,
    /// What it counts where it is no rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) amount: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) unit: Option<String>,
}

/// What tells records apart: arguments, case, side, writers, delay. Other arguments are other work.
type Key = (String, String, String, usize, u64);

impl Record {
    fn key(&self) -> Key {
        let Self {
            arguments,
            case,
            side,
            ..
        } = self.clone();
        (arguments, case, side, self.writers, self.delay_us)
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

    /// The ratio of the subject to this side at the last run.
    pub(super) fn ratio(&self, record: &Record) -> Option<f64> {
        self.0.get(&record.key())?.ratio
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(arguments: &str, writers: usize, ratio: f64) -> String {
        format!(
            "{{\"part\":\"write\",\"case\":\"create\",\"side\":\"single\",\"writers\":{writers},\
             \"delay_us\":0,\"per_s\":1.0,\"p50_us\":1.0,\"p99_us\":2.0,\"ratio\":{ratio},\
             \"arguments\":\"{arguments}\"}}"
        )
    }

    #[test]
    fn the_last_record_with_the_same_keys_counts() {
        let lines = [
            line("write", 1, 1.0),
            line("write", 8, 7.0),
            "a line of another kind".to_owned(),
            line("write", 1, 1.2),
            line("write --quick", 1, 3.0),
        ];
        let history = History::parse(&lines.join("\n"));
        let record =
            |index: usize| serde_json::from_str::<Record>(&lines[index]).expect("a record");
        assert_eq!(history.ratio(&record(0)), Some(1.2));
        assert_eq!(history.ratio(&record(1)), Some(7.0));
        assert_eq!(history.ratio(&record(4)), Some(3.0));
        let unknown = Record {
            delay_us: 500,
            ..record(0)
        };
        assert_eq!(history.ratio(&unknown), None);
    }
}
