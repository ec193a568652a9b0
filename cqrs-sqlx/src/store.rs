//! The store.

mod options;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use cqrs_core::integrity::{Hashing, LogCheck, LogCheckReport};
use cqrs_core::mapping::Table;
use cqrs_core::schema::SchemaIds;
#[cfg(feature = "sealed")]
use cqrs_core::sealed::{KeyStore, MasterKeys};
use cqrs_core::sql::Statement;
use cqrs_core::{
    Clock, CommitReceipt, DomainEvent, Envelope, EventBus, Inbox, InlineProjections, Interceptors,
    LogSlice, Position, Projection, RawPayload, RequestContext, Result, RetryPolicy, RowProjection,
    Store, StoreId, TableChanges, TenantScope,
};
use tracing::Instrument;

use crate::backend::{Backend, Topic};
use crate::coalesce::{Coalescer, Outlet};
use crate::connections::Connections;
use crate::health::{Health, HealthLimits, HorizonHolder};
use crate::metrics::{self, Gauged};
use crate::projector::{
    Operations, Progress, ProgressWatch, ProjectorBuilder, SqlTransaction, SubscriptionProgress,
    SubscriptionStatus, UnderWay, Watching,
};
use crate::read_models::SqlReadModels;
use crate::retention::{Nowhere, Removed, Retention, RetentionError};
use crate::signal::Signal;
use crate::snapshots::Snapshots;
use crate::sourced_types::{self, SourcedTypes};
use crate::statements::Statements;
use crate::unit_of_work::SqlUnitOfWork;
use crate::waits::Waits;

pub use options::StoreOptions;

/// A store in a database.
///
/// Cheap to clone; every clone is the same store. Connections are opened when they are first
/// needed.
pub struct SqlStore<B: Backend> {
    shared: Arc<Shared<B>>,
}

/// What everything that a store hands out works with.
pub(crate) struct Shared<B: Backend> {
    pub(crate) id: StoreId,
    pub(crate) backend: B,
    pub(crate) writers: Connections<B>,
    pub(crate) readers: Connections<B>,
    pub(crate) statements: Statements,
    /// Sends commits that are under way at the same moment together, where the store does that.
    pub(crate) coalescer: Option<Coalescer<B>>,
    /// Signalled after each commit that wrote events.
    pub(crate) committed: Signal<B>,
    /// Signalled after each operation on a subscription.
    pub(crate) operated: Signal<B>,
    /// The horizon task, while a projector runs.
    pub(crate) watching: Watching,
    /// Where the subscriptions stand that projectors of this store run.
    pub(crate) advanced: Progress,
    /// Who waits for subscriptions that other processes run, and for those of this one.
    pub(crate) waits: Waits<B>,
    /// Who works on the commands of process managers.
    pub(crate) under_way: UnderWay,
    /// Which subscriptions have gauges.
    pub(crate) gauged: Gauged,
    /// Which tables this process has changed.
    pub(crate) changes: Arc<TableChanges>,
    /// The projections that run in the transaction of each commit.
    pub(crate) inline: InlineProjections<SqlTransaction<B>>,
    /// The snapshots that are being written.
    pub(crate) snapshots: Snapshots,
    /// The types that the database knows as event-sourced.
    pub(crate) sourced_types: SourcedTypes,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) hashing: Hashing,
    pub(crate) schema_ids: SchemaIds,
    pub(crate) retry: RetryPolicy,
    pub(crate) interceptors: Interceptors,
    /// What the keys of sealed fields are kept under.
    #[cfg(feature = "sealed")]
    pub(crate) master_keys: Option<MasterKeys>,
    /// Where they are kept, if not in a table.
    #[cfg(feature = "sealed")]
    pub(crate) key_store: Option<Arc<dyn KeyStore>>,
    pub(crate) row_level_security: bool,
    pub(crate) wait_timeout: Duration,
    pub(crate) wait_interval: Duration,
}

impl<B: Backend> Clone for SqlStore<B> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<B: Backend> fmt::Debug for SqlStore<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlStore")
            .field("backend", &self.shared.backend)
            .finish_non_exhaustive()
    }
}

