//! The events that a write appends.

use std::fmt;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{ChangeMarker, NewEvent};
use crate::aggregate::AggregateRoot;
use crate::error::{Error, Result, StoreErrorKind};
use crate::event::{DomainEvent, EventType};
use crate::integrity::ContentHash;
use crate::payload;

/// What is wrong with an aggregate of which `apply` did more than change the state.
pub(crate) fn misapplied(kind: &str, id: &impl fmt::Display) -> String {
    format!(
        "`apply` of {kind} {id} has raised an event or changed the id: it may change the state alone"
    )
}

/// An event-sourced aggregate is what its events made of it.
pub(super) fn check_applied<A: AggregateRoot>(aggregate: &A) -> Result<()> {
    let root = aggregate.root();
    let (kind, id) = (A::TYPE, aggregate.id());
    let message = if !root.is_applied() {
        format!(
            "{kind} {id} has raised an event that it did not apply: call `Sourced::raise`, not `Root::raise`"
        )
    } else if root.is_misapplied() {
        misapplied(kind, id)
    } else if root.version() == 0 && root.raised().is_empty() {
        format!("{kind} {id} has no event: an event-sourced aggregate begins with one")
    } else {
        return Ok(());
    };
    Err(Error::store(StoreErrorKind::Usage, message))
}

/// The events of a write: those that were raised, and the marker of a removal, by which the log alone
/// says that it is the end. A change that raised nothing has the marker of its own, but of an
/// event-sourced aggregate, of which it changes nothing.
pub(super) fn new_events<E: DomainEvent>(
    raised: &[E],
    marker: ChangeMarker,
    is_sourced: bool,
    expected_version: u64,
    now: DateTime<Utc>,
) -> Result<Vec<NewEvent>> {
    let mut events = encoded(raised, expected_version, now)?;
    if marker == ChangeMarker::Removed || events.is_empty() && !is_sourced {
        let version = expected_version + events.len() as u64 + 1;
        events.push(marker_event(marker, version, now));
    }
    Ok(events)
}

fn marker_event(marker: ChangeMarker, version: u64, now: DateTime<Utc>) -> NewEvent {
    new_event(version, marker.event_type(), 1, "{}".to_owned(), now)
}

fn encoded<E: DomainEvent>(
    raised: &[E],
    expected_version: u64,
    now: DateTime<Utc>,
) -> Result<Vec<NewEvent>> {
    let encoded = raised.iter().zip(expected_version + 1..);
    encoded
        .map(|(event, version)| {
            let EventType {
                name,
                schema_version,
            } = *event.event_type();
            let payload = payload::encode(event)?;
            Ok(new_event(version, name, schema_version, payload, now))
        })
        .collect()
}

fn new_event(
    version: u64,
    event_type: &'static str,
    schema_version: u32,
    payload: String,
    now: DateTime<Utc>,
) -> NewEvent {
    NewEvent {
        event_id: Uuid::now_v7(),
        aggregate_version: version,
        event_type,
        schema_version,
        schema_id: None,
        content_hash: ContentHash::of(&payload),
        payload,
        occurred_at: now,
    }
}
