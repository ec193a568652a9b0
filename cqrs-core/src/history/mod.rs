//! The history of changes of aggregates that are stored as rows: `#[aggregate(history)]`.
//!
//! Each commit that changes such an aggregate keeps a [`Revision`] of it, in the same transaction:
//! who did what, when and within which request, and the aggregate as it was then, with its
//! children. [`EventHistory`](crate::EventHistory) reads them, within the tenant scope.
//!
//! What is here besides is for authors of stores: what a revision is in a store
//! ([`StoredRevision`], [`Image`]), and what is made of those that were found.

mod difference;
mod image;
mod revision;

pub use self::difference::FieldChange;
pub use self::image::Image;
pub use self::revision::{Forgotten, Revision, RevisionKind, StoredRevision};
pub use crate::specification::VersionPaging;

use crate::aggregate::AggregateRoot;
use crate::error::Error;
use crate::sourced::{SourcedState, StateStored};

/// An aggregate whose past states can be loaded: one that is event-sourced, or has
/// `#[aggregate(history)]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is stored only as it is now",
    label = "its past states are not kept",
    note = "write `#[aggregate(history, ...)]` on it, or make it event-sourced"
)]
pub trait Historic: AggregateRoot {}

impl<A: SourcedState> Historic for A {}

/// An aggregate that is stored as a row and keeps a [`Revision`] of each change:
/// `#[aggregate(history)]`. Its derive implements it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` keeps no history",
    label = "no revisions are kept of it",
    note = "write `#[aggregate(history, ...)]` on it; an event-sourced aggregate has its events instead"
)]
pub trait KeepsHistory: StateStored + Historic {}

/// The error of a time or version that the history does not reach back to.
#[must_use]
pub fn not_kept<A: AggregateRoot>(id: &A::Id) -> Error {
    Error::NotInHistory {
        aggregate: A::TYPE,
        id: id.to_string(),
    }
}
