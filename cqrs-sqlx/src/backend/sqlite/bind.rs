//! Binding values.

use chrono::{DateTime, SecondsFormat, Utc};
use cqrs_core::mapping::{ColumnType, Value};
use cqrs_core::{Error, Result, StoreErrorKind};
use sqlx::sqlite::SqliteArguments;

use super::conditions;
use crate::backend::Parameter;
use crate::backend::bind::bind;

/// The arguments of a statement.
pub(super) fn arguments(parameters: &[Parameter]) -> Result<SqliteArguments> {
    let mut arguments = SqliteArguments::default();
    for parameter in parameters {
        match parameter {
            Parameter::One(column_type, value) | Parameter::Typed(column_type, value) => {
                add(&mut arguments, *column_type, value)?;
            }
            Parameter::List(_, values) => bind(&mut arguments, conditions::list_json(values))?,
        }
    }
    Ok(arguments)
}

/// Binds one value in the form in which a column of this type stores it.
///
/// SQLite would take any value for any column; so it is here that a value of another type than its
/// column's is refused, as other databases do.
pub(super) fn add(
    arguments: &mut SqliteArguments,
    column_type: ColumnType,
    value: &Value,
) -> Result<()> {
    match (column_type, value) {
        (_, Value::Null) => bind(arguments, None::<i64>),
        (ColumnType::Bool, Value::Bool(v)) => bind(arguments, i64::from(*v)),
        (ColumnType::Int16, Value::Int(v)) if i16::try_from(*v).is_ok() => bind(arguments, *v),
        (ColumnType::Int32, Value::Int(v)) if i32::try_from(*v).is_ok() => bind(arguments, *v),
        (ColumnType::Int64, Value::Int(v)) => bind(arguments, *v),
        (ColumnType::Float32 | ColumnType::Float64, Value::Float(v)) => bind(arguments, *v),
        (ColumnType::Text, Value::Text(v)) | (ColumnType::Json, Value::Json(v)) => {
            bind(arguments, v.as_str())
        }
        (ColumnType::Bytes, Value::Bytes(v)) => bind(arguments, v.as_slice()),
        (ColumnType::Uuid, Value::Uuid(v)) => bind(arguments, *v),
        (ColumnType::Timestamp, Value::Timestamp(v)) => bind(arguments, timestamp(*v)),
        (ColumnType::Date, Value::Date(v)) => bind(arguments, v.format("%Y-%m-%d").to_string()),
        (_, other) => Err(unexpected(column_type, other)),
    }
}

/// A point in time as text of one width, so that the order of the bytes is the order of time.
pub(super) fn timestamp(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

#[cold]
fn unexpected(column_type: ColumnType, value: &Value) -> Error {
    Error::store(
        StoreErrorKind::Usage,
        format!("a mapping wrote {value:?} into a column of type {column_type}"),
    )
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;
    use sqlx::Arguments;

    use super::*;

    #[test]
    fn the_text_of_times_sorts_as_the_times_do() {
        let times = [
            Utc.with_ymd_and_hms(0, 1, 1, 0, 0, 0).unwrap(),
            Utc.with_ymd_and_hms(999, 12, 31, 23, 59, 59).unwrap(),
            Utc.timestamp_opt(-1, 999_999_000).unwrap(),
            Utc.timestamp_opt(0, 0).unwrap(),
            Utc.timestamp_opt(0, 1_000).unwrap(),
            Utc.timestamp_opt(0, 100_000_000).unwrap(),
            Utc.with_ymd_and_hms(9999, 12, 31, 23, 59, 59).unwrap(),
        ];
        let texts = times.map(timestamp);
        assert!(texts.is_sorted(), "{texts:?}");
        assert_eq!(texts[4], "1970-01-01T00:00:00.000001Z");
        assert!(texts.iter().all(|text| text.len() == texts[0].len()));
    }

    #[test]
    fn a_value_of_another_type_than_its_column_is_refused() {
        for (column_type, value) in [
            (ColumnType::Int64, Value::Text("1".into())),
            (ColumnType::Text, Value::Json("{}".into())),
            (ColumnType::Int16, Value::Int(40_000)),
            (ColumnType::Float64, Value::Int(1)),
        ] {
            let mut arguments = SqliteArguments::default();
            let error = add(&mut arguments, column_type, &value).unwrap_err();
            assert!(error.to_string().contains(column_type.name()), "{error}");
            assert_eq!(arguments.len(), 0);
        }
    }
}
