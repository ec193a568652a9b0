//! What the store holds.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use super::history::Revisions;
use super::overlay::Overlay;
use super::processes::Processes;
use super::subscriptions::Entry;
use super::transaction::InMemoryTransaction;
use super::turn::Turn;
use crate::changes::TableChanges;
use crate::clock::Clock;
use crate::context::{Metadata, TenantId};
use crate::envelope::{Envelope, EventHeader, Position, RawPayload};
use crate::idempotency::RecordedReceipt;
use crate::inline::InlineProjections;
use crate::integrity::Hashing;
use crate::interceptor::Interceptors;
use crate::mapping::{Key, Table, ValueRow};
use crate::schema::SchemaIds;
use crate::sourced::NewSnapshot;
use crate::staging::StagedWrite;
use crate::store::{RetryPolicy, StoreId};

/// A stored row: all columns of its table.
pub(super) type Row = Arc<ValueRow>;
/// The rows of a read table, by tenant and key.
pub(super) type ReadTable = BTreeMap<(Option<TenantId>, Key), Row>;

/// The tenant of a scope and an idempotency key.
pub(super) type ReceiptKey = (Option<TenantId>, String);

/// What all clones of a store share.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub(super) id: StoreId,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) retry_policy: RetryPolicy,
    pub(super) hashing: Hashing,
    pub(super) schema_ids: SchemaIds,
    pub(super) interceptors: Interceptors,
    #[cfg(feature = "sealed")]
    pub(super) keys: Arc<dyn crate::sealed::KeyStore>,
    pub(super) inline: Arc<InlineProjections<InMemoryTransaction>>,
    pub(super) changes: Arc<TableChanges>,
    /// Whose turn it is to commit with inline projections.
    pub(super) commits: Turn,
    pub(super) state: Arc<Mutex<State>>,
}

impl Shared {
    /// Never held across an await, and no code of the user runs under it; so a poisoned lock
    /// guards whole values.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A snapshot, and the shape of the aggregate that it is of.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    pub(super) shape: String,
    pub(super) content: NewSnapshot,
    /// The last event that it stands for.
    pub(super) last: Uuid,
}

#[derive(Debug, Default)]
pub(super) struct State {
    tables: HashMap<&'static str, BTreeMap<Key, Row>>,
    /// By scope and key.
    pub(super) receipts: HashMap<ReceiptKey, RecordedReceipt>,
    /// The tables of aggregates that were ever written.
    pub(super) schemas: HashMap<&'static str, &'static Table>,
    pub(super) read_tables: HashMap<&'static str, ReadTable>,
    log: Vec<Envelope<RawPayload>>,
    /// The events of aggregates, by aggregate type and id, as places in the log.
    places: HashMap<&'static str, HashMap<String, Vec<usize>>>,
    /// The types of event-sourced aggregates.
    sourced: HashSet<&'static str>,
    /// The last snapshots of those, by aggregate type and id.
    snapshots: HashMap<&'static str, HashMap<String, Snapshot>>,
    /// The last version in the log, by aggregate type and id.
    streams: HashMap<&'static str, HashMap<String, u64>>,
    pub(super) subscriptions: BTreeMap<String, Entry>,
    pub(super) revisions: Revisions,
    pub(super) processes: Processes,
}

impl State {
    pub(super) fn row(&self, table: &str, key: &Key) -> Option<&Row> {
        self.tables.get(table)?.get(key)
    }

    pub(super) fn rows(&self, table: &str) -> impl Iterator<Item = (&Key, &Row)> {
        self.tables.get(table).into_iter().flatten()
    }

    /// The rows of the aggregates alone, as they are now.
    pub(super) fn snapshot(&self) -> Self {
        Self {
            tables: self.tables.clone(),
            streams: self.streams.clone(),
            ..Self::default()
        }
    }

