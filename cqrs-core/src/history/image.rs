//! What a row is in a revision: its columns as JSON, and those of its children.
//!
//! | column | JSON |
//! |---|---|
//! | truth values, integers, floats | the same; an infinite float is text |
//! | text, UUIDs, dates | text |
//! | points in time | text, as RFC 3339 has it |
//! | bytes | text of hexadecimal digits |
//! | JSON | the document |
//! | NULL, and the document `null` | `null` |

use std::collections::BTreeMap;
use std::fmt::Write;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::mapping::{Column, ColumnError, ColumnType, MappingError, Table, Value, ValueRow};

/// An aggregate's row and the rows of its children at one moment, as JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// An object of all columns of its row, by their names.
    pub state: String,
    /// An object of the tables of its children, each with an array of its rows in the order of
    /// their places; `None` where it has no such tables.
    pub children: Option<String>,
}

type RawRow = BTreeMap<String, Box<RawValue>>;

impl Image {
    /// The image of a row, with its children.
    #[must_use]
    pub fn of(table: &Table, row: &ValueRow) -> Self {
        let tables = table.children().iter().enumerate();
        let children = tables.map(|(index, child)| {
            let rows = row.children(index).iter();
            let rows: Vec<String> = rows.map(|row| object(child, row.values())).collect();
            format!("{}:[{}]", text(child.name()), rows.join(","))
        });
        let children: Vec<String> = children.collect();
        Self {
            state: object(table, row.values()),
            children: (!children.is_empty()).then(|| format!("{{{}}}", children.join(","))),
        }
    }

    /// The row of a table. A column that the image does not have is NULL.
    ///
    /// # Errors
    ///
    /// Where a value is not one of its column, or a column that is never NULL is not there: the
    /// table has changed.
    pub(crate) fn row(&self, table: &Table) -> Result<ValueRow, MappingError> {
        let state: RawRow = parse(table, &self.state)?;
        let mut children: BTreeMap<String, Vec<RawRow>> = match &self.children {
            Some(children) => parse(table, children)?,
            None => BTreeMap::new(),
        };
        let child_rows = table.children().iter().map(|child| {
            let rows = children.remove(child.name()).unwrap_or_default();
            let rows = rows
                .iter()
                .map(|row| Ok(ValueRow::new(values(child, row)?)));
            rows.collect::<Result<Vec<_>, MappingError>>()
        });
        let child_rows = child_rows.collect::<Result<Vec<_>, _>>()?;
        Ok(ValueRow::with_children(values(table, &state)?, child_rows))
    }
}

fn object(table: &Table, row: &[Value]) -> String {
    let mut out = String::from("{");
    for (column, value) in table.columns().iter().zip(row) {
        if out.len() > 1 {
            out.push(',');
        }
        out.push_str(&text(column.name()));
        out.push(':');
        write_value(&mut out, column.column_type(), value);
    }
    out.push('}');
    out
}

fn text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn write_value(out: &mut String, column_type: ColumnType, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Int(value) => write!(out, "{value}").expect("writing to a String cannot fail"),
        Value::Float(value) => out.push_str(&float(column_type, *value)),
        Value::Text(value) => out.push_str(&text(value)),
        Value::Bytes(bytes) => {
            out.push('"');
            for byte in bytes {
                write!(out, "{byte:02x}").expect("writing to a String cannot fail");
            }
            out.push('"');
        }
        Value::Uuid(value) => out.push_str(&text(&value.to_string())),
        Value::Timestamp(time) => {
            out.push_str(&text(&time.to_rfc3339_opts(SecondsFormat::Micros, true)));
        }
        Value::Date(date) => out.push_str(&text(&date.to_string())),
        Value::Json(json) => out.push_str(json),
    }
}

fn float(column_type: ColumnType, value: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "it was widened from an f32"
    )]
    let number = match column_type {
        ColumnType::Float32 => serde_json::to_string(&(value as f32)),
        _ => serde_json::to_string(&value),
    };
    match number {
        Ok(number) if value.is_finite() => number,
        _ if value.is_sign_negative() => text("-Infinity"),
        _ => text("Infinity"),
    }
}

fn parse<T: DeserializeOwned>(table: &Table, json: &str) -> Result<T, MappingError> {
    serde_json::from_str(json).map_err(|error| MappingError {
        table: table.name().to_owned(),
        column: "all of them".to_owned(),
        reason: ColumnError::invalid(format!("the history holds no row: {error}")),
    })
}

fn values(table: &Table, row: &RawRow) -> Result<Vec<Value>, MappingError> {
    let columns = table.columns().iter();
    columns
        .map(|column| {
            value(column, row.get(column.name()).map(|raw| raw.get())).map_err(|reason| {
                MappingError {
                    table: table.name().to_owned(),
                    column: column.name().to_owned(),
                    reason,
                }
            })
        })
        .collect()
}

fn value(column: &Column, raw: Option<&str>) -> Result<Value, ColumnError> {
    match raw {
        None if column.is_nullable() => Ok(Value::Null),
        None => Err(ColumnError::invalid(
            "the history is older than the column, and has no value",
        )),
        Some("null") if column.column_type() == ColumnType::Json && !column.is_nullable() => {
            Ok(Value::Json("null".to_owned()))
        }
        Some("null") => Ok(Value::Null),
        Some(raw) => read_value(column.column_type(), raw).ok_or_else(|| ColumnError::WrongType {
            expected: column.column_type(),
            found: raw.to_owned(),
        }),
    }
}

