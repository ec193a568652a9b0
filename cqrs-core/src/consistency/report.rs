//! What a check has found.

use std::fmt;

use crate::context::TenantId;
use crate::envelope::Position;
use crate::mapping::Value;

/// What a [`ConsistencyCheck`](super::ConsistencyCheck) has found. Displays as text for operators.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ConsistencyReport {
    /// The subscription.
    pub subscription: String,
    /// Where it stood; of several segments the one that was furthest behind.
    pub position: Position,
    /// How many events were folded.
    pub events: u64,
    /// How many rows the table has.
    pub rows: u64,
    /// How many rows the events make that the table does not have.
    pub missing: u64,
    /// How many rows the table has that the events do not make.
    pub extra: u64,
    /// How many rows have other values than the events make.
    pub different: u64,
    /// The first of these rows that were found, in the order of tenants and keys.
    pub differences: Vec<RowDifference>,
}

impl ConsistencyReport {
    /// Whether the table is what the events make.
    #[must_use]
    pub fn is_consistent(&self) -> bool {
        self.missing + self.extra + self.different == 0
    }
}

/// A row that differs from what the events make.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RowDifference {
    /// How.
    pub kind: RowDifferenceKind,
    /// The tenant of the row; `None` where the table has none.
    pub tenant: Option<TenantId>,
    /// The values of its key.
    pub key: Vec<Value>,
    /// The columns that differ; of a row that is missing or extra, all that are not in its key.
    pub columns: Vec<ColumnDifference>,
}

/// How a row differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RowDifferenceKind {
    /// The table does not have it.
    Missing,
    /// The events do not make it.
    Extra,
    /// It has other values.
    Different,
}

/// A column that differs.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ColumnDifference {
    /// Its name.
    pub column: String,
    /// What the events make of it; `None` where they make no such row.
    pub expected: Option<Value>,
    /// What the table has; `None` where it has no such row.
    pub found: Option<Value>,
}

impl fmt::Display for ConsistencyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} at {}: {} rows, {} missing, {} extra, {} different",
            self.subscription, self.position, self.rows, self.missing, self.extra, self.different
        )?;
        for row in &self.differences {
            write!(f, "\n  {row}")?;
        }
        let named = self.differences.len() as u64;
        match (self.missing + self.extra + self.different).saturating_sub(named) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

impl fmt::Display for RowDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            RowDifferenceKind::Missing => "missing",
            RowDifferenceKind::Extra => "extra",
            RowDifferenceKind::Different => "different",
        };
        write!(f, "{kind}: {:?}", self.key)?;
        if let Some(tenant) = &self.tenant {
            write!(f, " of {}", tenant.as_str())?;
        }
        for column in &self.columns {
            let (expected, found) = (&column.expected, &column.found);
            match (expected, found) {
                (Some(expected), Some(found)) => write!(
                    f,
                    "; {}: expected {expected:?}, found {found:?}",
                    column.column
                )?,
                (Some(value), None) | (None, Some(value)) => {
                    write!(f, "; {}: {value:?}", column.column)?;
                }
                (None, None) => {}
            }
        }
        Ok(())
    }
}