impl<B: Backend> Shared<B> {
    /// Tells the policies of the database whose rows the open transaction may see, where there are
    /// policies.
    pub(crate) async fn confine(
        &self,
        connection: &mut B::Connection,
        scope: &TenantScope,
    ) -> Result<()> {
        if self.row_level_security {
            B::confine(connection, scope).await
        } else {
            Ok(())
        }
    }

    /// Begins a transaction that reads within a scope, where there are policies.
    pub(crate) async fn begin_confined(
        &self,
        connection: &mut B::Connection,
        scope: &TenantScope,
    ) -> Result<()> {
        if self.row_level_security {
            B::begin_reading(connection).await?;
        }
        self.confine(connection, scope).await
    }

    /// Ends what [`begin_confined`](Self::begin_confined) has begun.
    pub(crate) async fn end_confined(&self, connection: &mut B::Connection) -> Result<()> {
        if self.row_level_security {
            B::rollback(connection).await?;
        }
        Ok(())
    }
}

impl<B: Backend> SqlStore<B> {
    pub(crate) fn from_parts(
        backend: B,
        writers: Connections<B>,
        readers: Connections<B>,
        notifier: Option<Connections<B>>,
        flushers: Option<Connections<B>>,
        options: StoreOptions,
    ) -> Self {
        let coalescer = flushers.zip(options.coalesce).map(|(flushers, most)| {
            let outlet = Outlet::new(
                backend.clone(),
                flushers,
                writers.clone(),
                options.acquire_timeout,
            );
            Coalescer::new(outlet, most)
        });
        Self {
            shared: Arc::new(Shared {
                id: StoreId::unique(),
                backend,
                writers,
                readers,
                statements: Statements::default(),
                coalescer,
                committed: Signal::new(Topic::Committed, notifier.clone()),
                operated: Signal::new(Topic::Operated, notifier.clone()),
                watching: Watching::default(),
                advanced: Progress::default(),
                waits: Waits::new(notifier),
                under_way: UnderWay::default(),
                gauged: Gauged::default(),
                changes: Arc::default(),
                inline: InlineProjections::default(),
                snapshots: Snapshots::default(),
                sourced_types: SourcedTypes::default(),
                clock: options.clock,
                hashing: options.hashing,
                schema_ids: options.schema_ids,
                retry: options.retry,
                interceptors: options.interceptors,
                #[cfg(feature = "sealed")]
                master_keys: options.master_keys,
                #[cfg(feature = "sealed")]
                key_store: options.key_store,
                row_level_security: options.row_level_security,
                wait_timeout: options.wait_timeout,
                wait_interval: options.wait_interval,
            }),
        }
    }

