//! Subscriptions: who reads the log, from where on, and what is done about failures.

mod each;
mod filter;
mod handler;
mod policy;

use std::fmt;
use std::sync::Arc;

pub use each::{Each, EventHandler};
pub use filter::EventFilter;
pub use policy::{FailurePolicy, Parking, StartAt};

pub(crate) use self::handler::Handler;
use self::handler::Typed;
use crate::bus::{EventBus, Relay};
use crate::envelope::{Envelope, Position, RawPayload};
use crate::error::{Error, Result, StoreErrorKind};
use crate::event::EventSet;
use crate::process::{Handling, ProcessManager};
use crate::projection::{Projection, ProjectionTransaction, Rebuilds, RowProjection, Rows};

/// A consumer of the log with a checkpoint: one or several handlers, and how they are run.
///
/// Its handlers share everything: a page is read once, applied by each in turn, and committed in
/// one transaction with one checkpoint. So they are at the same point of the log, always; and an
/// event that one of them cannot apply is applied by none.
///
/// # Resets
///
/// A store can reset a subscription: what its handlers have written is removed, and it goes back
/// in the log, in one transaction. It keeps a mark at how far it had come. Handlers
/// [with side effects](Projection::has_side_effects) get the events behind the mark alone, so that
/// nothing is published twice.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use cqrs_core::{ConsoleEventBus, FailurePolicy, InMemoryStore, Parking, StartAt, Subscription};
///
/// # fn main() -> cqrs_core::Result<()> {
/// let store = InMemoryStore::new();
/// let parking = Parking::at_most(500).replayed_every(Duration::from_secs(60));
/// store.subscribe_with(
///     Subscription::named("audit trail")
///         .relay(ConsoleEventBus::stdout())
///         .start_at(StartAt::Now)
///         .on_failure(FailurePolicy::Park(parking)),
/// )?;
/// # Ok(())
/// # }
/// ```
pub struct Subscription<T> {
    name: String,
    handlers: Vec<Box<dyn Handler<T>>>,
    filter: EventFilter,
    start: StartAt,
    policy: FailurePolicy,
    segments: u32,
    is_splittable: bool,
    writes_rows_alone: bool,
    rebuilds: Option<Rebuilds>,
    tables: Option<Vec<Rebuilds>>,
    unknown_event_types: Vec<&'static str>,
    /// Whether a process manager has the name of an aggregate that it reads.
    is_ambiguous: bool,
}

impl<T: Send + 'static> Subscription<T> {
    /// The subscription of this projection, under its name.
    pub fn new<P: Projection<T>>(projection: P) -> Self {
        Self::named(projection.name()).projection(projection)
    }

    /// A subscription without handlers.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            handlers: Vec::new(),
            filter: EventFilter::none(),
            start: StartAt::default(),
            policy: FailurePolicy::default(),
            segments: 1,
            is_splittable: true,
            writes_rows_alone: false,
            rebuilds: None,
            tables: Some(Vec::new()),
            unknown_event_types: Vec::new(),
            is_ambiguous: false,
        }
    }

    /// Adds a projection, whose own name is not used.
    #[must_use]
    pub fn projection<P: Projection<T>>(mut self, projection: P) -> Self {
        let filter = EventFilter::of::<T, P>(&projection);
        self.unknown_event_types
            .extend(filter.unknown_to::<P::Event>());
        self.filter = self.filter.or(&filter);
        self.is_splittable &= projection.is_splittable();
        let is_only = self.handlers.is_empty();
        self.rebuilds = projection.rebuilds().filter(|_| is_only);
        self.tables = self.tables.zip(projection.tables()).map(|(mut all, own)| {
            // Two handlers may keep one table.
            own.into_iter().for_each(|one| {
                if !all.contains(&one) {
                    all.push(one);
                }
            });
            all
        });
        self.writes_rows_alone =
            is_only && projection.writes_rows_alone() && !projection.has_side_effects();
        self.handlers.push(Box::new(Typed { projection, filter }));
        self
    }

    /// Adds a read model with one row per key.
    #[must_use]
    pub fn rows(self, projection: impl RowProjection) -> Self
    where
        T: ProjectionTransaction,
    {
        self.projection(Rows(projection))
    }

    /// Adds a handler of single events.
    #[must_use]
    pub fn each(self, handler: impl EventHandler<T>) -> Self {
        self.projection(Each(handler))
    }

    /// Publishes all events to a bus, at least once. After a page that failed its events are
    /// published one by one.
    #[must_use]
    pub fn relay(self, bus: impl EventBus) -> Self {
        self.projection(Relay::new("", bus))
    }

    /// That of a process manager, under its name. For stores, which also do its tasks: users give
    /// the manager to the store.
    pub(crate) fn of_process<P: ProcessManager>(manager: Arc<P>) -> Self
    where
        T: ProjectionTransaction,
    {
        let handling = Handling::new(manager);
        let mut subscription = Self::named(P::NAME);
        let own = P::Event::aggregate_types().unwrap_or_default();
        subscription.is_ambiguous = own.contains(&P::NAME);
        subscription.filter = handling.reads().clone();
        subscription.is_splittable = false;
        subscription.handlers.push(Box::new(handling));
        subscription
    }

    /// Where it begins when it is first registered; at the beginning of the log unless told. One
    /// that has a checkpoint goes on from there.
    #[must_use]
    pub fn start_at(mut self, start: StartAt) -> Self {
        self.start = start;
        self
    }

    /// What becomes of an event that fails also when it is tried again; it halts the subscription
    /// unless told otherwise.
    #[must_use]
    pub fn on_failure(mut self, policy: FailurePolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Splits it when it is first registered: each segment has the events of its share of the
    /// aggregates, and a checkpoint of its own, so that as many workers apply pages at the same
    /// time. One, unless told; at least one.
    ///
    /// Every handler must be [splittable](Projection::is_splittable). Once it is registered, the
    /// number is what the store says. A store in memory has one worker, and one segment.
    #[must_use]
    pub fn segments(mut self, segments: u32) -> Self {
        self.segments = segments.max(1);
        self
    }
}

