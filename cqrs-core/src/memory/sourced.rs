//! Loading event-sourced aggregates.

use super::overlay::{Overlay, is_alive};
use super::select;
use super::state::{Row, Shared, Snapshot, State};
use crate::aggregate::AggregateRoot;
use crate::clock::Clock;
use crate::context::RequestContext;
use crate::envelope::{Envelope, RawPayload};
use crate::error::Result;
use crate::history::VersionPaging;
use crate::maintenance::{BulkScope, Lifecycle};
use crate::mapping::{ColumnValue, Key};
use crate::sourced::{AsOf, DueSnapshot, Fold, RecordedEvent, Replay, Sourcing};
use crate::staging::StagedWrite;

/// Makes the snapshots that writes have made due, of the log as it is now.
pub(super) fn take_snapshots(shared: &Shared, writes: &[StagedWrite]) {
    for write in writes {
        if let Some(due) = &write.snapshot
            && let Err(error) = take_snapshot(shared, write, due)
        {
            let aggregate = write.aggregate_type;
            tracing::warn!(%error, aggregate, "a snapshot was not made");
        }
    }
}

fn take_snapshot(shared: &Shared, write: &StagedWrite, due: &DueSnapshot) -> Result<()> {
    let (kind, id) = (write.aggregate_type, write.aggregate_id.as_str());
    let shape = due.shape();
    let before = shared.lock().snapshot_of(kind, id).cloned();
    let before = before.filter(|snapshot| snapshot.shape == shape);
    for before in before.map(Some).into_iter().chain([None]) {
        let Some(mut replay) = due.begin(id) else {
            return Ok(());
        };
        let mut after = 0;
        if let Some(Snapshot { content, .. }) = before {
            replay.snapshot(content.version, &content.state, None, None);
            after = content.version;
        }
        if replay.is_unreadable() {
            continue;
        }
        let events: Vec<_> = shared.lock().events_of(kind, id, after).cloned().collect();
        for event in &events {
            replay.event(&RecordedEvent::of(event))?;
        }
        let content = replay.take_snapshot(due.taken_at())?;
        if let (Some(content), Some(last)) = (content, events.last()) {
            let last = last.event_id();
            let snapshot = Snapshot {
                shape,
                content,
                last,
            };
            shared.lock().keep_snapshot(write, snapshot);
        }
        return Ok(());
    }
    Ok(())
}

/// What a unit of work sees of a store.
pub(super) struct View<'v> {
    /// Who exists, at which version.
    pub(super) rows: &'v State,
    /// The log, which may have gone on since.
    pub(super) log: &'v State,
    pub(super) overlay: &'v Overlay,
    /// The writes that are in the overlay.
    pub(super) flushed: &'v [StagedWrite],
    pub(super) context: &'v RequestContext,
    pub(super) clock: &'v dyn Clock,
}

