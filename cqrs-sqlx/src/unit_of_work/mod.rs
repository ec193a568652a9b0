//! The unit of work.

mod coalesced;
mod lost;
mod transaction;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use cqrs_core::history::StoredRevision;
use cqrs_core::mapping::Value;
use cqrs_core::process::ProcessTask;
use cqrs_core::sql::{SqlRow, Statement};
use cqrs_core::staging::{StagedWrite, StagedWrites};
use cqrs_core::{
    AggregateRoot, Changing, CommitReceipt, Entity, Envelope, Error, Hooks, IdempotencyKey, Inline,
    Interceptors, Page, RawPayload, RecordedReceipt, RequestContext, Result, Spent, TenantScope,
    UnitOfWork,
};
use tracing::{Instrument, Span};

pub(crate) use self::transaction::Transaction;
use self::transaction::{Afterwards, Outside};
use crate::backend::{Backend, Written};
use crate::history;
use crate::log;
use crate::projector::{SqlTransaction, processes};
use crate::reads::{self, Place};
use crate::receipts;
use crate::repository::SqlRepository;
use crate::select::{PageSelect, Select};
use crate::snapshots::{Due, Snapshots};
use crate::sourced::{self, Stream};
use crate::sourced_types;
use crate::statements::Statements;
use crate::store::Shared;

/// A unit of work in a database.
///
/// # Transaction
///
/// It opens a transaction only when it must send something before the commit: when a read follows
/// a staged write, for a query that [locks](cqrs_core::Query::lock), for a savepoint, or when
/// [`connection`](Self::connection) is asked for. Until
/// then it holds no connection, and its reads are statements of their own; the version guard makes
/// that safe. One that [only reads](cqrs_core::Store::read_only) opens its transaction with the
/// first read.
///
/// # Cancel safety
///
/// Dropped at any moment, it leaves nothing behind; only a commit that is under way may still
/// happen.
pub struct SqlUnitOfWork<B: Backend> {
    shared: Arc<Shared<B>>,
    context: RequestContext,
    span: Span,
    access: Access,
    staged: StagedWrites,
    state: State<B>,
    hooks: Hooks<Self>,
    record: Option<(IdempotencyKey, String)>,
    projections: Inline<SqlTransaction<B>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Write,
    Read,
}

enum State<B: Backend> {
    /// Nothing was sent.
    Idle,
    /// A transaction is open.
    Open(Transaction<B>),
    /// A statement of the transaction failed, and everything was rolled back.
    Failed(Spent),
}

impl<B: Backend> SqlUnitOfWork<B> {
    pub(crate) fn new(shared: Arc<Shared<B>>, context: RequestContext) -> Self {
        let projections = shared.inline.current();
        Self {
            shared,
            span: context.span("unit of work"),
            context,
            access: Access::Write,
            staged: StagedWrites::default(),
            state: State::Idle,
            hooks: Hooks::default(),
            record: None,
            projections,
        }
    }

    pub(crate) fn read_only(shared: Arc<Shared<B>>, context: RequestContext) -> Self {
        Self {
            access: Access::Read,
            ..Self::new(shared, context)
        }
    }

    pub(crate) fn scope(&self) -> &TenantScope {
        self.context.scope()
    }

    pub(crate) fn statements(&self) -> &Statements {
        &self.shared.statements
    }

    pub(crate) fn stage(
        &mut self,
        stage: impl FnOnce(&Interceptors, &RequestContext, DateTime<Utc>) -> Result<StagedWrite>,
    ) -> Result<()> {
        self.check_writable()?;
        let shared = &self.shared;
        let write = stage(&shared.interceptors, &self.context, shared.clock.now())?;
        let write = write.identified(&shared.schema_ids);
        let hashed = write.hashed(&shared.hashing, self.context.metadata());
        self.staged.push(hashed)
    }

    pub(crate) fn stage_guard<A: AggregateRoot>(&mut self, aggregate: &A) -> Result<()> {
        self.check_writable()?;
        let guard = StagedWrite::guard(aggregate, &self.context)?;
        self.staged.push_guard(guard);
        Ok(())
    }

