//! Upcasters: payloads of older schema versions, lifted to the one of the code.
//!
//! Old events stay in the log as they were written. Whoever reads one gets it lifted, step by step:
//! aggregates, projections, and relays that [ask for it](crate::Relay::upcasting).

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::envelope::{Envelope, RawPayload};
use crate::event::{DomainEvent, EventType};
use crate::payload::{self, PayloadError};

/// A step: how a payload of one schema version becomes one of the next.
///
/// Made by `#[event(upcast(1 = ...))]`, which checks that there is one from each older version.
#[derive(Clone, Copy)]
pub struct Upcast {
    variant: usize,
    from: u32,
    lift: fn(Value) -> serde_json::Result<Value>,
}

impl Upcast {
    /// The step from this schema version of the event type at `variant`.
    #[must_use]
    pub const fn new(
        variant: usize,
        from: u32,
        lift: fn(Value) -> serde_json::Result<Value>,
    ) -> Self {
        Self {
            variant,
            from,
            lift,
        }
    }

    /// The position of the event type whose payloads it reads, and their schema version.
    pub(crate) const fn reads(&self) -> (usize, u32) {
        (self.variant, self.from)
    }
}

impl fmt::Debug for Upcast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upcast")
            .field("variant", &self.variant)
            .field("from", &self.from)
            .finish_non_exhaustive()
    }
}

/// Lifts a payload by a function between two types, or between two JSON values.
#[doc(hidden)]
pub fn lift<Old: DeserializeOwned, New: Serialize>(
    payload: Value,
    step: impl FnOnce(Old) -> New,
) -> serde_json::Result<Value> {
    serde_json::to_value(step(serde_json::from_value(payload)?))
}

/// The position in [`EVENT_TYPES`](DomainEvent::EVENT_TYPES) of a type that is stored under this
/// name, or was once.
pub(crate) fn variant_of<E: DomainEvent>(event_type: &str) -> Option<usize> {
    let current = E::EVENT_TYPES.iter().position(|own| own.name == event_type);
    current.or_else(|| {
        let mut former = E::FORMER_NAMES.iter();
        former.find_map(|(name, variant)| (*name == event_type).then_some(*variant))
    })
}

/// The other names under which events of this type are stored.
pub(crate) fn other_names<E: DomainEvent>(event_type: &str) -> Vec<&'static str> {
    let Some(variant) = variant_of::<E>(event_type) else {
        return Vec::new();
    };
    let former = E::FORMER_NAMES.iter().filter(|(_, of)| *of == variant);
    let all = former.map(|(name, _)| *name);
    all.chain([E::EVENT_TYPES[variant].name])
        .filter(|name| *name != event_type)
        .collect()
}

/// The steps from a schema version of an event type to that of the code.
fn steps<E: DomainEvent>(variant: usize, found: u32) -> Result<Vec<&'static Upcast>, PayloadError> {
    let EventType {
        name,
        schema_version: expected,
    } = E::EVENT_TYPES[variant];
    if found > expected {
        return Err(PayloadError::SchemaVersion {
            event_type: name.to_owned(),
            expected,
            found,
        });
    }
    (found..expected)
        .map(|from| {
            let mut steps = E::UPCASTS.iter();
            let step = steps.find(|step| step.variant == variant && step.from == from);
            step.ok_or_else(|| PayloadError::NoUpcaster {
                event_type: name.to_owned(),
                from,
                expected,
            })
        })
        .collect()
}

/// Lifts a payload to the schema version of the code.
pub(crate) fn lifted<E: DomainEvent>(
    variant: usize,
    found: u32,
    payload: &str,
) -> Result<Value, PayloadError> {
    let malformed = |from: u32, error: serde_json::Error| PayloadError::Malformed {
        event_type: E::EVENT_TYPES[variant].name.to_owned(),
        reason: format!("schema version {from}: {error}"),
    };
    let mut payload = serde_json::from_str(payload).map_err(|error| malformed(found, error))?;
    for step in steps::<E>(variant, found)? {
        payload = (step.lift)(payload).map_err(|error| malformed(step.from, error))?;
    }
    Ok(payload)
}

/// Whether the code can read events of this type and schema version, whatever their payload.
///
/// # Errors
///
/// [`UnknownEventType`](PayloadError::UnknownEventType),
/// [`SchemaVersion`](PayloadError::SchemaVersion), [`NoUpcaster`](PayloadError::NoUpcaster).
pub fn check_readable<E: DomainEvent>(
    event_type: &str,
    schema_version: u32,
) -> Result<(), PayloadError> {
    if crate::staging::ChangeMarker::is_marker(event_type) {
        return Ok(());
    }
    match variant_of::<E>(event_type) {
        Some(variant) => steps::<E>(variant, schema_version).map(drop),
        None => Err(payload::unknown::<E>(event_type)),
    }
}

/// An event as stored, lifted to the name and the schema version of the code; `None` where it is of
/// another aggregate type, or as the code has it.
pub(crate) fn lifted_raw<E: DomainEvent>(
    event: &Envelope<RawPayload>,
) -> Result<Option<Envelope<RawPayload>>, PayloadError> {
    if event.aggregate_type() != E::AGGREGATE_TYPE || event.is_change_marker() {
        return Ok(None);
    }
    let variant = variant_of::<E>(event.event_type())
        .ok_or_else(|| payload::unknown::<E>(event.event_type()))?;
    let current = E::EVENT_TYPES[variant];
    let found = event.schema_version();
    if found == current.schema_version {
        let renamed = event.event_type() != current.name;
        return Ok(renamed.then(|| event.relabelled(current, event.payload().clone())));
    }
    let payload = lifted::<E>(variant, found, event.payload().as_str())?;
    let payload = RawPayload::new(payload::canonical_json(&payload));
    Ok(Some(event.relabelled(current, payload)))
}
