//! The tree of a condition.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{BitAnd, BitOr, Not};

use crate::mapping::{ColumnError, ColumnType, Value};

/// How two values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Comparison {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Less.
    Lt,
    /// Less or equal.
    Le,
    /// Greater.
    Gt,
    /// Greater or equal.
    Ge,
}

impl Comparison {
    /// The SQL operator.
    #[must_use]
    pub const fn operator(self) -> &'static str {
        match self {
            Self::Eq => "=",
            Self::Ne => "<>",
            Self::Lt => "<",
            Self::Le => "<=",
            Self::Gt => ">",
            Self::Ge => ">=",
        }
    }

    /// Whether it asks for an order and not only for equality.
    #[must_use]
    pub const fn is_ordering(self) -> bool {
        !matches!(self, Self::Eq | Self::Ne)
    }
}

/// A node of a [`Specification`], for backends that compile it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Predicate {
    /// True for every row.
    All,
    /// A column compared with a value.
    Compare {
        /// The column.
        column: &'static str,
        /// Its type.
        column_type: ColumnType,
        /// The comparison.
        comparison: Comparison,
        /// The value.
        value: Value,
    },
    /// Whether a column is NULL.
    IsNull {
        /// The column.
        column: &'static str,
    },
    /// Both.
    And(Box<Predicate>, Box<Predicate>),
    /// Either.
    Or(Box<Predicate>, Box<Predicate>),
    /// The opposite; unknown stays unknown.
    Not(Box<Predicate>),
    /// A value that no column can hold; an error where the specification is used.
    Invalid {
        /// The column.
        column: &'static str,
        /// What is wrong with the value.
        reason: ColumnError,
    },
}

/// A condition over the rows of `T`, built from its typed fields.
///
/// NULL is three-valued, as in SQL: a comparison with NULL is unknown, `!` keeps it unknown, and
/// only what is true is found. Text compares by its bytes.
///
/// # Example
///
/// ```
/// # use cqrs_core::*;
/// # fn example<A>(priority: Field<A, i32>, city: Field<A, String>) -> Specification<A> {
/// (priority.ge(3) & city.eq("Graz")) | !priority.lt(9)
/// # }
/// ```
pub struct Specification<T> {
    predicate: Predicate,
    of: PhantomData<fn(&T)>,
}

impl<T> Specification<T> {
    /// True for every row.
    #[must_use]
    pub const fn all() -> Self {
        Self::new(Predicate::All)
    }

    pub(super) const fn new(predicate: Predicate) -> Self {
        Self {
            predicate,
            of: PhantomData,
        }
    }

    /// The tree.
    #[must_use]
    pub fn predicate(&self) -> &Predicate {
        &self.predicate
    }
}

impl<T> Clone for Specification<T> {
    fn clone(&self) -> Self {
        Self::new(self.predicate.clone())
    }
}

impl<T> fmt::Debug for Specification<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.predicate.fmt(f)
    }
}

impl<T> PartialEq for Specification<T> {
    fn eq(&self, other: &Self) -> bool {
        self.predicate == other.predicate
    }
}

impl<T> BitAnd for Specification<T> {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self::new(Predicate::And(
            Box::new(self.predicate),
            Box::new(other.predicate),
        ))
    }
}

impl<T> BitOr for Specification<T> {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self::new(Predicate::Or(
            Box::new(self.predicate),
            Box::new(other.predicate),
        ))
    }
}

impl<T> Not for Specification<T> {
    type Output = Self;

    fn not(self) -> Self {
        Self::new(Predicate::Not(Box::new(self.predicate)))
    }
}
