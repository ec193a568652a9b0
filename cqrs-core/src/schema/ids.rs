//! The ids that a store writes.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::{Error, Result, StoreErrorKind};
use crate::event::EventType;

const MAX_BYTES: usize = 255;

/// The ids of the schemas of events, by aggregate type, event type and schema version. Cheap to
/// clone.
///
/// With the feature `schema`, `EventSchemas::register` makes them. Without it they are added by
/// hand.
///
/// # Example
///
/// ```
/// use cqrs_core::schema::SchemaIds;
/// use cqrs_core::{DomainEvent, InMemoryStore};
/// # #[derive(Debug, Clone, serde::Serialize, serde::Deserialize, DomainEvent)]
/// # #[event(aggregate = "order")]
/// # enum OrderEvent { Paid }
///
/// let mut ids = SchemaIds::default();
/// ids.add("order", OrderEvent::EVENT_TYPES[0], "42")?;
/// let store = InMemoryStore::new().with_schema_ids(ids);
/// # Ok::<(), cqrs_core::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SchemaIds(Arc<HashMap<Key, Arc<str>>>);

/// Aggregate type, event type, schema version.
type Key = (&'static str, &'static str, u32);

impl SchemaIds {
    /// The id of an event type of an aggregate type; it replaces one that was there.
    ///
    /// # Errors
    ///
    /// [`Usage`](StoreErrorKind::Usage) where it is empty, has more than 255 bytes or a control
    /// character.
    pub fn add(
        &mut self,
        aggregate_type: &'static str,
        event_type: EventType,
        id: impl Into<Arc<str>>,
    ) -> Result<()> {
        let id = id.into();
        if id.is_empty() || id.len() > MAX_BYTES || id.chars().any(char::is_control) {
            return Err(Error::store(
                StoreErrorKind::Usage,
                format!(
                    "{id:?} cannot be the id of the schema of {}: it has 1 to {MAX_BYTES} bytes and no control characters",
                    event_type.name
                ),
            ));
        }
        let key = (aggregate_type, event_type.name, event_type.schema_version);
        Arc::make_mut(&mut self.0).insert(key, id);
        Ok(())
    }

    /// The id of the schema of these events; `None` where it has none.
    pub(crate) fn find(
        &self,
        aggregate_type: &str,
        event_type: &str,
        schema_version: u32,
    ) -> Option<Arc<str>> {
        let key = (aggregate_type, event_type, schema_version);
        self.0.get(&key).map(Arc::clone)
    }
}
