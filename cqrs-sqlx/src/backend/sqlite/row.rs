//! Rows as they arrive.

use chrono::{DateTime, NaiveDate, Utc};
use cqrs_core::mapping::{ColumnError, ColumnType, RowSource};
use sqlx::sqlite::{SqliteRow, SqliteValueRef};
use sqlx::{Decode, Row, Sqlite, TypeInfo, ValueRef};
use uuid::Uuid;

type Read<T> = std::result::Result<Option<T>, ColumnError>;

/// A row.
///
/// SQLite stores a type with each value, not with the column: whatever was written is there, and
/// its own conversions never fail (`'abc'` as an integer is 0). So each value's type is checked
/// before it is decoded.
#[derive(Debug)]
pub(crate) struct SqliteSource(pub(crate) SqliteRow);

impl SqliteSource {
    /// The value with the name of its stored type; `None` where it is NULL.
    fn value(&self, index: usize) -> Read<(SqliteValueRef<'_>, Storage)> {
        let value = self.0.try_get_raw(index).map_err(ColumnError::invalid)?;
        if value.is_null() {
            return Ok(None);
        }
        let storage = match value.type_info().name() {
            "INTEGER" => Storage::Integer,
            "REAL" => Storage::Real,
            "TEXT" => Storage::Text,
            _ => Storage::Blob,
        };
        Ok(Some((value, storage)))
    }

    /// Decodes a value that must be stored as `storage`.
    fn stored<'r, T: Decode<'r, Sqlite>>(
        &'r self,
        index: usize,
        expected: ColumnType,
        storage: Storage,
    ) -> Read<T> {
        match self.value(index)? {
            None => Ok(None),
            Some((value, found)) if found == storage => decode(value),
            Some((_, found)) => Err(wrong_type(expected, found)),
        }
    }

    fn integer<T: TryFrom<i64>>(&self, index: usize, expected: ColumnType) -> Read<T> {
        let Some(value) = self.stored::<i64>(index, expected, Storage::Integer)? else {
            return Ok(None);
        };
        match T::try_from(value) {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(ColumnError::invalid(format!(
                "{value} does not fit {expected}"
            ))),
        }
    }

    fn float(&self, index: usize, expected: ColumnType) -> Read<f64> {
        match self.value(index)? {
            None => Ok(None),
            // A column of numeric affinity keeps 1.0 as the integer 1.
            Some((value, Storage::Real | Storage::Integer)) => decode(value),
            Some((_, found)) => Err(wrong_type(expected, found)),
        }
    }
}

/// How SQLite stores one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Storage {
    Integer,
    Real,
    Text,
    Blob,
}

impl Storage {
    const fn name(self) -> &'static str {
        match self {
            Self::Integer => "integer",
            Self::Real => "real",
            Self::Text => "text",
            Self::Blob => "blob",
        }
    }
}

fn decode<'r, T: Decode<'r, Sqlite>>(value: SqliteValueRef<'r>) -> Read<T> {
    T::decode(value).map(Some).map_err(ColumnError::invalid)
}

#[cold]
fn wrong_type(expected: ColumnType, found: Storage) -> ColumnError {
    ColumnError::WrongType {
        expected,
        found: found.name().to_owned(),
    }
}

impl RowSource for SqliteSource {
    fn read_bool(&self, index: usize) -> Read<bool> {
        match self.stored::<i64>(index, ColumnType::Bool, Storage::Integer)? {
            None => Ok(None),
            Some(0) => Ok(Some(false)),
            Some(1) => Ok(Some(true)),
            Some(other) => Err(ColumnError::invalid(format!("{other} is neither 0 nor 1"))),
        }
    }

    fn read_i16(&self, index: usize) -> Read<i16> {
        self.integer(index, ColumnType::Int16)
    }

    fn read_i32(&self, index: usize) -> Read<i32> {
        self.integer(index, ColumnType::Int32)
    }

