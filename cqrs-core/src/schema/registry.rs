//! Who names schemas.

use std::future::Future;

use super::EventSchema;
use crate::error::Result;

/// A registry of schemas: what gives them their ids.
///
/// [`ContentIds`] needs none. Implement it for a registry that consumers of your events share.
/// [`EventSchemas::register`](super::EventSchemas::register) calls it at start-up, once for each
/// event type; writing an event never does.
///
/// # Example
///
/// ```
/// use std::sync::Mutex;
/// use cqrs_core::schema::{EventSchema, SchemaRegistry};
///
/// /// In place of a client of a service.
/// struct Numbered(Mutex<Vec<String>>);
///
/// impl SchemaRegistry for Numbered {
///     async fn register(&self, schema: &EventSchema) -> cqrs_core::Result<String> {
///         let mut known = self.0.lock().expect("no one panicked");
///         let text = cqrs_core::canonical_json(&schema.written);
///         let place = known.iter().position(|other| *other == text);
///         let place = place.unwrap_or_else(|| {
///             known.push(text);
///             known.len() - 1
///         });
///         Ok(format!("{}-{place}", schema.event_type.name))
///     }
/// }
/// ```
pub trait SchemaRegistry: Send + Sync {
    /// Registers a schema, if it is not registered yet, and returns its id: 1 to 255 bytes, without
    /// control characters. The same schema has the same id each time.
    ///
    /// # Errors
    ///
    /// Those of the registry, also where it refuses the schema. They end the start of the
    /// application.
    fn register(&self, schema: &EventSchema) -> impl Future<Output = Result<String>> + Send;
}

/// Names schemas by their [content](EventSchema::content_id). It does no I/O.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ContentIds;

impl SchemaRegistry for ContentIds {
    async fn register(&self, schema: &EventSchema) -> Result<String> {
        Ok(schema.content_id())
    }
}
