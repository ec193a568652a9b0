//! Assignments: what a bulk update sets.

use std::fmt;
use std::marker::PhantomData;

use crate::error::{Error, Result, StoreErrorKind};
use crate::mapping::{ColumnError, ColumnRole, MappingError, Table, Value};

/// A field of `T` and the value that it gets, made by [`Field::set`](super::Field::set).
///
/// Any field of the aggregate's own data can be set. The framework's fields and the key cannot:
/// the update is a [`Usage`](StoreErrorKind::Usage) error then.
pub struct Assignment<T> {
    column: &'static str,
    value: Result<Value, ColumnError>,
    of: PhantomData<fn(&T)>,
}

impl<T> Assignment<T> {
    pub(super) const fn new(column: &'static str, value: Result<Value, ColumnError>) -> Self {
        Self {
            column,
            value,
            of: PhantomData,
        }
    }

    /// The column.
    #[must_use]
    pub fn column(&self) -> &'static str {
        self.column
    }

    /// The position of the column in its table, and the value.
    pub(crate) fn resolve(self, table: &Table) -> Result<(usize, Value)> {
        let refused = |reason| {
            Error::from(MappingError {
                table: table.name().to_owned(),
                column: self.column.to_owned(),
                reason,
            })
        };
        let Some(index) = table.index_of_name(self.column) else {
            return Err(refused(ColumnError::invalid("there is no such column")));
        };
        let column = &table.columns()[index];
        if column.role() != ColumnRole::Data || !column.is_written() {
            let what = match column.role() {
                ColumnRole::Key => "the key of an aggregate never changes",
                ColumnRole::Data => "the code does not write it",
                _ => "the framework keeps it",
            };
            return Err(Error::store(
                StoreErrorKind::Usage,
                format!(
                    "column {} of table {} cannot be set: {what}",
                    self.column,
                    table.name()
                ),
            ));
        }
        match self.value.and_then(Value::checked) {
            Ok(Value::Null) if !column.is_nullable() => Err(MappingError {
                table: table.name().to_owned(),
                column: self.column.to_owned(),
                reason: ColumnError::UnexpectedNull,
            }
            .into()),
            Ok(value) => Ok((index, value)),
            Err(reason) => Err(MappingError {
                table: table.name().to_owned(),
                column: self.column.to_owned(),
                reason,
            }
            .into()),
        }
    }
}

impl<T> Clone for Assignment<T> {
    fn clone(&self) -> Self {
        Self::new(self.column, self.value.clone())
    }
}

impl<T> fmt::Debug for Assignment<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Assignment")
            .field("column", &self.column)
            .field("value", &self.value)
            .finish()
    }
}