    fn check_writable(&self) -> Result<()> {
        match self.access {
            Access::Write => Ok(()),
            Access::Read => Err(Error::read_only()),
        }
    }

    /// The connection of the unit of work, in its transaction, for SQL of your own. What was
    /// staged is sent first.
    ///
    /// Begin nested transactions with sqlx's `begin`; they are savepoints. Do not end the outer
    /// one: `commit` does.
    ///
    /// The framework does not see what this SQL does: tenants, versions and events are yours to
    /// keep.
    ///
    /// Pass the errors of your statements on. Where you do not, Postgres refuses all that follows,
    /// and the commit too. SQLite undoes the statement alone, unless it was told to roll back with
    /// it (`OR ROLLBACK`, `RAISE(ROLLBACK, ...)`): then nothing that was saved is written, and the
    /// unit of work fails with a [`Usage`](cqrs_core::StoreErrorKind::Usage) error; but SQL of yours
    /// that runs before it finds out is in no transaction. So it does where your SQL ends the
    /// transaction, also if it begins another.
    ///
    /// In a [read-only](cqrs_core::Store::read_only) unit of work the database refuses what
    /// writes.
    ///
    /// # Errors
    ///
    /// As [`commit`](UnitOfWork::commit); after one the unit of work cannot be used any more.
    pub async fn connection(&mut self) -> Result<&mut B::Raw> {
        let span = self.span.clone();
        let marked = async {
            let mut transaction = self.take_open().await?;
            let marked = transaction.mark().await;
            self.settle(transaction, marked).await
        };
        marked.instrument(span).await?;
        match &mut self.state {
            State::Open(transaction) => Ok(transaction.lend()),
            State::Idle => Err(Spent::default().error()),
            State::Failed(spent) => Err(spent.error()),
        }
    }

    /// The entities that a select finds.
    pub(crate) async fn entities<T: Entity>(&mut self, select: &Select) -> Result<Vec<T>> {
        let span = self.span.clone();
        let read = async {
            let found = reads::entities(self.place().await?, select).await;
            self.after_read(found).await
        };
        read.instrument(span).await
    }

    /// The entity that a select by its key finds.
    pub(crate) async fn entity<T: Entity>(&mut self, select: &Select) -> Result<Option<T>> {
        let span = self.span.clone();
        let read = async {
            let found = coalesced::load(self.place().await?, select).await;
            self.after_read(found).await
        };
        read.instrument(span).await
    }

    /// An event-sourced aggregate.
    pub(crate) async fn sourced<A: AggregateRoot>(
        &mut self,
        id: &A::Id,
        stream: &Stream,
    ) -> Result<Option<A>> {
        let span = self.span.clone();
        let read = async {
            let shared = Arc::clone(&self.shared);
            let found = sourced::load(self.place().await?, &shared.hashing, stream, id).await;
            self.after_read(found).await
        };
        read.instrument(span).await
    }

    /// The events that a select finds.
    pub(crate) async fn events(&mut self, select: &Select) -> Result<Vec<Envelope<RawPayload>>> {
        let span = self.span.clone();
        let read = async {
            let shared = Arc::clone(&self.shared);
            let read = |row: &B::Row| log::read_verified(&shared.hashing, row);
            let found = reads::rows(self.place().await?, select, None, read).await;
            self.after_read(found).await
        };
        read.instrument(span).await
    }

    /// The revisions that a select finds.
    pub(crate) async fn revisions(&mut self, select: &Select) -> Result<Vec<StoredRevision>> {
        let span = self.span.clone();
        let read = async {
            let found =
                reads::rows(self.place().await?, select, None, history::read_revision).await;
            self.after_read(found).await
        };
        read.instrument(span).await
    }

    /// The keys that a select finds.
    pub(crate) async fn keys<T: Entity>(&mut self, select: &Select) -> Result<Vec<Value>> {
        let span = self.span.clone();
        let read = async {
            let found = reads::keys::<B, T>(self.place().await?, select).await;
            self.after_read(found).await
        };
        read.instrument(span).await
    }