    fn read_i64(&self, index: usize) -> Read<i64> {
        self.integer(index, ColumnType::Int64)
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "it was widened from an f32, and what was not is checked"
    )]
    fn read_f32(&self, index: usize) -> Read<f32> {
        let Some(wide) = self.float(index, ColumnType::Float32)? else {
            return Ok(None);
        };
        let single = wide as f32;
        if single.is_finite() == wide.is_finite() {
            Ok(Some(single))
        } else {
            Err(ColumnError::invalid(format!(
                "{wide} does not fit {}",
                ColumnType::Float32
            )))
        }
    }

    fn read_f64(&self, index: usize) -> Read<f64> {
        self.float(index, ColumnType::Float64)
    }

    fn read_text(&self, index: usize) -> Read<&str> {
        self.stored(index, ColumnType::Text, Storage::Text)
    }

    fn read_bytes(&self, index: usize) -> Read<&[u8]> {
        self.stored(index, ColumnType::Bytes, Storage::Blob)
    }

    fn read_uuid(&self, index: usize) -> Read<Uuid> {
        match self.value(index)? {
            None => Ok(None),
            Some((value, Storage::Blob)) => decode(value),
            // Never written by the framework, but what other tools write.
            Some((value, Storage::Text)) => decode::<&str>(value)?
                .map(Uuid::parse_str)
                .transpose()
                .map_err(ColumnError::invalid),
            Some((_, found)) => Err(wrong_type(ColumnType::Uuid, found)),
        }
    }

    fn read_timestamp(&self, index: usize) -> Read<DateTime<Utc>> {
        // sqlx reads RFC 3339 first, then the forms of SQLite's own functions, which are in UTC.
        self.stored(index, ColumnType::Timestamp, Storage::Text)
    }

    fn read_date(&self, index: usize) -> Read<NaiveDate> {
        self.stored(index, ColumnType::Date, Storage::Text)
    }

    fn read_json(&self, index: usize) -> Read<&str> {
        self.stored(index, ColumnType::Json, Storage::Text)
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{AssertSqlSafe, Connection, SqliteConnection};

    use super::*;

    /// The row of `SELECT expressions`.
    async fn row(expressions: &str) -> SqliteSource {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        let select = AssertSqlSafe(format!("SELECT {expressions}"));
        let row = sqlx::query(select).fetch_one(&mut connection).await;
        SqliteSource(row.unwrap())
    }

    fn wrong<T>(expected: ColumnType, found: &str) -> Read<T> {
        Err(ColumnError::WrongType {
            expected,
            found: found.to_owned(),
        })
    }

    #[tokio::test]
    async fn a_value_of_another_type_is_not_converted() {
        let row = row("'12', 12, 1.5, x'31'").await;
        assert_eq!(row.read_i64(0), wrong(ColumnType::Int64, "text"));
        assert_eq!(row.read_bool(0), wrong(ColumnType::Bool, "text"));
        assert_eq!(row.read_f64(0), wrong(ColumnType::Float64, "text"));
        assert_eq!(row.read_text(1), wrong(ColumnType::Text, "integer"));
        assert_eq!(
            row.read_timestamp(1),
            wrong(ColumnType::Timestamp, "integer")
        );
        assert_eq!(row.read_uuid(1), wrong(ColumnType::Uuid, "integer"));
        assert_eq!(row.read_i32(2), wrong(ColumnType::Int32, "real"));
        assert_eq!(row.read_json(2), wrong(ColumnType::Json, "real"));
        assert_eq!(row.read_date(2), wrong(ColumnType::Date, "real"));
        assert_eq!(row.read_text(3), wrong(ColumnType::Text, "blob"));
        assert_eq!(row.read_bytes(0), wrong(ColumnType::Bytes, "text"));
        // A refused read changes nothing about the value.
        assert_eq!(row.read_text(0), Ok(Some("12")));
        assert_eq!(row.read_i16(1), Ok(Some(12)));
    }

    #[tokio::test]
    async fn values_out_of_range_are_refused() {
        let row = row("40000, 5000000000, 1e300, 2, x'00', '9e999'").await;
        assert!(matches!(row.read_i16(0), Err(ColumnError::Invalid(_))));
        assert_eq!(row.read_i32(0), Ok(Some(40_000)));
        assert!(matches!(row.read_i32(1), Err(ColumnError::Invalid(_))));
        assert!(matches!(row.read_f32(2), Err(ColumnError::Invalid(_))));
        assert!(matches!(row.read_bool(3), Err(ColumnError::Invalid(_))));
        assert!(matches!(row.read_uuid(4), Err(ColumnError::Invalid(_))));
        assert!(matches!(row.read_date(5), Err(ColumnError::Invalid(_))));
        assert!(matches!(row.read_i64(6), Err(ColumnError::Invalid(_))));
    }

    #[tokio::test]
    async fn null_is_none_for_every_type() {
        let row = row("NULL").await;
        assert_eq!(row.read_bool(0), Ok(None));
        assert_eq!(row.read_i16(0), Ok(None));
        assert_eq!(row.read_i32(0), Ok(None));
        assert_eq!(row.read_i64(0), Ok(None));
        assert_eq!(row.read_f32(0), Ok(None));
        assert_eq!(row.read_f64(0), Ok(None));
        assert_eq!(row.read_text(0), Ok(None));
        assert_eq!(row.read_bytes(0), Ok(None));
        assert_eq!(row.read_uuid(0), Ok(None));
        assert_eq!(row.read_timestamp(0), Ok(None));
        assert_eq!(row.read_date(0), Ok(None));
        assert_eq!(row.read_json(0), Ok(None));
    }

    #[tokio::test]
    async fn times_are_read_in_the_forms_that_others_write() {
        let row = row("'2024-02-03T04:05:06.070000Z', '2024-02-03 04:05:06.07', \
             '2024-02-03T06:05:06.07+02:00', '2024-02-03 04:05:06.070Z', 'yesterday'")
        .await;
        let expected = row.read_timestamp(0).unwrap();
        assert!(expected.is_some());
        for index in 1..4 {
            assert_eq!(row.read_timestamp(index), Ok(expected));
        }
        assert!(matches!(
            row.read_timestamp(4),
            Err(ColumnError::Invalid(_))
        ));
    }

    #[tokio::test]
    async fn a_uuid_is_read_from_its_bytes_and_from_its_text() {
        let id = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001);
        let row = row(&format!("x'{}', '{id}', 3", id.simple())).await;
        assert_eq!(row.read_uuid(0), Ok(Some(id)));
        assert_eq!(row.read_uuid(1), Ok(Some(id)));
    }

    #[tokio::test]
    async fn a_float_is_read_from_an_integer() {
        let row = row("3, 0.1, x'', ''").await;
        assert_eq!(row.read_f64(0), Ok(Some(3.0)));
        assert_eq!(row.read_f32(0), Ok(Some(3.0)));
        assert_eq!(row.read_f64(1), Ok(Some(0.1)));
        assert_eq!(row.read_bytes(2), Ok(Some(&[][..])));
        assert_eq!(row.read_text(3), Ok(Some("")));
    }
}
