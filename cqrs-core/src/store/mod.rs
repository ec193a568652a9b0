//! Stores: where units of work and read models come from.

mod batches;
mod execute;
mod inbox;
pub(crate) mod nesting;
mod retry;
mod work;

pub use batches::{BatchError, BatchReceipt};
pub use inbox::{Delivery, Inbox};
pub use nesting::StoreId;
#[cfg(feature = "cache")]
pub(crate) use nesting::is_working;
pub use retry::RetryPolicy;
pub use work::{ItemWork, Work, WorkOnce};

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use self::execute::{Attempt, Outcome, run};
use self::execute::{Command, Once, Reading};
use crate::changes::TableChanges;
use crate::context::RequestContext;
use crate::envelope::{Envelope, RawPayload};
use crate::error::{Error, Result, StoreErrorKind};
use crate::handler::{CommandHandler, QueryHandler};
use crate::idempotency::IdempotencyKey;
use crate::live::{Live, LogSlice};
use crate::process::{ProcessInstance, ProcessManager, ProcessRow, scope_text};
use crate::projection::{Projection, ProjectionTransaction, RowProjection, Rows};
use crate::read_model::ReadModels;
use crate::unit_of_work::{CommitReceipt, UnitOfWork};

/// A store of aggregates, events and read models.
///
/// Cheap to clone; every clone is the same store.
pub trait Store: Clone + Send + Sync + 'static {
    /// Its units of work.
    type UnitOfWork: UnitOfWork;
    /// Its read models.
    type ReadModels: ReadModels;
    /// What its projections write in.
    type Transaction: ProjectionTransaction;

    /// Which store it is.
    fn id(&self) -> StoreId;

    /// Begins a unit of work. No I/O.
    fn unit_of_work(&self, context: &RequestContext) -> Self::UnitOfWork;

    /// Begins a unit of work that only reads. No I/O.
    ///
    /// All its reads see one moment: that of the first. It stages nothing and cannot commit.
    fn read_only(&self, context: &RequestContext) -> Self::UnitOfWork;

    /// The read models within the context's tenant scope. No I/O.
    fn read_models(&self, context: &RequestContext) -> Self::ReadModels;

    /// Runs a projection in the transaction of each commit, from the next unit of work on: its rows
    /// are there when the commit returns, and where it fails, nothing is committed.
    ///
    /// The same projection can run with a projector instead. Here it has no checkpoint and no
    /// retries of its own: it sees the events of each commit of every process that has registered
    /// it, once, with their real positions, after everything that the unit of work has sent and
    /// after the hooks before the commit. What was committed before, or by a process that has not
    /// registered it, it does not see.
    ///
    /// # Transaction
    ///
    /// That of the commit. Rows are locked before they are loaded, also those that do not exist
    /// yet, so two commits that fold into one row do so one after the other. Several projections
    /// run in the order of their names. A commit of aggregates whose events none of them reads
    /// costs what it costs without them.
    ///
    /// # Errors
    ///
    /// A [`Usage`](crate::StoreErrorKind::Usage) error where a projection of this name is
    /// registered already, inline or with a projector that runs.
    fn inline<P: Projection<Self::Transaction>>(&self, projection: P) -> Result<()>;

    /// Runs a projection by rows [inline](Self::inline).
    ///
    /// # Errors
    ///
    /// As [`inline`](Self::inline).
    fn inline_rows<P: RowProjection>(&self, projection: P) -> Result<()> {
        self.inline(Rows(projection))
    }

    /// Builds the read model of an [inline](Self::inline) projection from the log, and returns how
    /// many events it has read: for one that is registered when there are events already.
    ///
    /// Register the projection in every process that writes, then call this once. What the table
    /// held is deleted; what is committed meanwhile waits, and is applied after it.
    ///
    /// # Transaction
    ///
    /// One of its own, in which nobody else can commit. On a large log it takes its time: a read
    /// model that may be built beside the old one belongs to a projector.
    ///
    /// # Errors
    ///
    /// That of the projection, [`Undecodable`](Error::Undecodable), [`Store`](Error::Store); also
    /// a [`Usage`](crate::StoreErrorKind::Usage) error where events that it reads have left the log.
    /// The table is as before then; only where the connection broke during the commit it may have been
    /// built. To call it again does no harm.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the table is as before.
    fn rebuild_inline<P: RowProjection>(
        &self,
        projection: P,
    ) -> impl Future<Output = Result<u64>> + Send;

    /// What a [process manager](ProcessManager) remembers of one of its instances, in the tenant of
    /// the context; under the scope of the system, of one that belongs to no tenant.
    ///
    /// # Errors
    ///
    /// [`Store`](Error::Store) where the store fails, and [`Other`](Error::Other) where the state is
    /// not one of now.
    fn process<P: ProcessManager>(
        &self,
        context: &RequestContext,
        instance: impl Into<String>,
    ) -> impl Future<Output = Result<Option<ProcessInstance<P::State>>>> + Send {
        let scope = scope_text(context.scope().tenant());
        let key = (P::NAME.to_owned(), scope, instance.into());
        let read_models = self.read_models(context);
        async move {
            let row = read_models.find::<ProcessRow>(key).await?;
            row.map(ProcessInstance::of).transpose()
        }
    }

    /// Folds projections from the log when they are read, within the context's tenant scope. No
    /// I/O.
    fn live<'s>(&'s self, context: &'s RequestContext) -> Live<'s, Self> {
        Live::new(self, context)
    }

    /// Hands the events of a part of the log, within the context's tenant scope, to `each`, in the
    /// order of the log. All are of one moment. Events that belong to no tenant are in every scope.
    ///
    /// For folding, not for consuming: an event may still appear at a lower position than one that
    /// is already visible.
    ///
    /// # Errors
    ///
    /// The first of `each`, and [`Store`](Error::Store) where the store fails.
    fn scan_log<F>(
        &self,
        context: &RequestContext,
        slice: LogSlice,
        each: F,
    ) -> impl Future<Output = Result<()>> + Send
    where
        F: FnMut(Envelope<RawPayload>) -> Result<()> + Send;

    /// How often this process has changed each table through this store, for caches.
    fn changes(&self) -> &Arc<TableChanges>;

    /// How [`execute`](Self::execute) retries.
    fn retry_policy(&self) -> RetryPolicy;

    /// Is told of each try of [`execute`](Self::execute) and its like that failed and is followed
    /// by another: to be counted. Nothing, unless told.
    fn retrying(&self, error: &Error) {
        let _ = error;
    }

    /// Waits before a retry.
    fn pause(&self, delay: Duration) -> impl Future<Output = ()> + Send;

    /// Waits until a subscription has applied everything that the receipt's commit wrote: read
    /// your own write. Returns at once where the commit wrote nothing, and where the projection
    /// runs [inline](Self::inline).
    ///
    /// # Errors
    ///
    /// A [`Usage`](crate::StoreErrorKind::Usage) error where there is no such subscription, one of
    /// kind [`TimedOut`](crate::StoreErrorKind::TimedOut) where it takes too long, and the error
    /// that halted the subscription where it is halted.
    fn wait_for<T: Sync>(
        &self,
        receipt: &CommitReceipt<T>,
        subscription: &str,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Begins a unit of work, runs `work` in it, commits, and starts over where the error
    /// [is retryable](Error::is_retryable), with a pause that doubles, as far as the
    /// [retry policy](Self::retry_policy) goes.
    ///
    /// ```
    /// # use cqrs_core::*;
    /// # async fn example<S: Store>(store: S, context: RequestContext) -> Result<()> {
    /// let receipt = store
    ///     .execute(&context, async |unit_of_work| {
    ///         assert_eq!(unit_of_work.context().scope(), context.scope());
    ///         Ok("done")
    ///     })
    ///     .await?;
    /// assert_eq!(receipt.into_output(), "done");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// `work` may run several times, so it uses what is around it without using it up. What it
    /// does outside of the unit of work is not undone.
    ///
    /// # Errors
    ///
    /// The error of `work` or of [`commit`](UnitOfWork::commit), of the last try. A
    /// [`Usage`](crate::StoreErrorKind::Usage) error within work of the same store: use the unit
    /// of work that the work was given, or a [savepoint](UnitOfWork::savepoint) of it.
    ///
    /// # Cancel safety
    ///
    /// As [`commit`](UnitOfWork::commit).
    fn execute<'s, T, F>(
        &'s self,
        context: &'s RequestContext,
        work: F,
    ) -> BoxFuture<'s, Result<CommitReceipt<T>>>
    where
        T: Send + 's,
        F: AsyncFnMut(&mut Self::UnitOfWork) -> Result<T>
            + for<'u> Work<'u, Self::UnitOfWork, T>
            + Send
            + 's,
    {
        execute::run(self, Self::unit_of_work, context, Command::new(work))
    }

    /// Runs `work` as [`execute`](Self::execute) does, but once for an idempotency key: where a
    /// commit has recorded the key in the scope of this context, its receipt is returned and
    /// `work` does not run.
    ///
    /// The key and the output are written in the transaction of the commit, so there is no moment
    /// at which one is there without the other; of several that run at once, one commits and the
    /// others return its receipt. Nothing is recorded where `work` fails.
    ///
    /// ```
    /// # use cqrs_core::*;
    /// # async fn example<S: Store>(store: S, context: RequestContext) -> Result<()> {
    /// let key = IdempotencyKey::new("4be1f0a2")?;
    /// let first = store.execute_once(&context, &key, async |_| Ok(1)).await?;
    /// let second = store.execute_once(&context, &key, async |_| Ok(2)).await?;
    /// assert_eq!((first.into_output(), second.into_output()), (1, 1));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute); [`KeyReused`](crate::StoreErrorKind::KeyReused) where the key
    /// is tied to [another request](IdempotencyKey::for_request), and a
    /// [`Usage`](crate::StoreErrorKind::Usage) error where the output does not come back from its
    /// JSON: nothing is committed then.
    ///
    /// # Cancel safety
    ///
    /// As [`commit`](UnitOfWork::commit). The repetition finds out whether it happened.
    fn execute_once<'s, T, F>(
        &'s self,
        context: &'s RequestContext,
        key: &'s IdempotencyKey,
        work: F,
    ) -> BoxFuture<'s, Result<CommitReceipt<T>>>
    where
        T: Serialize + DeserializeOwned + Send + 's,
        F: AsyncFnMut(&mut Self::UnitOfWork) -> Result<T>
            + for<'u> Work<'u, Self::UnitOfWork, T>
            + Send
            + 's,
    {
        let command = Command::new(work);
        execute::run(self, Self::unit_of_work, context, Once { key, command })
    }

    /// Runs `work` on each of many items and commits after every `size` of them: for imports that
    /// are too long for one transaction. Each batch is run again as in
    /// [`execute`](Self::execute).
    ///
    /// ```
    /// # use cqrs_core::*;
    /// # async fn import<U: UnitOfWork>(uow: &mut U, line: String) -> Result<()> { Ok(()) }
    /// # async fn example<S: Store>(store: S, context: RequestContext, lines: Vec<String>)
    /// # -> Result<(), BatchError> {
    /// let done = store
    ///     .execute_in_batches(&context, 500, lines, async |uow, line| import(uow, line).await)
    ///     .await?;
    /// println!("{} lines in {} commits", done.items(), done.commits());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The error of the batch that failed, with what was committed before: the items after those
    /// are to be tried again. After [`OutcomeUnknown`](crate::StoreErrorKind::OutcomeUnknown) the
    /// batch that failed may be committed too: look before you go on. A [`Usage`](crate::StoreErrorKind::Usage) error for a size of 0.
    ///
    /// # Cancel safety
    ///
    /// Whole batches are committed, or not.
    fn execute_in_batches<'s, I, F>(
        &'s self,
        context: &'s RequestContext,
        size: usize,
        items: I,
        mut work: F,
    ) -> BoxFuture<'s, Result<BatchReceipt, BatchError>>
    where
        I: IntoIterator<IntoIter: Send + 's, Item: Clone + Send + Sync + 's>,
        F: AsyncFnMut(&mut Self::UnitOfWork, I::Item) -> Result<()>
            + for<'u> ItemWork<'u, Self::UnitOfWork, I::Item>
            + Send
            + 's,
    {
        let mut items = items.into_iter();
        Box::pin(async move {
            let mut committed = BatchReceipt::default();
            if size == 0 {
                let cause = Error::store(StoreErrorKind::Usage, "a batch has at least one item");
                return Err(BatchError::new(committed, cause));
            }
            loop {
                let batch: Vec<I::Item> = items.by_ref().take(size).collect();
                if batch.is_empty() {
                    return Ok(committed);
                }
                let attempt = execute::Batch {
                    work: &mut work,
                    items: &batch,
                };
                match execute::run(self, Self::unit_of_work, context, attempt).await {
                    Ok(receipt) => committed.add(batch.len(), &receipt),
                    Err(cause) => return Err(BatchError::new(committed, cause)),
                }
            }
        })
    }

    /// Runs `work` in a [read-only unit of work](Self::read_only), so that all that it reads is
    /// of one moment, and returns what it returns.
    ///
    /// ```
    /// # use cqrs_core::*;
    /// # async fn example<S: Store>(store: S, context: RequestContext) -> Result<()> {
    /// let scope = store
    ///     .read(&context, async |uow| Ok(uow.context().scope().clone()))
    ///     .await?;
    /// assert_eq!(scope, *context.scope());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The error of `work`; as in [`execute`](Self::execute) it is run again where that
    /// [is retryable](Error::is_retryable). Hooks around the commit do not run, since there is
    /// none.
    fn read<'s, T, F>(&'s self, context: &'s RequestContext, work: F) -> BoxFuture<'s, Result<T>>
    where
        T: Send + 's,
        F: AsyncFnMut(&mut Self::UnitOfWork) -> Result<T>
            + for<'u> Work<'u, Self::UnitOfWork, T>
            + Send
            + 's,
    {
        let reading = Reading(Command::new(work));
        let done = execute::run(self, Self::read_only, context, reading);
        Box::pin(async move { Ok(done.await?.into_output()) })
    }

    /// Runs a command handler as [`execute`](Self::execute) does, with a clone of the command for
    /// each try.
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute).
    fn dispatch<'s, H, C>(
        &'s self,
        context: &'s RequestContext,
        handler: &'s H,
        command: C,
    ) -> BoxFuture<'s, Result<CommitReceipt<H::Output>>>
    where
        H: CommandHandler<Self::UnitOfWork, C>,
        C: Clone + Send + Sync + 's,
    {
        Box::pin(async move {
            self.execute(context, async |unit_of_work| {
                handler.handle(unit_of_work, command.clone()).await
            })
            .await
        })
    }

    /// Runs a query handler on the read models of the context's tenant scope.
    ///
    /// # Errors
    ///
    /// The handler's.
    fn ask<H, Q>(
        &self,
        context: &RequestContext,
        handler: &H,
        query: Q,
    ) -> impl Future<Output = Result<H::Output>> + Send
    where
        H: QueryHandler<Self::ReadModels, Q>,
        Q: Send,
    {
        async move { handler.handle(&self.read_models(context), query).await }
    }
}

/// The future of [`Store::execute`]: boxed, so that the compiler can see that it is `Send`
/// whatever the work is.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

impl Error {
    /// The error for a subscription that no projector registered.
    #[must_use]
    pub fn unknown_subscription(name: &str) -> Self {
        Self::store(
            StoreErrorKind::Usage,
            format!("there is no subscription named {name:?}"),
        )
    }

    /// A subscription that is paused. For authors of backends.
    #[doc(hidden)]
    #[must_use]
    pub fn paused_subscription(name: &str) -> Self {
        Self::store(
            StoreErrorKind::Usage,
            format!("subscription {name:?} is paused"),
        )
    }

    /// A reset would leave events behind that are parked. For authors of backends.
    #[doc(hidden)]
    #[must_use]
    pub fn parked_side_effects(name: &str) -> Self {
        Self::store(
            StoreErrorKind::Usage,
            format!(
                "events of subscription {name:?} are parked, and a handler with side effects would \
                 not get them again after a reset: replay or discard them"
            ),
        )
    }
}