    pub(crate) fn of(shared: Arc<Shared<B>>) -> Self {
        Self { shared }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared<B>> {
        &self.shared
    }

    /// Brings the framework's own tables, all named `cqrs_*`, up to date. What is applied is kept
    /// in `_cqrs_migrations`, apart from your own sqlx migrations. Safe to call at every start,
    /// from several processes at once.
    ///
    /// # Between releases
    ///
    /// Releases of one minor version (of one major version from 1.0 on) may work on the same
    /// database: their migrations only add, what is added can be left out by those who do not know
    /// it, and code of an older one runs on the tables of a newer one. So it also succeeds where a
    /// newer release has migrated already, in a rolling deployment or after one was rolled back, and
    /// changes nothing of what that has made. Across minor versions (major ones from 1.0 on) the
    /// changelog says what holds.
    ///
    /// # Errors
    ///
    /// [`Store`](cqrs_core::Error::Store) where the database cannot be reached or refuses; of kind
    /// [`Schema`](cqrs_core::StoreErrorKind::Schema) where a migration is not the one that this
    /// release knows by its number, or has failed halfway.
    pub async fn migrate(&self) -> Result<()> {
        let mut connection = self.shared.writers.acquire().await?;
        B::migrate(connection.begin_work()).await?;
        connection.end_work();
        Ok(())
    }

    /// The statements that create a table for an aggregate or read model where it does not exist,
    /// to put into a migration of your own. Empty for one that is event-sourced.
    #[must_use]
    pub fn create_table_sql(table: &Table) -> String {
        if table.is_sourced() {
            return String::new();
        }
        B::create_table_sql(table)
    }

    /// Creates these tables where they do not exist: for examples and tests, in place of
    /// migrations.
    ///
    /// # Errors
    ///
    /// [`Store`](cqrs_core::Error::Store) where the database cannot be reached or refuses.
    pub async fn create_tables(&self, tables: &[&'static Table]) -> Result<()> {
        let mut connection = self.shared.writers.acquire().await?;
        for table in tables.iter().filter(|table| !table.is_sourced()) {
            B::execute_script(connection.begin_work(), B::create_table_sql(table)).await?;
            connection.end_work();
        }
        Ok(())
    }

    /// Compares the tables of the code, and the framework's own, with those of the database: call
    /// it at start-up.
    ///
    /// Those of event-sourced aggregates have no columns to compare. Instead the database notes
    /// their types, so that [retention](Retention) leaves all their events from now on, also those
    /// that were written while the aggregate was a row; and it is looked whether some have left
    /// before.
    ///
    /// # Errors
    ///
    /// [`Store`](cqrs_core::Error::Store) of kind
    /// [`Schema`](cqrs_core::StoreErrorKind::Schema) with every difference: table, column,
    /// expected and found. Its source is a [`SchemaMismatch`](crate::SchemaMismatch).
    pub async fn verify(&self, tables: &[&'static Table]) -> Result<()> {
        let mut connection = self.shared.readers.acquire().await?;
        crate::verify::verify(&mut connection, tables, self.shared.row_level_security).await?;
        drop(connection);
        let sourced = tables.iter().filter(|table| table.is_sourced());
        sourced_types::verify(&self.shared, sourced.map(|table| table.name())).await
    }

    /// Has the database prepare the SQL of finders, and compares what it says of their parameters
    /// and columns with the code: call it at start-up, with the lists that
    /// [`#[repository]`](macro@cqrs_core::repository) makes. No statement is run.
    ///
    /// On Postgres the types of parameters and columns are compared. SQLite knows no types of
    /// parameters, and types of columns only where they are those of a table: there their numbers
    /// and names are compared, and the types that are known. Whether a column may be NULL no
    /// database says.
    ///
    /// # Errors
    ///
    /// [`Store`](cqrs_core::Error::Store) of kind
    /// [`Schema`](cqrs_core::StoreErrorKind::Schema) with every difference: trait, finder, parameter
    /// or column, expected and found. Its source is a [`SchemaMismatch`](crate::SchemaMismatch).
    pub async fn verify_sql(&self, statements: &[&'static [Statement]]) -> Result<()> {
        let mut connection = self.shared.readers.acquire().await?;
        crate::verify::verify_sql::<B>(&mut connection, statements).await
    }

    /// Looks whether the code can read all events of an aggregate type that the log holds: whether
    /// it knows their types, and lifts their schema versions. No payload is read.
    ///
    /// It goes through the index entries of all events of that type: call it before a release,
    /// rather than at each start-up.
    ///
    /// # Errors
    ///
    /// [`Store`](cqrs_core::Error::Store) of kind
    /// [`Schema`](cqrs_core::StoreErrorKind::Schema) with each type and version that cannot be
    /// read, and the upcaster that is missing. Its source is a
    /// [`SchemaMismatch`](crate::SchemaMismatch).
    pub async fn verify_events<E: DomainEvent>(&self) -> Result<()> {
        crate::verify::verify_events::<B, E>(&self.shared).await
    }

    /// Reads the log: up to `limit` events after a position, of the context's tenants, in order.
    ///
    /// For looking, not for consuming: an event may still appear at a lower position than one
    /// that is already visible. A [projector](Self::projector) waits for those.
    ///
    /// # Errors
    ///
    /// [`Store`](cqrs_core::Error::Store) where the store fails.
    pub async fn events(
        &self,
        context: &RequestContext,
        after: Position,
        limit: u32,
    ) -> Result<Vec<Envelope<RawPayload>>> {
        crate::reads::events(&self.shared, context.scope(), after, limit)
            .instrument(context.span("log"))
            .await
    }

    /// Sets up a projector: which projections it runs, and how.
    pub fn projector(&self) -> ProjectorBuilder<B> {
        ProjectorBuilder::new(self.clone())
    }

    /// Checks the log for whatever was changed, moved, removed or added by others than the framework:
    /// the hashes of all events, the chains of the aggregates that the check names, and anchors of
    /// former checks.
    ///
    /// It reads the log twice and holds a page of it. Its own failures are errors; what is wrong with
    /// the log is in the report.
    ///
    /// # Transaction
    ///
    /// One that reads, so that all of it is of one moment.
    ///
    /// # Errors
    ///
    /// A [`Usage`](cqrs_core::StoreErrorKind::Usage) error where the context is of a tenant;
    /// [`Store`](cqrs_core::Error::Store) where the store fails.
    pub async fn check_log(
        &self,
        context: &RequestContext,
        check: &LogCheck,
    ) -> Result<LogCheckReport> {
        crate::integrity::check(&self.shared, context, check)
            .instrument(context.span("log"))
            .await
    }

    /// Where every subscription stands that a projector ever registered, by name.
    ///
    /// # Errors
    ///
    /// [`Store`](cqrs_core::Error::Store) where the store fails.
    pub async fn subscriptions(&self) -> Result<Vec<SubscriptionStatus>> {
        crate::projector::statuses(&self.shared).await
    }

    /// How far a subscription has come, for one that catches up or builds rows anew.
    ///
    /// # Errors
    ///
    /// A [`Usage`](cqrs_core::StoreErrorKind::Usage) error where there is no such subscription;
    /// [`Store`](cqrs_core::Error::Store) where the store fails.
    pub async fn progress(&self, subscription: &str) -> Result<SubscriptionProgress> {
        crate::projector::progress(&self.shared, subscription).await
    }

    /// As [`progress`](Self::progress), again and again, with the rate and the time that is left.
    pub fn watch_progress(&self, subscription: &str) -> ProgressWatch<B> {
        ProgressWatch::new(Arc::clone(&self.shared), subscription)
    }

    /// What operators do to subscriptions: resume, replay, discard and so on. Each operation is
    /// recorded with the actor and the correlation id of the context.
    ///
    /// # Errors
    ///
    /// A [`Usage`](cqrs_core::StoreErrorKind::Usage) error where the context is of a tenant:
    /// subscriptions read the events of all.
    pub fn operations(&self, context: &RequestContext) -> Result<Operations<B>> {
        Operations::new(Arc::clone(&self.shared), context)
    }

    /// Forgets the receipts of [`execute_once`](Store::execute_once) that were recorded before a
    /// time, by the database's clock, and returns how many there were. A command that is repeated
    /// after that is done again, so keep them for longer than any client tries.
    ///
    /// # Errors
    ///
    /// [`Store`](cqrs_core::Error::Store) where the store fails.
    pub async fn forget_receipts(&self, before: DateTime<Utc>) -> Result<u64> {
        crate::receipts::delete(&self.shared, before).await
    }

    /// Forgets the messages of an inbox that were processed before a time, by the database's clock
    /// and in all tenants, and returns how many there were. A message that is delivered once more
    /// after that is processed again, so keep them for longer than the sender tries.
    ///
    /// # Errors
    ///
    /// [`Store`](cqrs_core::Error::Store) where the store fails.
    pub async fn forget_messages(&self, inbox: &Inbox, before: DateTime<Utc>) -> Result<u64> {
        crate::receipts::delete_messages(&self.shared, inbox, before).await
    }

    /// Removes old events from the log, those of the context's tenants, as far as a policy lets
    /// them go and no subscription needs them.
    ///
    /// # Transaction
    ///
    /// Each batch is a transaction of its own. While one runs, consumers wait for it as for any writer,
    /// which is why batches are small. The run has one [record](crate::OperationRecord) of who removed
    /// what, which each batch brings up to date.
    ///
    /// # Errors
    ///
    /// A [`Usage`](cqrs_core::StoreErrorKind::Usage) error for an age below an hour;
    /// [`Store`](cqrs_core::Error::Store) where the store fails. Batches before the one that failed
    /// are removed, and [counted](RetentionError::removed).
    ///
    /// # Cancel safety
    ///
    /// Whole batches are removed, or not.
    pub async fn remove_events(
        &self,
        context: &RequestContext,
        retention: &Retention,
    ) -> Result<Removed, RetentionError> {
        crate::retention::run(&self.shared, context, retention, None::<&Nowhere>).await
    }

    /// As [`remove_events`](Self::remove_events), and hands each batch to an archive before it is
    /// removed: at least once, in the order of the log, but for what it refuses. An event whose row cannot
    /// be read stays, with a warning.
    ///
    /// A batch that the archive refuses is handed to it event by event. What it refuses then stays, and
    /// the run goes on behind it; a later run hands it to the archive again. After a hundred events in a
    /// row that are refused the run ends.
    ///
    /// # Errors
    ///
    /// As [`remove_events`](Self::remove_events), and the first of the archive, when the run has ended.
    ///
    /// # Cancel safety
    ///
    /// As [`remove_events`](Self::remove_events); a batch that the archive has got may still be
    /// there, and is handed to it again.
    pub async fn archive_events(
        &self,
        context: &RequestContext,
        retention: &Retention,
        archive: &impl EventBus,
    ) -> Result<Removed, RetentionError> {
        crate::retention::run(&self.shared, context, retention, Some(archive)).await
    }

    /// How the log and its consumers are, and what of it is wrong.
    ///
    /// # Errors
    ///
    /// [`Store`](cqrs_core::Error::Store) where the store fails; that is no state of health.
    pub async fn health(&self, limits: &HealthLimits) -> Result<Health> {
        crate::health::look(&self.shared, limits).await
    }

    /// The transactions that hold the horizon of the log, the oldest first: what is written after
    /// one of them began reaches no consumer before it has ended. None on SQLite, where nobody
    /// can.
    ///
    /// # Errors
    ///
    /// [`Store`](cqrs_core::Error::Store) where the store fails.
    pub async fn horizon_holders(&self) -> Result<Vec<HorizonHolder>> {
        crate::health::holders(&self.shared).await
    }

    /// Waits until the snapshots of event-sourced aggregates are written that commits of this store
    /// have made due, or given up: before a process ends, and in tests. A task of the runtime that
    /// committed first writes them, so it takes as long as that runtime stands still.
    pub async fn snapshots_written(&self) {
        self.shared.snapshots.settled().await;
    }

    /// Closes the store's connections. Those in use are closed when their work ends; new work
    /// fails.
    pub fn close(&self) {
        self.shared.writers.close();
        self.shared.readers.close();
        self.shared.committed.close();
        self.shared.waits.close();
        if let Some(coalescer) = &self.shared.coalescer {
            coalescer.close();
        }
    }
}

impl<B: Backend> Store for SqlStore<B> {
    type UnitOfWork = SqlUnitOfWork<B>;
    type ReadModels = SqlReadModels<B>;
    type Transaction = SqlTransaction<B>;

    fn id(&self) -> StoreId {
        self.shared.id
    }

    fn unit_of_work(&self, context: &RequestContext) -> SqlUnitOfWork<B> {
        SqlUnitOfWork::new(Arc::clone(&self.shared), context.clone())
    }

    fn read_only(&self, context: &RequestContext) -> SqlUnitOfWork<B> {
        SqlUnitOfWork::read_only(Arc::clone(&self.shared), context.clone())
    }

    fn read_models(&self, context: &RequestContext) -> SqlReadModels<B> {
        SqlReadModels::new(Arc::clone(&self.shared), context)
    }

    fn inline<P: Projection<SqlTransaction<B>>>(&self, projection: P) -> Result<()> {
        self.shared.inline.add(projection)
    }

    async fn rebuild_inline<P: RowProjection>(&self, projection: P) -> Result<u64> {
        crate::projector::rebuild_inline(&self.shared, projection).await
    }

    async fn scan_log<F>(&self, context: &RequestContext, slice: LogSlice, each: F) -> Result<()>
    where
        F: FnMut(Envelope<RawPayload>) -> Result<()> + Send,
    {
        crate::reads::scan(&self.shared, context.scope(), &slice, each).await
    }

    fn changes(&self) -> &Arc<TableChanges> {
        &self.shared.changes
    }

    fn retry_policy(&self) -> RetryPolicy {
        self.shared.retry
    }

    fn retrying(&self, error: &cqrs_core::Error) {
        metrics::retried(error);
    }

    fn pause(&self, delay: Duration) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(delay)
    }

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
        crate::projector::wait_for(
            &self.shared,
            position,
            subscription,
            self.shared.wait_timeout,
        )
        .await
    }
}
