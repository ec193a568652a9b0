//! What a condition looks at: a column, or a place in the JSON document of one.

use crate::mapping::{ColumnError, ColumnType, Value};

/// The largest number that JSON carries exactly everywhere: 2^53 - 1, as in RFC 7493.
pub(super) const MAX_JSON_INTEGER: i64 = (1 << 53) - 1;

/// Whether JSON carries the number exactly everywhere. SQLite rounds decimal fractions
/// nearer to zero in another way.
#[expect(clippy::cast_precision_loss, reason = "it is exact")]
pub(super) fn is_json_float(float: f64) -> bool {
    float == 0.0 || (1e-80..=MAX_JSON_INTEGER as f64).contains(&float.abs())
}

/// How deep a place may lie in its document.
const MAX_STEPS: usize = 64;

/// What a condition looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operand {
    column: &'static str,
    column_type: ColumnType,
    json: Option<JsonPlace>,
}

impl Operand {
    pub(super) const fn new(
        column: &'static str,
        column_type: ColumnType,
        json: Option<JsonPlace>,
    ) -> Self {
        Self {
            column,
            column_type,
            json,
        }
    }

    /// The column.
    #[must_use]
    pub fn column(&self) -> &'static str {
        self.column
    }

    /// The type of the values that are compared: that of the column, or of what is read from its
    /// document.
    #[must_use]
    pub fn column_type(&self) -> ColumnType {
        self.column_type
    }

    /// The place in the document of the column, where it is not the column itself.
    #[must_use]
    pub fn json(&self) -> Option<&JsonPlace> {
        self.json.as_ref()
    }

    /// Refuses a document as a whole, about whose equality and order the databases disagree.
    pub(super) fn comparable(self) -> Result<Self, ColumnError> {
        match self.column_type {
            ColumnType::Json => Err(ColumnError::invalid(
                "a JSON document is not compared as a whole: compare a place in it, \
                 as in `.key(\"city\").as_text()`",
            )),
            _ => Ok(self),
        }
    }
}

/// One step into a JSON document.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JsonStep {
    /// The member of an object with this name.
    Key(String),
    /// The element of an array at this position, from 0.
    Index(usize),
}

/// As what a place of a JSON document is read. What is not of that kind reads as NULL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JsonLeaf {
    /// Anything, also JSON's null.
    Any,
    /// JSON's null.
    Null,
    /// A string.
    Text,
    /// A number without a fraction, from -(2^53 - 1) to 2^53 - 1.
    Integer,
    /// A number that is 0, or from 1e-80 to 2^53 - 1 away from it.
    Float,
    /// A truth value.
    Bool,
}

impl JsonLeaf {
    pub(super) const fn column_type(self) -> ColumnType {
        match self {
            Self::Any | Self::Null => ColumnType::Json,
            Self::Text => ColumnType::Text,
            Self::Integer => ColumnType::Int64,
            Self::Float => ColumnType::Float64,
            Self::Bool => ColumnType::Bool,
        }
    }

    /// What a value reads as; NULL where it is of another kind. `Any` and `Null` read as true.
    fn read(self, found: &serde_json::Value) -> Value {
        use serde_json::Value as Json;
        match (self, found) {
            (Self::Any, _) | (Self::Null, Json::Null) => Value::Bool(true),
            (Self::Text, Json::String(text)) => Value::Text(text.clone()),
            (Self::Integer, Json::Number(number)) => {
                integer(number).map_or(Value::Null, Value::Int)
            }
            (Self::Float, Json::Number(number)) => number
                .as_f64()
                .filter(|float| is_json_float(*float))
                .map_or(Value::Null, Value::Float),
            (Self::Bool, Json::Bool(truth)) => Value::Bool(*truth),
            _ => Value::Null,
        }
    }
}

/// The number as an integer, however it is written: `1.0` is 1.
fn integer(number: &serde_json::Number) -> Option<i64> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "it has no fraction and fits"
    )]
    let whole = |float: f64| {
        (float.fract() == 0.0 && float.abs() <= MAX_JSON_INTEGER as f64).then_some(float as i64)
    };
    number
        .as_i64()
        .or_else(|| number.as_f64().and_then(whole))
        .filter(|integer| integer.unsigned_abs() <= MAX_JSON_INTEGER.unsigned_abs())
}

