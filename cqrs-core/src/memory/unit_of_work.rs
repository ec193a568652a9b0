//! The unit of work in memory.

use std::sync::Arc;

use tracing::Instrument;

use super::commit::{Commit, Record};
use super::overlay::Overlay;
use super::repository::InMemoryRepository;
use super::select;
use super::sourced::View;
use super::state::{ReceiptKey, Row, Shared, State};
use super::transaction::InMemoryTransaction;
use crate::aggregate::AggregateRoot;
use crate::context::RequestContext;
use crate::error::{Error, Result};
use crate::hooks::{Hooks, HooksMark};
use crate::idempotency::{IdempotencyKey, RecordedReceipt};
use crate::inline::Inline;
use crate::interceptor::Interceptors;
use crate::mapping::{Key, Table};
use crate::process::ProcessTask;
use crate::specification::Specification;
use crate::spent::Spent;
use crate::staging::{StagedWrite, StagedWrites};
use crate::unit_of_work::{CommitReceipt, UnitOfWork};

/// A unit of work of an [`InMemoryStore`](super::InMemoryStore).
///
/// A read first brings what was staged into a private view, so that it sees it; others see it
/// after the commit. Reads see what others have committed meanwhile; the commit checks every
/// write again against what is then current.
///
/// Where a read fails because something staged before cannot be written, the unit of work is
/// spent: all it answers from then on is a [`Usage`](crate::StoreErrorKind::Usage) error with that
/// failure as its source.
#[derive(Debug)]
pub struct InMemoryUnitOfWork {
    shared: Arc<Shared>,
    context: RequestContext,
    span: tracing::Span,
    inline: Inline<InMemoryTransaction>,
    staged: StagedWrites,
    /// The guards that were checked against the overlay.
    guards: Vec<StagedWrite>,
    /// The writes that are in the overlay.
    flushed: Vec<StagedWrite>,
    overlay: Overlay,
    failed: Option<Spent>,
    /// Whether a unit of work on a database would have its transaction open: then a read sends guards
    /// too.
    is_open: bool,
    access: Access,
    savepoints: Vec<Savepoint>,
    hooks: Hooks<Self>,
    record: Option<(IdempotencyKey, String)>,
    /// The tasks of process managers that the commit takes out.
    tasks: Vec<ProcessTask>,
}

#[derive(Debug)]
enum Access {
    Write,
    /// What is read, from the first read on.
    Read(Option<Box<State>>),
}

#[derive(Debug)]
struct Savepoint {
    guards: usize,
    flushed: usize,
    overlay: Overlay,
    hooks: HooksMark,
    record: Option<(IdempotencyKey, String)>,
}

impl InMemoryUnitOfWork {
    pub(super) fn new(shared: Arc<Shared>, context: RequestContext) -> Self {
        Self {
            inline: shared.inline.current(),
            shared,
            span: context.span("unit of work"),
            context,
            staged: StagedWrites::default(),
            guards: Vec::new(),
            flushed: Vec::new(),
            overlay: Overlay::default(),
            failed: None,
            is_open: false,
            access: Access::Write,
            savepoints: Vec::new(),
            hooks: Hooks::default(),
            record: None,
            tasks: Vec::new(),
        }
    }

    pub(super) fn read_only(shared: Arc<Shared>, context: RequestContext) -> Self {
        Self {
            access: Access::Read(None),
            ..Self::new(shared, context)
        }
    }

    pub(super) fn stage_save<A: AggregateRoot>(&mut self, mut aggregate: A) -> Result<()> {
        self.check_usable()?;
        self.check_writable()?;
        let context = &self.context;
        self.shared
            .interceptors
            .before_save(&mut aggregate, context)?;
        let now = self.shared.clock.now();
        let write = StagedWrite::save(aggregate, context, now)?;
        let write = write.identified(&self.shared.schema_ids);
        let hashing = &self.shared.hashing;
        self.staged.push(write.hashed(hashing, context.metadata()))
    }

    pub(super) fn stage_remove<A: AggregateRoot>(&mut self, mut aggregate: A) -> Result<()> {
        self.check_usable()?;
        self.check_writable()?;
        let context = &self.context;
        self.shared
            .interceptors
            .before_remove(&mut aggregate, context)?;
        let now = self.shared.clock.now();
        let write = StagedWrite::remove(aggregate, context, now)?;
        let write = write.identified(&self.shared.schema_ids);
        let hashing = &self.shared.hashing;
        self.staged.push(write.hashed(hashing, context.metadata()))
    }

