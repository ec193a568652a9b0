//! What the code emitted by the derives calls. Not part of the public interface.

use std::fmt::Display;

pub use chrono::{DateTime, Utc};

pub use crate::panics::catch_panic;
pub use crate::sourced::{NoColumns, SnapshotCodec, SnapshotPolicy, Sourcing};

/// The fields of an aggregate in a snapshot.
pub type SnapshotFields = serde_json::Map<String, serde_json::Value>;

/// How an event-sourced aggregate is made of its events.
#[must_use]
pub const fn sourcing<A: crate::Sourced>() -> Sourcing<A> {
    Sourcing::of()
}

use crate::aggregate::{AggregateRoot, Root};
use crate::envelope::{Envelope, RawPayload};
use crate::event::{DomainEvent, EventSet};
use crate::mapping::{
    Child, Column, ColumnError, ColumnValue, Columns, MappingError, RowCursor, RowMapper,
    RowSource, RowWriter, Table, Value,
};
use crate::payload::PayloadError;
use crate::specification::Field;
pub use crate::upcast::lift;

/// Reads a column of type `C` and converts it: `#[mapper(with = module, as = C)]`.
pub fn read_with<R, C, T, E>(
    row: &mut RowCursor<'_, R>,
    from_column: impl FnOnce(C) -> Result<T, E>,
) -> Result<T, MappingError>
where
    R: RowSource + ?Sized,
    C: ColumnValue,
    E: Display,
{
    let column = row.next::<C>()?;
    from_column(column).map_err(|error| row.error(ColumnError::invalid(error)))
}

/// As [`read_with`], NULL is `None`.
pub fn read_optional_with<R, C, T, E>(
    row: &mut RowCursor<'_, R>,
    from_column: impl FnOnce(C) -> Result<T, E>,
) -> Result<Option<T>, MappingError>
where
    R: RowSource + ?Sized,
    C: ColumnValue,
    E: Display,
{
    match row.next::<Option<C>>()? {
        Some(column) => from_column(column)
            .map(Some)
            .map_err(|error| row.error(ColumnError::invalid(error))),
        None => Ok(None),
    }
}

/// The column value of a field.
pub fn encode<T>(
    value: &T,
    encode: impl FnOnce(&T) -> Result<Value, ColumnError>,
) -> Result<Value, ColumnError> {
    encode(value)
}

/// The column value of an optional field; `None` is NULL.
pub fn encode_optional<T>(
    value: Option<&T>,
    encode: impl FnOnce(&T) -> Result<Value, ColumnError>,
) -> Result<Value, ColumnError> {
    value.map_or(Ok(Value::Null), encode)
}

/// Moves past the tenant column of a read model, which the row struct does not hold.
pub fn skip_tenant<R: RowSource + ?Sized>(row: &mut RowCursor<'_, R>) -> Result<(), MappingError> {
    row.next::<String>().map(drop)
}

/// The stored form of a fieldless enum's variant.
#[must_use]
pub fn name_value(name: &str) -> Value {
    Value::Text(name.to_owned())
}

/// The error for a stored name that is none of the enum's.
#[must_use]
pub fn unknown_name(type_name: &str, found: &str, known: &[&str]) -> ColumnError {
    ColumnError::invalid(format!(
        "{found:?} is not a {type_name}; known are {}",
        known.join(", ")
    ))
}

/// Reads a row through the row struct of an aggregate.
pub fn read_mapped<A, M, R>(row: &mut RowCursor<'_, R>) -> Result<A, MappingError>
where
    A: AggregateRoot,
    M: RowMapper<A>,
    R: RowSource + ?Sized,
{
    let root = Root::read(row)?;
    let record = M::read(row)?;
    record.into_aggregate(root).map_err(|error| MappingError {
        table: row.table().name().to_owned(),
        column: "(the row as a whole)".to_owned(),
        reason: ColumnError::invalid(error),
    })
}

/// An unsigned integer that can limit a finder's rows.
#[diagnostic::on_unimplemented(
    message = "a limit is an unsigned integer, not `{Self}`",
    label = "not a number of rows",
    note = "make it `u32` or `u64`; a parameter of a finder that is no limit needs another name than `limit`"
)]
pub trait RowLimit {
    /// The number of rows.
    fn rows(self) -> u64;
}

