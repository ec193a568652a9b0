//! Schemas of events: their ids, and, under the feature `schema`, JSON schemas of their payloads.
//!
//! A schema has an id, which stands with each event in the log
//! ([`schema_id`](crate::Envelope::schema_id)). Ids are found once, at start-up, and handed to the
//! store; no event asks a registry.
//!
//! With the feature, [`EventSchemas`] are derived from the events of the application, by
//! [`schemars`]. A [`SchemaRegistry`] names them, and [`SchemaFiles`](crate::testing::SchemaFiles)
//! compares them with those of the last release.

#[cfg(feature = "schema")]
mod comparison;
#[cfg(feature = "schema")]
mod derived;
#[cfg(feature = "schema")]
mod events;
mod ids;
#[cfg(feature = "schema")]
mod impls;
#[cfg(feature = "schema")]
mod node;
#[cfg(feature = "schema")]
mod places;
#[cfg(all(test, feature = "schema"))]
mod random;
#[cfg(feature = "schema")]
mod registry;
#[cfg(feature = "schema")]
mod variant;

#[cfg(feature = "schema")]
pub use self::comparison::{Compatibility, Incompatibility};
#[cfg(feature = "schema")]
pub(crate) use self::comparison::{Pair, refused};
#[cfg(feature = "schema")]
pub(crate) use self::events::SchemaSet;
#[cfg(feature = "schema")]
pub use self::events::{EventSchema, EventSchemas};
pub use self::ids::SchemaIds;
#[cfg(feature = "schema")]
pub use self::registry::{ContentIds, SchemaRegistry};