    pub(super) fn stage_guard<A: AggregateRoot>(&mut self, aggregate: &A) -> Result<()> {
        self.check_usable()?;
        self.check_writable()?;
        let guard = StagedWrite::guard(aggregate, &self.context)?;
        self.staged.push_guard(guard);
        Ok(())
    }

    /// Everything that the commit is about to write.
    fn writes(&self) -> impl Iterator<Item = &StagedWrite> {
        self.flushed.iter().chain(self.staged.as_slice())
    }

    /// What the interceptors see after the commit.
    fn watched(&self) -> Option<(Interceptors, RequestContext, Vec<StagedWrite>)> {
        let interceptors = &self.shared.interceptors;
        (!interceptors.is_empty()).then(|| {
            let writes = self.writes().cloned().collect();
            (interceptors.clone(), self.context.clone(), writes)
        })
    }

    pub(super) fn find_row(&mut self, table: &'static Table, key: &Key) -> Result<Option<Row>> {
        self.flushed(|state, overlay, context| {
            Ok(overlay
                .row(state, table.name(), key)
                .filter(|row| select::is_within(&select::living(context.scope()), table, row))
                .cloned())
        })
    }

    /// Reads streams.
    pub(super) fn view<T>(&mut self, read: impl FnOnce(&View<'_>) -> Result<T>) -> Result<T> {
        self.flushed(|_, _, _| Ok(()))?;
        let state = self.shared.lock();
        let rows = match &self.access {
            Access::Read(Some(snapshot)) => snapshot,
            _ => &*state,
        };
        read(&View {
            rows,
            log: &state,
            overlay: &self.overlay,
            flushed: &self.flushed,
            context: &self.context,
            clock: self.shared.clock.as_ref(),
        })
    }

    pub(super) fn filter_rows<A: AggregateRoot>(
        &mut self,
        specification: &Specification<A>,
    ) -> Result<Vec<Row>> {
        self.flushed(|state, overlay, context| {
            let rows = overlay.rows(state, A::table().name());
            select::filter(specification, &select::living(context.scope()), rows)
        })
    }

    /// Brings what was staged into the overlay, then reads through it.
    fn flushed<T>(
        &mut self,
        read: impl FnOnce(&State, &Overlay, &RequestContext) -> Result<T>,
    ) -> Result<T> {
        self.check_usable()?;
        let _entered = self.span.enter();
        let state = self.shared.lock();
        if let Access::Read(snapshot) = &mut self.access {
            let snapshot = snapshot.get_or_insert_with(|| Box::new(state.snapshot()));
            return read(snapshot, &self.overlay, &self.context);
        }
        self.is_open |= !self.staged.is_empty();
        let guards = match self.is_open {
            true => self.staged.take_guards(),
            // Guards alone wait for the commit.
            false => Vec::new(),
        };
        for guard in guards {
            if let Err(error) = self.overlay.check(&state, &guard) {
                self.failed = Some(Spent::by(&error));
                return Err(error);
            }
            self.guards.push(guard);
        }
        for write in self.staged.take() {
            let done = match write.is_check() {
                true => self.overlay.check(&state, &write),
                false => {
                    let metadata = self.context.metadata();
                    self.overlay.write(&state, &write, metadata).map(drop)
                }
            };
            if let Err(error) = done {
                self.failed = Some(Spent::by(&error));
                return Err(error);
            }
            self.flushed.push(write);
        }
        read(&state, &self.overlay, &self.context)
    }

    fn check_usable(&self) -> Result<()> {
        match &self.failed {
            Some(spent) => Err(spent.error()),
            None => Ok(()),
        }
    }

    fn check_writable(&self) -> Result<()> {
        match self.access {
            Access::Write => Ok(()),
            Access::Read(_) => Err(Error::read_only()),
        }
    }

    /// Commits what is staged.
    async fn write(mut self) -> Result<CommitReceipt> {
        if self.is_open {
            // A guard on what this unit of work has written itself is seen in the overlay alone.
            self.flushed(|_, _, _| Ok(()))?;
        }
        let mut guards = std::mem::take(&mut self.guards);
        guards.extend(self.staged.take_guards());
        let mut writes = std::mem::take(&mut self.flushed);
        writes.extend(self.staged.take());
        let (checks, writes): (Vec<_>, Vec<_>) =
            writes.into_iter().partition(StagedWrite::is_check);
        guards.extend(checks);
        let record = self.record.take();
        let record = record.map(|(key, output)| Record {
            place: self.receipt_key(&key),
            key,
            output,
        });
        let commit = Commit {
            shared: self.shared,
            metadata: self.context.metadata().clone(),
            guards,
            writes,
            record,
            tasks: self.tasks,
        };
        commit.run(&self.inline).instrument(self.span).await
    }

    /// Whether rows could be locked. None are: nobody waits in memory, and the versions tell who
    /// came second.
    pub(super) fn check_locking(&mut self) -> Result<()> {
        self.check_writable()
            .map_err(|_| Error::needs_writing_unit())?;
        self.is_open = true;
        Ok(())
    }

    fn receipt_key(&self, key: &IdempotencyKey) -> ReceiptKey {
        let tenant = self.context.scope().tenant().cloned();
        (tenant, key.as_str().to_owned())
    }
}

impl UnitOfWork for InMemoryUnitOfWork {
    type Repository<'u, A: AggregateRoot> = InMemoryRepository<'u, A>;

