//! What can go wrong between a type and its row.

use std::fmt;

use super::ColumnType;

/// Why one column could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ColumnError {
    /// The column is NULL and the field is not an `Option`.
    UnexpectedNull,
    /// The column has another type in the database.
    WrongType {
        /// What the field needs.
        expected: ColumnType,
        /// What the database holds, in its own words.
        found: String,
    },
    /// The value is not one of the field's type, or cannot be stored.
    Invalid(String),
}

impl ColumnError {
    /// An [`Invalid`](Self::Invalid) with this reason.
    pub fn invalid(reason: impl fmt::Display) -> Self {
        Self::Invalid(reason.to_string())
    }
}

impl fmt::Display for ColumnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnexpectedNull => f.write_str("expected a value, found NULL"),
            Self::WrongType { expected, found } => write!(f, "expected {expected}, found {found}"),
            Self::Invalid(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for ColumnError {}

/// A row that does not fit its type, or the reverse, with the place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("table {table}, column {column}: {reason}")]
pub struct MappingError {
    /// The table.
    pub table: String,
    /// The column.
    pub column: String,
    /// What is wrong with it.
    pub reason: ColumnError,
}
