//! Chains: each event of an aggregate covers the one before.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::hash::{ContentHash, Hasher, Link};
use super::keys::{HashKey, Hashing};
use crate::context::{Metadata, TenantId};
use crate::envelope::{Envelope, RawPayload};
use crate::mapping::Value;
use crate::staging::NewEvent;

/// Whose the events of a write are, and where they come from.
pub(crate) struct LinkedStream<'w> {
    pub(crate) tenant: Option<&'w TenantId>,
    pub(crate) aggregate_type: &'w str,
    pub(crate) aggregate_id: &'w str,
    pub(crate) is_sourced: bool,
    pub(crate) metadata: &'w Metadata,
}

/// Makes the hashes of the events of a write, one after the other.
pub(crate) struct Chain<'k> {
    key: Option<&'k HashKey>,
    is_chained: bool,
    link: Option<Link>,
}

impl<'k> Chain<'k> {
    /// Behind the event with this link.
    pub(crate) fn new(hashing: &'k Hashing, is_chained: bool, link: Option<Link>) -> Self {
        Self {
            key: hashing.key(),
            is_chained,
            link,
        }
    }

    /// Makes the hash of the next event.
    pub(crate) fn add(&mut self, stream: &LinkedStream<'_>, event: &mut NewEvent) {
        event.content_hash = ContentHash::under(self.key, &event.payload);
        if !self.is_chained {
            return;
        }
        let linked = LinkedEvent {
            event_id: event.event_id,
            tenant: stream.tenant,
            aggregate_type: stream.aggregate_type,
            aggregate_id: stream.aggregate_id,
            aggregate_version: event.aggregate_version,
            event_type: event.event_type,
            schema_version: event.schema_version,
            schema_id: event.schema_id.as_deref(),
            metadata: stream.metadata,
            occurred_at: event.occurred_at,
            is_sourced: stream.is_sourced,
            content: event.content_hash.content(),
        };
        let link = linked.link(self.link.as_ref(), self.key);
        event.content_hash = event.content_hash.linked(link);
        self.link = Some(link);
    }

    /// The link of the last event, as a column holds it.
    pub(crate) fn head(&self) -> Value {
        self.link
            .map_or(Value::Null, |link| Value::Bytes(link.to_vec()))
    }
}

/// The link that a column holds.
pub(crate) fn read_link(value: &Value) -> Option<Link> {
    match value {
        Value::Bytes(link) => Link::try_from(link.as_slice()).ok(),
        _ => None,
    }
}

/// Everything of an event that its link covers, besides the link before.
pub(crate) struct LinkedEvent<'e> {
    pub(crate) event_id: Uuid,
    pub(crate) tenant: Option<&'e TenantId>,
    pub(crate) aggregate_type: &'e str,
    pub(crate) aggregate_id: &'e str,
    pub(crate) aggregate_version: u64,
    pub(crate) event_type: &'e str,
    pub(crate) schema_version: u32,
    pub(crate) schema_id: Option<&'e str>,
    pub(crate) metadata: &'e Metadata,
    pub(crate) occurred_at: DateTime<Utc>,
    pub(crate) is_sourced: bool,
    pub(crate) content: [u8; 32],
}

impl<'e> LinkedEvent<'e> {
    /// Those of an event in the log.
    pub(crate) fn of(event: &'e Envelope<RawPayload>, is_sourced: bool) -> Self {
        Self {
            event_id: event.event_id(),
            tenant: event.tenant(),
            aggregate_type: event.aggregate_type(),
            aggregate_id: event.aggregate_id_str(),
            aggregate_version: event.aggregate_version(),
            event_type: event.event_type(),
            schema_version: event.schema_version(),
            schema_id: event.schema_id(),
            metadata: event.metadata(),
            occurred_at: event.occurred_at(),
            is_sourced,
            content: event.content_hash().content(),
        }
    }

    /// The link behind this one. The first event of a chain has none before.
    pub(crate) fn link(&self, before: Option<&Link>, key: Option<&HashKey>) -> Link {
        let mut hasher = Hasher::new(key);
        hasher.update(b"cqrs chain 1");
        hasher.optional(before.map(<[u8; 32]>::as_slice));
        hasher.update(self.event_id.as_bytes());
        hasher.optional(self.tenant.map(|tenant| tenant.as_str().as_bytes()));
        hasher.bytes(self.aggregate_type.as_bytes());
        hasher.bytes(self.aggregate_id.as_bytes());
        hasher.update(&self.aggregate_version.to_be_bytes());
        hasher.bytes(self.event_type.as_bytes());
        hasher.update(&self.schema_version.to_be_bytes());
        hasher.optional(self.schema_id.map(str::as_bytes));
        let Metadata {
            correlation_id,
            causation_id,
            actor,
            trace,
        } = self.metadata;
        hasher.update(correlation_id.as_bytes());
        hasher.optional(causation_id.as_ref().map(|id| id.as_bytes().as_slice()));
        hasher.optional(actor.as_ref().map(String::as_bytes));
        let trace = trace.as_ref();
        hasher.optional(trace.map(|trace| trace.traceparent.as_bytes()));
        let state = trace.and_then(|trace| trace.tracestate.as_ref());
        hasher.optional(state.map(String::as_bytes));
        hasher.update(&self.occurred_at.timestamp_micros().to_be_bytes());
        hasher.update(&[u8::from(self.is_sourced)]);
        hasher.update(&self.content);
        hasher.finish()
    }
}