    fn context(&self) -> &RequestContext {
        &self.context
    }

    fn repository<A: AggregateRoot>(&mut self) -> InMemoryRepository<'_, A> {
        InMemoryRepository::new(self)
    }

    async fn commit(mut self) -> Result<CommitReceipt> {
        self.check_writable()?;
        self.check_usable()?;
        Hooks::run_before(&mut self, Self::hooks).await?;
        self.check_usable()?;
        if !self.savepoints.is_empty() {
            return Err(Error::open_savepoint());
        }
        self.shared
            .interceptors
            .before_commit(&self.context, self.writes())?;
        let watched = self.watched();
        let hooks = std::mem::take(&mut self.hooks);
        let receipt = self.write().await?;
        if let Some((interceptors, context, writes)) = watched {
            interceptors.after_commit(&context, &writes, &receipt);
        }
        hooks.run_after(&receipt);
        Ok(receipt)
    }

    async fn begin_savepoint(&mut self) -> Result<()> {
        self.is_open = true;
        self.flushed(|_, _, _| Ok(()))?;
        self.savepoints.push(Savepoint {
            guards: self.guards.len(),
            flushed: self.flushed.len(),
            overlay: self.overlay.clone(),
            hooks: self.hooks.mark(),
            record: self.record.clone(),
        });
        Ok(())
    }

    async fn release_savepoint(&mut self) -> Result<()> {
        self.flushed(|_, _, _| Ok(()))?;
        self.savepoints.pop();
        Ok(())
    }

    async fn roll_back_savepoint(&mut self) -> Result<()> {
        let savepoint = self.savepoints.pop().ok_or_else(Error::no_savepoint)?;
        self.staged.take_guards();
        self.staged.take();
        self.guards.truncate(savepoint.guards);
        self.flushed.truncate(savepoint.flushed);
        self.overlay = savepoint.overlay;
        self.hooks.forget_after(savepoint.hooks);
        self.record = savepoint.record;
        self.failed = None;
        Ok(())
    }

    fn hooks(&mut self) -> &mut Hooks<Self> {
        &mut self.hooks
    }

    async fn finish_task(
        &mut self,
        task: &ProcessTask,
        event: Option<StagedWrite>,
    ) -> Result<bool> {
        self.check_usable()?;
        self.check_writable()?;
        {
            let state = self.shared.lock();
            if state.is_paused(&task.process) || !state.holds_task(task)? {
                return Ok(false);
            }
        }
        self.is_open = true;
        if let Some(event) = event {
            let metadata = self.context.metadata();
            self.staged
                .push(event.hashed(&self.shared.hashing, metadata))?;
        }
        self.tasks.push(task.clone());
        Ok(true)
    }

    async fn recorded(&mut self, key: &IdempotencyKey) -> Result<Option<RecordedReceipt>> {
        self.check_usable()?;
        let place = self.receipt_key(key);
        Ok(self.shared.lock().receipts.get(&place).cloned())
    }

    fn record(&mut self, key: &IdempotencyKey, output: String) -> Result<()> {
        self.check_usable()?;
        self.check_writable()?;
        if self.record.is_some() {
            return Err(Error::second_key());
        }
        self.record = Some((key.clone(), output));
        Ok(())
    }
}
