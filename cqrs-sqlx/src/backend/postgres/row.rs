//! Rows as they arrive.

use chrono::{DateTime, NaiveDate, Utc};
use cqrs_core::mapping::{ColumnError, ColumnType, MappingError, RowSource, Table};
use cqrs_core::{Error, Result};
use sqlx::postgres::{PgRow, PgTypeInfo, PgValueRef, Postgres};
use sqlx::{Column as _, Decode, Row, TypeInfo, ValueRef};
use uuid::Uuid;

use super::schema;

/// A row whose columns were [checked](check_columns) once for its statement, so that each value
/// is decoded by its position alone.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct PgSource(pub(crate) PgRow);

impl PgSource {
    fn value(&self, index: usize) -> std::result::Result<Option<PgValueRef<'_>>, ColumnError> {
        let value = self.0.try_get_raw(index).map_err(ColumnError::invalid)?;
        Ok((!value.is_null()).then_some(value))
    }

    fn decode<'r, T: Decode<'r, Postgres>>(
        &'r self,
        index: usize,
    ) -> std::result::Result<Option<T>, ColumnError> {
        self.value(index)?
            .map(T::decode)
            .transpose()
            .map_err(ColumnError::invalid)
    }
}

macro_rules! decode {
    ($($name:ident: $type:ty;)*) => {$(
        fn $name(&self, index: usize) -> std::result::Result<Option<$type>, ColumnError> {
            self.decode(index)
        }
    )*};
}

impl RowSource for PgSource {
    decode! {
        read_bool: bool;
        read_i16: i16;
        read_i32: i32;
        read_i64: i64;
        read_f32: f32;
        read_f64: f64;
        read_text: &str;
        read_bytes: &[u8];
        read_uuid: Uuid;
        read_timestamp: DateTime<Utc>;
        read_date: NaiveDate;
    }

    fn read_json(&self, index: usize) -> std::result::Result<Option<&str>, ColumnError> {
        let Some(value) = self.value(index)? else {
            return Ok(None);
        };
        let binary_jsonb = value.type_info().name() == "JSONB";
        let bytes = value.as_bytes().map_err(ColumnError::invalid)?;
        // The binary form of jsonb is a version byte, always 1, and the text.
        let text = match (binary_jsonb, bytes) {
            (true, [1, text @ ..]) => text,
            (_, text) => text,
        };
        std::str::from_utf8(text)
            .map(Some)
            .map_err(ColumnError::invalid)
    }
}

/// Checks the types of a result's columns against those of a table and of its children, once per
/// statement.
pub(super) fn check_columns(row: &PgRow, table: &'static Table) -> Result<()> {
    let columns = table
        .with_children()
        .flat_map(|table| table.columns().iter().map(move |column| (table, column)));
    for ((table, column), found) in columns.zip(row.columns()) {
        let found = found.type_info();
        if !schema::can_decode(column.column_type(), found.name()) {
            return Err(wrong_type(
                table,
                column.name(),
                column.column_type(),
                found,
            ));
        }
    }
    Ok(())
}

#[cold]
fn wrong_type(table: &Table, column: &str, expected: ColumnType, found: &PgTypeInfo) -> Error {
    Error::Mapping(MappingError {
        table: table.name().to_owned(),
        column: column.to_owned(),
        reason: ColumnError::WrongType {
            expected,
            found: found.name().to_lowercase(),
        },
    })
}