/// A value of this type, if it is one.
fn read_value(column_type: ColumnType, raw: &str) -> Option<Value> {
    let string = || serde_json::from_str::<String>(raw).ok();
    let number = || {
        if raw.starts_with('"') {
            string()
        } else {
            Some(raw.to_owned())
        }
    };
    let value = match column_type {
        ColumnType::Bool => Value::Bool(raw.parse().ok()?),
        ColumnType::Int16 | ColumnType::Int32 | ColumnType::Int64 => Value::Int(raw.parse().ok()?),
        ColumnType::Float32 => Value::Float(number()?.parse::<f32>().ok()?.into()),
        ColumnType::Float64 => Value::Float(number()?.parse().ok()?),
        ColumnType::Text => Value::Text(string()?),
        ColumnType::Bytes => Value::Bytes(bytes(&string()?)?),
        ColumnType::Uuid => Value::Uuid(string()?.parse().ok()?),
        ColumnType::Timestamp => Value::Timestamp(time(&string()?)?),
        ColumnType::Date => Value::Date(common_era(&string()?).parse().ok()?),
        ColumnType::Json => Value::Json(raw.to_owned()),
    };
    column_type.is_of(&value).then_some(value)
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (pairs, []) = hex.as_bytes().as_chunks::<2>() else {
        return None;
    };
    let pairs = pairs.iter();
    pairs
        .map(|[high, low]| u8::try_from(digit(*high)? << 4 | digit(*low)?).ok())
        .collect()
}

fn time(text: &str) -> Option<DateTime<Utc>> {
    let time = DateTime::parse_from_rfc3339(&common_era(text)).ok()?;
    Some(time.to_utc())
}

/// Postgres calls the year 0 the year 1 BC.
fn common_era(text: &str) -> String {
    match text.strip_suffix(" BC") {
        Some(rest) => rest.replacen("0001", "0000", 1),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(column_type: ColumnType, raw: &str) -> Option<Value> {
        read_value(column_type, raw)
    }

    #[test]
    fn what_is_written_is_read_again() {
        let time = |text: &str| Value::Timestamp(text.parse().expect("a time"));
        for (column_type, value) in [
            (ColumnType::Bool, Value::Bool(true)),
            (ColumnType::Int16, Value::Int(-32_768)),
            (ColumnType::Int64, Value::Int(i64::MAX)),
            (ColumnType::Float32, Value::Float(0.1_f32.into())),
            (ColumnType::Float64, Value::Float(0.1)),
            (ColumnType::Float64, Value::Float(5e-324)),
            (ColumnType::Float64, Value::Float(-0.0)),
            (ColumnType::Float64, Value::Float(f64::INFINITY)),
            (ColumnType::Float32, Value::Float(f64::NEG_INFINITY)),
            (
                ColumnType::Text,
                Value::Text("a \"quoted\"\n\u{1F600}".into()),
            ),
            (ColumnType::Bytes, Value::Bytes(vec![0, 255, 16])),
            (ColumnType::Uuid, Value::Uuid(uuid::Uuid::max())),
            (ColumnType::Timestamp, time("9999-12-31T23:59:59.999999Z")),
            (ColumnType::Timestamp, time("0000-02-29T00:00:00Z")),
            (
                ColumnType::Date,
                Value::Date("0000-02-29".parse().expect("a date")),
            ),
            (ColumnType::Json, Value::Json("{\"a\": 1.10}".into())),
        ] {
            let mut raw = String::new();
            write_value(&mut raw, column_type, &value);
            assert_eq!(read(column_type, &raw), Some(value), "{raw}");
        }
    }

    #[test]
    fn postgres_writes_some_in_other_words() {
        let leap: chrono::NaiveDate = "0000-02-29".parse().expect("a date");
        let date = read(ColumnType::Date, "\"0001-02-29 BC\"");
        assert_eq!(date, Some(Value::Date(leap)));
        let time = read(ColumnType::Timestamp, "\"2024-05-06T07:08:09.1+02:00\"");
        let expected = "2024-05-06T05:08:09.1Z".parse().expect("a time");
        assert_eq!(time, Some(Value::Timestamp(expected)));
        assert_eq!(
            read(ColumnType::Float64, "1e+300"),
            Some(Value::Float(1e300))
        );
        assert_eq!(read(ColumnType::Float64, "-0"), Some(Value::Float(-0.0)));
    }

    #[test]
    fn what_is_no_value_of_its_column_is_refused() {
        for (column_type, raw) in [
            (ColumnType::Int16, "40000"),
            (ColumnType::Int32, "1.5"),
            (ColumnType::Text, "1"),
            (ColumnType::Bool, "\"true\""),
            (ColumnType::Bytes, "\"0g\""),
            (ColumnType::Bytes, "\"012\""),
            (ColumnType::Date, "\"infinity\""),
            (ColumnType::Float64, "true"),
        ] {
            assert_eq!(read(column_type, raw), None, "{raw}");
        }
    }
}
