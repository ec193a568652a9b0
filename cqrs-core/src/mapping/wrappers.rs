//! Columns for types that are not [`ColumnValue`]s themselves: text through `Display` and
//! `FromStr`, JSON through serde.

use std::fmt::Display;
use std::str::FromStr;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{ColumnError, ColumnType, ColumnValue, RowSource, Value};

/// A `T` stored as text, by `Display` and `FromStr`: `#[mapper(text)]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsText<T>(pub T);

impl<T> ColumnValue for AsText<T>
where
    T: Display + FromStr,
    T::Err: Display,
{
    const TYPE: ColumnType = ColumnType::Text;
    type Plain = Self;

    fn to_value(&self) -> Result<Value, ColumnError> {
        encode_text(&self.0)
    }

    fn read_column<R: RowSource + ?Sized>(
        row: &R,
        index: usize,
    ) -> Result<Option<Self>, ColumnError> {
        let Some(text) = row.read_text(index)? else {
            return Ok(None);
        };
        text.parse()
            .map(|value| Some(Self(value)))
            .map_err(|error: T::Err| ColumnError::invalid(format!("{text:?}: {error}")))
    }
}

/// The text of a value.
///
/// # Errors
///
/// Where it holds a NUL character.
pub fn encode_text<T: Display>(value: &T) -> Result<Value, ColumnError> {
    Value::Text(value.to_string()).checked()
}

/// A `T` stored as JSON, by serde: `#[mapper(json)]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsJson<T>(pub T);

impl<T: Serialize + DeserializeOwned> ColumnValue for AsJson<T> {
    const TYPE: ColumnType = ColumnType::Json;
    type Plain = Self;

    fn to_value(&self) -> Result<Value, ColumnError> {
        encode_json(&self.0)
    }

    fn read_column<R: RowSource + ?Sized>(
        row: &R,
        index: usize,
    ) -> Result<Option<Self>, ColumnError> {
        let Some(text) = row.read_json(index)? else {
            return Ok(None);
        };
        serde_json::from_str(text)
            .map(|value| Some(Self(value)))
            .map_err(ColumnError::invalid)
    }
}

/// The [canonical JSON](crate::canonical_json) of a value, so that equal values are equal text,
/// whatever the order in which a map gives its keys.
///
/// # Errors
///
/// Where serde cannot represent it, or a string in it holds a NUL character.
pub fn encode_json<T: Serialize>(value: &T) -> Result<Value, ColumnError> {
    serde_json::to_value(value)
        .map_err(ColumnError::invalid)
        .and_then(|json| Value::Json(crate::canonical_json(&json)).checked())
}
