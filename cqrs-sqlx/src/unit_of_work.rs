//! The unit of work.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use cqrs_core::staging::StagedWrite;
use cqrs_core::{
    AggregateRoot, CommitReceipt, Entity, Error, RequestContext, Result, StoreErrorKind,
    TenantScope, UnitOfWork,
};

use crate::backend::{Backend, Committed, Proof, Written};
use crate::connections::Connection;
use crate::lent::Lent;
use crate::reads::{self, Place, is_unavailable};
use crate::repository::SqlRepository;
use crate::select::Select;
use crate::statements::Statements;
use crate::store::Shared;

/// How often a commit that was lost without a trace is sent again.
const RESENDS: u32 = 3;

/// A unit of work in a database.
///
/// # Transaction
///
/// It opens a transaction only when it must send something before the commit: when a read follows
/// a staged write, or when [`connection`](Self::connection) is asked for. Until then it holds no
/// connection, and its reads are statements of their own; the version guard makes that safe.
///
/// # Cancel safety
///
/// Dropped at any moment, it leaves nothing behind; only a commit that is under way may still
/// happen.
pub struct SqlUnitOfWork<B: Backend> {
    shared: Arc<Shared<B>>,
    context: RequestContext,
    staged: Vec<StagedWrite>,
    state: State<B>,
}

enum State<B: Backend> {
    /// Nothing was sent.
    Idle,
    /// A transaction is open, and these writes were sent in it.
    Open {
        connection: Connection<B>,
        sent: Vec<StagedWrite>,
        written: Written,
        /// Whether SQL of the user may have run in it, and failed.
        lent: Lent,
    },
    /// A statement of the transaction failed, and everything was rolled back.
    Failed,
}

