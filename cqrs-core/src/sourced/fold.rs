//! From events to an aggregate.

use std::fmt;

use chrono::{DateTime, Utc};

use super::snapshot::{self, NewSnapshot, SnapshotMark};
use super::state::Sourcing;
use crate::aggregate::{AggregateRoot, AuditStamps};
use crate::context::TenantId;
use crate::envelope::{Envelope, Position, RawPayload};
use crate::error::{Error, Result, StoreErrorKind};
use crate::integrity::ContentHash;
use crate::payload;
use crate::staging::{ChangeMarker, misapplied};

/// An event of an aggregate, as far as the aggregate needs it.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the accessors of `Envelope` document each")]
pub struct RecordedEvent<'e> {
    pub position: Position,
    pub aggregate_version: u64,
    pub event_type: &'e str,
    pub schema_version: u32,
    pub payload: &'e str,
    pub content_hash: ContentHash,
    pub occurred_at: DateTime<Utc>,
    pub actor: Option<&'e str>,
    pub tenant: Option<&'e TenantId>,
}

impl<'e> RecordedEvent<'e> {
    /// That of an envelope.
    #[must_use]
    pub fn of(envelope: &'e Envelope<RawPayload>) -> Self {
        Self {
            position: envelope.position(),
            aggregate_version: envelope.aggregate_version(),
            event_type: envelope.event_type(),
            schema_version: envelope.schema_version(),
            payload: envelope.payload().as_str(),
            content_hash: envelope.content_hash(),
            occurred_at: envelope.occurred_at(),
            actor: envelope.metadata().actor.as_deref(),
            tenant: envelope.tenant(),
        }
    }
}

/// A fold whose aggregate is not named, for authors of stores.
pub trait Replay: Send {
    /// Begins with a snapshot in place of the events up to its version. `last` is the hash of the
    /// last of those, which the next event of a chained aggregate covers.
    fn snapshot(
        &mut self,
        version: u64,
        state: &str,
        tenant: Option<TenantId>,
        last: Option<ContentHash>,
    );

    /// Whether there was a snapshot that could not be read: then the fold is of no use, and all
    /// events are needed.
    fn is_unreadable(&self) -> bool;

    /// Applies the next event.
    ///
    /// # Errors
    ///
    /// [`Undecodable`](Error::Undecodable) where it cannot be read, and
    /// [`Store`](Error::Store) where the log lacks the one before it.
    fn event(&mut self, event: &RecordedEvent<'_>) -> Result<()>;

    /// A snapshot of what it has come to; `None` where that is nothing, or no more than the snapshot
    /// that it began with.
    ///
    /// # Errors
    ///
    /// Where the state cannot be written as JSON, or is not read back from it.
    fn take_snapshot(&self, taken_at: DateTime<Utc>) -> Result<Option<NewSnapshot>>;
}

/// Makes an aggregate of its events, one after the other, for authors of stores.
pub struct Fold<A: AggregateRoot> {
    sourcing: Sourcing<A>,
    id: A::Id,
    aggregate: A,
    version: u64,
    tenant: Option<TenantId>,
    stamps: AuditStamps,
    snapshot: Option<SnapshotMark>,
    last: Option<ContentHash>,
    is_removed: bool,
    is_unreadable: bool,
}

impl<A: AggregateRoot> Fold<A> {
    /// Before the first event of the aggregate with this id; `None` where it is not event-sourced.
    #[must_use]
    pub fn new(id: A::Id) -> Option<Self> {
        let sourcing = A::SOURCING?;
        Some(Self {
            aggregate: (sourcing.blank)(id.clone()),
            id,
            sourcing,
            version: 0,
            tenant: None,
            stamps: AuditStamps::default(),
            snapshot: None,
            last: None,
            is_removed: false,
            is_unreadable: false,
        })
    }

    /// The aggregate; `None` where there was no event, or it was removed.
    #[must_use]
    pub fn finish(mut self) -> Option<A> {
        if self.version == 0 || self.is_removed {
            return None;
        }
        let root = self.aggregate.root_mut();
        root.loaded(self.version, self.tenant, self.stamps, self.snapshot);
        root.linked(self.last.and_then(|last| last.link()));
        Some(self.aggregate)
    }
}

impl<A: AggregateRoot> Replay for Fold<A> {
    fn snapshot(
        &mut self,
        version: u64,
        state: &str,
        tenant: Option<TenantId>,
        last: Option<ContentHash>,
    ) {
        let id = self.id.clone();
        match snapshot::read(&self.sourcing, id, version, state) {
            Some((aggregate, stamps, mark)) => {
                self.aggregate = aggregate;
                self.version = version;
                self.tenant = tenant;
                self.stamps = stamps;
                self.last = last;
                self.snapshot = Some(mark);
            }
            None => self.is_unreadable = true,
        }
    }

    fn is_unreadable(&self) -> bool {
        self.is_unreadable
    }

    fn event(&mut self, event: &RecordedEvent<'_>) -> Result<()> {
        if self.is_unreadable {
            return Ok(());
        }
        if event.aggregate_version != self.version + 1 {
            let (kind, id) = (A::TYPE, &self.id);
            let (expected, found) = (self.version + 1, event.aggregate_version);
            return Err(Error::store(
                StoreErrorKind::Database,
                format!(
                    "the log lacks events of {kind} {id}: expected version {expected}, found {found}"
                ),
            ));
        }
        if ChangeMarker::is_marker(event.event_type) {
            self.is_removed = [ChangeMarker::Removed, ChangeMarker::Purged]
                .iter()
                .any(|marker| marker.event_type() == event.event_type);
        } else {
            let decoded = payload::decode(event.event_type, event.schema_version, event.payload);
            let decoded = decoded.map_err(|reason| Error::Undecodable {
                position: event.position,
                reason,
            })?;
            self.is_removed = (self.sourcing.is_removal)(&decoded);
            (self.sourcing.apply)(&mut self.aggregate, &decoded);
            let is_more = !self.aggregate.root().raised().is_empty();
            if is_more || *self.aggregate.id() != self.id {
                let message = misapplied(A::TYPE, &self.id);
                return Err(Error::store(StoreErrorKind::Usage, message));
            }
        }
        self.version = event.aggregate_version;
        self.last = Some(event.content_hash);
        let actor = event.actor.map(str::to_owned);
        if self.version == 1 {
            self.tenant = event.tenant.cloned();
            self.stamps.created_at = Some(event.occurred_at);
            self.stamps.created_by.clone_from(&actor);
        }
        self.stamps.updated_at = Some(event.occurred_at);
        self.stamps.updated_by = actor;
        Ok(())
    }

    fn take_snapshot(&self, taken_at: DateTime<Utc>) -> Result<Option<NewSnapshot>> {
        let Some(codec) = &self.sourcing.snapshots else {
            return Ok(None);
        };
        let before = self.snapshot.map_or(0, |mark| mark.version);
        if self.version == before || self.is_removed || self.is_unreadable {
            return Ok(None);
        }
        let stamps = self.stamps.clone();
        snapshot::write(codec, &self.aggregate, self.version, stamps, taken_at)
            .map(Some)
            .map_err(Error::other)
    }
}

impl<A: AggregateRoot> AsMut<dyn Replay> for Fold<A> {
    fn as_mut(&mut self) -> &mut (dyn Replay + 'static) {
        self
    }
}

impl<A: AggregateRoot> fmt::Debug for Fold<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fold")
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}
