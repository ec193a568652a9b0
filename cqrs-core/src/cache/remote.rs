//! The port to a cache that processes share.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::question::Question;
use crate::changes::TableChanges;
use crate::error::Result;
use crate::mapping::{RowCursor, Value, ValueRow};
use crate::read_model::ReadModel;
use crate::specification::{Page, decode_value, encode_value};
use crate::store::BoxFuture;

/// A cache outside of the process: bytes under keys, and a generation for each table.
///
/// The framework turns rows into bytes and back. What an adapter has to keep:
///
/// - A table has a generation, a number that [`invalidate`](Self::invalidate) raises for good.
/// - What is put under a generation is found as long as the table has that generation, and never
///   after. So what was loaded before a change is not found after it, whoever loaded it.
/// - It may forget values at any time, and must forget them after their time to live. It may
///   forget a generation only for one that was never used, such as a random one.
///
/// With Redis a generation is a counter, read together with the value under
/// `table:generation:key`.
///
/// # Errors
///
/// Of any method: the framework logs them and goes to the store.
pub trait RemoteCache: Send + Sync + 'static {
    /// The generation of a table, and the value under this key in that generation.
    fn get<'a>(&'a self, table: &'a str, key: &'a str) -> BoxFuture<'a, Result<RemoteRead>>;

    /// Keeps a value under a key in a generation.
    fn put<'a>(
        &'a self,
        table: &'a str,
        generation: u64,
        key: &'a str,
        value: Vec<u8>,
        time_to_live: Duration,
    ) -> BoxFuture<'a, Result<()>>;

    /// Gives a table another generation, after a change is visible.
    fn invalidate<'a>(&'a self, table: &'a str) -> BoxFuture<'a, Result<()>>;
}

/// What a [`RemoteCache`] holds for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteRead {
    /// The generation of the table, read before the value.
    pub generation: u64,
    /// The value, where there is one.
    pub value: Option<Vec<u8>>,
}

/// A remote cache, and what it was told.
pub(super) struct Remote {
    port: Arc<dyn RemoteCache>,
    time_to_live: Duration,
    /// The count of changes of each table that the cache was told of.
    told: Mutex<HashMap<&'static str, u64>>,
}

impl Remote {
    pub(super) fn new(port: Arc<dyn RemoteCache>, time_to_live: Duration) -> Self {
        Self {
            port,
            time_to_live,
            told: Mutex::default(),
        }
    }

    /// Makes sure that the cache was told of so many changes of a table; whether it was.
    pub(super) async fn is_told(&self, table: &'static str, count: u64) -> bool {
        let told = || self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told().get(table).copied().unwrap_or(0) >= count {
            return true;
        }
        match self.port.invalidate(table).await {
            Ok(()) => {
                let mut told = told();
                let known = told.entry(table).or_default();
                *known = count.max(*known);
                true
            }
            Err(error) => {
                tracing::warn!(table, %error, "the remote cache was not told of a change");
                false
            }
        }
    }

    /// What the cache holds, else what is loaded, which it is then given.
    pub(super) async fn load<R: ReadModel, V: Portable<R>>(
        &self,
        changes: &TableChanges,
        question: Question,
        load: impl Future<Output = Result<V>> + Send,
    ) -> Result<V> {
        let table = question.table;
        if !self.is_told(table, changes.count(table)).await {
            return load.await;
        }
        let key = question.remote_key::<R>();
        let generation = match self.port.get(table, &key).await {
            Ok(RemoteRead { generation, value }) => {
                // What another release has written may not be readable.
                if let Some(found) = value.and_then(|bytes| V::decode(&bytes)) {
                    return Ok(found);
                }
                generation
            }
            Err(error) => {
                tracing::warn!(table, %error, "the remote cache was not read");
                return load.await;
            }
        };
        let loaded = load.await?;
        if let Some(bytes) = loaded.encode() {
            let put = self
                .port
                .put(table, generation, &key, bytes, self.time_to_live);
            if let Err(error) = put.await {
                tracing::warn!(table, %error, "the remote cache was not given an answer");
            }
        }
        Ok(loaded)
    }
}

