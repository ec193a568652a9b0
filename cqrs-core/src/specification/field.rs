//! Typed fields, the leaves of conditions and orders.

use std::fmt;
use std::marker::PhantomData;

use super::{
    Assignment, Comparison, Direction, JsonPlace, Operand, Order, Predicate, Specification,
    TextTest, TextValue,
};
use crate::mapping::{ColumnError, ColumnType, ColumnValue, Value};

/// A field of `T` whose values are `V`s, in one column.
///
/// Derives make them; `RoutePlan::fields().status` is one. An `Option<V>` field is a
/// `Field<T, V>`: compare it with a value, or ask [`is_null`](Self::is_null).
///
/// `P` is where it is: `()` is the column itself, [`JsonPlace`] a place in its document, made by a
/// [`JsonPath`](super::JsonPath).
///
/// A value that no column can hold, or that the stores would not compare alike, makes the
/// condition an error where it is used.
pub struct Field<T, V, P = ()> {
    column: &'static str,
    column_type: ColumnType,
    encode: fn(&V) -> Result<Value, ColumnError>,
    place: P,
    of: PhantomData<fn(&T)>,
}

impl<T, V, P: Clone> Clone for Field<T, V, P> {
    fn clone(&self) -> Self {
        Self {
            place: self.place.clone(),
            ..*self
        }
    }
}

impl<T, V, P: Copy> Copy for Field<T, V, P> {}

impl<T, V, P> fmt::Debug for Field<T, V, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Field({}: {})", self.column, self.column_type)
    }
}

/// Where a [`Field`] is. Sealed: `()` and [`JsonPlace`].
#[expect(private_bounds, reason = "sealed")]
pub trait Place: Clone + Located {}

impl Place for () {}
impl Place for JsonPlace {}

trait Located {
    fn json(self) -> Result<Option<JsonPlace>, ColumnError>;
}

impl Located for () {
    fn json(self) -> Result<Option<JsonPlace>, ColumnError> {
        Ok(None)
    }
}

impl Located for JsonPlace {
    fn json(self) -> Result<Option<JsonPlace>, ColumnError> {
        self.check()?;
        Ok(Some(self))
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
        Self::at(column, column_type, encode, ())
    }

    /// The change of the field to `value`, for a
    /// [bulk update](crate::Maintenance::update).
    #[must_use]
    pub fn set(self, value: impl Into<V>) -> Assignment<T> {
        Assignment::new(self.column, (self.encode)(&value.into()))
    }

    /// The change of the field to NULL, which is `None` of an `Option`.
    #[must_use]
    pub fn set_null(self) -> Assignment<T> {
        Assignment::new(self.column, Ok(Value::Null))
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

impl<T, V, P> Field<T, V, P> {
    pub(super) const fn at(
        column: &'static str,
        column_type: ColumnType,
        encode: fn(&V) -> Result<Value, ColumnError>,
        place: P,
    ) -> Self {
        Self {
            column,
            column_type,
            encode,
            place,
            of: PhantomData,
        }
    }

    /// Its column.
    #[must_use]
    pub const fn column(&self) -> &'static str {
        self.column
    }
}

impl<T, V, P: Place> Field<T, V, P> {
    /// The condition that `make` makes, or the error where it cannot.
    fn condition(
        self,
        make: impl FnOnce(Operand) -> Result<Predicate, ColumnError>,
    ) -> Specification<T> {
        let Self {
            column,
            column_type,
            place,
            ..
        } = self;
        let made = place
            .json()
            .and_then(|json| make(Operand::new(column, column_type, json)));
        Specification::leaf(made.unwrap_or_else(|reason| Predicate::Invalid { column, reason }))
    }

    fn compare(self, comparison: Comparison, value: impl Into<V>) -> Specification<T> {
        let encode = self.encode;
        self.condition(|operand| {
            Ok(Predicate::Compare {
                operand: operand.comparable()?,
                comparison,
                value: encode(&value.into())?,
            })
        })
    }

    /// Equal to `value`; unknown where the field is NULL.
    #[must_use]
    pub fn eq(self, value: impl Into<V>) -> Specification<T> {
        self.compare(Comparison::Eq, value)
    }