macro_rules! row_limits {
    ($($type:ty),*) => {$(
        impl RowLimit for $type {
            fn rows(self) -> u64 {
                u64::from(self)
            }
        }
    )*};
}

row_limits!(u8, u16, u32, u64);

impl RowLimit for usize {
    fn rows(self) -> u64 {
        u64::try_from(self).unwrap_or(u64::MAX)
    }
}

/// The number of rows that `limit` stands for.
#[must_use]
pub fn rows<L: RowLimit>(limit: L) -> u64 {
    limit.rows()
}

/// The values of children in a table of theirs.
pub fn child_rows<C: Child>(
    table: &'static Table,
    children: &[C],
) -> Result<Vec<Vec<Value>>, MappingError> {
    let row = |child: &C| {
        let mut row = RowWriter::new(table);
        child.write(&mut row)?;
        Ok(row.finish())
    };
    children.iter().map(row).collect()
}

/// The column of `T`'s table with the name that `prefix` and `name` make.
#[must_use]
pub fn column_of<T: Columns>(prefix: &str, name: &str) -> &'static str {
    let is_it = |column: &&str| column.strip_prefix(prefix) == Some(name);
    let mut columns = T::columns().iter().map(Column::name);
    match columns.find(is_it) {
        Some(column) => column,
        None => unreachable!("a value object's column {prefix}{name} is in the table"),
    }
}

/// A value of the field's type: a number without a type takes it.
pub fn value_of<T, V, P>(_: Field<T, V, P>, value: V) -> V {
    value
}

/// Adds a field to a snapshot.
pub fn snapshot_put<T: serde::Serialize>(
    state: &mut SnapshotFields,
    field: &str,
    value: &T,
) -> serde_json::Result<()> {
    state.insert(field.to_owned(), serde_json::to_value(value)?);
    Ok(())
}

/// Reads a field of a snapshot. What is not there is an error of serde's, unless the type has
/// something to say for it, as `Option` has.
pub fn snapshot_get<T: serde::de::DeserializeOwned>(
    state: &SnapshotFields,
    field: &str,
) -> serde_json::Result<T> {
    T::deserialize(state.get(field).unwrap_or(&serde_json::Value::Null))
}

/// The shape of an aggregate with fields that have this hash.
#[must_use]
pub const fn snapshot_shape<A: AggregateRoot>(fields: u64) -> u64 {
    crate::sourced::shape(fields, <A::Event as DomainEvent>::EVENT_TYPES)
}

/// The error of reading a row as an event-sourced aggregate, which has none.
pub fn no_rows<R: RowSource + ?Sized>(row: &RowCursor<'_, R>) -> MappingError {
    row.error(ColumnError::invalid(
        "an event-sourced aggregate has no rows",
    ))
}

/// What a variant of an event set holds.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no member of an event set",
    label = "not the events of one aggregate",
    note = "a variant holds a type that derives `DomainEvent`, itself: no box and no other set, whose members go here"
)]
pub trait SetMember: Sized {
    /// The type of its aggregate.
    const AGGREGATE: &'static str;

    /// Whether there is such an event type.
    fn has(event_type: &str) -> bool;

    /// The other names of an event type.
    fn names(event_type: &str) -> Vec<&'static str>;

    /// An event, as one of the set.
    fn read<S>(
        raw: &Envelope<RawPayload>,
        of_set: impl FnOnce(Self) -> S,
    ) -> Result<Option<S>, PayloadError>;
}

#[diagnostic::do_not_recommend]
impl<E: DomainEvent> SetMember for E {
    const AGGREGATE: &'static str = E::AGGREGATE_TYPE;

    fn has(event_type: &str) -> bool {
        E::may_hold(event_type)
    }

    fn names(event_type: &str) -> Vec<&'static str> {
        E::other_names(event_type)
    }

    fn read<S>(
        raw: &Envelope<RawPayload>,
        of_set: impl FnOnce(Self) -> S,
    ) -> Result<Option<S>, PayloadError> {
        E::decode(raw).map(|event| event.map(of_set))
    }
}

/// Whether these are the types of two aggregates. Events that did not compile have none.
#[must_use]
pub const fn are_two_aggregates(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    if one.len() != other.len() || one.is_empty() {
        return true;
    }
    let mut at = 0;
    while at < one.len() {
        if one[at] != other[at] {
            return true;
        }
        at += 1;
    }
    false
}
