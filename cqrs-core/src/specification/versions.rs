//! Pages of the versions of one aggregate.

use super::cursor::{Cursor, OrderId};
use super::page::{Page, PageRequest, Start};
use crate::error::{Error, Result, StoreErrorKind};
use crate::mapping::Value;

/// A page request for the versions of one aggregate, from the youngest on, for authors of stores.
#[derive(Debug, Clone, PartialEq)]
pub struct VersionPaging {
    before: Option<u64>,
    skip: u64,
    size: u32,
    total: bool,
}

/// What a cursor of versions is ordered by.
const ORDER: OrderId = *b"versions";

impl VersionPaging {
    /// The paging of a request.
    ///
    /// # Errors
    ///
    /// A [`Usage`](StoreErrorKind::Usage) error where the page has no rows, and where the cursor is
    /// of something else.
    pub fn new(request: PageRequest) -> Result<Self> {
        let PageRequest { start, size, total } = request;
        if size == 0 {
            return Err(usage("a page has at least one row"));
        }
        let (before, skip) = match start {
            Start::First => (None, 0),
            Start::Skip(rows) => (None, rows),
            Start::After(cursor) => (Some(version(&cursor)?), 0),
        };
        Ok(Self {
            before,
            skip,
            size,
            total,
        })
    }

    /// The version below which the page begins; `None` where it begins with the youngest.
    #[must_use]
    pub fn before(&self) -> Option<u64> {
        self.before
    }

    /// How many to skip.
    #[must_use]
    pub fn skip(&self) -> u64 {
        self.skip
    }

    /// How many to read: one more than the page has, which its last one is compared with.
    #[must_use]
    pub fn limit(&self) -> u64 {
        u64::from(self.size) + 1
    }

    /// Whether to count all of them.
    #[must_use]
    pub fn wants_total(&self) -> bool {
        self.total
    }

    /// Makes the page of what was read, each with its version.
    pub(crate) fn page<T>(&self, mut found: Vec<(T, u64)>, total: Option<u64>) -> Page<T> {
        let size = usize::try_from(self.size).unwrap_or(usize::MAX);
        let is_more = found.len() > size;
        found.truncate(size);
        let next = found.last().filter(|_| is_more).map(|(_, version)| {
            let version = i64::try_from(*version).unwrap_or(i64::MAX);
            Cursor::new(ORDER, vec![Value::Int(version)])
        });
        Page {
            items: found.into_iter().map(|(item, _)| item).collect(),
            next,
            total,
        }
    }
}

fn version(cursor: &Cursor) -> Result<u64> {
    let version = match cursor.values() {
        [Value::Int(version)] if cursor.order() == ORDER => u64::try_from(*version).ok(),
        _ => None,
    };
    version.ok_or_else(|| usage("the cursor is of a query with another order"))
}

fn usage(message: &str) -> Error {
    Error::store(StoreErrorKind::Usage, message)
}