/// An answer that can be turned into bytes and back.
pub(super) trait Portable<R>: Clone + Send + Sync + 'static {
    /// How many rows it has.
    fn rows(&self) -> usize;

    /// The bytes; `None` where a row cannot be written.
    fn encode(&self) -> Option<Vec<u8>>;

    fn decode(bytes: &[u8]) -> Option<Self>;
}

fn encode_row<R: ReadModel>(row: &R, bytes: &mut Vec<u8>) -> Option<()> {
    for value in row.to_row().ok()? {
        encode_value(&value, bytes);
    }
    Some(())
}

fn decode_row<R: ReadModel>(bytes: &mut &[u8]) -> Option<R> {
    let table = R::table();
    // The tenant of a row is not part of its struct, so any will do.
    let mut values: Vec<Value> = table
        .framework_columns()
        .iter()
        .map(|_| Value::Text("-".to_owned()))
        .collect();
    for _ in table.own_columns() {
        values.push(decode_value(bytes)?);
    }
    R::read_row(&mut RowCursor::new(table, &ValueRow::new(values))).ok()
}

fn encode_number(number: u64, bytes: &mut Vec<u8>) {
    bytes.extend(number.to_be_bytes());
}

fn decode_number(bytes: &mut &[u8]) -> Option<u64> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_be_bytes(*number))
}

/// All of the bytes must have been read.
fn whole<V>(value: V, rest: &[u8]) -> Option<V> {
    rest.is_empty().then_some(value)
}

impl<R: ReadModel> Portable<R> for Option<R> {
    fn rows(&self) -> usize {
        1
    }

    fn encode(&self) -> Option<Vec<u8>> {
        self.iter().cloned().collect::<Vec<R>>().encode()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        Vec::<R>::decode(bytes).map(|rows| rows.into_iter().next())
    }
}

impl<R: ReadModel> Portable<R> for Vec<R> {
    fn rows(&self) -> usize {
        self.len()
    }

    fn encode(&self) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        encode_number(self.len() as u64, &mut bytes);
        self.iter()
            .try_for_each(|row| encode_row(row, &mut bytes))?;
        Some(bytes)
    }

    fn decode(mut bytes: &[u8]) -> Option<Self> {
        let rest = &mut bytes;
        let rows = decode_number(rest)?;
        let rows = (0..rows).map(|_| decode_row(rest)).collect::<Option<_>>()?;
        whole(rows, bytes)
    }
}

impl<R: ReadModel> Portable<R> for Page<R> {
    fn rows(&self) -> usize {
        self.items.len()
    }

    fn encode(&self) -> Option<Vec<u8>> {
        let next = self.next.as_ref().map(|next| Value::Text(next.to_string()));
        let total = self
            .total
            .map(|total| Value::Bytes(total.to_be_bytes().to_vec()));
        let mut bytes = Vec::new();
        encode_value(&next.unwrap_or(Value::Null), &mut bytes);
        encode_value(&total.unwrap_or(Value::Null), &mut bytes);
        bytes.extend(self.items.encode()?);
        Some(bytes)
    }

    fn decode(mut bytes: &[u8]) -> Option<Self> {
        let next = match decode_value(&mut bytes)? {
            Value::Text(next) => Some(next.parse().ok()?),
            _ => None,
        };
        let total = match decode_value(&mut bytes)? {
            Value::Bytes(total) => Some(u64::from_be_bytes(total.try_into().ok()?)),
            _ => None,
        };
        let items = Vec::decode(bytes)?;
        Some(Self { items, next, total })
    }
}

impl<R: ReadModel> Portable<R> for u64 {
    fn rows(&self) -> usize {
        1
    }

    fn encode(&self) -> Option<Vec<u8>> {
        Some(self.to_be_bytes().to_vec())
    }

    fn decode(mut bytes: &[u8]) -> Option<Self> {
        let number = decode_number(&mut bytes)?;
        whole(number, bytes)
    }
}

impl<R: ReadModel> Portable<R> for bool {
    fn rows(&self) -> usize {
        1
    }

    fn encode(&self) -> Option<Vec<u8>> {
        Some(vec![u8::from(*self)])
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }
}
