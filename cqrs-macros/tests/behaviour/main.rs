//! What the derives and `#[repository]` emit, seen from a crate that uses them.

mod aggregate;
mod child;
mod domain_event;
mod event_set;
mod finders;
mod names;
mod read_model;
mod row_struct;
mod value_object;

use cqrs_core::Entity;
use cqrs_core::mapping::{MappingError, RowCursor, Value, ValueRow};

/// All columns of a value, as a backend stores them.
fn row_of<T: Entity>(value: &T) -> Result<ValueRow, MappingError> {
    let mut values = value.framework_row();
    values.extend(value.to_row()?);
    assert_eq!(values.len(), T::table().columns().len());
    Ok(ValueRow::new(values))
}

/// A value from all of its columns.
fn from_row<T: Entity>(row: &ValueRow) -> Result<T, MappingError> {
    T::read_row(&mut RowCursor::new(T::table(), row))
}

/// The row with another value in one column.
fn with_column<T: Entity>(mut row: ValueRow, column: &str, value: Value) -> ValueRow {
    let index = T::table().index_of_name(column).expect("a column");
    row.values_mut()[index] = value;
    row
}

/// `name: type`, with `?` where the column may be NULL.
fn columns_of<T: Entity>() -> Vec<String> {
    T::table()
        .columns()
        .iter()
        .map(|column| {
            let null = if column.is_nullable() { "?" } else { "" };
            format!("{}: {}{null}", column.name(), column.column_type())
        })
        .collect()
}
