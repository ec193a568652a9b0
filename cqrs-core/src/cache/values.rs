//! The answers in memory.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use moka::future::Cache;

use super::options::CacheOptions;
use super::question::Key;
use crate::error::{Error, Result, StoreError};

/// An answer of any type.
#[derive(Clone)]
struct Answer {
    value: Arc<dyn Any + Send + Sync>,
    rows: u32,
}

/// The answers, the least asked for of which go when there are too many.
#[derive(Clone)]
pub(super) struct Values(Cache<Key, Answer>);

impl Values {
    pub(super) fn new(options: &CacheOptions) -> Self {
        let cache = Cache::builder()
            .max_capacity(options.max_rows)
            .weigher(|_: &Key, answer: &Answer| answer.rows.max(1))
            .time_to_live(options.time_to_live)
            .build();
        Self(cache)
    }

    /// The value under a key, loaded once for all who ask at the same time.
    pub(super) async fn get<V: Clone + Send + Sync + 'static>(
        &self,
        key: Key,
        rows: fn(&V) -> usize,
        load: impl Future<Output = Result<V>> + Send,
    ) -> Result<V> {
        let loading = async {
            let value = load.await?;
            Ok(Answer {
                rows: u32::try_from(rows(&value)).unwrap_or(u32::MAX),
                value: Arc::new(value),
            })
        };
        let answer = self.0.try_get_with(key, loading).await.map_err(own)?;
        match answer.value.downcast_ref::<V>() {
            Some(value) => Ok(value.clone()),
            None => unreachable!("a key has the type of its answer in it"),
        }
    }
}

/// An error that several wait for, for one of them.
fn own(shared: Arc<Error>) -> Error {
    let shared = match Arc::try_unwrap(shared) {
        Ok(error) => return error,
        Err(shared) => shared,
    };
    match &*shared {
        Error::Mapping(error) => Error::Mapping(error.clone()),
        Error::Store(error) => StoreError::new(error.kind().clone(), error.to_string())
            .with_source(Shared(shared))
            .into(),
        _ => Error::other(Shared(shared)),
    }
}

/// The error of a load that another had begun.
#[derive(Debug)]
struct Shared(Arc<Error>);

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Shared {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Values")
            .field("answers", &self.0.entry_count())
            .field("rows", &self.0.weighted_size())
            .finish()
    }
}