    /// The page that a select reads.
    pub(crate) async fn page<T: Entity>(&mut self, select: &PageSelect) -> Result<Page<T>> {
        let span = self.span.clone();
        let read = async {
            let page = reads::page(self.place().await?, select).await;
            self.after_read(page).await
        };
        read.instrument(span).await
    }

    /// The number that a select counts.
    pub(crate) async fn count(&mut self, select: &Select) -> Result<u64> {
        let span = self.span.clone();
        let read = async {
            let counted = reads::count(self.place().await?, select).await;
            self.after_read(counted).await
        };
        read.instrument(span).await
    }

    /// Whether a select finds anything.
    pub(crate) async fn exists(&mut self, select: &Select) -> Result<bool> {
        let span = self.span.clone();
        let read = async {
            let exists = reads::exists(self.place().await?, select).await;
            self.after_read(exists).await
        };
        read.instrument(span).await
    }

    /// The rows of a statement of a finder.
    pub(crate) async fn sql<T: SqlRow>(
        &mut self,
        statement: &'static Statement,
        select: &Select,
    ) -> Result<Vec<T>> {
        let (span, scope) = (self.span.clone(), self.scope().clone());
        let read = async {
            let place = self.place().await?;
            let rows = crate::sql::rows(place, statement, select, &scope).await;
            self.after_read(rows).await
        };
        read.instrument(span).await
    }

    /// Opens the transaction, in which locks last.
    pub(crate) async fn hold_locks(&mut self) -> Result<()> {
        self.check_writable()
            .map_err(|_| Error::needs_writing_unit())?;
        let span = self.span.clone();
        let open = async { self.open().await.map(drop) };
        open.instrument(span).await
    }

    /// A statement that fails takes its transaction with it, or what came after its savepoint.
    async fn after_read<T>(&mut self, result: Result<T>) -> Result<T> {
        match result {
            Err(cause @ Error::Store(_)) => match self.take() {
                State::Open(transaction) => Err(self.fail(transaction, cause).await),
                state => {
                    self.state = state;
                    Err(cause)
                }
            },
            result => result,
        }
    }

