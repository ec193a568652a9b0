//! Binding values, one by one and in arrays.

use chrono::{DateTime, NaiveDate, Utc};
use cqrs_core::mapping::{ColumnType, Value};
use cqrs_core::{Error, Result, StoreErrorKind};
use sqlx::encode::IsNull;
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgTypeInfo};
use sqlx::{Encode, Postgres, Type};
use uuid::Uuid;

use crate::backend::Parameter;
use crate::backend::bind::bind;

/// Takes a value as a Rust type; `None` is NULL.
macro_rules! typed {
    ($value:expr, $variant:ident($inner:ident) => $out:expr) => {
        match $value {
            Value::$variant($inner) => Ok(Some($out)),
            Value::Null => Ok(None),
            other => Err(unexpected(other)),
        }
    };
}

/// Binds one value.
pub(super) fn add(
    arguments: &mut PgArguments,
    column_type: ColumnType,
    value: &Value,
) -> Result<()> {
    match column_type {
        ColumnType::Bool => bind(arguments, typed!(value, Bool(v) => *v)?),
        ColumnType::Int16 => bind(arguments, int::<i16>(value)?),
        ColumnType::Int32 => bind(arguments, int::<i32>(value)?),
        ColumnType::Int64 => bind(arguments, int::<i64>(value)?),
        ColumnType::Float32 => bind(arguments, single(value)?),
        ColumnType::Float64 => bind(arguments, typed!(value, Float(v) => *v)?),
        ColumnType::Text => bind(arguments, typed!(value, Text(v) => v.as_str())?),
        ColumnType::Json => bind(arguments, typed!(value, Json(v) => v.as_str())?),
        ColumnType::Bytes => bind(arguments, typed!(value, Bytes(v) => v.as_slice())?),
        ColumnType::Uuid => bind(arguments, typed!(value, Uuid(v) => *v)?),
        ColumnType::Timestamp => bind(arguments, typed!(value, Timestamp(v) => *v)?),
        ColumnType::Date => bind(arguments, typed!(value, Date(v) => *v)?),
        other => Err(unsupported(other)),
    }
}

/// Binds one parameter.
pub(super) fn add_parameter(arguments: &mut PgArguments, parameter: &Parameter) -> Result<()> {
    match parameter {
        Parameter::One(column_type, value) => add(arguments, *column_type, value),
        Parameter::Typed(ColumnType::Json, Value::Json(json)) => bind(arguments, Jsonb(json)),
        Parameter::Typed(ColumnType::Json, Value::Null) => bind(arguments, None::<Jsonb<'_>>),
        Parameter::Typed(column_type, value) => add(arguments, *column_type, value),
        Parameter::List(column_type, values) => add_column(arguments, *column_type, values.iter()),
    }
}

/// A JSON document that is bound as `jsonb`.
pub(super) struct Jsonb<'j>(&'j str);

impl Type<Postgres> for Jsonb<'_> {
    fn type_info() -> PgTypeInfo {
        <sqlx::types::JsonValue as Type<Postgres>>::type_info()
    }
}

impl Encode<'_, Postgres> for Jsonb<'_> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Encoded {
        // The binary form is a version, always 1, and the text.
        buffer.push(1);
        buffer.extend(self.0.as_bytes());
        Ok(IsNull::No)
    }
}

type Encoded = std::result::Result<IsNull, Box<dyn std::error::Error + Send + Sync>>;

/// Binds the values of one column as an array.
pub(super) fn add_column<'v>(
    arguments: &mut PgArguments,
    column_type: ColumnType,
    values: impl Iterator<Item = &'v Value>,
) -> Result<()> {
    fn collect<'v, T>(
        values: impl Iterator<Item = &'v Value>,
        read: impl Fn(&'v Value) -> Result<Option<T>>,
    ) -> Result<Vec<Option<T>>> {
        values.map(read).collect()
    }
    match column_type {
        ColumnType::Bool => bind(arguments, collect(values, |v| typed!(v, Bool(v) => *v))?),
        ColumnType::Int16 => bind(arguments, collect(values, int::<i16>)?),
        ColumnType::Int32 => bind(arguments, collect(values, int::<i32>)?),
        ColumnType::Int64 => bind(arguments, collect(values, int::<i64>)?),
        ColumnType::Float32 => bind(arguments, collect(values, single)?),
        ColumnType::Float64 => bind(arguments, collect(values, |v| typed!(v, Float(v) => *v))?),
        ColumnType::Text => bind(
            arguments,
            collect(values, |v| typed!(v, Text(v) => v.as_str()))?,
        ),
        ColumnType::Json => bind(
            arguments,
            collect(values, |v| typed!(v, Json(v) => v.as_str()))?,
        ),
        ColumnType::Bytes => bind(
            arguments,
            collect(values, |v| typed!(v, Bytes(v) => v.as_slice()))?,
        ),
        ColumnType::Uuid => bind(
            arguments,
            collect::<Uuid>(values, |v| typed!(v, Uuid(v) => *v))?,
        ),
        ColumnType::Timestamp => bind(
            arguments,
            collect::<DateTime<Utc>>(values, |v| typed!(v, Timestamp(v) => *v))?,
        ),
        ColumnType::Date => bind(
            arguments,
            collect::<NaiveDate>(values, |v| typed!(v, Date(v) => *v))?,
        ),
        other => Err(unsupported(other)),
    }
}

fn int<T: TryFrom<i64>>(value: &Value) -> Result<Option<T>> {
    match value {
        Value::Int(v) => T::try_from(*v).map(Some).map_err(|_| unexpected(value)),
        Value::Null => Ok(None),
        other => Err(unexpected(other)),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "it was widened from an f32"
)]
fn single(value: &Value) -> Result<Option<f32>> {
    typed!(value, Float(v) => *v as f32)
}

/// The type of an array of a column's values.
pub(super) const fn array_type(column_type: ColumnType) -> &'static str {
    match column_type {
        ColumnType::Bool => "bool[]",
        ColumnType::Int16 => "int2[]",
        ColumnType::Int32 => "int4[]",
        ColumnType::Int64 => "int8[]",
        ColumnType::Float32 => "float4[]",
        ColumnType::Float64 => "float8[]",
        ColumnType::Bytes => "bytea[]",
        ColumnType::Uuid => "uuid[]",
        ColumnType::Timestamp => "timestamptz[]",
        ColumnType::Date => "date[]",
        // JSON goes over the wire as text and is cast where it arrives.
        _ => "text[]",
    }
}

/// What follows a bound value to give it the type of its column.
pub(super) const fn cast(column_type: ColumnType) -> &'static str {
    match column_type {
        ColumnType::Json => "::jsonb",
        _ => "",
    }
}

#[cold]
fn unexpected(value: &Value) -> Error {
    Error::store(
        StoreErrorKind::Usage,
        format!("a mapping wrote {value:?} into a column of another type"),
    )
}

#[cold]
fn unsupported(column_type: ColumnType) -> Error {
    Error::store(
        StoreErrorKind::Usage,
        format!("columns of type {column_type} are not supported"),
    )
}
