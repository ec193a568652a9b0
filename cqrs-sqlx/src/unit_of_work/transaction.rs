//! The open transaction of a unit of work.

use std::sync::Arc;

use cqrs_core::staging::StagedWrite;
use cqrs_core::{
    Changing, Envelope, Error, HooksMark, IdempotencyKey, Inline, Metadata, Position, RawPayload,
    Result, Spent, TenantScope,
};

use super::lost::{broken, resolve};
use crate::backend::{Backend, Mark, Proof, Returned, Written};
use crate::connections::{Connection, Connections};
use crate::lent::Lent;
use crate::projector::SqlTransaction;
use crate::reads::is_unavailable;
use crate::receipts;
use crate::store::Shared;

/// A transaction, and what was sent in it.
pub(crate) struct Transaction<B: Backend> {
    connection: Connection<B>,
    sent: Vec<StagedWrite>,
    written: Written,
    /// Whether SQL of the user may have run in it, and failed.
    lent: Lent,
    /// What tells it from another that SQL of the user has begun, since it wrote something.
    mark: Option<Mark>,
    savepoints: Vec<Savepoint>,
    /// The statement that failed since the innermost savepoint: nothing works until that is rolled
    /// back.
    spoiled: Option<Spent>,
    /// Whether the receipt of the commit is among what was written.
    recorded: bool,
    /// Whether bulk work is.
    in_bulk: bool,
}

/// How much there was when it began. Numbers, not copies: there can be one for each item of an
/// import.
struct Savepoint {
    sent: usize,
    events: usize,
    envelopes: usize,
    position: Option<Position>,
    outside: Outside,
}

/// What a unit of work goes back to besides its transaction when a savepoint is rolled back.
pub(super) struct Outside {
    pub(super) hooks: HooksMark,
    pub(super) record: Option<(IdempotencyKey, String)>,
}

/// What to do with the transaction after a statement in it has failed.
pub(crate) enum Afterwards<B: Backend> {
    /// It goes on, once its savepoint is rolled back.
    Keep(Transaction<B>),
    /// It is over.
    Over,
}

impl<B: Backend> Transaction<B> {
    /// Begins one that writes.
    pub(crate) async fn begin(shared: &Shared<B>, scope: &TenantScope) -> Result<Self> {
        let mut connection = shared.writers.acquire().await?;
        if let Err(cause) = B::begin(connection.begin_work()).await {
            connection = another(&shared.writers, connection, cause).await?;
            B::begin(connection.begin_work()).await?;
        }
        shared.confine(connection.get(), scope).await?;
        Ok(Self::on(connection))
    }

    /// Begins one that only reads, all of it from one moment.
    pub(super) async fn begin_reading(shared: &Shared<B>, scope: &TenantScope) -> Result<Self> {
        let mut connection = shared.readers.acquire().await?;
        if let Err(cause) = B::begin_reading(connection.begin_work()).await {
            connection = another(&shared.readers, connection, cause).await?;
            B::begin_reading(connection.begin_work()).await?;
        }
        shared.confine(connection.get(), scope).await?;
        Ok(Self::on(connection))
    }

    fn on(connection: Connection<B>) -> Self {
        Self {
            connection,
            sent: Vec::new(),
            written: Written::default(),
            lent: Lent::Never,
            mark: None,
            savepoints: Vec::new(),
            spoiled: None,
            recorded: false,
            in_bulk: false,
        }
    }

    pub(super) fn spoiled(&self) -> Option<&Spent> {
        self.spoiled.as_ref()
    }

    /// What was sent in it.
    pub(super) fn sent(&self) -> &[StagedWrite] {
        &self.sent
    }

