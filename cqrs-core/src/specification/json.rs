//! Places in JSON documents.

use std::fmt;
use std::marker::PhantomData;

use super::operand::{MAX_JSON_INTEGER, is_json_float};
use super::{Assignment, Field, JsonLeaf, JsonPlace, JsonStep, Specification};
use serde::Serialize;

use crate::mapping::{AsJson, ColumnError, ColumnType, ColumnValue, Value, encode_json};

/// A type that is stored as a JSON document, so that conditions may look into it.
///
/// It is `serde_json::Value`, and what is mapped with `#[mapper(json)]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not stored as a JSON document",
    label = "there is nothing to look into",
    note = "conditions look into fields of `serde_json::Value` and those mapped with `#[mapper(json)]`; for a newtype of your own write `impl JsonValue for {Self} {{}}`"
)]
pub trait JsonValue {}

impl JsonValue for serde_json::Value {}

impl<T> JsonValue for AsJson<T> {}

impl<T, V> Field<T, AsJson<V>> {
    /// The field in this column. It is looked into, and never compared as a whole.
    #[doc(hidden)]
    #[must_use]
    pub const fn json(column: &'static str) -> Self {
        Self::encoded(column, ColumnType::Json, |_| {
            Err(ColumnError::invalid("not compared as a whole"))
        })
    }

    /// The change of the field to `value`, for a
    /// [bulk update](crate::Maintenance::update).
    #[must_use]
    pub fn set_document(self, value: &V) -> Assignment<T>
    where
        V: Serialize,
    {
        Assignment::new(self.column(), encode_json(value))
    }
}

impl<T, V> Field<T, V> {
    /// The document itself, as a place of its own.
    #[must_use]
    pub fn document(self) -> JsonPath<T>
    where
        V: JsonValue,
    {
        JsonPath {
            column: self.column(),
            steps: Vec::new(),
            of: PhantomData,
        }
    }

    /// The member of the document with this name. See [`JsonPath`].
    #[must_use]
    pub fn key(self, key: impl Into<String>) -> JsonPath<T>
    where
        V: JsonValue,
    {
        self.document().key(key)
    }

    /// The element of the document at this position, from 0. See [`JsonPath`].
    #[must_use]
    pub fn index(self, index: usize) -> JsonPath<T>
    where
        V: JsonValue,
    {
        self.document().index(index)
    }
}

/// A place in the JSON document of a field of `T`.
///
/// [`as_text`](Self::as_text) and its like make a field of it, with the conditions of any other.
/// What is not there, or is of another kind, is NULL to them.
///
/// A key is the name of a member and nothing else: whatever characters it has, it is bound as a
/// value. It holds no NUL character, and none of U+FFFD to U+FFFF, which SQLite does not tell
/// apart. There are at most 64 steps. A key leads into objects only and an index into arrays only.
///
/// # Example
///
/// ```
/// # use cqrs_core::*;
/// # fn example<A>(details: Field<A, serde_json::Value>) -> Specification<A> {
/// details.key("address").key("city").as_text().eq("Graz")
///     & details.key("sizes").index(0).as_i64().ge(3)
/// # }
/// ```
pub struct JsonPath<T> {
    column: &'static str,
    steps: Vec<JsonStep>,
    of: PhantomData<fn(&T)>,
}

impl<T> JsonPath<T> {
    /// The member of the object here with this name.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.steps.push(JsonStep::Key(key.into()));
        self
    }

    /// The element of the array here at this position, from 0.
    #[must_use]
    pub fn index(mut self, index: usize) -> Self {
        self.steps.push(JsonStep::Index(index));
        self
    }

    /// The string here.
    #[must_use]
    pub fn as_text(self) -> Field<T, String, JsonPlace> {
        self.leaf(JsonLeaf::Text, String::to_value)
    }

    /// The integer here: a number without a fraction, also if it is written `1.0`, from
    /// -(2^53 - 1) to 2^53 - 1.
    ///
    /// Beyond that the databases keep different numbers, and it is NULL; a condition with such a
    /// value is refused. Larger integers, such as ids, belong in a column of their own, or into
    /// strings.
    #[must_use]
    pub fn as_i64(self) -> Field<T, i64, JsonPlace> {
        self.leaf(JsonLeaf::Integer, |integer| {
            if integer.unsigned_abs() <= MAX_JSON_INTEGER.unsigned_abs() {
                return Ok(Value::Int(*integer));
            }
            Err(ColumnError::invalid(format!(
                "{integer} is beyond the integers of JSON, which end at 2^53 - 1"
            )))
        })
    }

    /// The number here, as the nearest `f64`.
    ///
    /// It is 0, or from 1e-80 to 2^53 - 1 away from it. Others are NULL, as the databases do not
    /// keep the same number; a condition with such a value is refused.
    #[must_use]
    pub fn as_f64(self) -> Field<T, f64, JsonPlace> {
        self.leaf(JsonLeaf::Float, |float| {
            if is_json_float(*float) {
                return float.to_value();
            }
            Err(ColumnError::invalid(format!(
                "{float:e} is not compared in JSON: numbers there are 0, or from 1e-80 to 2^53 - 1 away from it"
            )))
        })
    }

    /// The truth value here.
    #[must_use]
    pub fn as_bool(self) -> Field<T, bool, JsonPlace> {
        self.leaf(JsonLeaf::Bool, bool::to_value)
    }

    /// Whether there is anything here, also JSON's null. Never unknown.
    #[must_use]
    pub fn exists(self) -> Specification<T> {
        !self.leaf(JsonLeaf::Any, bool::to_value).is_null()
    }

    /// Whether JSON's null is here. Never unknown; false where there is nothing.
    #[must_use]
    pub fn is_json_null(self) -> Specification<T> {
        !self.leaf(JsonLeaf::Null, bool::to_value).is_null()
    }

    fn leaf<V>(
        self,
        leaf: JsonLeaf,
        encode: fn(&V) -> Result<Value, ColumnError>,
    ) -> Field<T, V, JsonPlace> {
        Field::at(
            self.column,
            leaf.column_type(),
            encode,
            JsonPlace::new(self.steps, leaf),
        )
    }
}

impl<T> Clone for JsonPath<T> {
    fn clone(&self) -> Self {
        Self {
            column: self.column,
            steps: self.steps.clone(),
            of: PhantomData,
        }
    }
}

impl<T> fmt::Debug for JsonPath<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonPath")
            .field("column", &self.column)
            .field("steps", &self.steps)
            .finish()
    }
}
