//! A condition with an order and a limit.

use std::fmt;
use std::marker::PhantomData;

use super::Specification;
use crate::error::{Error, Result, StoreErrorKind};

/// From small to large, or the reverse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From small to large, NULL last.
    Ascending,
    /// From large to small, NULL first.
    Descending,
}

/// A column that rows are ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SortKey {
    /// Its index in the [columns](crate::mapping::Table::columns) of the table.
    pub index: usize,
    /// The direction.
    pub direction: Direction,
}

/// How a query locks the rows that it finds, until the unit of work ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RowLock {
    /// Waits for rows that others have locked.
    Wait,
    /// Leaves out the rows that others have locked.
    SkipLocked,
}

/// One key of an order.
pub struct Order<T> {
    column: &'static str,
    direction: Direction,
    of: PhantomData<fn(&T)>,
}

impl<T> Order<T> {
    pub(super) const fn new(column: &'static str, direction: Direction) -> Self {
        Self {
            column,
            direction,
            of: PhantomData,
        }
    }

    /// The column.
    #[must_use]
    pub fn column(&self) -> &'static str {
        self.column
    }

    /// The direction.
    #[must_use]
    pub fn direction(&self) -> Direction {
        self.direction
    }
}

impl<T> Clone for Order<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Order<T> {}

impl<T> fmt::Debug for Order<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.column, self.direction)
    }
}

/// Which rows of `T`, in which order, and how many.
///
/// Rows that the order leaves equal come in the order of their key, so that a result never
/// depends on the backend.
///
/// # Example
///
/// ```
/// # use cqrs_core::*;
/// # fn example<A>(priority: Field<A, i32>) -> Query<A> {
/// Query::filter(priority.ge(3)).order_by(priority.desc()).limit(20)
/// # }
/// ```
pub struct Query<T> {
    specification: Specification<T>,
    order: Vec<Order<T>>,
    limit: Option<u64>,
    lock: Option<RowLock>,
}

impl<T> Query<T> {
    /// All rows.
    #[must_use]
    pub const fn all() -> Self {
        Self::filter(Specification::all())
    }

    /// The rows for which the specification is true.
    #[must_use]
    pub const fn filter(specification: Specification<T>) -> Self {
        Self {
            specification,
            order: Vec::new(),
            limit: None,
            lock: None,
        }
    }

    /// Adds a key to the order, after those given before.
    #[must_use]
    pub fn order_by(mut self, order: Order<T>) -> Self {
        self.order.push(order);
        self
    }

    /// At most this many rows. Above `i64::MAX` it is no limit.
    #[must_use]
    pub const fn limit(mut self, rows: u64) -> Self {
        self.limit = Some(rows);
        self
    }

    /// Locks the rows that it finds until the unit of work ends: others that lock or change them
    /// wait, and what is read here is the latest that was committed.
    ///
    /// # Transaction
    ///
    /// It opens the transaction of the unit of work, which must be one that writes.
    ///
    /// A row that changed while the query waited for it is judged again by the condition, and
    /// keeps its place in the order. On SQLite the lock is that of the whole database. In memory
    /// nobody waits: of two that change one aggregate, one is told of a
    /// [`Conflict`](crate::Error::Conflict).
    #[must_use]
    pub const fn lock(mut self) -> Self {
        self.lock = Some(RowLock::Wait);
        self
    }

    /// As [`lock`](Self::lock), but leaves out the rows that others have locked instead of waiting
    /// for them: for workers that share a queue.
    ///
    /// Where a lock is that of the whole database, as on SQLite, there is nothing to leave out: it
    /// waits.
    #[must_use]
    pub const fn skip_locked(mut self) -> Self {
        self.lock = Some(RowLock::SkipLocked);
        self
    }

    /// The condition.
    #[must_use]
    pub fn specification(&self) -> &Specification<T> {
        &self.specification
    }

    /// The keys of the order.
    #[must_use]
    pub fn order(&self) -> &[Order<T>] {
        &self.order
    }

    /// The limit.
    #[must_use]
    pub fn row_limit(&self) -> Option<u64> {
        self.limit
    }

    /// How it locks what it finds.
    #[must_use]
    pub const fn row_lock(&self) -> Option<RowLock> {
        self.lock
    }

    /// Checks that it locks nothing, for authors of backends: outside of a unit of work that
    /// writes no lock would last.
    ///
    /// # Errors
    ///
    /// A [`Usage`](StoreErrorKind::Usage) error.
    pub fn check_lock_free(&self) -> Result<()> {
        match self.lock {
            None => Ok(()),
            Some(_) => Err(Error::needs_writing_unit()),
        }
    }

    /// The query for one row of which there should be no second: with one row more, to see.
    pub(crate) fn expecting_one(self) -> Result<Self> {
        if self.lock == Some(RowLock::SkipLocked) {
            return Err(Error::store(
                StoreErrorKind::Usage,
                "whether there is one row cannot be told among rows that are skipped: use `lock`",
            ));
        }
        let limit = self.limit.unwrap_or(2).min(2);
        Ok(self.limit(limit))
    }
}

impl<T> From<Specification<T>> for Query<T> {
    fn from(specification: Specification<T>) -> Self {
        Self::filter(specification)
    }
}

impl<T> Clone for Query<T> {
    fn clone(&self) -> Self {
        Self {
            specification: self.specification.clone(),
            order: self.order.clone(),
            limit: self.limit,
            lock: self.lock,
        }
    }
}

impl<T> fmt::Debug for Query<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Query")
            .field("specification", &self.specification)
            .field("order", &self.order)
            .field("limit", &self.limit)
            .field("lock", &self.lock)
            .finish()
    }
}