    /// The tables of the aggregates that it has written.
    pub(super) fn tables(&self) -> impl Iterator<Item = &'static str> {
        self.sent.iter().flat_map(StagedWrite::tables)
    }

    pub(super) fn has_savepoint(&self) -> bool {
        !self.savepoints.is_empty()
    }

    pub(crate) fn connection(&mut self) -> &mut Connection<B> {
        &mut self.connection
    }

    /// How many transactions and savepoints must be open.
    fn depth(&self) -> usize {
        1 + self.savepoints.len()
    }

    /// Gets ready to be lent. What was written must not be taken for committed where SQL of the
    /// user rolls back and begins anew.
    pub(super) async fn mark(&mut self) -> Result<()> {
        if self.mark.is_none() && !self.written.events.is_empty() {
            self.mark = B::mark(self.connection.get()).await?;
        }
        Ok(())
    }

    /// The connection, for SQL of the user.
    pub(super) fn lend(&mut self) -> &mut B::Raw {
        self.lent.lend();
        B::raw(self.connection.get())
    }

    /// Looks at the transaction where it was lent.
    pub(super) async fn look(&mut self) -> Result<()> {
        let depth = self.depth();
        self.lent
            .look::<B>(self.connection.get(), depth, &mut self.mark)
            .await
    }

    /// Sends guards, and those among the writes that only check, then the others.
    pub(crate) async fn send(
        &mut self,
        shared: &Shared<B>,
        mut guards: Vec<StagedWrite>,
        writes: Vec<StagedWrite>,
        metadata: &Metadata,
        projections: &Inline<SqlTransaction<B>>,
    ) -> Result<()> {
        let connection = self.connection.get();
        let (checks, changing): (Vec<_>, Vec<_>);
        let sent = if writes.iter().any(StagedWrite::is_check) {
            (checks, changing) = writes.iter().cloned().partition(StagedWrite::is_check);
            guards.extend(checks);
            &changing
        } else {
            &writes
        };
        let returned = if projections.reads(sent) {
            Returned::Events
        } else {
            Returned::Positions
        };
        let statements = &shared.statements;
        let new = B::apply_writes(connection, statements, &guards, sent, metadata, returned)
            .await
            .map_err(|cause| self.own_conflict(cause))?;
        self.written.events.extend(new.events);
        self.written.envelopes.extend(new.envelopes);
        self.written.position = self.written.position.max(new.position);
        self.sent.extend(writes);
        Ok(())
    }

    /// A conflict with a version that this transaction has written is an error of the work.
    fn own_conflict(&self, cause: Error) -> Error {
        let Error::Conflict {
            aggregate,
            id,
            found,
            ..
        } = &cause
        else {
            return cause;
        };
        let own = self.sent.iter().find(|write| {
            // One that turned out to change nothing has written no event.
            let is_written = || {
                let first = write.events.first();
                first.is_some_and(|first| self.written.events.contains(&first.event_id))
            };
            write.aggregate_type == *aggregate
                && write.aggregate_id == *id
                && write.new_version == *found
                && is_written()
        });
        own.map_or(cause, StagedWrite::saved_before)
    }

    /// Takes note of what bulk work is about to write: the commit must be recognised by the
    /// transaction, since its events are not known here.
    pub(crate) fn note_bulk(&mut self) {
        self.in_bulk = true;
    }

    /// The events of bulk work, for the inline projections.
    pub(crate) fn add_events(&mut self, events: Vec<Envelope<RawPayload>>) {
        self.written.envelopes.extend(events);
    }

    /// Applies the events that were written to the inline projections. The tables that these have
    /// changed count as changed when the second value is dropped, after the commit.
    pub(crate) async fn project(
        mut self,
        shared: &Arc<Shared<B>>,
        projections: &Inline<SqlTransaction<B>>,
    ) -> Result<(Self, Changing)> {
        let events = std::mem::take(&mut self.written.envelopes);
        if events.is_empty() {
            return Ok((self, shared.changes.changing()));
        }
        let mut transaction =
            SqlTransaction::inline(Arc::clone(shared), self.connection, self.lent);
        let mut applied = projections.apply(&events, &mut transaction).await;
        if let (Ok(()), Some(last)) = (&applied, events.last()) {
            applied = transaction.still_holds(last).await;
        }
        let (connection, lent, changing) = transaction.into_open_parts();
        let projected = Self {
            connection,
            lent,
            ..self
        };
        match applied {
            Ok(()) => Ok((projected, changing)),
            Err(Error::Projection { name, cause }) => {
                let (_, cause) = projected.after_failure(shared, *cause).await;
                let cause = Box::new(cause);
                Err(Error::Projection { name, cause })
            }
            Err(cause) => Err(projected.after_failure(shared, cause).await.1),
        }
    }

    /// Records the receipt of the commit.
    pub(super) async fn record(
        &mut self,
        scope: &TenantScope,
        key: &IdempotencyKey,
        output: String,
    ) -> Result<()> {
        self.recorded = true;
        receipts::insert::<B>(self.connection.get(), scope, key, output, &self.written).await
    }

    /// Deals with a statement that failed.
    pub(crate) async fn after_failure(
        mut self,
        shared: &Shared<B>,
        cause: Error,
    ) -> (Afterwards<B>, Error) {
        let whole = B::depth(self.connection.get()) == self.depth() && self.lent != Lent::Ended;
        if !whole {
            // Nobody knows what it is in the middle of: it is repaired or closed.
            return (Afterwards::Over, cause);
        }
        if self.has_savepoint() && !is_unavailable(&cause) {
            self.spoiled = Some(Spent::by(&cause));
            return (Afterwards::Keep(self), cause);
        }
        let cause = broken(shared, self.connection, cause).await;
        (Afterwards::Over, cause)
    }

    pub(super) async fn begin_savepoint(&mut self, outside: Outside) -> Result<()> {
        B::begin_savepoint(self.connection.get()).await?;
        self.savepoints.push(Savepoint {
            sent: self.sent.len(),
            events: self.written.events.len(),
            envelopes: self.written.envelopes.len(),
            position: self.written.position,
            outside,
        });
        Ok(())
    }

    pub(super) async fn release_savepoint(&mut self) -> Result<()> {
        B::release_savepoint(self.connection.get()).await?;
        self.savepoints.pop();
        Ok(())
    }

    pub(super) async fn roll_back_savepoint(&mut self) -> Result<Outside> {
        let whole = B::depth(self.connection.get()) == self.depth();
        if !self.has_savepoint() || !whole {
            return Err(Error::no_savepoint());
        }
        B::roll_back_savepoint(self.connection.get()).await?;
        let savepoint = self.savepoints.pop().ok_or_else(Error::no_savepoint)?;
        self.sent.truncate(savepoint.sent);
        self.written.events.truncate(savepoint.events);
        self.written.envelopes.truncate(savepoint.envelopes);
        self.written.position = savepoint.position;
        self.spoiled = None;
        // One that was made within the savepoint may be gone with it.
        self.mark = None;
        Ok(savepoint.outside)
    }

    /// Whether the framework has written in it: one that has only read, or locked, has nothing to
    /// prove.
    fn has_written(&self) -> bool {
        self.recorded || self.in_bulk || !self.sent.is_empty()
    }

    /// Commits.
    pub(crate) async fn commit(mut self, shared: &Shared<B>) -> Result<Written> {
        // The commit of a savepoint would look like one of the transaction.
        if B::depth(self.connection.get()) != 1 {
            return Err(Error::open_savepoint());
        }
        let process = B::process(self.connection.get());
        // Asking also finds out whether a statement of the user failed and nobody said so: the
        // database would answer the commit of such a transaction with a silent rollback.
        let without_events = self.written.events.is_empty() && self.has_written();
        let transaction = if self.lent != Lent::Never || without_events {
            match B::transaction_id(self.connection.get()).await {
                Ok(transaction) => transaction,
                Err(cause) => return Err(broken(shared, self.connection, cause).await),
            }
        } else {
            None
        };
        let Err(cause) = B::commit(self.connection.get()).await else {
            self.connection.end_work();
            return Ok(self.written);
        };
        if !is_unavailable(&cause) {
            return Err(cause);
        }
        self.connection.discard();
        shared.writers.close_idle();
        tracing::debug!(%cause, "a commit's answer was lost");
        let proof = match transaction {
            _ if !self.written.events.is_empty() => Proof::Events(&self.sent),
            Some(id) => Proof::Transaction(id),
            // It wrote nothing.
            None => return Ok(self.written),
        };
        match resolve(shared, process, proof).await? {
            Some(_) => Ok(self.written),
            None => Err(cause),
        }
    }

    /// Rolls back.
    pub(crate) async fn roll_back(mut self, shared: &Shared<B>) {
        match B::rollback(self.connection.get()).await {
            Ok(()) => self.connection.end_work(),
            Err(cause) => {
                broken(shared, self.connection, cause).await;
            }
        }
    }
}

/// Another connection in place of one on which no transaction could be begun: an idle one may have
/// died unnoticed, and nothing depends on it yet.
async fn another<B: Backend>(
    connections: &Connections<B>,
    connection: Connection<B>,
    cause: Error,
) -> Result<Connection<B>> {
    if !is_unavailable(&cause) {
        return Err(cause);
    }
    connection.discard();
    connections.close_idle();
    connections.acquire().await
}
