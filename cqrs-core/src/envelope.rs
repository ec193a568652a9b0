//! What the log holds around an event.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::context::{Metadata, TenantId};
use crate::event::EventType;
use crate::integrity::ContentHash;
use crate::schema::SchemaIds;
use crate::staging::ChangeMarker;

/// A place in the log. Larger is later for one aggregate; gaps are ordinary.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Position(pub i64);

impl Position {
    /// The place before the first event.
    pub const START: Self = Self(0);
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The payload of an event as the log holds it: JSON text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawPayload(Arc<str>);

impl RawPayload {
    /// A payload of this JSON text.
    #[must_use]
    pub fn new(json: impl Into<Arc<str>>) -> Self {
        Self(json.into())
    }

    /// The JSON text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An event with everything that the log knows about it.
///
/// `Envelope<RouteEvent>` is a decoded one, `Envelope<RawPayload>` one as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope<P> {
    header: Arc<EventHeader>,
    payload: P,
}

/// The fields of an [`Envelope`] besides its payload. Backends make it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the accessors of `Envelope` document each")]
pub struct EventHeader {
    pub position: Position,
    pub event_id: Uuid,
    pub tenant: Option<TenantId>,
    pub aggregate_type: String,
    pub aggregate_id: String,
    pub aggregate_version: u64,
    pub event_type: String,
    pub schema_version: u32,
    pub schema_id: Option<String>,
    pub metadata: Metadata,
    pub content_hash: ContentHash,
    pub occurred_at: DateTime<Utc>,
    pub recorded_at: DateTime<Utc>,
}

/// An aggregate id in the log that is not of the type asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("aggregate id {id:?} of {aggregate_type} at position {position} is no {expected}")]
pub struct AggregateIdError {
    id: String,
    aggregate_type: String,
    position: Position,
    expected: &'static str,
}

impl<P> Envelope<P> {
    /// An envelope of these parts.
    #[must_use]
    pub fn new(header: EventHeader, payload: P) -> Self {
        Self {
            header: Arc::new(header),
            payload,
        }
    }

    /// The same event with another form of its payload.
    #[must_use]
    pub fn with_payload<Q>(&self, payload: Q) -> Envelope<Q> {
        Envelope {
            header: Arc::clone(&self.header),
            payload,
        }
    }

    /// The same event under the name and schema version that the code has for it.
    pub(crate) fn relabelled(
        &self,
        event_type: EventType,
        payload: RawPayload,
    ) -> Envelope<RawPayload> {
        // The id is that of the schema of a version.
        let is_same = event_type.schema_version == self.schema_version();
        let header = EventHeader {
            event_type: event_type.name.to_owned(),
            schema_version: event_type.schema_version,
            schema_id: self.schema_id().filter(|_| is_same).map(str::to_owned),
            content_hash: ContentHash::of(payload.as_str()),
            ..EventHeader::clone(&self.header)
        };
        Envelope::new(header, payload)
    }

    /// The same event with the id of its schema, where there is one.
    pub(crate) fn identified(mut self, ids: &SchemaIds) -> Self {
        let id = ids.find(
            self.aggregate_type(),
            self.event_type(),
            self.schema_version(),
        );
        if let Some(id) = id {
            Arc::make_mut(&mut self.header).schema_id = Some(id.as_ref().to_owned());
        }
        self
    }

    /// Its place in the log.
    #[must_use]
    pub fn position(&self) -> Position {
        self.header.position
    }

    /// Its own id (UUID version 7): the key for consumers that must not act twice.
    #[must_use]
    pub fn event_id(&self) -> Uuid {
        self.header.event_id
    }

    /// The tenant that owns the aggregate; `None` for one without tenants.
    #[must_use]
    pub fn tenant(&self) -> Option<&TenantId> {
        self.header.tenant.as_ref()
    }

    /// The type of the aggregate.
    #[must_use]
    pub fn aggregate_type(&self) -> &str {
        &self.header.aggregate_type
    }

    /// The id of the aggregate, as text.
    #[must_use]
    pub fn aggregate_id_str(&self) -> &str {
        &self.header.aggregate_id
    }

    /// The id of the aggregate.
    ///
    /// # Errors
    ///
    /// [`AggregateIdError`] where the text is no `I`.
    pub fn aggregate_id<I: FromStr>(&self) -> Result<I, AggregateIdError> {
        self.header
            .aggregate_id
            .parse()
            .map_err(|_| AggregateIdError {
                id: self.header.aggregate_id.clone(),
                aggregate_type: self.header.aggregate_type.clone(),
                position: self.header.position,
                expected: std::any::type_name::<I>(),
            })
    }

    /// The version that the aggregate reached with this event: dense, from 1.
    #[must_use]
    pub fn aggregate_version(&self) -> u64 {
        self.header.aggregate_version
    }

    /// The stored name of the event.
    #[must_use]
    pub fn event_type(&self) -> &str {
        &self.header.event_type
    }

    /// The version of its payload's schema.
    #[must_use]
    pub fn schema_version(&self) -> u32 {
        self.header.schema_version
    }

    /// The id of its [schema](crate::schema), where the store gives it one.
    #[must_use]
    pub fn schema_id(&self) -> Option<&str> {
        self.header.schema_id.as_deref()
    }

    /// Where it comes from: correlation, causation, actor, trace.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.header.metadata
    }

    /// The hash of its payload's [canonical JSON](crate::canonical_json).
    #[must_use]
    pub fn content_hash(&self) -> ContentHash {
        self.header.content_hash
    }

    /// When it happened, by the clock of the store that wrote it.
    #[must_use]
    pub fn occurred_at(&self) -> DateTime<Utc> {
        self.header.occurred_at
    }

    /// When it was written, by the clock of the database.
    #[must_use]
    pub fn recorded_at(&self) -> DateTime<Utc> {
        self.header.recorded_at
    }

    /// Whether the framework wrote it for a change that raised no event.
    #[must_use]
    pub fn is_change_marker(&self) -> bool {
        ChangeMarker::is_marker(&self.header.event_type)
    }

    /// What happened.
    #[must_use]
    pub fn payload(&self) -> &P {
        &self.payload
    }
}
