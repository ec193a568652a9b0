//! Units of work.

use std::future::Future;

use uuid::Uuid;

use crate::aggregate::AggregateRoot;
use crate::context::RequestContext;
use crate::envelope::Position;
use crate::error::{Error, Result};
use crate::hooks::Hooks;
use crate::idempotency::{IdempotencyKey, RecordedReceipt};
use crate::process::ProcessTask;
use crate::repository::{EventHistory, Repository};
use crate::sourced::{Decide, StateStored};
use crate::specification::Query;
use crate::staging::StagedWrite;
use crate::store::{BoxFuture, WorkOnce};

/// A set of changes that are committed together or not at all, with the events that tell of them.
///
/// It is lazy: it holds no connection until it needs one, and `save` and `remove` only stage.
/// Dropping it without a commit forgets what was staged and rolls back what was sent.
///
/// The shortcuts [`get`](Self::get), [`query`](Self::query), [`save`](Self::save),
/// [`guard`](Self::guard) and [`remove`](Self::remove) call the repository of the aggregate's type.
pub trait UnitOfWork: Send + 'static {
    /// The repository of an aggregate type.
    type Repository<'u, A: AggregateRoot>: Repository<A> + EventHistory<A>
    where
        Self: 'u;

    /// The context it works in.
    fn context(&self) -> &RequestContext;

    /// The repository of an aggregate type.
    fn repository<A: AggregateRoot>(&mut self) -> Self::Repository<'_, A>;

    /// Commits what was staged, after the [hooks before the commit](Self::before_commit).
    ///
    /// # Transaction
    ///
    /// Where one aggregate was staged and nothing was sent before, the commit is one statement in
    /// a transaction of its own. Else it ends the transaction of the unit of work.
    ///
    /// # Errors
    ///
    /// [`Conflict`](crate::Error::Conflict) where an aggregate, written or [guarded](Self::guard), is
    /// no longer at the version it was loaded at, [`NotFound`](crate::Error::NotFound) where it is gone,
    /// [`AlreadyExists`](crate::Error::AlreadyExists) where a new one's id is taken,
    /// [`Store`](crate::Error::Store) where the store fails, a
    /// [`Usage`](crate::StoreErrorKind::Usage) error of a [read-only](crate::Store::read_only) one
    /// and of one with an open savepoint, and the error of a hook before the commit. Where several
    /// writes would be refused, it is not defined which of them the error names. After every error nothing is
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

    /// Runs `work` such that, where it fails, what it has done in this unit of work is undone and
    /// the rest stays: the caller may go on after the error.
    ///
    /// ```
    /// # use cqrs_core::*;
    /// # async fn reserve<U: UnitOfWork>(uow: &mut U, truck: u32) -> Result<()> { Ok(()) }
    /// async fn reserve_one_of<U: UnitOfWork>(uow: &mut U, trucks: &[u32]) -> Result<Option<u32>> {
    ///     for truck in trucks {
    ///         let reserved = uow.savepoint(async |uow| reserve(uow, *truck).await).await;
    ///         match reserved {
    ///             Ok(()) => return Ok(Some(*truck)),
    ///             Err(error) if error.is_conflict() => {}
    ///             Err(error) => return Err(error),
    ///         }
    ///     }
    ///     Ok(None)
    /// }
    /// ```
    ///
    /// What it stages is sent before it ends, so that a conflict is its error and not that of the
    /// commit. Savepoints may be nested.
    ///
    /// # Transaction
    ///
    /// It opens the transaction of the unit of work, sends what is staged, and sets a savepoint:
    /// two statements more than without it, and one to end it.
    ///
    /// # Errors
    ///
    /// The error of `work`, and those of [`commit`](Self::commit) for what it has staged. Where
    /// the connection is lost, or what was staged before the savepoint is refused, that is the error
    /// and the whole unit of work has failed.
    ///
    /// # Cancel safety
    ///
    /// Where the future is dropped before it is ready, the unit of work can only be rolled back:
    /// its commit is a [`Usage`](crate::StoreErrorKind::Usage) error, and writes nothing.
    fn savepoint<'s, T, F>(&'s mut self, work: F) -> BoxFuture<'s, Result<T>>
    where
        Self: Sized,
        T: Send + 's,
        F: AsyncFnOnce(&mut Self) -> Result<T> + for<'u> WorkOnce<'u, Self, T> + Send + 's,
    {
        Box::pin(async move {
            self.begin_savepoint().await?;
            let result = match work.run_once(&mut *self).await {
                Ok(output) => self.release_savepoint().await.map(|()| output),
                Err(error) => Err(error),
            };
            let Err(error) = result else { return result };
            match self.roll_back_savepoint().await {
                // The unit of work is lost, and the caller must not take it for the work's error.
                Err(lost) if lost.is_retryable() && !error.is_retryable() => Err(lost),
                _ => Err(error),
            }
        })
    }

    /// Opens a savepoint, for authors of backends; users call [`savepoint`](Self::savepoint).
    ///
    /// # Errors
    ///
    /// As [`savepoint`](Self::savepoint).
    fn begin_savepoint(&mut self) -> impl Future<Output = Result<()>> + Send;

    /// Sends what was staged since the innermost savepoint, and forgets that savepoint.
    ///
    /// # Errors
    ///
    /// As [`savepoint`](Self::savepoint); the savepoint is open then, and must be rolled back.
    fn release_savepoint(&mut self) -> impl Future<Output = Result<()>> + Send;

    /// Undoes what was done since the innermost savepoint, and forgets that savepoint.
    ///
    /// # Errors
    ///
    /// [`Store`](crate::Error::Store); the whole unit of work has failed then.
    fn roll_back_savepoint(&mut self) -> impl Future<Output = Result<()>> + Send;

    /// Its hooks, for authors of backends.
    fn hooks(&mut self) -> &mut Hooks<Self>
    where
        Self: Sized;

    /// Has `hook` run at the beginning of the commit: a last check of the whole, or one more
    /// write that follows from the others. It may read, stage and add hooks; where it fails,
    /// nothing is committed. Hooks run in the order in which they were added; those of a
    /// [savepoint](Self::savepoint) that is undone do not run.
    ///
    /// ```
    /// # use cqrs_core::*;
    /// # fn example<U: UnitOfWork>(uow: &mut U) {
    /// uow.before_commit(async |uow| {
    ///     tracing::debug!(actor = uow.context().actor(), "committing");
    ///     Ok(())
    /// });
    /// # }
    /// ```
    fn before_commit<F>(&mut self, hook: F)
    where
        Self: Sized,
        F: AsyncFnOnce(&mut Self) -> Result<()> + for<'u> WorkOnce<'u, Self, ()> + Send + 'static,
    {
        self.hooks()
            .add_before(Box::new(move |uow| Box::pin(hook.run_once(uow))));
    }

    /// Has `hook` run after the commit, with its receipt: to wake someone, to drop a cache entry.
    /// It does not run where the commit fails.
    ///
    /// What must not be lost belongs to a projection or relay: when the process ends between
    /// commit and hook, the hook never runs. It runs before [`commit`](Self::commit) returns, so
    /// it should be short. A panic in it is the caller's; the commit stands.
    fn after_commit<F>(&mut self, hook: F)
    where
        Self: Sized,
        F: FnOnce(&CommitReceipt) + Send + 'static,
    {
        self.hooks().add_after(Box::new(hook));
    }

    /// Takes a task of a process manager out of the store in the commit of this unit of work, which
    /// appends the event of the task, if it has one. `false`: somebody else has done it, or is about
    /// to. For authors of backends.
    ///
    /// # Errors
    ///
    /// [`Store`](crate::Error::Store) where the store fails.
    fn finish_task(
        &mut self,
        task: &ProcessTask,
        event: Option<StagedWrite>,
    ) -> impl Future<Output = Result<bool>> + Send;

    /// What a commit has recorded under a key in the scope of this unit of work, for
    /// [`execute_once`](crate::Store::execute_once).
    ///
    /// # Errors
    ///
    /// [`Store`](crate::Error::Store) where the store fails.
    fn recorded(
        &mut self,
        key: &IdempotencyKey,
    ) -> impl Future<Output = Result<Option<RecordedReceipt>>> + Send;

    /// Has the commit record its receipt under a key, with this output.
    ///
    /// The commit fails with [`IdempotencyKey::taken`] where the key is recorded already.
    ///
    /// # Errors
    ///
    /// A [`Usage`](crate::StoreErrorKind::Usage) error where it has a key already.
    fn record(&mut self, key: &IdempotencyKey, output: String) -> Result<()>;

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
    fn query<A: StateStored>(
        &mut self,
        query: Query<A>,
    ) -> impl Future<Output = Result<Vec<A>>> + Send {
        async move { self.repository::<A>().query(query).await }
    }

    /// Loads an event-sourced aggregate, has it [decide](Decide) a command, and stages it.
    ///
    /// # Errors
    ///
    /// That of the decision, and as [`Repository::get`] and [`Repository::save`].
    fn decide<A, C>(&mut self, id: A::Id, command: C) -> impl Future<Output = Result<()>> + Send
    where
        A: Decide<C>,
        C: Send,
        Error: From<A::Error>,
    {
        async move {
            let mut aggregate = self.get::<A>(id).await?;
            aggregate.execute(command)?;
            self.save(aggregate)
        }
    }

    /// Has a new event-sourced aggregate [decide](Decide) its first command, and stages it. No I/O:
    /// whether the id is free, the commit finds out.
    ///
    /// # Errors
    ///
    /// That of the decision, and as [`Repository::save`].
    fn decide_new<A, C>(&mut self, id: A::Id, command: C) -> Result<()>
    where
        A: Decide<C>,
        Error: From<A::Error>,
    {
        let mut aggregate = A::blank(id);
        aggregate.execute(command)?;
        self.save(aggregate)
    }

    /// Stages an aggregate. See [`Repository::save`].
    ///
    /// # Errors
    ///
    /// As [`Repository::save`].
    fn save<A: AggregateRoot>(&mut self, aggregate: A) -> Result<()> {
        self.repository::<A>().save(aggregate)
    }

    /// Guards an aggregate that is only read. See [`Repository::guard`].
    ///
    /// # Errors
    ///
    /// As [`Repository::guard`].
    fn guard<A: AggregateRoot>(&mut self, aggregate: &A) -> Result<()> {
        self.repository::<A>().guard(aggregate)
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
