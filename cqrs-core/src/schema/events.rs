//! The schemas of an application's events.

use std::fmt;

use schemars::JsonSchema;
use serde_json::Value;

use super::derived::Root;
use super::{SchemaIds, SchemaRegistry};
use crate::error::{Error, Result, StoreErrorKind};
use crate::event::{DomainEvent, EventType};
use crate::integrity::ContentHash;
use crate::payload::{PayloadError, canonical_json};
use crate::upcast::{check_readable, variant_of};

/// The JSON schemas of the payload of one event type in one version.
///
/// What is written and what is read differ: a field with a default is written, and need not be
/// there to be read.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct EventSchema {
    /// The type of the aggregate.
    pub aggregate_type: &'static str,
    /// The name of the event type, and the version of its schema.
    pub event_type: EventType,
    /// What payloads are, as JSON schema of draft 2020-12.
    pub written: Value,
    /// Which payloads the code accepts.
    pub read: Value,
}

impl EventSchema {
    /// The SHA-256 of the canonical JSON of what is [written](Self::written), in hexadecimal: the
    /// same wherever the same is written.
    #[must_use]
    pub fn content_id(&self) -> String {
        ContentHash::of(&canonical_json(&self.written)).to_string()
    }
}

/// The schemas of all events of an application.
///
/// # Example
///
/// ```
/// use cqrs_core::DomainEvent;
/// use cqrs_core::schema::EventSchemas;
/// use schemars::JsonSchema;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, DomainEvent)]
/// #[event(aggregate = "order")]
/// enum OrderEvent {
///     Placed { customer: String },
///     Paid,
/// }
///
/// let schemas = EventSchemas::new().with::<OrderEvent>()?;
/// let placed = schemas.iter().next().expect("there are two");
/// assert_eq!(placed.event_type.name, "order.placed");
/// assert_eq!(placed.written["properties"]["customer"]["type"], "string");
/// # Ok::<(), cqrs_core::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct EventSchemas {
    sets: Vec<SchemaSet>,
}

/// The schemas of one enum or struct of events.
#[derive(Clone)]
pub(crate) struct SchemaSet {
    /// By the position of the event type.
    pub(crate) schemas: Vec<EventSchema>,
    /// The position of a type that is stored under this name, or was once.
    pub(crate) place_of: fn(&str) -> Option<usize>,
    /// Whether there is a way from this type and version to the code's.
    pub(crate) check_readable: fn(&str, u32) -> Result<(), PayloadError>,
}

impl EventSchemas {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, with those of the events `E`.
    ///
    /// # Errors
    ///
    /// [`Usage`](StoreErrorKind::Usage) where the JSON schema of `E` is not that of its plain enum
    /// or struct, so that the payloads are not found in it; and where one of its event types is
    /// there already.
    pub fn with<E: DomainEvent + JsonSchema>(mut self) -> Result<Self> {
        let (written, read) = (Root::written::<E>(), Root::read::<E>());
        let mut schemas = Vec::with_capacity(E::EVENT_TYPES.len());
        for (index, event_type) in E::EVENT_TYPES.iter().enumerate() {
            let name = event_type.name;
            if self.iter().any(|other| other.event_type.name == name) {
                return Err(usage(format!(
                    "the event type {name:?} has a schema already"
                )));
            }
            let parts = written.payload::<E>(index, false);
            let parts = parts.zip(read.payload::<E>(index, true));
            let (written, read) = parts.ok_or_else(|| {
                usage(format!(
                    "the JSON schema of {} has no payload of {name:?}: derive `JsonSchema` on it, with serde's names, and let no event contain its own enum",
                    std::any::type_name::<E>()
                ))
            })?;
            schemas.push(EventSchema {
                aggregate_type: E::AGGREGATE_TYPE,
                event_type: *event_type,
                written,
                read,
            });
        }
        self.sets.push(SchemaSet {
            schemas,
            place_of: variant_of::<E>,
            check_readable: check_readable::<E>,
        });
        Ok(self)
    }

    /// The schemas, those of each enum in the order of its variants.
    pub fn iter(&self) -> impl Iterator<Item = &EventSchema> {
        self.sets.iter().flat_map(|set| &set.schemas)
    }

    pub(crate) fn sets(&self) -> &[SchemaSet] {
        &self.sets
    }

    /// Has a registry name all of them, one after the other. Call it at start-up, and give the ids to
    /// the store.
    ///
    /// # Errors
    ///
    /// The first of the registry; [`Usage`](StoreErrorKind::Usage) for an id that cannot be stored.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, some schemas may be registered. Registering them again gives the
    /// same ids.
    pub async fn register(&self, registry: &impl SchemaRegistry) -> Result<SchemaIds> {
        let mut ids = SchemaIds::default();
        for schema in self.iter() {
            let id = registry.register(schema).await?;
            ids.add(schema.aggregate_type, schema.event_type, id)?;
        }
        Ok(ids)
    }
}

impl fmt::Debug for EventSchemas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.iter().map(|schema| schema.event_type))
            .finish()
    }
}

fn usage(message: String) -> Error {
    Error::store(StoreErrorKind::Usage, message)
}
