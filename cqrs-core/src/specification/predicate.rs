//! The tree of a condition.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{BitAnd, BitOr, Not};

use super::{Operand, TextTest};
use crate::mapping::{ColumnError, Value};

/// How deep conditions may be nested, so that no store runs out of its stack. Conditions that are
/// joined with one operator are one level, however many there are.
const MAX_DEPTH: u32 = 100;

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
    /// A comparison with a value.
    Compare {
        /// What is compared.
        operand: Operand,
        /// The comparison.
        comparison: Comparison,
        /// The value.
        value: Value,
    },
    /// Whether it is equal to one of several values; false for none, whatever the operand.
    In {
        /// What is compared.
        operand: Operand,
        /// The values.
        values: Vec<Value>,
    },
    /// A test of text.
    Text {
        /// The text that is tested.
        operand: Operand,
        /// The test.
        test: TextTest,
        /// What it looks for.
        text: String,
    },
    /// Whether it is NULL.
    IsNull {
        /// What is asked for.
        operand: Operand,
    },
    /// All of them, two at least.
    And(Vec<Predicate>),
    /// Any of them, two at least.
    Or(Vec<Predicate>),
    /// The opposite; unknown stays unknown.
    Not(Box<Predicate>),
    /// Whether a condition is true for any of its children; never unknown.
    AnyChild {
        /// The table of the children.
        table: &'static str,
        /// The condition over a row of that table.
        predicate: Box<Predicate>,
    },
    /// A value that no column can hold; an error where the specification is used.
    Invalid {
        /// The column.
        column: &'static str,
        /// What is wrong with the value.
        reason: ColumnError,
    },
}

impl Predicate {
    fn none() -> Self {
        Self::Not(Box::new(Self::All))
    }

    /// Whether it is true for no row, by its form.
    pub(super) fn is_none(&self) -> bool {
        matches!(self, Self::Not(inner) if **inner == Self::All)
    }

    /// Whether any part of it asks for [children](Self::AnyChild), which are rows of other tables.
    #[must_use]
    pub fn asks_for_children(&self) -> bool {
        match self {
            Self::AnyChild { .. } => true,
            Self::And(terms) | Self::Or(terms) => terms.iter().any(Self::asks_for_children),
            Self::Not(inner) => inner.asks_for_children(),
            _ => false,
        }
    }
}

/// A condition over the rows of `T`, built from its typed fields.
///
/// NULL is three-valued, as in SQL: a comparison with NULL is unknown, `!` keeps it unknown, and
/// only what is true is found. Text compares by its bytes.
///
/// Conditions nest up to 100 levels deep; a deeper one is an error where it is used. Those that
/// are joined with one operator are one level, so there may be thousands of them.
///
/// [`Display`](fmt::Display) writes it for logs, with the values in it. Those may be personal
/// data; [`shape`](Self::shape) leaves them out.
///
/// # Example
///
/// ```
/// # use cqrs_core::*;
/// # fn example<A>(priority: Field<A, i32>, city: Field<A, String>) {
/// let urgent: Specification<A> = (priority.ge(3) & city.eq("Graz")) | !priority.lt(9);
/// assert_eq!(urgent.describe(), r#"(priority >= 3 and city = "Graz") or not priority < 9"#);
/// assert_eq!(urgent.shape(), "(priority >= ? and city = ?) or not priority < ?");
/// # }
/// # #[derive(Clone, ReadModel)]
/// # #[read_model(table = "plan")]
/// # struct Plan { #[read_model(key)] id: i64, priority: i32, city: String }
/// # example(Plan::fields().priority, Plan::fields().city);
/// ```
pub struct Specification<T> {
    predicate: Predicate,
    depth: u32,
    of: PhantomData<fn(&T)>,
}

impl<T> Specification<T> {
    /// True for every row.
    #[must_use]
    pub const fn all() -> Self {
        Self::leaf(Predicate::All)
    }

    /// True for no row.
    #[must_use]
    pub fn none() -> Self {
        Self::leaf(Predicate::none())
    }

    /// True where all of them are; for every row if there are none.
    #[must_use]
    pub fn all_of(specifications: impl IntoIterator<Item = Self>) -> Self {
        specifications.into_iter().fold(Self::all(), Self::bitand)
    }

    /// True where any of them is; for no row if there are none.
    #[must_use]
    pub fn any_of(specifications: impl IntoIterator<Item = Self>) -> Self {
        specifications.into_iter().fold(Self::none(), Self::bitor)
    }

    pub(super) const fn leaf(predicate: Predicate) -> Self {
        Self {
            predicate,
            depth: 0,
            of: PhantomData,
        }
    }

    fn nested(predicate: Predicate, depth: u32) -> Self {
        if depth <= MAX_DEPTH {
            return Self {
                predicate,
                depth,
                of: PhantomData,
            };
        }
        Self::leaf(Predicate::Invalid {
            column: "(the condition as a whole)",
            reason: ColumnError::invalid(format!(
                "conditions nest at most {MAX_DEPTH} levels deep: use `in_` for a list of values"
            )),
        })
    }

