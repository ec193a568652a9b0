//! Aggregates whose table has another shape than they have.

use std::fmt::Display;

use super::Record;
use crate::aggregate::{AggregateRoot, Root};

/// The conversion between an aggregate and its row struct.
///
/// Most aggregates need none: their fields are their columns. Where the table has another shape,
/// because it is older than the aggregate or shared with others, give it a struct of its own that
/// derives [`Record`](derive@crate::Record), name it in `#[mapper(row = RoutePlanRow)]`, and
/// implement this trait for it. Its key is the id of the aggregate. The framework's columns (version, tenant, audit) are not part of
/// the row struct; they come and go with the [`Root`].
///
/// # Example
///
/// ```
/// use cqrs_core::{Aggregate, DomainEvent, Id, Record, Root, mapping::RowMapper};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Serialize, Deserialize, DomainEvent)]
/// #[event(aggregate = "parcel")]
/// enum ParcelEvent {
///     Weighed { grams: u32 },
/// }
///
/// #[derive(Clone, Aggregate)]
/// #[aggregate(table = "parcel", event = ParcelEvent)]
/// #[mapper(row = ParcelRow)]
/// struct Parcel {
///     #[aggregate(id)]
///     id: Id<Parcel>,
///     #[aggregate(root)]
///     root: Root<ParcelEvent>,
///     grams: u32,
/// }
///
/// #[derive(Record)]
/// struct ParcelRow {
///     #[record(key)]
///     id: Id<Parcel>,
///     kilograms: f64,
/// }
///
/// impl RowMapper<Parcel> for ParcelRow {
///     type Error = String;
///
///     fn from_aggregate(parcel: &Parcel) -> Self {
///         Self { id: parcel.id, kilograms: f64::from(parcel.grams) / 1000.0 }
///     }
///
///     fn into_aggregate(self, root: Root<ParcelEvent>) -> Result<Parcel, String> {
///         if self.kilograms < 0.0 {
///             return Err(format!("a parcel of {} kg", self.kilograms));
///         }
///         Ok(Parcel { id: self.id, root, grams: (self.kilograms * 1000.0).round() as u32 })
///     }
/// }
///
/// assert_eq!(Parcel::fields().kilograms.column(), "kilograms");
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not the row struct of `{A}`",
    note = "implement `RowMapper<{A}>` for `{Self}`, which says how one becomes the other"
)]
pub trait RowMapper<A: AggregateRoot>: Record<Key = <A as AggregateRoot>::Id> {
    /// Why a row is no aggregate. Use [`Infallible`](std::convert::Infallible) where every row is
    /// one.
    type Error: Display;

    /// The row of an aggregate.
    fn from_aggregate(aggregate: &A) -> Self;

    /// The aggregate of a row, with the `root` that was read from the framework's columns.
    ///
    /// # Errors
    ///
    /// Where the row breaks a rule of the aggregate. The caller gets it as a
    /// [`MappingError`](super::MappingError) that names the table.
    fn into_aggregate(self, root: Root<A::Event>) -> Result<A, Self::Error>;
}
