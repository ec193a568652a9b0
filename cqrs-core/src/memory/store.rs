//! The store in memory.

use std::sync::Arc;
use std::time::Duration;

use super::dead_letters::DeadLetter;
use super::integrity;
use super::read_models::InMemoryReadModels;
use super::rebuild;
use super::state::Shared;
use super::subscriptions::{self, SubscriptionStatus};
use super::transaction::InMemoryTransaction;
use super::turn::Turn;
use super::unit_of_work::InMemoryUnitOfWork;
use crate::changes::TableChanges;
use crate::clock::{Clock, SystemClock};
use crate::context::RequestContext;
use crate::envelope::{Envelope, Position, RawPayload};
use crate::error::{Error, Result};
use crate::integrity::{HashKeys, Hashing, LogCheck, LogCheckReport};
use crate::interceptor::{Interceptor, Interceptors};
use crate::live::LogSlice;
use crate::process::{ProcessManager, ProcessSubscription, ProcessTask};
use crate::projection::{Projection, ProjectionTransaction, RowAddress, RowProjection, Rows};
use crate::read_model::{Owned, ReadModel};
use crate::schema::SchemaIds;
use crate::store::{RetryPolicy, Store, StoreId};
use crate::subscription::{StartAt, Subscription};
use crate::unit_of_work::CommitReceipt;

/// A [`Store`] in memory.
///
/// Clones share what they hold. It keeps the rules of the database backends; see the
/// [module](crate::memory) for what it does not do.
///
/// Nothing runs in the background: [`project`](Self::project) runs all subscriptions, and
/// [`wait_for`](Store::wait_for) the one it waits for. [`pause`](Store::pause) returns at once,
/// so that tests of retries take no time.
///
/// # Example
///
/// ```
/// use cqrs_core::{Aggregate, DomainEvent, InMemoryStore, RequestContext, Root, Store, UnitOfWork};
///
/// #[derive(Clone, serde::Serialize, serde::Deserialize, DomainEvent)]
/// #[event(aggregate = "account")]
/// enum AccountEvent {
///     Opened,
/// }
///
/// #[derive(Aggregate)]
/// #[aggregate(table = "account", event = AccountEvent)]
/// struct Account {
///     #[aggregate(id)]
///     id: i64,
///     #[aggregate(root)]
///     root: Root<AccountEvent>,
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> cqrs_core::Result<()> {
/// let store = InMemoryStore::new();
/// let receipt = store
///     .execute(&RequestContext::system(), async |uow| {
///         let mut root = Root::new();
///         root.raise(AccountEvent::Opened);
///         uow.save(Account { id: 1, root })
///     })
///     .await?;
/// assert_eq!(receipt.events().len(), 1);
/// assert_eq!(store.events()[0].event_type(), "account.opened");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct InMemoryStore {
    pub(super) shared: Arc<Shared>,
}

