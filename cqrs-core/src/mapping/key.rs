//! Row keys with the order of their values.

use std::cmp::Ordering;

use super::Value;

/// The values of the key columns, ordered as the databases order them.
#[derive(Debug, Clone)]
pub(crate) struct Key(Vec<Value>);

impl Key {
    pub(crate) fn new(values: Vec<Value>) -> Self {
        Self(values)
    }
}

impl Key {
    /// The values, in the order of the columns.
    pub(crate) fn values(&self) -> &[Value] {
        &self.0
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0
            .iter()
            .zip(&other.0)
            .map(|(a, b)| compare(a, b))
            .find(|ordering| ordering.is_ne())
            .unwrap_or_else(|| self.0.len().cmp(&other.0.len()))
    }
}

/// Values that have no order of their own, as JSON, need one all the same to be found again.
fn compare(a: &Value, b: &Value) -> Ordering {
    a.compare(b)
        .unwrap_or_else(|| format!("{a:?}").cmp(&format!("{b:?}")))
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Key {}
