//! Events as the log would hold them.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::context::{Metadata, TenantId};
use crate::envelope::{Envelope, EventHeader, Position, RawPayload};
use crate::event::DomainEvent;
use crate::integrity::ContentHash;
use crate::payload;

/// Makes envelopes of events, one behind the other.
#[derive(Debug)]
pub(super) struct Recorder {
    pub(super) now: DateTime<Utc>,
    pub(super) tenant: Option<TenantId>,
    pub(super) actor: Option<String>,
    position: u32,
    versions: HashMap<(&'static str, String), u64>,
}

impl Recorder {
    /// At the beginning of 1970, without a tenant or an actor.
    pub(super) fn new() -> Self {
        Self {
            now: DateTime::UNIX_EPOCH,
            tenant: None,
            actor: None,
            position: 0,
            versions: HashMap::new(),
        }
    }

    /// The next event of an aggregate.
    #[track_caller]
    pub(super) fn event<E: DomainEvent>(&mut self, id: &str, event: &E) -> Envelope<RawPayload> {
        let payload = payload::encode(event);
        let payload = payload.unwrap_or_else(|error| panic!("an event cannot be written: {error}"));
        let event_type = event.event_type();
        let version = event_type.schema_version;
        self.raw(E::AGGREGATE_TYPE, id, (event_type.name, version), payload)
    }

    pub(super) fn raw(
        &mut self,
        aggregate_type: &'static str,
        id: &str,
        (event_type, schema_version): (&str, u32),
        payload: String,
    ) -> Envelope<RawPayload> {
        self.position += 1;
        let stream = (aggregate_type, id.to_owned());
        let version = self.versions.entry(stream).or_default();
        *version += 1;
        let header = EventHeader {
            position: Position(self.position.into()),
            event_id: Uuid::from_u128(self.position.into()),
            tenant: self.tenant.clone(),
            aggregate_type: aggregate_type.to_owned(),
            aggregate_id: id.to_owned(),
            aggregate_version: *version,
            event_type: event_type.to_owned(),
            schema_version,
            schema_id: None,
            metadata: Metadata {
                correlation_id: Uuid::nil(),
                causation_id: None,
                actor: self.actor.clone(),
                trace: None,
            },
            content_hash: ContentHash::of(&payload),
            occurred_at: self.now,
            recorded_at: self.now,
        };
        Envelope::new(header, RawPayload::new(payload))
    }
}
