//! Typed identities.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::mapping::{ColumnError, ColumnType, ColumnValue, RowSource, Value};

/// What can be the identity of an aggregate.
///
/// The event log holds it as text, by `Display`; `FromStr` must read that text back to an equal
/// value. An id is unique within its aggregate type over all tenants, and is never used again
/// after its aggregate was removed.
pub trait AggregateId:
    ColumnValue + Clone + Eq + Hash + fmt::Display + fmt::Debug + FromStr + Send + Sync + 'static
{
}

impl<T> AggregateId for T where
    T: ColumnValue
        + Clone
        + Eq
        + Hash
        + fmt::Display
        + fmt::Debug
        + FromStr
        + Send
        + Sync
        + 'static
{
}

/// A UUID that knows what it identifies: an `Id<Order>` is no `Id<Customer>`.
///
/// New ones are version 7 (RFC 9562), which sort by the time of their making and so keep index
/// inserts at the right edge.
///
/// # Example
///
/// ```
/// use cqrs_core::Id;
///
/// struct Order;
/// type OrderId = Id<Order>;
///
/// let id = OrderId::new();
/// assert_eq!(id.to_string().parse::<OrderId>()?, id);
/// # Ok::<(), cqrs_core::ParseIdError>(())
/// ```
pub struct Id<T: ?Sized> {
    uuid: Uuid,
    of: PhantomData<fn() -> Box<T>>,
}

impl<T: ?Sized> Id<T> {
    /// A new id, of now.
    #[expect(clippy::new_without_default, reason = "no two are alike")]
    #[must_use]
    pub fn new() -> Self {
        Self::from_uuid(Uuid::now_v7())
    }

    /// The id with this UUID.
    #[must_use]
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self {
            uuid,
            of: PhantomData,
        }
    }

    /// Its UUID.
    #[must_use]
    pub const fn uuid(self) -> Uuid {
        self.uuid
    }
}

impl<T: ?Sized> Clone for Id<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: ?Sized> Copy for Id<T> {}

impl<T: ?Sized> PartialEq for Id<T> {
    fn eq(&self, other: &Self) -> bool {
        self.uuid == other.uuid
    }
}

impl<T: ?Sized> Eq for Id<T> {}

impl<T: ?Sized> PartialOrd for Id<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: ?Sized> Ord for Id<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.uuid.cmp(&other.uuid)
    }
}

impl<T: ?Sized> Hash for Id<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.uuid.hash(state);
    }
}

impl<T: ?Sized> fmt::Debug for Id<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Id({})", self.uuid)
    }
}

impl<T: ?Sized> fmt::Display for Id<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uuid.fmt(f)
    }
}

/// Text that is no [`Id`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a UUID: {0:?}")]
pub struct ParseIdError(String);

impl<T: ?Sized> FromStr for Id<T> {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text)
            .map(Self::from_uuid)
            .map_err(|_| ParseIdError(text.to_owned()))
    }
}

impl<T: ?Sized> Serialize for Id<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.uuid.serialize(serializer)
    }
}

impl<'de, T: ?Sized> Deserialize<'de> for Id<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Uuid::deserialize(deserializer).map(Self::from_uuid)
    }
}

impl<T: ?Sized> ColumnValue for Id<T> {
    const TYPE: ColumnType = ColumnType::Uuid;
    type Plain = Self;

    fn to_value(&self) -> Result<Value, ColumnError> {
        Ok(Value::Uuid(self.uuid))
    }

    fn read_column<R: RowSource + ?Sized>(
        row: &R,
        index: usize,
    ) -> Result<Option<Self>, ColumnError> {
        Ok(row.read_uuid(index)?.map(Self::from_uuid))
    }
}