/// A place in a JSON document, and as what it is read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct JsonPlace {
    steps: Vec<JsonStep>,
    leaf: JsonLeaf,
}

impl JsonPlace {
    pub(super) const fn new(steps: Vec<JsonStep>, leaf: JsonLeaf) -> Self {
        Self { steps, leaf }
    }

    /// The steps from the document to the place.
    #[must_use]
    pub fn steps(&self) -> &[JsonStep] {
        &self.steps
    }

    /// As what it is read.
    #[must_use]
    pub fn leaf(&self) -> JsonLeaf {
        self.leaf
    }

    /// Refuses steps that one of the databases cannot take.
    pub(super) fn check(&self) -> Result<(), ColumnError> {
        if self.steps.len() > MAX_STEPS {
            return Err(ColumnError::invalid(format!(
                "a place lies at most {MAX_STEPS} steps deep in a JSON document, not {}",
                self.steps.len()
            )));
        }
        for step in &self.steps {
            match step {
                JsonStep::Key(key) => {
                    check_text(key, "the key of a JSON object")?;
                }
                JsonStep::Index(index) if i32::try_from(*index).is_err() => {
                    return Err(ColumnError::invalid(format!(
                        "no JSON array has an element {index}"
                    )));
                }
                JsonStep::Index(_) => {}
            }
        }
        Ok(())
    }

    /// What the place holds in a document, given as its text.
    pub(super) fn read(&self, document: &str) -> Value {
        let Ok(document) = serde_json::from_str::<serde_json::Value>(document) else {
            return Value::Null;
        };
        let found = self
            .steps
            .iter()
            .try_fold(&document, |value, step| match step {
                JsonStep::Key(key) => value.as_object()?.get(key),
                JsonStep::Index(index) => value.as_array()?.get(*index),
            });
        found.map_or(Value::Null, |found| self.leaf.read(found))
    }
}

/// Refuses a NUL character, which Postgres does not hold, and those that SQLite does not tell
/// apart where it compares character by character.
pub(super) fn check_text(text: &str, what: &str) -> Result<(), ColumnError> {
    let refused = |c: &char| matches!(c, '\0' | '\u{fffd}'..='\u{ffff}');
    match text.chars().find(refused) {
        Some(c) => Err(ColumnError::invalid(format!(
            "{what} cannot hold the character U+{:04X}",
            u32::from(c)
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(steps: &[JsonStep], leaf: JsonLeaf, document: &str) -> Value {
        JsonPlace::new(steps.to_vec(), leaf).read(document)
    }

    #[test]
    fn a_number_without_a_fraction_is_an_integer_however_it_is_written() {
        for (text, expected) in [
            ("1", Value::Int(1)),
            ("1.0", Value::Int(1)),
            ("-1e3", Value::Int(-1000)),
            ("-0.0", Value::Int(0)),
            ("1.5", Value::Null),
            ("9007199254740991", Value::Int(MAX_JSON_INTEGER)),
            ("9007199254740992", Value::Null),
            ("-9223372036854775808", Value::Null),
            ("1e300", Value::Null),
            ("\"1\"", Value::Null),
        ] {
            assert_eq!(read(&[], JsonLeaf::Integer, text), expected, "{text}");
        }
    }

    #[test]
    fn a_key_is_of_an_object_and_an_index_of_an_array() {
        let key = |key: &str| JsonStep::Key(key.to_owned());
        let document = r#"{"0":{"a":[null]},"":7}"#;
        let found = |steps: &[JsonStep], leaf| !read(steps, leaf, document).is_null();
        assert!(found(
            &[key("0"), key("a"), JsonStep::Index(0)],
            JsonLeaf::Null
        ));
        assert!(found(&[key("")], JsonLeaf::Any));
        assert!(!found(&[JsonStep::Index(0)], JsonLeaf::Any));
        assert!(!found(&[key("0"), key("a"), key("0")], JsonLeaf::Any));
        assert!(!found(&[key(""), JsonStep::Index(0)], JsonLeaf::Any));
    }
}
