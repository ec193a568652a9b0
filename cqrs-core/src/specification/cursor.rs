//! Cursors: a place in an order, as text.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike, NaiveDate};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::error::{Error, Result, StoreErrorKind};
use crate::mapping::{Table, Value};
use crate::specification::{Direction, SortKey};

/// The first byte of every cursor, for a change of what follows.
const VERSION: u8 = 1;

/// A place between two rows of an ordered query, to go on from with
/// [`PageRequest::after`](super::PageRequest::after).
///
/// It is made of the last row's values of the columns that are ordered by, so it stays good
/// whatever is inserted, changed or removed meanwhile. As text (`Display`, `FromStr`, serde) it is
/// opaque, but not secret: who has it can read those values. It reaches no row that the query
/// would not find anyway.
#[derive(Debug, Clone, PartialEq)]
pub struct Cursor {
    order: OrderId,
    values: Vec<Value>,
}

/// Which table and columns are ordered by, and in which direction.
pub(super) type OrderId = [u8; 8];

pub(super) fn order_id(table: &Table, keys: &[SortKey]) -> OrderId {
    let mut hash = Sha256::new();
    hash.update(table.name());
    for key in keys {
        hash.update(match key.direction {
            Direction::Ascending => "\0+",
            Direction::Descending => "\0-",
        });
        hash.update(table.columns()[key.index].name());
    }
    let mut id = OrderId::default();
    id.copy_from_slice(&hash.finalize()[..8]);
    id
}

impl Cursor {
    pub(super) fn new(order: OrderId, values: Vec<Value>) -> Self {
        Self { order, values }
    }

    pub(super) fn order(&self) -> OrderId {
        self.order
    }

    pub(super) fn values(&self) -> &[Value] {
        &self.values
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![VERSION];
        bytes.extend(self.order);
        for value in &self.values {
            encode_value(value, &mut bytes);
        }
        bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Cursor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        from_hex(text)
            .and_then(|bytes| read_all(&bytes))
            .ok_or_else(|| Error::store(StoreErrorKind::Usage, "this is not a cursor"))
    }
}

impl serde::Serialize for Cursor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Cursor {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    pairs
        .iter()
        .map(|[high, low]| u8::try_from(digit(high)? << 4 | digit(low)?).ok())
        .collect()
}

/// A tag and the value; what has no fixed length has its length before it.
pub(crate) fn encode_value(value: &Value, bytes: &mut Vec<u8>) {
    let mut put = |tag: u8, content: &[u8]| {
        bytes.push(tag);
        bytes.extend(content);
    };
    match value {
        Value::Null => put(0, &[]),
        Value::Bool(value) => put(1, &[u8::from(*value)]),
        Value::Int(value) => put(2, &value.to_be_bytes()),
        Value::Float(value) => put(3, &value.to_bits().to_be_bytes()),
        Value::Text(value) => put(4, &with_length(value.as_bytes())),
        Value::Bytes(value) => put(5, &with_length(value)),
        Value::Uuid(value) => put(6, value.as_bytes()),
        Value::Timestamp(value) => put(7, &value.timestamp_micros().to_be_bytes()),
        Value::Date(value) => put(8, &value.num_days_from_ce().to_be_bytes()),
        Value::Json(value) => put(9, &with_length(value.as_bytes())),
    }
}

fn with_length(content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes(), content].concat()
}

fn read_all(bytes: &[u8]) -> Option<Cursor> {
    let (version, rest) = bytes.split_first()?;
    let (order, mut rest) = rest.split_first_chunk()?;
    if *version != VERSION {
        return None;
    }
    let mut values = Vec::new();
    while !rest.is_empty() {
        values.push(decode_value(&mut rest)?.checked().ok()?);
        if matches!(values.last(), Some(Value::Json(_))) {
            // Nothing is ordered by JSON.
            return None;
        }
    }
    Some(Cursor::new(*order, values))
}

/// What [`encode_value`] wrote, taken off the front.
pub(crate) fn decode_value(bytes: &mut &[u8]) -> Option<Value> {
    fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
        let (taken, rest) = bytes.split_first_chunk()?;
        *bytes = rest;
        Some(*taken)
    }
    fn take_long(bytes: &mut &[u8]) -> Option<Vec<u8>> {
        let length = usize::try_from(u32::from_be_bytes(take(bytes)?)).ok()?;
        let (taken, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        Some(taken.to_owned())
    }
    let [tag] = take(bytes)?;
    Some(match tag {
        0 => Value::Null,
        1 => Value::Bool(take(bytes)? == [1]),
        2 => Value::Int(i64::from_be_bytes(take(bytes)?)),
        3 => Value::Float(f64::from_bits(u64::from_be_bytes(take(bytes)?))),
        4 => Value::Text(String::from_utf8(take_long(bytes)?).ok()?),
        5 => Value::Bytes(take_long(bytes)?),
        6 => Value::Uuid(Uuid::from_bytes(take(bytes)?)),
        7 => Value::Timestamp(DateTime::from_timestamp_micros(i64::from_be_bytes(take(
            bytes,
        )?))?),
        8 => Value::Date(NaiveDate::from_num_days_from_ce_opt(i32::from_be_bytes(
            take(bytes)?,
        ))?),
        9 => Value::Json(String::from_utf8(take_long(bytes)?).ok()?),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(values: Vec<Value>) -> Cursor {
        Cursor::new([7; 8], values)
    }

    #[test]
    fn a_cursor_is_read_back_from_its_text() {
        let cursor = cursor(vec![
            Value::Null,
            Value::Bool(true),
            Value::Int(i64::MIN),
            Value::Float(-0.0),
            Value::Text("é😀".into()),
            Value::Bytes(vec![0, 255]),
            Value::Uuid(Uuid::max()),
            Value::Timestamp(DateTime::from_timestamp_micros(-1).unwrap()),
            Value::Date(NaiveDate::from_ymd_opt(2024, 2, 29).unwrap()),
        ]);
        let text = cursor.to_string();
        assert_eq!(text.parse::<Cursor>().unwrap(), cursor);
        let json = serde_json::to_string(&cursor).unwrap();
        assert_eq!(json, format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<Cursor>(&json).unwrap(), cursor);
    }

    /// Cursors are kept by clients, over releases.
    #[test]
    fn the_text_stays_as_it_is() {
        let text = cursor(vec![Value::Int(1), Value::Text("a".into())]).to_string();
        assert_eq!(text, "010707070707070707020000000000000001040000000161");
    }

    #[test]
    fn whatever_is_no_cursor_is_refused() {
        let good = cursor(vec![Value::Text("ab".into()), Value::Int(3)]).to_string();
        for cut in 0..good.len() {
            let part = &good[..cut];
            // What ends after a whole value is a cursor of fewer values.
            if let Ok(cursor) = part.parse::<Cursor>() {
                assert_eq!(cursor.to_string(), part);
            }
        }
        for text in [
            "",
            "0",
            "zz",
            "é",
            "02",
            &format!("{good}ff"),
            &good.replace('1', "-"),
        ] {
            assert!(text.parse::<Cursor>().is_err(), "{text}");
        }
        let nul = cursor(vec![Value::Text("\0".into())]).to_string();
        assert!(nul.parse::<Cursor>().is_err());
        let nan = cursor(vec![Value::Float(f64::NAN)]).to_string();
        assert!(nan.parse::<Cursor>().is_err());
    }
}