impl InMemoryStore {
    /// An empty store with the clock of the machine and the default retry policy.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                id: StoreId::unique(),
                clock: Arc::new(SystemClock),
                retry_policy: RetryPolicy::default(),
                hashing: Hashing::default(),
                schema_ids: SchemaIds::default(),
                interceptors: Interceptors::default(),
                #[cfg(feature = "sealed")]
                keys: Arc::new(super::keys::InMemoryKeyStore::new()),
                inline: Arc::default(),
                changes: Arc::default(),
                commits: Turn::default(),
                state: Arc::default(),
            }),
        }
    }

    /// The same store, used with this clock. Clones made before keep theirs.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        self.with(|shared| shared.clock = clock)
    }

    /// The same store, used with this retry policy. Clones made before keep theirs.
    #[must_use]
    pub fn with_retry_policy(self, policy: RetryPolicy) -> Self {
        self.with(|shared| shared.retry_policy = policy)
    }

    /// The same store, which makes the hashes of events with a key. Clones made before keep theirs.
    #[must_use]
    pub fn with_hash_keys(self, keys: HashKeys) -> Self {
        self.with(|shared| shared.hashing.keys = Some(keys))
    }

    /// The same store, which gives events the ids of their [schemas](crate::schema). Clones made
    /// before keep theirs.
    #[must_use]
    pub fn with_schema_ids(self, ids: SchemaIds) -> Self {
        self.with(|shared| shared.schema_ids = ids)
    }

    /// The same store, used with these keys of sealed fields, in place of some in memory. Clones made
    /// before keep theirs.
    #[cfg(feature = "sealed")]
    #[must_use]
    pub fn with_key_store(self, keys: Arc<dyn crate::sealed::KeyStore>) -> Self {
        self.with(|shared| shared.keys = keys)
    }

    /// The same store, used with one more [`Interceptor`], after those that it has. Clones made
    /// before keep theirs.
    #[must_use]
    pub fn with_interceptor(self, interceptor: impl Interceptor) -> Self {
        self.with(|shared| {
            shared.interceptors = std::mem::take(&mut shared.interceptors).with(interceptor);
        })
    }

    /// The same store, used with these interceptors alone. Clones made before keep theirs.
    #[must_use]
    pub fn with_interceptors(self, interceptors: Interceptors) -> Self {
        self.with(|shared| shared.interceptors = interceptors)
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn with(self, change: impl FnOnce(&mut Shared)) -> Self {
        let mut shared = Shared::clone(&self.shared);
        change(&mut shared);
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Subscribes a projection, from the start of the log.
    ///
    /// # Errors
    ///
    /// [`Usage`](crate::StoreErrorKind::Usage) where there is a subscription of its name, or an
    /// [inline](Store::inline) projection.
    pub fn subscribe(&self, projection: impl Projection<InMemoryTransaction>) -> Result<()> {
        self.shared.subscribe(Subscription::new(projection))
    }

    /// Subscribes a projection by rows, from the start of the log.
    ///
    /// # Errors
    ///
    /// As [`subscribe`](Self::subscribe).
    pub fn subscribe_rows(&self, projection: impl RowProjection) -> Result<()> {
        self.subscribe(Rows(projection))
    }

    /// Applies a page of events that are in no log: for tests of a projection by itself.
    pub(crate) async fn apply(
        &self,
        subscription: &Subscription<InMemoryTransaction>,
        page: &[Envelope<RawPayload>],
    ) -> Result<()> {
        let mut transaction = InMemoryTransaction::new(Arc::clone(&self.shared));
        let mark = Position::START;
        subscription.apply(page, mark, &mut transaction).await?;
        transaction.apply(&mut self.shared.lock());
        Ok(())
    }

    /// The rows of a read model at these addresses, as far as there are any.
    pub(crate) async fn rows_at<R: ReadModel>(
        &self,
        addresses: &[RowAddress],
    ) -> Result<Vec<Owned<R>>> {
        let mut transaction = InMemoryTransaction::new(Arc::clone(&self.shared));
        transaction.load(addresses).await
    }

    /// Adds a subscription: for several handlers with one checkpoint, for another beginning than
    /// that of the log, or for another policy than to halt.
    ///
    /// # Errors
    ///
    /// As [`subscribe`](Self::subscribe), and where it [cannot be run](Subscription::check) as it
    /// is set up.
    pub fn subscribe_with(&self, subscription: Subscription<InMemoryTransaction>) -> Result<()> {
        subscription.check()?;
        self.shared.subscribe(subscription)
    }

    /// Runs a process manager, from the start of the log, and halted by an event that fails.
    ///
    /// # Errors
    ///
    /// As [`subscribe_with`](Self::subscribe_with).
    pub fn subscribe_process<P: ProcessManager>(&self, manager: P) -> Result<()> {
        self.subscribe_process_with(ProcessSubscription::of(manager))
    }

    /// As [`subscribe_process`](Self::subscribe_process), for another beginning or policy.
    ///
    /// # Errors
    ///
    /// As [`subscribe_with`](Self::subscribe_with).
    pub fn subscribe_process_with<P: ProcessManager>(
        &self,
        process: ProcessSubscription<P>,
    ) -> Result<()> {
        self.subscribe_with(process.subscription())?;
        let manager = Arc::clone(process.manager());
        self.shared.lock().processes.add(manager);
        Ok(())
    }

    /// The commands of a process manager that are parked, those of each instance in order.
    ///
    /// # Errors
    ///
    /// [`Mapping`](Error::Mapping) where a row does not fit.
    pub fn parked_commands(&self, process: &str) -> Result<Vec<ProcessTask>> {
        self.shared.lock().parked_tasks(process)
    }

    /// Has a command that is parked executed again when the store [runs](Self::project) next, and
    /// those of its instance after it. `false` where it is not there any more.
    ///
    /// # Errors
    ///
    /// As [`parked_commands`](Self::parked_commands).
    pub fn retry_command(&self, command: &ProcessTask) -> Result<bool> {
        let again = ProcessTask {
            attempts: 0,
            parked_at: None,
            ..command.clone()
        };
        self.shared.lock().settle_task(command, Some(again))
    }

    /// Gives up a command that is parked: those of its instance behind it go on. `false` where it
    /// is not there any more.
    ///
    /// # Errors
    ///
    /// As [`parked_commands`](Self::parked_commands).
    pub fn discard_command(&self, command: &ProcessTask) -> Result<bool> {
        self.shared.lock().settle_task(command, None)
    }

    /// Runs all subscriptions to the end of the log. Has deadlines of process managers pass and
    /// executes their commands, and begins again where there were any; a command that fails is tried
    /// three times at once.
    ///
    /// What is parked and due is replayed first. A page that fails is tried again at once, up to
    /// three times, then event by event; the event that still fails is left to the
    /// [policy](crate::FailurePolicy) of its subscription, which halts unless told otherwise, until
    /// [`resume`](Self::resume).
    ///
    /// # Transaction
    ///
    /// Each page is one transaction with its checkpoint.
    ///
    /// # Errors
    ///
    /// [`Error::Other`] of a [`SubscriptionHalted`](super::SubscriptionHalted) for the first one,
    /// by name, that is halted; the others have run all the same.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing but the page at work, which the next call applies.
    pub async fn project(&self) -> Result<()> {
        loop {
            let result = self.run_subscriptions().await;
            let processes = self.shared.lock().processes.clone();
            if processes.run(self).await? == 0 {
                return result;
            }
        }
    }

    async fn run_subscriptions(&self) -> Result<()> {
        let names: Vec<String> = self.shared.lock().subscriptions.keys().cloned().collect();
        let mut result = Ok(());
        for name in names {
            let ran = subscriptions::run(&self.shared, &name).await;
            result = result.and(ran);
        }
        result
    }

    /// How far a subscription is; `None` where there is none of this name.
    #[must_use]
    pub fn subscription_status(&self, name: &str) -> Option<SubscriptionStatus> {
        self.shared.status(name)
    }

    /// Pauses a subscription: once this returns no page of it is applied, until it is
    /// [resumed](Self::resume). To wait for it is an error meanwhile.
    ///
    /// # Errors
    ///
    /// [`Usage`](crate::StoreErrorKind::Usage) where there is no subscription of this name.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the subscription is not paused.
    pub async fn pause_subscription(&self, name: &str) -> Result<()> {
        subscriptions::pause(&self.shared, name).await
    }

    /// [Resets](Subscription#resets) a subscription: removes what its handlers have written, and
    /// its dead letters, and brings it back in the log, never forward. One that is halted goes on,
    /// unless it is paused: that it stays.
    ///
    /// # Errors
    ///
    /// [`Usage`](crate::StoreErrorKind::Usage) where there is no subscription of this name, where a
    /// handler does not say how it is [cleared](Projection::clear), or where events are parked that
    /// a handler with side effects would not get again.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, nothing has changed.
    pub async fn reset_subscription(&self, name: &str, to: StartAt) -> Result<()> {
        subscriptions::reset(&self.shared, name, to).await
    }

    /// Lets a paused or halted subscription go on: it tries the event that halted it again when it
    /// runs next. Does nothing to one that is active.
    ///
    /// # Errors
    ///
    /// [`Usage`](crate::StoreErrorKind::Usage) where there is no subscription of this name.
    pub fn resume(&self, name: &str) -> Result<()> {
        self.shared.resume(name)
    }

    /// The dead letters of a subscription, in the order of the log.
    ///
    /// # Errors
    ///
    /// [`Usage`](crate::StoreErrorKind::Usage) where there is no subscription of this name.
    pub fn dead_letters(&self, subscription: &str) -> Result<Vec<DeadLetter>> {
        self.shared.dead_letters(subscription)
    }

    /// Has all parked events replayed when the subscription runs next, those of each aggregate in
    /// order; how many aggregates there are.
    ///
    /// # Errors
    ///
    /// As [`dead_letters`](Self::dead_letters).
    pub fn replay_all(&self, subscription: &str) -> Result<u64> {
        self.shared.replay(subscription, |_| true)
    }

    /// As [`replay_all`](Self::replay_all), for the parked events of one aggregate.
    ///
    /// # Errors
    ///
    /// As [`dead_letters`](Self::dead_letters).
    pub fn replay(
        &self,
        subscription: &str,
        aggregate_type: &str,
        aggregate_id: &str,
    ) -> Result<bool> {
        let chosen = |event: &Envelope<RawPayload>| {
            event.aggregate_type() == aggregate_type && event.aggregate_id_str() == aggregate_id
        };
        Ok(self.shared.replay(subscription, chosen)? > 0)
    }

    /// Gives up one dead letter. Where it is the first parked event of its aggregate, those behind
    /// it are replayed. `false` where there is none at this position.
    ///
    /// # Errors
    ///
    /// As [`dead_letters`](Self::dead_letters).
    pub fn discard_event(&self, subscription: &str, position: Position) -> Result<bool> {
        self.shared.discard_event(subscription, position)
    }

    /// Gives up all parked events of an aggregate; how many they were. Later events of it are
    /// applied as they come.
    ///
    /// # Errors
    ///
    /// As [`dead_letters`](Self::dead_letters).
    pub fn discard(
        &self,
        subscription: &str,
        aggregate_type: &str,
        aggregate_id: &str,
    ) -> Result<u64> {
        self.shared
            .discard(subscription, aggregate_type, aggregate_id)
    }

    /// Checks the log, as the stores in a database do. Nobody can alter it but its own code.
    #[must_use]
    pub fn check_log(&self, check: &LogCheck) -> LogCheckReport {
        integrity::check(self.shared(), check)
    }

    /// The whole log, in order.
    #[must_use]
    pub fn events(&self) -> Vec<Envelope<RawPayload>> {
        self.shared.lock().log().to_vec()
    }
}

#[cfg(feature = "sealed")]
impl crate::sealed::Sealing for InMemoryStore {
    fn key_store(&self) -> Arc<dyn crate::sealed::KeyStore> {
        Arc::clone(&self.shared.keys)
    }
}

impl Default for InMemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl Store for InMemoryStore {
    type UnitOfWork = InMemoryUnitOfWork;
    type ReadModels = InMemoryReadModels;
    type Transaction = InMemoryTransaction;

    fn id(&self) -> StoreId {
        self.shared.id
    }

    fn unit_of_work(&self, context: &RequestContext) -> InMemoryUnitOfWork {
        InMemoryUnitOfWork::new(Arc::clone(&self.shared), context.clone())
    }

    fn read_only(&self, context: &RequestContext) -> InMemoryUnitOfWork {
        InMemoryUnitOfWork::read_only(Arc::clone(&self.shared), context.clone())
    }

    fn read_models(&self, context: &RequestContext) -> InMemoryReadModels {
        InMemoryReadModels::new(Arc::clone(&self.shared), context.clone())
    }

    fn inline<P: Projection<InMemoryTransaction>>(&self, projection: P) -> Result<()> {
        self.shared.inline.add(projection)
    }

    async fn rebuild_inline<P: RowProjection>(&self, projection: P) -> Result<u64> {
        rebuild::run(&self.shared, projection).await
    }

    async fn scan_log<F>(&self, context: &RequestContext, slice: LogSlice, each: F) -> Result<()>
    where
        F: FnMut(Envelope<RawPayload>) -> Result<()> + Send,
    {
        let scope = context.scope();
        let events: Vec<_> = {
            let state = self.shared.lock();
            let log = state.log().iter();
            log.filter(|event| scope.admits(event.tenant()) && slice.contains(event))
                .cloned()
                .collect()
        };
        events.into_iter().try_for_each(each)
    }

    fn changes(&self) -> &Arc<TableChanges> {
        &self.shared.changes
    }

    fn retry_policy(&self) -> RetryPolicy {
        self.shared.retry_policy
    }

    async fn pause(&self, _: Duration) {}

    async fn wait_for<T: Sync>(
        &self,
        receipt: &CommitReceipt<T>,
        subscription: &str,
    ) -> Result<()> {
        let Some(position) = receipt.position() else {
            return Ok(());
        };
        if self.shared.inline.current().contains(subscription) {
            return Ok(());
        }
        if self.shared.has_passed(subscription, position)? {
            return Ok(());
        }
        match subscriptions::run(&self.shared, subscription).await {
            // It may have halted behind what is waited for.
            Err(Error::Other(_)) if self.shared.has_passed(subscription, position)? => Ok(()),
            result => result,
        }
    }
}
