//! The values that a column can hold.

use std::cmp::Ordering;
use std::fmt;

use chrono::{DateTime, Datelike, NaiveDate, SubsecRound, Utc};
use uuid::Uuid;

use super::ColumnError;

/// The type of a column, the same on every backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ColumnType {
    /// A truth value.
    Bool,
    /// A signed 16-bit integer.
    Int16,
    /// A signed 32-bit integer.
    Int32,
    /// A signed 64-bit integer.
    Int64,
    /// An IEEE 754 single.
    Float32,
    /// An IEEE 754 double.
    Float64,
    /// Text, compared by its bytes.
    Text,
    /// Bytes.
    Bytes,
    /// A UUID, compared by its bytes.
    Uuid,
    /// A point in time, in microseconds of UTC.
    Timestamp,
    /// A calendar date.
    Date,
    /// A JSON document.
    Json,
}

impl ColumnType {
    /// The name used in messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int16 => "int16",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Float32 => "float32",
            Self::Float64 => "float64",
            Self::Text => "text",
            Self::Bytes => "bytes",
            Self::Uuid => "uuid",
            Self::Timestamp => "timestamp",
            Self::Date => "date",
            Self::Json => "json",
        }
    }
}

impl ColumnType {
    /// Whether a value, not NULL, is one of this type.
    #[must_use]
    pub fn is_of(self, value: &Value) -> bool {
        match value {
            Value::Null => false,
            Value::Bool(_) => self == Self::Bool,
            Value::Int(value) => match self {
                Self::Int16 => i16::try_from(*value).is_ok(),
                Self::Int32 => i32::try_from(*value).is_ok(),
                _ => self == Self::Int64,
            },
            Value::Float(_) => matches!(self, Self::Float32 | Self::Float64),
            Value::Text(_) => self == Self::Text,
            Value::Bytes(_) => self == Self::Bytes,
            Value::Uuid(_) => self == Self::Uuid,
            Value::Timestamp(_) => self == Self::Timestamp,
            Value::Date(_) => self == Self::Date,
            Value::Json(_) => self == Self::Json,
        }
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One value of a column, owned.
///
/// Integers of all widths share one variant and so do floats: the width belongs to the column
/// ([`ColumnType`]), not to the value.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// SQL's NULL.
    Null,
    /// A truth value.
    Bool(bool),
    /// An integer of any width.
    Int(i64),
    /// A float of any width.
    Float(f64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A UUID.
    Uuid(Uuid),
    /// A point in time.
    Timestamp(DateTime<Utc>),
    /// A calendar date.
    Date(NaiveDate),
    /// A JSON document, as its text.
    Json(String),
}

impl Value {
    /// Whether this is [`Value::Null`].
    #[must_use]
    pub const fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Brings the value to what every backend can hold, or says why that is impossible.
    ///
    /// Times are cut to microseconds, the resolution of Postgres. Refused are NaN (SQLite would
    /// store NULL), text with a NUL character (Postgres refuses it), years outside 0 to 9999
    /// (where SQLite's text order would differ from the order of time), and JSON that nests deeper
    /// than 127 levels (which `serde_json` does not read).
    ///
    /// # Errors
    ///
    /// [`ColumnError::Invalid`] with the reason.
    pub fn checked(self) -> Result<Self, ColumnError> {
        match self {
            Self::Float(value) if value.is_nan() => {
                Err(ColumnError::invalid("NaN cannot be stored"))
            }
            Self::Text(ref text) if text.contains('\0') => Err(ColumnError::invalid(
                "text with a NUL character cannot be stored",
            )),
            Self::Json(ref text) if has_nul_escape(text) => Err(ColumnError::invalid(
                "JSON with a NUL character in a string cannot be stored",
            )),
            Self::Json(ref text) if json_depth(text) > MAX_JSON_DEPTH => {
                Err(ColumnError::invalid(format!(
                    "JSON that nests deeper than {MAX_JSON_DEPTH} levels could not be read again"
                )))
            }
            Self::Timestamp(time) => {
                check_year(time.year())?;
                Ok(Self::Timestamp(time.trunc_subsecs(6)))
            }
            Self::Date(date) => {
                check_year(date.year())?;
                Ok(Self::Date(date))
            }
            value => Ok(value),
        }
    }

    /// Compares two values of one column as the databases do; `None` where either is NULL or the
    /// types differ.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(b)),
            (Self::Int(a), Self::Int(b)) => Some(a.cmp(b)),
            (Self::Float(a), Self::Float(b)) => a.partial_cmp(b),
            (Self::Text(a), Self::Text(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
            (Self::Bytes(a), Self::Bytes(b)) => Some(a.cmp(b)),
            (Self::Uuid(a), Self::Uuid(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
            (Self::Timestamp(a), Self::Timestamp(b)) => Some(a.cmp(b)),
            (Self::Date(a), Self::Date(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }
}

/// Whether JSON text escapes a NUL character: `\u0000` after an even number of backslashes.
fn has_nul_escape(json: &str) -> bool {
    json.match_indices("\\u0000").any(|(at, _)| {
        let backslashes = json[..at]
            .bytes()
            .rev()
            .take_while(|byte| *byte == b'\\')
            .count();
        backslashes % 2 == 0
    })
}

/// How deep `serde_json` reads.
const MAX_JSON_DEPTH: usize = 127;

/// How deep arrays and objects nest in JSON text.
fn json_depth(json: &str) -> usize {
    let (mut depth, mut deepest, mut in_string) = (0_usize, 0, false);
    let mut bytes = json.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => in_string = !in_string,
            // Whatever it escapes is no end of the string.
            b'\\' => drop(bytes.next()),
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

fn check_year(year: i32) -> Result<(), ColumnError> {
    if (0..=9999).contains(&year) {
        Ok(())
    } else {
        Err(ColumnError::invalid(format!(
            "year {year} cannot be stored, only 0 to 9999"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeZone;

    #[test]
    fn what_one_backend_cannot_hold_is_refused_for_all() {
        let far = Utc.with_ymd_and_hms(12_000, 1, 1, 0, 0, 0).unwrap();
        for value in [
            Value::Float(f64::NAN),
            Value::Text("a\0b".into()),
            Value::Json(r#""a\u0000b""#.into()),
            Value::Timestamp(far),
        ] {
            assert!(value.clone().checked().is_err(), "{value:?}");
        }
    }

    #[test]
    fn a_backslash_before_u0000_is_no_nul() {
        let text = serde_json::to_string("a\\u0000b").unwrap();
        assert!(Value::Json(text).checked().is_ok());
    }

    #[test]
    fn json_is_stored_as_deep_as_it_can_be_read() {
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        for (text, is_stored) in [
            (nested(127), true),
            (nested(128), false),
            (format!(r#""\"{}""#, "[".repeat(200)), true),
            (format!("[{}]", vec!["[]"; 200].join(",")), true),
        ] {
            let is_read = serde_json::from_str::<serde_json::Value>(&text).is_ok();
            assert_eq!(is_read, is_stored, "{text}");
            assert_eq!(
                Value::Json(text.clone()).checked().is_ok(),
                is_stored,
                "{text}"
            );
        }
    }

    #[test]
    fn times_are_cut_to_microseconds() {
        let time = Utc.timestamp_opt(1, 123_456_789).unwrap();
        let cut = Utc.timestamp_opt(1, 123_456_000).unwrap();
        assert_eq!(
            Value::Timestamp(time).checked().unwrap(),
            Value::Timestamp(cut)
        );
    }

    #[test]
    fn null_compares_with_nothing() {
        assert_eq!(Value::Null.compare(&Value::Null), None);
        assert_eq!(Value::Int(1).compare(&Value::Null), None);
        assert_eq!(
            Value::Text("Z".into()).compare(&Value::Text("a".into())),
            Some(Ordering::Less)
        );
    }
}
