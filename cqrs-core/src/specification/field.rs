//! Typed fields, the leaves of conditions and orders.

use std::fmt;
use std::marker::PhantomData;

use super::{Comparison, Direction, Order, Predicate, Specification};
use crate::mapping::{ColumnError, ColumnType, ColumnValue, Value};

/// A field of `T` that holds a `V` in one column.
///
/// Derives make them; `RoutePlan::fields().status` is one. An `Option<V>` field is a
/// `Field<T, V>`: compare it with a value, or ask [`is_null`](Self::is_null).
pub struct Field<T, V> {
    column: &'static str,
    column_type: ColumnType,
    encode: fn(&V) -> Result<Value, ColumnError>,
    of: PhantomData<fn(&T)>,
}

impl<T, V> Clone for Field<T, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T, V> Copy for Field<T, V> {}

impl<T, V> fmt::Debug for Field<T, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Field({}: {})", self.column, self.column_type)
    }
}

impl<T, V: ColumnValue> Field<T, V> {
    /// The field in this column.
    #[doc(hidden)]
    #[must_use]
    pub const fn new(column: &'static str) -> Self {
        Self::encoded(column, V::TYPE, V::to_value)
    }
}

impl<T, V> Field<T, V> {
    /// The field in this column, whose values `encode` writes.
    #[doc(hidden)]
    #[must_use]
    pub const fn encoded(
        column: &'static str,
        column_type: ColumnType,
        encode: fn(&V) -> Result<Value, ColumnError>,
    ) -> Self {
        Self {
            column,
            column_type,
            encode,
            of: PhantomData,
        }
    }

    /// Its column.
    #[must_use]
    pub const fn column(&self) -> &'static str {
        self.column
    }

    fn compare(self, comparison: Comparison, value: impl Into<V>) -> Specification<T> {
        Specification::new(match (self.encode)(&value.into()) {
            Ok(value) => Predicate::Compare {
                column: self.column,
                column_type: self.column_type,
                comparison,
                value,
            },
            Err(reason) => Predicate::Invalid {
                column: self.column,
                reason,
            },
        })
    }

    /// Equal to `value`; unknown where the column is NULL.
    #[must_use]
    pub fn eq(self, value: impl Into<V>) -> Specification<T> {
        self.compare(Comparison::Eq, value)
    }

    /// Not equal to `value`; unknown where the column is NULL.
    #[must_use]
    pub fn ne(self, value: impl Into<V>) -> Specification<T> {
        self.compare(Comparison::Ne, value)
    }

    /// Less than `value`; unknown where the column is NULL.
    #[must_use]
    pub fn lt(self, value: impl Into<V>) -> Specification<T> {
        self.compare(Comparison::Lt, value)
    }

    /// Less than or equal to `value`; unknown where the column is NULL.
    #[must_use]
    pub fn le(self, value: impl Into<V>) -> Specification<T> {
        self.compare(Comparison::Le, value)
    }

    /// Greater than `value`; unknown where the column is NULL.
    #[must_use]
    pub fn gt(self, value: impl Into<V>) -> Specification<T> {
        self.compare(Comparison::Gt, value)
    }

    /// Greater than or equal to `value`; unknown where the column is NULL.
    #[must_use]
    pub fn ge(self, value: impl Into<V>) -> Specification<T> {
        self.compare(Comparison::Ge, value)
    }

    /// Whether the column is NULL. Never unknown.
    #[must_use]
    pub fn is_null(self) -> Specification<T> {
        Specification::new(Predicate::IsNull {
            column: self.column,
        })
    }

    /// From small to large, NULL last.
    #[must_use]
    pub fn asc(self) -> Order<T> {
        Order::new(self.column, Direction::Ascending)
    }

    /// From large to small, NULL first.
    #[must_use]
    pub fn desc(self) -> Order<T> {
        Order::new(self.column, Direction::Descending)
    }
}
