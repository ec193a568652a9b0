//! What makes an aggregate an event-sourced one.

use std::fmt;

use serde_json::{Map, Value};

use super::snapshot::{SnapshotPolicy, shape_text};
use crate::aggregate::AggregateRoot;

/// An aggregate whose state is the fold of its events: `#[aggregate(sourced)]`.
///
/// [`apply`](Self::apply) is the only place where its state changes. Methods of the aggregate check
/// the rules, then [`raise`](Self::raise) what happened; loading applies the same events again.
/// Repositories, units of work, tenants, the log, projections and interceptors are those of every
/// other aggregate. It has no table, so there is nothing to query: that is for read models.
///
/// # Example
///
/// ```
/// use cqrs_core::*;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
/// #[event(aggregate = "account")]
/// enum AccountEvent {
///     Opened { owner: String },
///     Deposited { cents: i64 },
/// }
///
/// #[derive(Debug, Clone, Aggregate)]
/// #[aggregate(sourced, event = AccountEvent, tenant)]
/// struct Account {
///     #[aggregate(id)]
///     number: String,
///     #[aggregate(root)]
///     root: Root<AccountEvent>,
///     owner: String,
///     cents: i64,
/// }
///
/// impl Sourced for Account {
///     // Without a `_` arm an event that is not handled does not compile.
///     fn apply(&mut self, event: &AccountEvent) {
///         match event {
///             AccountEvent::Opened { owner } => self.owner.clone_from(owner),
///             AccountEvent::Deposited { cents } => self.cents += cents,
///         }
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// let store = InMemoryStore::new();
/// let context = RequestContext::tenant(TenantId::new("north")?);
/// store
///     .execute(&context, async |uow| {
///         let mut account = Account::blank("A1".to_owned());
///         account.raise(AccountEvent::Opened { owner: "Kim".to_owned() });
///         account.raise(AccountEvent::Deposited { cents: 250 });
///         uow.save(account)
///     })
///     .await?;
/// let account = store.read(&context, async |uow| uow.get::<Account>("A1".to_owned()).await).await?;
/// assert_eq!((account.owner.as_str(), account.cents), ("Kim", 250));
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say how an event changes it",
    note = "write `impl Sourced for {Self} {{ fn apply(&mut self, event: &...) {{ match event {{ ... }} }} }}`; an aggregate without `#[aggregate(sourced)]` has none"
)]
pub trait Sourced: SourcedState {
    /// Changes the state by an event, which has happened: it cannot be refused, and nothing but the
    /// state may change. One that raises events, or changes the id, is an error of the save and of
    /// the load.
    ///
    /// Match on the event without a `_` arm: then a variant that is not handled does not compile.
    /// `#[deny(clippy::wildcard_enum_match_arm)]` on the `impl` has clippy refuse such an arm. Nothing
    /// else does: an event that changes nothing may be meant to.
    fn apply(&mut self, event: &Self::Event);

    /// Whether the aggregate is removed with this event; no event says so unless told.
    ///
    /// A removal has a marker of its own in the log, so this is for aggregates that were rows before
    /// and were removed [in bulk](crate::Maintain) with an event in its place, or with an event before
    /// 0.1.0, behind which there was no marker.
    #[must_use]
    fn is_removal(_event: &Self::Event) -> bool {
        false
    }

    /// Applies an event and records it, to be written in the commit that saves the aggregate.
    ///
    /// [`Root::raise`](crate::Root::raise) would record it alone; a save refuses such events.
    fn raise(&mut self, event: Self::Event) {
        let (id, raised) = (self.id().clone(), self.root().raised().len());
        self.apply(&event);
        if *self.id() != id || self.root().raised().len() != raised {
            self.root_mut().misapplied();
        }
        self.root_mut().raise_applied(event);
    }
}

/// What the derive writes for a [`Sourced`] aggregate.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not event-sourced",
    note = "write `#[aggregate(sourced, ...)]` on it"
)]
pub trait SourcedState: AggregateRoot {
    /// How its snapshots are made; `None` where it has none.
    #[doc(hidden)]
    const SNAPSHOTS: Option<SnapshotCodec<Self>> = None;

    /// The aggregate before its first event: with this id, and every other field at its default.
    fn blank(id: Self::Id) -> Self;
}

/// An aggregate that is stored as a row, and so can be queried: every one without
/// `#[aggregate(sourced)]`. Its derive implements it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is event-sourced: it has no rows that could be queried",
    label = "has no rows",
    note = "load it by its id; for queries keep a read model of its events with a projection"
)]
pub trait StateStored: AggregateRoot {}

/// The typed fields of an event-sourced aggregate: there are none, since it has no columns. Query a
/// read model of its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoColumns;

/// How an event-sourced aggregate is made of its events, for authors of stores.
pub struct Sourcing<A: AggregateRoot> {
    pub(super) blank: fn(A::Id) -> A,
    pub(super) apply: fn(&mut A, &A::Event),
    pub(super) is_removal: fn(&A::Event) -> bool,
    pub(super) snapshots: Option<SnapshotCodec<A>>,
}

impl<A: Sourced> Sourcing<A> {
    /// That of an aggregate.
    pub(crate) const fn of() -> Self {
        Self {
            blank: A::blank,
            apply: A::apply,
            is_removal: A::is_removal,
            snapshots: A::SNAPSHOTS,
        }
    }
}

impl<A: AggregateRoot> Sourcing<A> {
    /// Applies an event.
    pub(crate) fn apply(&self, aggregate: &mut A, event: &A::Event) {
        (self.apply)(aggregate, event);
    }

    /// The shape that a snapshot must have to be read; `None` where it has no snapshots.
    #[must_use]
    pub fn shape(&self) -> Option<String> {
        let codec = self.snapshots.as_ref()?;
        Some(shape_text(codec.shape))
    }
}

impl<A: AggregateRoot> fmt::Debug for Sourcing<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sourcing").finish_non_exhaustive()
    }
}

/// How the state of an aggregate becomes a snapshot, and is read back; what the derive writes.
#[doc(hidden)]
pub struct SnapshotCodec<A: AggregateRoot> {
    /// When one is made.
    pub policy: SnapshotPolicy,
    /// What the aggregate is: one with another shape is not read.
    pub shape: u64,
    /// The fields besides id and root.
    pub write: fn(&A) -> serde_json::Result<Map<String, Value>>,
    /// The aggregate of an id and of those fields.
    pub read: fn(A::Id, &Map<String, Value>) -> serde_json::Result<A>,
}

impl<A: AggregateRoot> fmt::Debug for SnapshotCodec<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotCodec")
            .field("policy", &self.policy)
            .field("shape", &self.shape)
            .finish_non_exhaustive()
    }
}