    /// Whether the log holds an event of this aggregate.
    pub(super) fn has_stream(&self, aggregate_type: &str, aggregate_id: &str) -> bool {
        self.streams
            .get(aggregate_type)
            .is_some_and(|streams| streams.contains_key(aggregate_id))
    }

    /// The last version of an aggregate in the log; 0 where there is none.
    pub(super) fn last_version(&self, aggregate_type: &str, aggregate_id: &str) -> u64 {
        let streams = self.streams.get(aggregate_type);
        let version = streams.and_then(|streams| streams.get(aggregate_id));
        version.copied().unwrap_or(0)
    }

    /// The whole log.
    pub(super) fn log(&self) -> &[Envelope<RawPayload>] {
        &self.log
    }

    /// Makes checked rows the current ones.
    pub(super) fn apply(&mut self, overlay: Overlay) {
        let (changed, revisions) = overlay.into_parts();
        self.revisions.add(revisions);
        for (table, rows) in changed {
            let stored = self.tables.entry(table).or_default();
            for (key, row) in rows {
                match row {
                    Some(row) => stored.insert(key, row),
                    None => stored.remove(&key),
                };
            }
        }
    }

    /// The events of writes as the log will hold them if they come next.
    pub(super) fn next_events(
        &self,
        writes: &[StagedWrite],
        metadata: &Metadata,
        clock: &dyn Clock,
    ) -> Vec<Envelope<RawPayload>> {
        let recorded_at = clock.now();
        let events = writes
            .iter()
            .flat_map(|write| write.events.iter().map(move |event| (write, event)));
        events
            .zip(self.log.len()..)
            .map(|((write, event), index)| {
                let header = EventHeader {
                    position: next_position(index),
                    event_id: event.event_id,
                    tenant: write.tenant.clone(),
                    aggregate_type: write.aggregate_type.to_owned(),
                    aggregate_id: write.aggregate_id.clone(),
                    aggregate_version: event.aggregate_version,
                    event_type: event.event_type.to_owned(),
                    schema_version: event.schema_version,
                    schema_id: event.schema_id.as_deref().map(str::to_owned),
                    metadata: metadata.clone(),
                    content_hash: event.content_hash,
                    occurred_at: event.occurred_at,
                    recorded_at,
                };
                Envelope::new(header, RawPayload::new(event.payload.as_str()))
            })
            .collect()
    }

    /// The events of an event-sourced aggregate after a version, in order.
    pub(super) fn events_of(
        &self,
        aggregate_type: &str,
        aggregate_id: &str,
        after: u64,
    ) -> impl Iterator<Item = &Envelope<RawPayload>> {
        let places = self.places_of(aggregate_type, aggregate_id);
        // Each version has an event.
        let after = usize::try_from(after).unwrap_or(usize::MAX);
        let places = places.get(after..).unwrap_or_default();
        places.iter().map(|place| &self.log[*place])
    }

    /// The events of an aggregate up to a version, in order.
    pub(super) fn events_until(
        &self,
        aggregate_type: &str,
        aggregate_id: &str,
        last: u64,
    ) -> impl DoubleEndedIterator<Item = &Envelope<RawPayload>> + Clone {
        let places = self.places_of(aggregate_type, aggregate_id);
        let end = places.partition_point(|place| self.log[*place].aggregate_version() <= last);
        places[..end].iter().map(|place| &self.log[*place])
    }