    /// The condition that this one is true for any child in a table.
    pub(super) fn of_any_child<P>(self, table: &'static str) -> Specification<P> {
        let predicate = Box::new(self.predicate);
        Specification::nested(Predicate::AnyChild { table, predicate }, self.depth + 1)
    }

    /// The tree.
    #[must_use]
    pub fn predicate(&self) -> &Predicate {
        &self.predicate
    }

    /// The terms of a list that `take` takes out of the tree, or the tree as the only one; and
    /// their depth.
    fn into_terms(
        self,
        take: fn(Predicate) -> Result<Vec<Predicate>, Predicate>,
    ) -> (Vec<Predicate>, u32) {
        match take(self.predicate) {
            Ok(terms) => (terms, self.depth - 1),
            Err(term) => (vec![term], self.depth),
        }
    }

    /// Joins two conditions in one list: what either holds of such lists becomes part of it.
    fn joined(
        self,
        other: Self,
        take: fn(Predicate) -> Result<Vec<Predicate>, Predicate>,
        list: fn(Vec<Predicate>) -> Predicate,
    ) -> Self {
        let (mut terms, left) = self.into_terms(take);
        let (more, right) = other.into_terms(take);
        terms.extend(more);
        Self::nested(list(terms), left.max(right) + 1)
    }
}

impl<T> Clone for Specification<T> {
    fn clone(&self) -> Self {
        Self {
            predicate: self.predicate.clone(),
            ..*self
        }
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
        match (&self.predicate, &other.predicate) {
            (Predicate::All, _) => other,
            (_, Predicate::All) => self,
            _ => {
                let take = |predicate| match predicate {
                    Predicate::And(terms) => Ok(terms),
                    other => Err(other),
                };
                self.joined(other, take, Predicate::And)
            }
        }
    }
}

impl<T> BitOr for Specification<T> {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        if self.predicate.is_none() {
            return other;
        }
        if other.predicate.is_none() {
            return self;
        }
        let take = |predicate| match predicate {
            Predicate::Or(terms) => Ok(terms),
            other => Err(other),
        };
        self.joined(other, take, Predicate::Or)
    }
}

impl<T> Not for Specification<T> {
    type Output = Self;

    fn not(self) -> Self {
        match self.predicate {
            // Unknown stays unknown either way. `none` is one level in the tree and none here.
            Predicate::Not(inner) => Self {
                predicate: *inner,
                depth: self.depth.saturating_sub(1),
                of: PhantomData,
            },
            predicate => Self::nested(Predicate::Not(Box::new(predicate)), self.depth + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::specification::Field;

    struct Plan;

    const PRIORITY: Field<Plan, i32> = Field::new("priority");

    #[test]
    fn what_is_joined_with_one_operator_is_one_list() {
        let one = |n: i32| PRIORITY.eq(n);
        let left = (one(1) | one(2)) | (one(3) | one(4));
        let right = one(1) | (one(2) | (one(3) | one(4)));
        assert_eq!(left, right);
        assert_eq!(left, Specification::any_of((1..=4).map(one)));
        assert!(matches!(left.predicate(), Predicate::Or(terms) if terms.len() == 4));
        assert_eq!((left & one(5)).depth, 2);
    }

    #[test]
    fn all_and_none_are_neutral() {
        let one = PRIORITY.eq(1);
        assert_eq!(one.clone() & Specification::all(), one);
        assert_eq!(Specification::none() | one.clone(), one);
        assert_eq!(!!one.clone(), one);
        assert_eq!(Specification::<Plan>::all_of([]), Specification::all());
        assert_eq!(Specification::<Plan>::any_of([]), Specification::none());
        assert_eq!(!Specification::<Plan>::none(), Specification::all());
    }

    #[test]
    fn ten_thousand_joined_conditions_are_one_level() {
        let many = (0..10_000).fold(Specification::none(), |all, n| all | PRIORITY.eq(n));
        let reversed = (0..10_000).fold(Specification::all(), |all, n| PRIORITY.ne(n) & all);
        assert_eq!((many.depth, reversed.depth), (1, 1));
        assert_eq!(many.clone(), many);
        assert!(many.describe().ends_with("priority = 9999"));
    }

    #[test]
    fn what_nests_too_deep_is_refused_and_not_built() {
        let mut deep = PRIORITY.eq(0);
        for n in 0..100_000 {
            deep = !(deep & PRIORITY.eq(n));
        }
        let mut deepest = PRIORITY.eq(0);
        for n in 0..50 {
            deepest = !(deepest & PRIORITY.eq(n));
        }
        assert_eq!(deepest.depth, MAX_DEPTH);
        assert!(
            deep.describe().contains("nest at most 100 levels"),
            "{deep}"
        );
        assert!(!deepest.describe().contains("levels"), "{deepest}");
    }
}
