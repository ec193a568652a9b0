//! A condition with an order and a limit.

use std::fmt;
use std::marker::PhantomData;

use super::Specification;

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
        }
    }
}

impl<T> fmt::Debug for Query<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Query")
            .field("specification", &self.specification)
            .field("order", &self.order)
            .field("limit", &self.limit)
            .finish()
    }
}