    fn places_of(&self, aggregate_type: &str, aggregate_id: &str) -> &[usize] {
        let streams = self.places.get(aggregate_type);
        let places = streams.and_then(|streams| streams.get(aggregate_id));
        places.map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether the aggregates of this type are event-sourced.
    pub(super) fn is_sourced(&self, aggregate_type: &str) -> bool {
        self.sourced.contains(aggregate_type)
    }

    /// The last snapshot of an event-sourced aggregate whose last event is in the log.
    pub(super) fn snapshot_of(
        &self,
        aggregate_type: &str,
        aggregate_id: &str,
    ) -> Option<&Snapshot> {
        let snapshot = self.snapshots.get(aggregate_type)?.get(aggregate_id)?;
        let before = snapshot.content.version.checked_sub(1)?;
        let last = self
            .events_of(aggregate_type, aggregate_id, before)
            .next()?;
        (last.event_id() == snapshot.last).then_some(snapshot)
    }

    /// Keeps a snapshot of an event-sourced aggregate.
    pub(super) fn keep_snapshot(&mut self, write: &StagedWrite, snapshot: Snapshot) {
        let kept = self.snapshot_of(write.aggregate_type, &write.aggregate_id);
        let is_younger = |kept: &Snapshot| {
            kept.shape == snapshot.shape && kept.content.version > snapshot.content.version
        };
        if kept.is_some_and(is_younger) {
            return;
        }
        let snapshots = self.snapshots.entry(write.aggregate_type).or_default();
        snapshots.insert(write.aggregate_id.clone(), snapshot);
    }

    /// Appends the events of writes.
    pub(super) fn append(&mut self, writes: &[StagedWrite], events: Vec<Envelope<RawPayload>>) {
        let mut place = self.log.len();
        for write in writes {
            let end = place + write.events.len();
            if write.is_sourced() {
                self.sourced.insert(write.aggregate_type);
            }
            let streams = self.places.entry(write.aggregate_type).or_default();
            let stream = streams.entry(write.aggregate_id.clone()).or_default();
            stream.extend(place..end);
            place = end;
            for table in write.table.with_children() {
                self.schemas.insert(table.name(), table);
            }
            self.streams
                .entry(write.aggregate_type)
                .or_default()
                .insert(write.aggregate_id.clone(), write.new_version);
        }
        self.log.extend(events);
    }

    /// The position of the last event.
    pub(super) fn end(&self) -> Position {
        self.log.last().map_or(Position::START, Envelope::position)
    }

    /// The events after a position.
    pub(super) fn after(&self, position: Position) -> &[Envelope<RawPayload>] {
        let index = usize::try_from(position.0).unwrap_or(0);
        self.log.get(index..).unwrap_or_default()
    }
}

/// Positions count from 1 without gaps, so that a position is also an index.
fn next_position(length: usize) -> Position {
    Position(i64::try_from(length).map_or(i64::MAX, |length| length.saturating_add(1)))
}

#[cfg(all(test, feature = "conformance"))]
mod tests {
    use super::*;
    use crate::conformance::fixtures::{AccountForm, Ledger};
    use crate::context::RequestContext;
    use crate::memory::InMemoryStore;
    use crate::store::Store;
    use crate::unit_of_work::UnitOfWork;

    /// As where the log of a database was restored without its snapshots, and grew past them again.
    #[tokio::test]
    async fn a_snapshot_of_other_events_is_replaced() {
        let context = RequestContext::tenant(TenantId::new("north").unwrap());
        for events in [8, 10] {
            let store = InMemoryStore::new();
            let grow = async |events: i64, cents: i64| {
                let mut ledger = Ledger::unopened("L1");
                ledger.open("ann");
                (1..events).for_each(|_| ledger.transfer(cents));
                let mut uow = store.unit_of_work(&context);
                uow.save(ledger).unwrap();
                let _ = uow.commit().await.unwrap();
            };
            grow(8, 1).await;
            {
                let mut state = store.shared.lock();
                let snapshots = std::mem::take(&mut state.snapshots);
                *state = State {
                    snapshots,
                    ..State::default()
                };
            }
            grow(events, 100).await;
            let mut uow = store.unit_of_work(&context);
            let loaded: Ledger = uow.get("L1".to_owned()).await.unwrap();
            assert_eq!(loaded.cents, 100 * (events - 1));
            let state = store.shared.lock();
            let snapshot = state.snapshot_of("ledger", "L1").unwrap();
            assert_eq!(i64::try_from(snapshot.content.version), Ok(events));
        }
    }
}
