//! Pages of a query.

use std::cmp::Ordering;

use super::cursor::{Cursor, order_id};
use super::evaluate::null_last;
use super::{Direction, Query, SortKey};
use crate::error::{Error, Result, StoreErrorKind};
use crate::mapping::{Column, Entity, Table, Value};

/// Which page of a query is wanted.
///
/// By [cursor](Self::after) is the way to go through many rows: it costs the same on every page,
/// and rows that are inserted or removed meanwhile neither repeat others nor hide them. By
/// [offset](Self::skip) is for page numbers; the database reads what it skips.
///
/// # Example
///
/// ```
/// use cqrs_core::PageRequest;
///
/// let first = PageRequest::first(50).with_total();
/// let third = PageRequest::skip(100, 50);
/// assert_ne!(first, third);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct PageRequest {
    pub(super) start: Start,
    pub(super) size: u32,
    pub(super) total: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Start {
    First,
    After(Cursor),
    Skip(u64),
}

impl PageRequest {
    /// The first `size` rows.
    #[must_use]
    pub const fn first(size: u32) -> Self {
        Self::new(Start::First, size)
    }

    /// The `size` rows that come after a cursor.
    #[must_use]
    pub const fn after(cursor: Cursor, size: u32) -> Self {
        Self::new(Start::After(cursor), size)
    }

    /// The `size` rows that come after the first `rows`.
    #[must_use]
    pub const fn skip(rows: u64, size: u32) -> Self {
        Self::new(Start::Skip(rows), size)
    }

    const fn new(start: Start, size: u32) -> Self {
        Self {
            start,
            size,
            total: false,
        }
    }

    /// Counts all rows of the query too, in the same statement. That costs what counting costs.
    #[must_use]
    pub fn with_total(mut self) -> Self {
        self.total = true;
        self
    }
}

/// A page of a query.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Page<T> {
    /// Its rows, in order.
    pub items: Vec<T>,
    /// Where the next page begins; `None` where no row came after this one when it was read.
    pub next: Option<Cursor>,
    /// How many rows the query has in all, where [that was asked](PageRequest::with_total).
    pub total: Option<u64>,
}

impl<T> Page<T> {
    /// The page with other items, made of these.
    #[must_use]
    pub fn map<U>(self, map: impl FnMut(T) -> U) -> Page<U> {
        Page {
            items: self.items.into_iter().map(map).collect(),
            next: self.next,
            total: self.total,
        }
    }
}

/// A page request that fits its query, for authors of backends: which rows to read, in which
/// order, and how to make a [`Page`] of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Paging {
    table: &'static Table,
    keys: Vec<SortKey>,
    start: Start,
    size: u32,
    total: bool,
}

impl Paging {
    /// The paging of a query, within a tenant or across them.
    ///
    /// # Errors
    ///
    /// A [`Usage`](StoreErrorKind::Usage) error where the page has no rows, where the query has a
    /// limit of its own or locks its rows, and where the cursor is of another query; those of
    /// [`Query::check`].
    pub fn new<T: Entity>(
        query: &Query<T>,
        request: PageRequest,
        across_tenants: bool,
    ) -> Result<Self> {
        query.check()?;
        let table = T::table();
        let keys = query.sort_keys(across_tenants);
        let columns = || keys.iter().map(|key| &table.columns()[key.index]);
        if request.size == 0 {
            return Err(usage("a page has at least one row"));
        }
        if query.row_limit().is_some() {
            return Err(usage("a page has a size, so its query has no limit"));
        }
        if query.row_lock().is_some() {
            return Err(usage("a page locks no rows: query with a limit"));
        }
        if let Start::After(cursor) = &request.start {
            let fits = cursor.order() == order_id(table, &keys)
                && cursor.values().len() == keys.len()
                && columns().zip(cursor.values()).all(|(c, v)| can_hold(c, v));
            if !fits {
                return Err(usage("the cursor is of a query with another order"));
            }
        }
        Ok(Self {
            table,
            keys,
            start: request.start,
            size: request.size,
            total: request.total,
        })
    }

    /// What the rows are ordered by.
    #[must_use]
    pub fn keys(&self) -> &[SortKey] {
        &self.keys
    }

    /// The values of the [keys](Self::keys) after which the page begins.
    #[must_use]
    pub fn after(&self) -> Option<&[Value]> {
        match &self.start {
            Start::After(cursor) => Some(cursor.values()),
            Start::First | Start::Skip(_) => None,
        }
    }

    /// How many rows to skip.
    #[must_use]
    pub fn skip(&self) -> u64 {
        match self.start {
            Start::Skip(rows) => rows,
            Start::First | Start::After(_) => 0,
        }
    }

    /// How many rows to read: one more than the page has, to see whether there is a next one.
    #[must_use]
    pub fn limit(&self) -> u64 {
        u64::from(self.size) + 1
    }

    /// Whether to count all rows of the query.
    #[must_use]
    pub fn wants_total(&self) -> bool {
        self.total
    }

    /// Whether a row comes after the place where the page begins.
    #[must_use]
    pub fn is_after(&self, row: &[Value]) -> bool {
        let Some(after) = self.after() else {
            return true;
        };
        self.keys
            .iter()
            .zip(after)
            .map(|(key, value)| key.compare(&row[key.index], value))
            .find(|ordering| ordering.is_ne())
            == Some(Ordering::Greater)
    }

    /// Makes the page of what was read: up to [`limit`](Self::limit) rows, each with its values of
    /// the [keys](Self::keys).
    #[must_use]
    pub fn page<T>(&self, mut rows: Vec<(T, Vec<Value>)>, total: Option<u64>) -> Page<T> {
        let size = usize::try_from(self.size).unwrap_or(usize::MAX);
        let is_more = rows.len() > size;
        rows.truncate(size);
        let next = match rows.last() {
            Some((_, values)) if is_more => {
                let order = order_id(self.table, &self.keys);
                Some(Cursor::new(order, values.clone()))
            }
            _ => None,
        };
        Page {
            items: rows.into_iter().map(|(item, _)| item).collect(),
            next,
            total,
        }
    }
}

impl SortKey {
    /// The order of two values of its column.
    pub(super) fn compare(self, a: &Value, b: &Value) -> Ordering {
        match self.direction {
            Direction::Ascending => null_last(a, b),
            Direction::Descending => null_last(a, b).reverse(),
        }
    }
}

fn can_hold(column: &Column, value: &Value) -> bool {
    match value {
        Value::Null => column.is_nullable(),
        value => column.column_type().is_of(value),
    }
}

fn usage(message: &str) -> Error {
    Error::store(StoreErrorKind::Usage, message)
}
