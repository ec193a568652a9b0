//! Units of work.

use std::future::Future;

use uuid::Uuid;

use crate::aggregate::AggregateRoot;
use crate::context::RequestContext;
use crate::envelope::Position;
use crate::error::Result;
use crate::repository::Repository;
use crate::specification::Query;

/// A set of changes that are committed together or not at all, with the events that tell of them.
///
/// It is lazy: it holds no connection until it needs one, and `save` and `remove` only stage.
/// Dropping it without a commit forgets what was staged and rolls back what was sent.
///
/// The shortcuts [`get`](Self::get), [`query`](Self::query), [`save`](Self::save) and [`remove`](Self::remove) call the
/// repository of the aggregate's type.
pub trait UnitOfWork: Send {
    /// The repository of an aggregate type.
    type Repository<'u, A: AggregateRoot>: Repository<A>
    where
        Self: 'u;

    /// The context it works in.
    fn context(&self) -> &RequestContext;

    /// The repository of an aggregate type.
    fn repository<A: AggregateRoot>(&mut self) -> Self::Repository<'_, A>;

    /// Commits what was staged.
    ///
    /// # Transaction
    ///
    /// Where one aggregate was staged and nothing was sent before, the commit is one statement in
    /// a transaction of its own. Else it ends the transaction of the unit of work.
    ///
    /// # Errors
    ///
    /// [`Conflict`](crate::Error::Conflict) where an aggregate is no longer at the version it was
    /// loaded at, [`NotFound`](crate::Error::NotFound) where it is gone,
    /// [`AlreadyExists`](crate::Error::AlreadyExists) where a new one's id is taken,
    /// [`Store`](crate::Error::Store) where the store fails. Where several writes would be
    /// refused, it is not defined which of them the error names. After every error nothing is
    /// committed, except after
    /// [`OutcomeUnknown`](crate::StoreErrorKind::OutcomeUnknown).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future before it is ready leaves it open whether the commit happened, as with
    /// every database; nothing is ever half committed.
    fn commit(self) -> impl Future<Output = Result<CommitReceipt>> + Send
    where
        Self: Sized;

    /// Forgets what was staged and rolls back what was sent.
    ///
    /// Dropping the unit of work does the same; this gives its connection back in good order.
    fn rollback(self) -> impl Future<Output = ()> + Send
    where
        Self: Sized,
    {
        async move { drop(self) }
    }

    /// Loads an aggregate. See [`Repository::get`].
    ///
    /// # Errors
    ///
    /// As [`Repository::get`].
    fn get<A: AggregateRoot>(&mut self, id: A::Id) -> impl Future<Output = Result<A>> + Send {
        async move { self.repository::<A>().get(id).await }
    }

    /// Loads the aggregates that a query selects. See [`Repository::query`].
    ///
    /// # Errors
    ///
    /// As [`Repository::query`].
    fn query<A: AggregateRoot>(
        &mut self,
        query: Query<A>,
    ) -> impl Future<Output = Result<Vec<A>>> + Send {
        async move { self.repository::<A>().query(query).await }
    }

    /// Stages an aggregate. See [`Repository::save`].
    ///
    /// # Errors
    ///
    /// As [`Repository::save`].
    fn save<A: AggregateRoot>(&mut self, aggregate: A) -> Result<()> {
        self.repository::<A>().save(aggregate)
    }

    /// Stages a removal. See [`Repository::remove`].
    ///
    /// # Errors
    ///
    /// As [`Repository::remove`].
    fn remove<A: AggregateRoot>(&mut self, aggregate: A) -> Result<()> {
        self.repository::<A>().remove(aggregate)
    }
}

/// What a commit wrote: proof that it is durable, and the place in the log to wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitReceipt<T = ()> {
    output: T,
    events: Vec<Uuid>,
    position: Option<Position>,
}

impl CommitReceipt {
    /// The receipt of a commit that appended these events, the last at `position`.
    pub fn new(events: Vec<Uuid>, position: Option<Position>) -> Self {
        Self {
            output: (),
            events,
            position,
        }
    }

    /// Adds what the work returned.
    pub fn with_output<T>(self, output: T) -> CommitReceipt<T> {
        CommitReceipt {
            output,
            events: self.events,
            position: self.position,
        }
    }
}

impl<T> CommitReceipt<T> {
    /// What the work returned.
    #[must_use]
    pub fn output(&self) -> &T {
        &self.output
    }

    /// What the work returned, owned.
    #[must_use]
    pub fn into_output(self) -> T {
        self.output
    }

    /// The ids of the events, in the order in which the work staged them. Empty where nothing was
    /// written.
    #[must_use]
    pub fn events(&self) -> &[Uuid] {
        &self.events
    }

    /// The highest position of the events; `None` where nothing was written.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.position
    }
}