impl<T> Subscription<T> {
    /// How many segments a subscription has at most.
    pub const MOST_SEGMENTS: u32 = MOST_SEGMENTS;

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The events that it reads.
    #[must_use]
    pub fn filter(&self) -> &EventFilter {
        &self.filter
    }

    /// Whether it reads the events of this aggregate type.
    #[must_use]
    pub fn reads(&self, aggregate_type: &str) -> bool {
        self.filter.reads(aggregate_type)
    }

    /// Whether one of its handlers reads this event.
    #[must_use]
    pub fn wants(&self, event: &Envelope<RawPayload>) -> bool {
        self.handlers
            .iter()
            .any(|handler| handler.filter().wants(event))
    }

    /// Where it begins.
    #[must_use]
    pub fn start(&self) -> StartAt {
        self.start
    }

    /// What becomes of events that fail.
    #[must_use]
    pub fn policy(&self) -> &FailurePolicy {
        &self.policy
    }

    /// How many segments it begins with.
    #[must_use]
    pub fn initial_segments(&self) -> u32 {
        self.segments
    }

    /// Whether it may have several segments.
    #[must_use]
    pub fn is_splittable(&self) -> bool {
        self.is_splittable
    }

    /// Whether one of its handlers acts on the world outside of its transaction, so that a page
    /// that failed is better not tried in parts.
    #[must_use]
    pub fn has_side_effects(&self) -> bool {
        self.handlers
            .iter()
            .any(|handler| handler.has_side_effects())
    }

    /// Whether it has one handler, that [writes rows alone](Projection::writes_rows_alone) and has no
    /// side effects.
    #[must_use]
    pub fn writes_rows_alone(&self) -> bool {
        self.writes_rows_alone
    }

    /// What it keeps, where that can be built anew: the rows of its only handler.
    #[must_use]
    pub fn rebuilds(&self) -> Option<Rebuilds> {
        self.rebuilds
    }

    /// The [tables](Projection::tables) that its handlers keep; `None` where a handler does not say.
    #[must_use]
    pub fn tables(&self) -> Option<&[Rebuilds]> {
        self.tables.as_deref()
    }

    /// Whether it can be run as it is set up.
    ///
    /// # Errors
    ///
    /// `Usage` where it has no handler, where a handler asks for event types that its set does not
    /// have, where it is to be split and a handler is not splittable, or where a process manager has
    /// the name of an aggregate that it reads.
    pub fn check(&self) -> Result<()> {
        let name = &self.name;
        let usage = |message| Err(Error::store(StoreErrorKind::Usage, message));
        if self.handlers.is_empty() {
            return usage(format!("subscription {name:?} has no handler"));
        }
        if let Some(unknown) = self.unknown_event_types.first() {
            return usage(format!(
                "subscription {name:?} asks for event type {unknown:?}, which its handler's events do not have"
            ));
        }
        if self.is_ambiguous {
            return usage(format!(
                "process manager {name:?} has the name of an aggregate that it reads: its deadlines \
                 are in the log under that name"
            ));
        }
        if self.segments > Self::MOST_SEGMENTS {
            return usage(too_many_segments(name));
        }
        if self.segments > 1 && !self.is_splittable {
            return usage(not_splittable(name));
        }
        Ok(())
    }

    /// Decodes a page and applies it. Handlers with side effects get the events behind the mark
    /// alone: how far the subscription had come before its last [reset](Self#resets).
    ///
    /// # Errors
    ///
    /// [`Error::Undecodable`] with the position of the first event that a handler cannot read,
    /// before that handler applied anything; else the error of the handler.
    pub async fn apply(
        &self,
        page: &[Envelope<RawPayload>],
        mark: Position,
        transaction: &mut T,
    ) -> Result<()> {
        for handler in &self.handlers {
            handler.apply(page, mark, transaction).await?;
        }
        Ok(())
    }

    /// Removes everything that its handlers have written, in the transaction of a reset.
    ///
    /// # Errors
    ///
    /// Those of [`Projection::clear`].
    pub async fn clear(&self, transaction: &mut T) -> Result<()> {
        for handler in &self.handlers {
            handler.clear(transaction).await?;
        }
        Ok(())
    }
}

/// Why a subscription cannot have several segments.
const MOST_SEGMENTS: u32 = 1024;

fn too_many_segments(name: &str) -> String {
    format!("subscription {name:?} cannot have more than {MOST_SEGMENTS} segments")
}

pub(crate) fn not_splittable(name: &str) -> String {
    format!(
        "subscription {name:?} cannot have several segments: a handler does not say that it is \
         splittable (`RowProjection::ROW_PER_AGGREGATE`, `Projection::is_splittable`)"
    )
}

impl<T> fmt::Debug for Subscription<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("name", &self.name)
            .field("handlers", &self.handlers.len())
            .field("filter", &self.filter)
            .field("start", &self.start)
            .field("policy", &self.policy)
            .field("segments", &self.segments)
            .finish_non_exhaustive()
    }
}