impl<B: Backend> SqlUnitOfWork<B> {
    pub(crate) fn new(shared: Arc<Shared<B>>, context: RequestContext) -> Self {
        if *context.scope() == TenantScope::System {
            tracing::debug!(actor = context.actor(), "unit of work across all tenants");
        }
        Self {
            shared,
            context,
            staged: Vec::new(),
            state: State::Idle,
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
        stage: impl FnOnce(&RequestContext, DateTime<Utc>) -> Result<StagedWrite>,
    ) -> Result<()> {
        let write = stage(&self.context, self.shared.clock.now())?;
        self.staged.push(write);
        Ok(())
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
    /// unit of work fails with a [`Usage`](StoreErrorKind::Usage) error; but SQL of yours that runs
    /// before it finds out is in no transaction.
    ///
    /// # Errors
    ///
    /// As [`commit`](UnitOfWork::commit); after one the unit of work cannot be used any more.
    pub async fn connection(&mut self) -> Result<&mut B::Raw> {
        self.open().await?;
        match &mut self.state {
            State::Open {
                connection, lent, ..
            } => {
                lent.lend();
                Ok(B::raw(connection.get()))
            }
            State::Idle | State::Failed => Err(failed()),
        }
    }

    /// The entities that a select finds.
    pub(crate) async fn entities<T: Entity>(&mut self, select: &Select) -> Result<Vec<T>> {
        let found = reads::entities(self.place().await?, select).await;
        self.after_read(found).await
    }

    /// The number that a select counts.
    pub(crate) async fn count(&mut self, select: &Select) -> Result<u64> {
        let counted = reads::count(self.place().await?, select).await;
        self.after_read(counted).await
    }

    /// A statement that fails takes its transaction with it.
    async fn after_read<T>(&mut self, result: Result<T>) -> Result<T> {
        match result {
            Err(cause @ Error::Store(_)) if matches!(self.state, State::Open { .. }) => {
                let state = std::mem::replace(&mut self.state, State::Failed);
                let State::Open { connection, .. } = state else {
                    return Err(cause);
                };
                Err(broken(&self.shared, connection, cause).await)
            }
            result => result,
        }
    }

    /// Where a read takes place, after what is staged was sent.
    async fn place(&mut self) -> Result<Place<'_, B>> {
        let unseen = matches!(
            self.state,
            State::Open {
                lent: Lent::Unseen,
                ..
            }
        );
        if unseen || !self.staged.is_empty() {
            self.open().await?;
        }
        match &mut self.state {
            State::Idle => Ok(Place::Alone(&self.shared)),
            State::Open { connection, .. } => Ok(Place::Transaction(connection)),
            State::Failed => Err(failed()),
        }
    }

    /// Opens the transaction where it is not open, looks at it where it was lent, and sends what is
    /// staged.
    async fn open(&mut self) -> Result<()> {
        // Until this is through, a dropped future or an error leaves the unit of work failed.
        let state = std::mem::replace(&mut self.state, State::Failed);
        let (mut connection, mut sent, mut written, mut lent) = match state {
            State::Open {
                connection,
                sent,
                written,
                lent,
            } => (connection, sent, written, lent),
            State::Idle => {
                let connection = begin(&self.shared).await?;
                (connection, Vec::new(), Written::default(), Lent::Never)
            }
            State::Failed => return Err(failed()),
        };
        if let Err(cause) = lent.look::<B>(connection.get()).await {
            return Err(broken(&self.shared, connection, cause).await);
        }
        if !self.staged.is_empty() {
            let staged = std::mem::take(&mut self.staged);
            let applied = B::apply_writes(
                connection.get(),
                &self.shared.statements,
                &staged,
                self.context.metadata(),
            )
            .await;
            let new = match applied {
                Ok(new) => new,
                Err(cause) => return Err(broken(&self.shared, connection, cause).await),
            };
            written.events.extend(new.events);
            written.position = written.position.max(new.position);
            sent.extend(staged);
        }
        self.state = State::Open {
            connection,
            sent,
            written,
            lent,
        };
        Ok(())
    }

    /// Commits what was staged in a unit of work that has sent nothing.
    async fn commit_staged(self) -> Result<Written> {
        let shared = &self.shared;
        let metadata = self.context.metadata();
        let mut resends = 0;
        loop {
            let mut connection = shared.writers.acquire().await?;
            let process = B::process(connection.get());
            let committed = B::commit_writes(
                connection.begin_work(),
                &shared.statements,
                &self.staged,
                metadata,
            )
            .await;
            let cause = match committed {
                Committed::Done(written) => {
                    connection.end_work();
                    return Ok(written);
                }
                Committed::Refused(error) => {
                    if !is_unavailable(&error) {
                        connection.end_work();
                    }
                    return Err(error);
                }
                Committed::Lost(cause) => cause,
            };
            connection.discard();
            shared.writers.close_idle();
            tracing::debug!(%cause, "a commit's answer was lost");
            if let Some(written) = resolve(shared, process, Proof::Events(&self.staged)).await? {
                return Ok(written);
            }
            if resends == RESENDS {
                return Err(cause);
            }
            resends += 1;
        }
    }

    /// Commits the open transaction.
    async fn commit_open(mut self) -> Result<Written> {
        self.open().await?;
        let State::Open {
            mut connection,
            sent,
            written,
            lent,
        } = self.state
        else {
            return Err(failed());
        };
        let process = B::process(connection.get());
        // Asking also finds out whether a statement of the user failed and nobody said so: the
        // database would answer the commit of such a transaction with a silent rollback.
        let transaction = if lent != Lent::Never || written.events.is_empty() {
            match B::transaction_id(connection.get()).await {
                Ok(transaction) => transaction,
                Err(cause) => return Err(broken(&self.shared, connection, cause).await),
            }
        } else {
            None
        };
        let Err(cause) = B::commit(connection.get()).await else {
            connection.end_work();
            return Ok(written);
        };
        if !is_unavailable(&cause) {
            return Err(cause);
        }
        connection.discard();
        self.shared.writers.close_idle();
        tracing::debug!(%cause, "a commit's answer was lost");
        let proof = match transaction {
            _ if !written.events.is_empty() => Proof::Events(&sent),
            Some(id) => Proof::Transaction(id),
            // It wrote nothing.
            None => return Ok(written),
        };
        match resolve(&self.shared, process, proof).await? {
            Some(_) => Ok(written),
            None => Err(cause),
        }
    }
}

/// Begins a transaction. An idle connection may have died unnoticed; nothing depends on this one
/// yet, so another is tried.
async fn begin<B: Backend>(shared: &Shared<B>) -> Result<Connection<B>> {
    let mut connection = shared.writers.acquire().await?;
    let Err(cause) = B::begin(connection.begin_work()).await else {
        return Ok(connection);
    };
    if !is_unavailable(&cause) {
        return Err(cause);
    }
    connection.discard();
    shared.writers.close_idle();
    let mut connection = shared.writers.acquire().await?;
    B::begin(connection.begin_work()).await?;
    Ok(connection)
}

/// Ends a transaction in which a statement failed.
///
/// Where the connection broke, the server may not have noticed, and would keep the transaction's
/// locks from the next try: it is told.
async fn broken<B: Backend>(
    shared: &Shared<B>,
    mut connection: Connection<B>,
    cause: Error,
) -> Error {
    let process = B::process(connection.get());
    let rolled_back = B::rollback(connection.get()).await;
    if !is_unavailable(&cause) && rolled_back.is_ok() {
        connection.end_work();
        return cause;
    }
    connection.discard();
    shared.writers.close_idle();
    if let Err(error) = resolve(shared, process, Proof::Nothing).await {
        tracing::debug!(%error, "the server may still hold the locks of a broken transaction");
    }
    cause
}

async fn resolve<B: Backend>(
    shared: &Shared<B>,
    process: crate::backend::Process,
    proof: Proof<'_>,
) -> Result<Option<Written>> {
    shared
        .backend
        .resolve(process, &proof)
        .await
        .map_err(|cause| {
            Error::Store(
                cqrs_core::StoreError::new(
                    StoreErrorKind::OutcomeUnknown,
                    "the connection broke during a commit, and what became of it could not be found out",
                )
                .with_source(cause),
            )
        })
}

fn failed() -> Error {
    Error::store(
        StoreErrorKind::Usage,
        "the unit of work failed before and was rolled back; begin a new one",
    )
}

impl<B: Backend> UnitOfWork for SqlUnitOfWork<B> {
    type Repository<'u, A: AggregateRoot> = SqlRepository<'u, B, A>;

    fn context(&self) -> &RequestContext {
        &self.context
    }

    fn repository<A: AggregateRoot>(&mut self) -> SqlRepository<'_, B, A> {
        SqlRepository::new(self)
    }

    async fn commit(self) -> Result<CommitReceipt> {
        let shared = Arc::clone(&self.shared);
        let written = match &self.state {
            State::Idle if self.staged.is_empty() => Written::default(),
            State::Idle => self.commit_staged().await?,
            State::Open { .. } => self.commit_open().await?,
            State::Failed => return Err(failed()),
        };
        if written.position.is_some() {
            shared.committed.signal();
        }
        Ok(CommitReceipt::new(written.events, written.position))
    }

    async fn rollback(self) {
        if let State::Open { mut connection, .. } = self.state {
            match B::rollback(connection.get()).await {
                Ok(()) => connection.end_work(),
                Err(cause) => {
                    broken(&self.shared, connection, cause).await;
                }
            }
        }
    }
}