    /// Not equal to `value`; unknown where the field is NULL.
    #[must_use]
    pub fn ne(self, value: impl Into<V>) -> Specification<T> {
        self.compare(Comparison::Ne, value)
    }

    /// Less than `value`; unknown where the field is NULL.
    #[must_use]
    pub fn lt(self, value: impl Into<V>) -> Specification<T> {
        self.compare(Comparison::Lt, value)
    }

    /// Less than or equal to `value`; unknown where the field is NULL.
    #[must_use]
    pub fn le(self, value: impl Into<V>) -> Specification<T> {
        self.compare(Comparison::Le, value)
    }

    /// Greater than `value`; unknown where the field is NULL.
    #[must_use]
    pub fn gt(self, value: impl Into<V>) -> Specification<T> {
        self.compare(Comparison::Gt, value)
    }

    /// Greater than or equal to `value`; unknown where the field is NULL.
    #[must_use]
    pub fn ge(self, value: impl Into<V>) -> Specification<T> {
        self.compare(Comparison::Ge, value)
    }

    /// From `low` to `high`, both included; unknown where the field is NULL, and false for all
    /// others where `low` is above `high`.
    #[must_use]
    pub fn between(self, low: impl Into<V>, high: impl Into<V>) -> Specification<T> {
        self.clone().ge(low) & self.le(high)
    }

    /// Equal to one of `values`; unknown where the field is NULL.
    ///
    /// Equal to none of no values: with an empty list it is false, also where the field is NULL.
    /// The list is one value to the database, however long it is.
    #[must_use]
    pub fn in_<I>(self, values: I) -> Specification<T>
    where
        I: IntoIterator<Item: Into<V>>,
    {
        let encode = self.encode;
        self.condition(|operand| {
            let values = values.into_iter().map(|value| encode(&value.into()));
            Ok(Predicate::In {
                operand: operand.comparable()?,
                values: values.collect::<Result<_, _>>()?,
            })
        })
    }

    /// Whether the field is NULL. Never unknown.
    #[must_use]
    pub fn is_null(self) -> Specification<T> {
        self.condition(|operand| Ok(Predicate::IsNull { operand }))
    }

    /// Whether the field is not NULL. Never unknown.
    #[must_use]
    pub fn is_not_null(self) -> Specification<T> {
        !self.is_null()
    }

    fn test(self, test: TextTest, text: impl Into<String>) -> Specification<T> {
        self.condition(|operand| {
            if operand.column_type() != ColumnType::Text {
                return Err(ColumnError::WrongType {
                    expected: ColumnType::Text,
                    found: operand.column_type().to_string(),
                });
            }
            Ok(Predicate::Text {
                operand,
                test,
                text: test.check(text.into())?,
            })
        })
    }

    /// Whether the text matches `pattern`; unknown where the field is NULL.
    ///
    /// `%` stands for any characters, also none, `_` for one character (a Unicode scalar value),
    /// and `\` takes the character behind it as it is. Everything else stands for itself; case
    /// counts.
    ///
    /// A pattern with a lone `\` at its end is refused, and so is one of more than 4096 bytes,
    /// with a NUL character, or with one of U+FFFD to U+FFFF, which SQLite does not tell apart in
    /// patterns.
    #[must_use]
    pub fn like(self, pattern: impl Into<String>) -> Specification<T>
    where
        V: TextValue,
    {
        self.test(TextTest::Like, pattern)
    }

    /// Whether the text begins with `text`, in which no character is special; unknown where the
    /// field is NULL.
    #[must_use]
    pub fn starts_with(self, text: impl Into<String>) -> Specification<T>
    where
        V: TextValue,
    {
        self.test(TextTest::StartsWith, text)
    }

    /// Whether the text ends with `text`, in which no character is special; unknown where the
    /// field is NULL.
    #[must_use]
    pub fn ends_with(self, text: impl Into<String>) -> Specification<T>
    where
        V: TextValue,
    {
        self.test(TextTest::EndsWith, text)
    }

    /// Whether `text`, in which no character is special, is part of the text; unknown where the
    /// field is NULL.
    #[must_use]
    pub fn contains(self, text: impl Into<String>) -> Specification<T>
    where
        V: TextValue,
    {
        self.test(TextTest::Contains, text)
    }
}