impl View<'_> {
    /// Loads an event-sourced aggregate: whether it exists its row says, which holds its version
    /// and nothing more; then its events are folded.
    pub(super) fn load<A: AggregateRoot>(
        &self,
        sourcing: &Sourcing<A>,
        id: &A::Id,
    ) -> Result<Option<A>> {
        let table = A::table();
        let Some(row) = self.row::<A>(id)? else {
            return Ok(None);
        };
        let version = super::overlay::version(table, row.values());
        let id_text = id.to_string();
        let own = self.own::<A>(&id_text);
        let committed = own.first().map_or(version, |write| write.expected_version);

        let Some(mut fold) = Fold::<A>::new(id.clone()) else {
            return Ok(None);
        };
        let mut from = 0;
        let shape = sourcing.shape();
        let snapshot = self.log.snapshot_of(A::TYPE, &id_text).filter(|snapshot| {
            Some(&snapshot.shape) == shape.as_ref() && snapshot.content.version <= committed
        });
        if let Some(Snapshot {
            content: snapshot, ..
        }) = snapshot
        {
            let tenant = super::overlay::tenant(table, row.values());
            let tenant = tenant.and_then(|tenant| crate::context::TenantId::new(tenant).ok());
            let events = self.log.events_of(A::TYPE, &id_text, snapshot.version - 1);
            let last = events.map(Envelope::content_hash).next();
            fold.snapshot(snapshot.version, &snapshot.state, tenant, last);
            from = snapshot.version;
        }
        if fold.is_unreadable() {
            from = 0;
            fold = match Fold::new(id.clone()) {
                Some(fold) => fold,
                None => return Ok(None),
            };
        }
        let stored = self.log.events_of(A::TYPE, &id_text, from);
        for event in stored.take_while(|event| event.aggregate_version() <= committed) {
            fold.event(&RecordedEvent::of(event))?;
        }
        for event in self
            .log
            .next_events(&own, self.context.metadata(), self.clock)
        {
            fold.event(&RecordedEvent::of(&event))?;
        }
        Ok(fold.finish())
    }

    /// The row of an aggregate that exists within the scope.
    fn row<A: AggregateRoot>(&self, id: &A::Id) -> Result<Option<&Row>> {
        let row = self.any_row::<A>(id)?;
        Ok(row.filter(|row| is_alive(A::table(), row.values())))
    }

    /// The row of an aggregate within the scope, also where it is marked as deleted.
    pub(super) fn any_row<A: AggregateRoot>(&self, id: &A::Id) -> Result<Option<&Row>> {
        let table = A::table();
        let key = id.to_value().map_err(|reason| table.key_error(reason))?;
        let row = self
            .overlay
            .row(self.rows, table.name(), &Key::new(vec![key]));
        let rows = BulkScope {
            tenants: self.context.scope().clone(),
            lifecycle: Lifecycle::Any,
        };
        Ok(row.filter(|row| select::is_within(&rows, table, row)))
    }

    /// Loads an event-sourced aggregate as it was.
    pub(super) fn load_as_of<A: AggregateRoot>(&self, id: &A::Id, at: AsOf) -> Result<Option<A>> {
        let events = self.events::<A>(id);
        let last = match at {
            AsOf::Version(version) => version,
            AsOf::Time(time) => {
                let before = events.iter().filter(|event| event.occurred_at() <= time);
                before.map(Envelope::aggregate_version).max().unwrap_or(0)
            }
        };
        let Some(mut fold) = Fold::<A>::new(id.clone()) else {
            return Ok(None);
        };
        for event in events
            .iter()
            .take_while(|event| event.aggregate_version() <= last)
        {
            fold.event(&RecordedEvent::of(event))?;
        }
        Ok(fold.finish())
    }

    /// The events of an aggregate within the scope, also of one that was removed.
    pub(super) fn events<A: AggregateRoot>(&self, id: &A::Id) -> Vec<Envelope<RawPayload>> {
        let id = id.to_string();
        let (last, appended) = self.stream::<A>(&id);
        let committed = self.log.events_until(A::TYPE, &id, last);
        let events = committed.cloned().chain(appended);
        events.filter(|event| self.is_within::<A>(event)).collect()
    }

    /// A page of them from the youngest on, and how many there are where that is asked for. Copies what
    /// is on the page, and does not look at what is behind it.
    pub(super) fn events_page<A: AggregateRoot>(
        &self,
        id: &A::Id,
        paging: &VersionPaging,
    ) -> (Vec<Envelope<RawPayload>>, Option<u64>) {
        let id = id.to_string();
        let (last, appended) = self.stream::<A>(&id);
        let until = |last: u64| {
            let committed = self.log.events_until(A::TYPE, &id, last).rev();
            let all = appended.iter().rev().chain(committed);
            all.filter(|event| self.is_within::<A>(event))
        };
        let total = paging.wants_total().then(|| until(last).count() as u64);
        let before = paging.before().unwrap_or(u64::MAX);
        let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let page = until(last.min(before.saturating_sub(1)))
            .skip_while(|event| event.aggregate_version() >= before)
            .skip(number(paging.skip()))
            .take(number(paging.limit()));
        (page.cloned().collect(), total)
    }

    /// Up to which version the events of an aggregate are in the log, and those that this unit of work
    /// has flushed after that.
    fn stream<A: AggregateRoot>(&self, id: &str) -> (u64, Vec<Envelope<RawPayload>>) {
        let own = self.own::<A>(id);
        let seen = self.rows.last_version(A::TYPE, id);
        let last = own.first().map_or(seen, |write| write.expected_version);
        let appended = self
            .log
            .next_events(&own, self.context.metadata(), self.clock);
        (last, appended)
    }

    /// What this unit of work has written of an aggregate.
    fn own<A: AggregateRoot>(&self, id: &str) -> Vec<StagedWrite> {
        let is_own = |write: &&StagedWrite| {
            write.aggregate_type == A::TYPE && write.aggregate_id == id && !write.is_check()
        };
        self.flushed.iter().filter(is_own).cloned().collect()
    }

    fn is_within<A: AggregateRoot>(&self, event: &Envelope<RawPayload>) -> bool {
        !A::table().is_tenant() || self.context.scope().admits(event.tenant())
    }
}