    /// Where a read takes place, after what is staged was sent.
    async fn place(&mut self) -> Result<Place<'_, B>> {
        let alone = self.access == Access::Write && self.staged.is_empty();
        if alone && matches!(self.state, State::Idle) {
            return Ok(Place::Confined(&self.shared, self.context.scope()));
        }
        Ok(Place::Transaction(self.open().await?.connection()))
    }

    /// Opens the transaction where it is not open, looks at it where it was lent, and sends what is
    /// staged.
    async fn open(&mut self) -> Result<&mut Transaction<B>> {
        // Until this is through, a dropped future or an error leaves the unit of work failed.
        let mut transaction = match self.take() {
            State::Open(transaction) => match transaction.spoiled().map(Spent::error) {
                Some(error) => {
                    self.state = State::Open(transaction);
                    return Err(error);
                }
                None => transaction,
            },
            State::Idle => {
                let (shared, scope) = (&self.shared, self.context.scope());
                let begun = match self.access {
                    Access::Read => Transaction::begin_reading(shared, scope).await,
                    Access::Write => Transaction::begin(shared, scope).await,
                };
                begun.inspect_err(|cause| self.state = State::Failed(Spent::by(cause)))?
            }
            State::Failed(spent) => {
                self.state = State::Failed(spent.clone());
                return Err(spent.error());
            }
        };
        let mut done = transaction.look().await;
        if done.is_ok() && (self.staged.has_checks() || !self.staged.is_empty()) {
            let guards = self.staged.take_guards();
            let writes = self.staged.take();
            done = transaction
                .send(
                    &self.shared,
                    guards,
                    writes,
                    self.context.metadata(),
                    &self.projections,
                )
                .await;
        }
        self.settle(transaction, done).await?;
        match &mut self.state {
            State::Open(transaction) => Ok(transaction),
            State::Idle => Err(Spent::default().error()),
            State::Failed(spent) => Err(spent.error()),
        }
    }

    /// Takes the state out; a future that is dropped before it is put back leaves the unit of work
    /// failed.
    fn take(&mut self) -> State<B> {
        std::mem::replace(&mut self.state, State::Failed(Spent::default()))
    }

    /// Takes the transaction out, opened, for a step after which it is [settled](Self::settle): a
    /// future that is dropped in between leaves the unit of work failed.
    async fn take_open(&mut self) -> Result<Transaction<B>> {
        self.open().await?;
        match self.take() {
            State::Open(transaction) => Ok(transaction),
            State::Idle => Err(Spent::default().error()),
            State::Failed(spent) => Err(spent.error()),
        }
    }

    /// Puts the transaction back after a step, if there is still one.
    async fn settle(&mut self, transaction: Transaction<B>, step: Result<()>) -> Result<()> {
        match step {
            Ok(()) => {
                self.state = State::Open(transaction);
                Ok(())
            }
            Err(cause) => Err(self.fail(transaction, cause).await),
        }
    }

    /// Deals with a step that failed, and returns why.
    async fn fail(&mut self, transaction: Transaction<B>, cause: Error) -> Error {
        let (afterwards, cause) = transaction.after_failure(&self.shared, cause).await;
        self.state = match afterwards {
            Afterwards::Keep(transaction) => State::Open(transaction),
            Afterwards::Over => State::Failed(Spent::by(&cause)),
        };
        cause
    }

    /// Writes everything and commits.
    async fn write(mut self) -> Result<Written> {
        let changing = self.changing();
        let alone = !self.projections.reads(self.staged.as_slice());
        // Policies need to know the tenant before the statement begins.
        let alone = alone && !self.shared.row_level_security && !self.staged.has_checks();
        if matches!(self.state, State::Idle) && self.record.is_none() && alone {
            if self.staged.is_empty() {
                return Ok(Written::default());
            }
            let writes = self.staged.take();
            let metadata = self.context.metadata();
            return coalesced::commit(&self.shared, writes, metadata, changing).await;
        }
        let transaction = self.take_open().await?;
        let projected = transaction.project(&self.shared, &self.projections);
        let (mut transaction, _projected) = projected.await?;
        if let Some((key, output)) = self.record.take() {
            let scope = self.context.scope();
            if let Err(cause) = transaction.record(scope, &key, output).await {
                let (_, cause) = transaction.after_failure(&self.shared, cause).await;
                return Err(cause);
            }
        }
        transaction.commit(&self.shared).await
    }

    /// The tables that the commit changes; they count as changed when it is over, however it ends.
    fn changing(&self) -> Changing {
        let mut changing = self.shared.changes.changing();
        for write in self.staged.as_slice() {
            write.tables().for_each(|table| changing.add(table));
        }
        if let State::Open(transaction) = &self.state {
            transaction.tables().for_each(|table| changing.add(table));
        }
        changing
    }

    /// Whether it may be committed, after the hooks before the commit.
    async fn prepare(&mut self) -> Result<()> {
        self.check_writable()?;
        if let State::Failed(spent) = &self.state {
            return Err(spent.error());
        }
        Hooks::run_before(self, Self::hooks).await?;
        match &self.state {
            State::Open(transaction) if transaction.has_savepoint() => {
                return Err(Error::open_savepoint());
            }
            _ => {}
        }
        let interceptors = &self.shared.interceptors;
        interceptors.before_commit(&self.context, self.writes())
    }

    /// Everything that the commit is about to write.
    fn writes(&self) -> impl Iterator<Item = &StagedWrite> {
        let sent = match &self.state {
            State::Open(transaction) => transaction.sent(),
            State::Idle | State::Failed(_) => &[],
        };
        sent.iter().chain(self.staged.as_slice())
    }

    /// What the interceptors see after the commit.
    fn watched(&self) -> Option<(RequestContext, Vec<StagedWrite>)> {
        let is_watched = !self.shared.interceptors.is_empty();
        is_watched.then(|| (self.context.clone(), self.writes().cloned().collect()))
    }
}

impl<B: Backend> UnitOfWork for SqlUnitOfWork<B> {
    type Repository<'u, A: AggregateRoot> = SqlRepository<'u, B, A>;

    fn context(&self) -> &RequestContext {
        &self.context
    }

