//! The unit of work in memory.

use std::sync::Arc;

use super::key::Key;
use super::overlay::Overlay;
use super::repository::InMemoryRepository;
use super::select;
use super::state::{Row, Shared, State};
use crate::aggregate::AggregateRoot;
use crate::context::RequestContext;
use crate::error::{Error, Result, StoreErrorKind};
use crate::mapping::Table;
use crate::specification::Specification;
use crate::staging::{StagedWrite, StagedWrites};
use crate::unit_of_work::{CommitReceipt, UnitOfWork};

/// A unit of work of an [`InMemoryStore`](super::InMemoryStore).
///
/// A read first brings what was staged into a private view, so that it sees it; others see it
/// after the commit. Reads see what others have committed meanwhile; the commit checks every
/// write again against what is then current.
///
/// Where a read fails because something staged before cannot be written, the unit of work is
/// spent: all it answers from then on is a [`Usage`](StoreErrorKind::Usage) error.
#[derive(Debug)]
pub struct InMemoryUnitOfWork {
    shared: Arc<Shared>,
    context: RequestContext,
    staged: StagedWrites,
    /// The writes that are in the overlay.
    flushed: Vec<StagedWrite>,
    overlay: Overlay,
    failed: bool,
}

impl InMemoryUnitOfWork {
    pub(super) fn new(shared: Arc<Shared>, context: RequestContext) -> Self {
        Self {
            shared,
            context,
            staged: StagedWrites::default(),
            flushed: Vec::new(),
            overlay: Overlay::default(),
            failed: false,
        }
    }

    pub(super) fn stage_save<A: AggregateRoot>(&mut self, aggregate: A) -> Result<()> {
        let now = self.shared.clock.now();
        self.stage(StagedWrite::save(aggregate, &self.context, now)?)
    }

    pub(super) fn stage_remove<A: AggregateRoot>(&mut self, aggregate: A) -> Result<()> {
        let now = self.shared.clock.now();
        self.stage(StagedWrite::remove(aggregate, &self.context, now)?)
    }

    fn stage(&mut self, write: StagedWrite) -> Result<()> {
        self.check_usable()?;
        self.staged.push(write)
    }

    pub(super) fn find_row(&mut self, table: &'static Table, key: &Key) -> Result<Option<Row>> {
        self.flushed(|state, overlay, context| {
            Ok(overlay
                .row(state, table.name(), key)
                .filter(|row| select::is_within(context.scope(), table, row))
                .cloned())
        })
    }

    pub(super) fn filter_rows<A: AggregateRoot>(
        &mut self,
        specification: &Specification<A>,
    ) -> Result<Vec<Row>> {
        self.flushed(|state, overlay, context| {
            let rows = overlay.rows(state, A::table().name());
            select::filter(specification, context.scope(), rows)
        })
    }

    /// Brings what was staged into the overlay, then reads through it.
    fn flushed<T>(
        &mut self,
        read: impl FnOnce(&State, &Overlay, &RequestContext) -> Result<T>,
    ) -> Result<T> {
        self.check_usable()?;
        let state = self.shared.lock();
        for write in self.staged.take() {
            if let Err(error) = self.overlay.write(&state, &write) {
                self.failed = true;
                return Err(error);
            }
            self.flushed.push(write);
        }
        read(&state, &self.overlay, &self.context)
    }

    fn check_usable(&self) -> Result<()> {
        if self.failed {
            return Err(Error::store(
                StoreErrorKind::Usage,
                "the unit of work failed before: begin a new one",
            ));
        }
        Ok(())
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
        self.check_usable()?;
        let mut state = self.shared.lock();
        // The overlay of the reads is not good enough: others may have committed since.
        let mut overlay = Overlay::default();
        let mut writes = self.flushed;
        writes.extend(self.staged.take());
        let mut written = Vec::with_capacity(writes.len());
        for write in writes {
            if overlay.write(&state, &write)? {
                written.push(write);
            }
        }
        state.apply(overlay);
        let mut events = Vec::new();
        let mut position = None;
        for write in written {
            events.extend(write.events.iter().map(|event| event.event_id));
            position =
                Some(state.append(write, self.context.metadata(), self.shared.clock.as_ref()));
        }
        Ok(CommitReceipt::new(events, position))
    }
}