    fn repository<A: AggregateRoot>(&mut self) -> SqlRepository<'_, B, A> {
        SqlRepository::new(self)
    }

    async fn commit(mut self) -> Result<CommitReceipt> {
        let span = self.span.clone();
        let commit = async move {
            if let Err(error) = self.prepare().await {
                self.rollback().await;
                return Err(error);
            }
            let shared = Arc::clone(&self.shared);
            let hooks = std::mem::take(&mut self.hooks);
            let watched = self.watched();
            let snapshots = Due::of(self.writes());
            let sourced = shared.sourced_types.unknown(self.writes());
            let written = self.write().await?;
            if written.position.is_some() {
                shared.committed.signal();
            }
            Snapshots::write(&shared, snapshots);
            let receipt = CommitReceipt::new(written.events, written.position);
            if let Some((context, writes)) = watched {
                shared
                    .interceptors
                    .after_commit(&context, &writes, &receipt);
            }
            hooks.run_after(&receipt);
            sourced_types::note(&shared, sourced).await;
            Ok(receipt)
        };
        commit.instrument(span).await
    }

    async fn rollback(self) {
        if let State::Open(transaction) = self.state {
            transaction.roll_back(&self.shared).await;
        }
    }

    async fn begin_savepoint(&mut self) -> Result<()> {
        let outside = Outside {
            hooks: self.hooks.mark(),
            record: self.record.clone(),
        };
        let mut transaction = self.take_open().await?;
        let begun = transaction.begin_savepoint(outside).await;
        self.settle(transaction, begun).await
    }

    async fn release_savepoint(&mut self) -> Result<()> {
        let mut transaction = self.take_open().await?;
        let released = transaction.release_savepoint().await;
        self.settle(transaction, released).await
    }

    async fn roll_back_savepoint(&mut self) -> Result<()> {
        self.staged.take_guards();
        self.staged.take();
        let mut transaction = match self.take() {
            State::Open(transaction) => transaction,
            State::Idle => {
                self.state = State::Idle;
                return Err(Error::no_savepoint());
            }
            State::Failed(spent) => {
                self.state = State::Failed(spent.clone());
                return Err(spent.error());
            }
        };
        match transaction.roll_back_savepoint().await {
            Ok(outside) => {
                self.hooks.forget_after(outside.hooks);
                self.record = outside.record;
                self.state = State::Open(transaction);
                Ok(())
            }
            Err(cause) => {
                transaction.roll_back(&self.shared).await;
                self.state = State::Failed(Spent::by(&cause));
                Err(cause)
            }
        }
    }

    fn hooks(&mut self) -> &mut Hooks<Self> {
        &mut self.hooks
    }

    async fn finish_task(
        &mut self,
        task: &ProcessTask,
        event: Option<StagedWrite>,
    ) -> Result<bool> {
        self.check_writable()?;
        let span = self.span.clone();
        let take = async {
            let mut transaction = self.take_open().await?;
            let connection = transaction.connection();
            let taken = processes::take::<B>(connection.get(), task).await;
            if matches!(taken, Ok(true)) {
                self.shared.under_way.begun(task, connection);
            }
            let (taken, step) = match taken {
                Ok(taken) => (taken, Ok(())),
                Err(cause) => (false, Err(cause)),
            };
            self.settle(transaction, step).await.map(|()| taken)
        };
        let taken = take.instrument(span).await?;
        if let Some(event) = event.filter(|_| taken) {
            let metadata = self.context.metadata();
            self.staged
                .push(event.hashed(&self.shared.hashing, metadata))?;
        }
        Ok(taken)
    }

    async fn recorded(&mut self, key: &IdempotencyKey) -> Result<Option<RecordedReceipt>> {
        let select = receipts::select(self.context.scope(), key);
        let found = reads::rows(self.place().await?, &select, None, receipts::read).await;
        Ok(self.after_read(found).await?.pop())
    }

    fn record(&mut self, key: &IdempotencyKey, output: String) -> Result<()> {
        self.check_writable()?;
        if self.record.is_some() {
            return Err(Error::second_key());
        }
        self.record = Some((key.clone(), output));
        Ok(())
    }
}
