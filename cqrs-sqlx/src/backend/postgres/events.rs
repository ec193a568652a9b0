//! Events on their way into the log.

use cqrs_core::staging::{NewEvent, StagedWrite};
use cqrs_core::{Metadata, Result};
use sqlx::postgres::PgArguments;

use crate::backend::Returned;
use crate::backend::bind::bind;
use crate::log::EVENT_COLUMNS;

/// The columns of the log that an insert gives, in the order of [`bind_origin`],
/// [`bind_stream`] and [`bind_event`]. The others have defaults.
pub(super) const COLUMNS: &str = "correlation_id, causation_id, actor, traceparent, tracestate, \
     tenant_id, aggregate_type, aggregate_id, event_id, aggregate_version, event_type, \
     schema_version, payload, content_hash, occurred_at, schema_id";

/// How many parameters [`bind_origin`] binds.
pub(super) const ORIGIN: usize = 5;
/// How many parameters [`bind_stream`] binds.
pub(super) const STREAM: usize = 3;

/// How many parameters [`bind_event`] binds, and [`bind_events`].
pub(super) const EVENT: usize = 8;

/// Where all events of a commit come from.
pub(super) fn bind_origin(arguments: &mut PgArguments, metadata: &Metadata) -> Result<()> {
    bind(arguments, metadata.correlation_id)?;
    bind(arguments, metadata.causation_id)?;
    bind(arguments, metadata.actor.as_deref())?;
    bind(arguments, traceparent(metadata))?;
    bind(arguments, tracestate(metadata))
}

fn traceparent(metadata: &Metadata) -> Option<&str> {
    let trace = metadata.trace.as_ref();
    trace.map(|trace| trace.traceparent.as_str())
}

fn tracestate(metadata: &Metadata) -> Option<&str> {
    let trace = metadata.trace.as_ref();
    trace.and_then(|trace| trace.tracestate.as_deref())
}

/// Whose events they are.
pub(super) fn bind_stream(arguments: &mut PgArguments, write: &StagedWrite) -> Result<()> {
    bind(arguments, tenant(write))?;
    bind(arguments, write.aggregate_type)?;
    bind(arguments, write.aggregate_id.as_str())
}

/// One event.
pub(super) fn bind_event(arguments: &mut PgArguments, event: &NewEvent) -> Result<()> {
    bind(arguments, event.event_id)?;
    bind(arguments, version(event))?;
    bind(arguments, event.event_type)?;
    bind(arguments, schema_version(event))?;
    bind(arguments, event.payload.as_str())?;
    bind(arguments, event.content_hash.to_bytes())?;
    bind(arguments, event.occurred_at)?;
    bind(arguments, event.schema_id.as_deref())
}

/// Events of one aggregate, as arrays.
pub(super) fn bind_events(arguments: &mut PgArguments, events: &[&NewEvent]) -> Result<()> {
    fn all<'e, T>(events: &[&'e NewEvent], read: impl Fn(&'e NewEvent) -> T) -> Vec<T> {
        events.iter().map(|event| read(event)).collect()
    }
    bind(arguments, all(events, |event| event.event_id))?;
    bind(arguments, all(events, version))?;
    bind(arguments, all(events, |event| event.event_type))?;
    bind(arguments, all(events, schema_version))?;
    bind(arguments, all(events, |event| event.payload.as_str()))?;
    bind(
        arguments,
        all(events, |event| event.content_hash.to_bytes()),
    )?;
    bind(arguments, all(events, |event| event.occurred_at))?;
    bind(arguments, all(events, |event| event.schema_id.as_deref()))
}

/// The events of several aggregates, as arrays, with their streams.
pub(super) fn bind_streams_and_events(
    arguments: &mut PgArguments,
    writes: &[&StagedWrite],
) -> Result<()> {
    fn all<'w, T>(writes: &[&'w StagedWrite], read: impl Fn(&'w StagedWrite) -> T) -> Vec<T>
    where
        T: Clone,
    {
        writes
            .iter()
            .flat_map(|write| std::iter::repeat_n(read(write), write.events.len()))
            .collect()
    }
    bind(arguments, all(writes, tenant))?;
    bind(arguments, all(writes, |write| write.aggregate_type))?;
    bind(arguments, all(writes, |write| write.aggregate_id.as_str()))?;
    let events: Vec<&NewEvent> = writes.iter().flat_map(|write| &write.events).collect();
    bind_events(arguments, &events)
}

/// Whether each event of these writes is of an event-sourced aggregate, as an array.
pub(super) fn bind_sourced(arguments: &mut PgArguments, writes: &[&StagedWrite]) -> Result<()> {
    let sourced = writes
        .iter()
        .flat_map(|write| std::iter::repeat_n(write.is_sourced(), write.events.len()));
    bind(arguments, sourced.collect::<Vec<bool>>())
}

/// The shape of [`insert`].
pub(super) fn shape_of_insert(returned: Returned, sourced: bool) -> &'static str {
    match (returned, sourced) {
        (Returned::Positions, false) => "events",
        (Returned::Positions, true) => "events of streams",
        (Returned::Events, false) => "events, returned",
        (Returned::Events, true) => "events of streams, returned",
    }
}

/// Adds all events of a transaction. Where some are of event-sourced aggregates, one whose version is
/// taken is left out instead of spoiling the transaction: then the caller asks why. Those are inserted
/// in the order of their keys, whatever their positions are: an insert waits for the transaction that
/// has inserted the same key, and two that begin the same streams must not wait for each other.
pub(super) fn insert(returned: Returned, sourced: bool) -> String {
    let columns = match (returned, sourced) {
        (Returned::Positions, false) => "position",
        (Returned::Positions, true) => "position, event_id",
        (Returned::Events, _) => EVENT_COLUMNS,
    };
    let origin = super::write::placeholders(1, ORIGIN);
    let events = unnested_streams(ORIGIN + 1, sourced);
    let (name, value, from) = if sourced {
        let from = format!(
            "(SELECT nextval('cqrs_event_position') AS position, n.* FROM (SELECT * FROM {events} \
             ORDER BY e.ordinality) AS n) AS e \
             ORDER BY e.aggregate_type COLLATE \"C\", e.aggregate_id COLLATE \"C\", e.aggregate_version \
             ON CONFLICT ON CONSTRAINT cqrs_event_stream_key DO NOTHING"
        );
        (", sourced, position", ", e.sourced, e.position", from)
    } else {
        ("", "", format!("{events} ORDER BY e.ordinality"))
    };
    format!(
        "INSERT INTO cqrs_event ({COLUMNS}{name}) SELECT {origin}, e.tenant_id, e.aggregate_type, \
         e.aggregate_id, e.event_id, e.aggregate_version, e.event_type, e.schema_version, \
         e.payload::json, e.content_hash, e.occurred_at, e.schema_id{value} FROM {from} \
         RETURNING {columns}",
    )
}

const ORIGINS: [(&str, &str); ORIGIN] = [
    ("uuid[]", "correlation_id"),
    ("uuid[]", "causation_id"),
    ("text[]", "actor"),
    ("text[]", "traceparent"),
    ("text[]", "tracestate"),
];

const STREAMS: [(&str, &str); STREAM] = [
    ("text[]", "tenant_id"),
    ("text[]", "aggregate_type"),
    ("text[]", "aggregate_id"),
];

const EVENTS: [(&str, &str); EVENT] = [
    ("uuid[]", "event_id"),
    ("int8[]", "aggregate_version"),
    ("text[]", "event_type"),
    ("int4[]", "schema_version"),
    ("text[]", "payload"),
    ("bytea[]", "content_hash"),
    ("timestamptz[]", "occurred_at"),
    ("text[]", "schema_id"),
];

/// The relation of events bound as arrays from parameter `first` on, as `e`, in their order.
pub(super) fn unnested(first: usize, with_streams: bool) -> String {
    if with_streams {
        return unnested_streams(first, false);
    }
    relation(first, &EVENTS)
}

/// The same of several aggregates, with their streams, and with what [`bind_sourced`] binds.
pub(super) fn unnested_streams(first: usize, sourced: bool) -> String {
    let mut columns = [STREAMS.as_slice(), &EVENTS].concat();
    if sourced {
        columns.push(("bool[]", "sourced"));
    }
    relation(first, &columns)
}

/// The relation of events of several callers, bound by [`bind_of_callers`] from parameter `first` on,
/// as `e`: with their origins, their streams, and the number of the write that each belongs to.
pub(super) fn unnested_of_callers(first: usize) -> String {
    let columns = [
        &ORIGINS,
        STREAMS.as_slice(),
        &EVENTS,
        &[("int8[]", "write")],
    ];
    relation(first, &columns.concat())
}

/// What of that relation goes into the [columns](COLUMNS) of the log.
pub(super) fn of_callers() -> String {
    let columns = [&ORIGINS, STREAMS.as_slice(), &EVENTS].concat();
    crate::statements::list(columns.iter().map(|(_, name)| match *name {
        "payload" => "e.payload::json".to_owned(),
        name => format!("e.{name}"),
    }))
}

/// The events of writes of several callers, as arrays.
pub(super) fn bind_of_callers(
    arguments: &mut PgArguments,
    writes: &[(&StagedWrite, &Metadata)],
) -> Result<()> {
    fn all<'w, T>(
        writes: &[(&'w StagedWrite, &'w Metadata)],
        read: impl Fn(&'w Metadata) -> T,
    ) -> Vec<T>
    where
        T: Clone,
    {
        let writes = writes.iter();
        let origins = writes
            .flat_map(|(write, origin)| std::iter::repeat_n(read(origin), write.events.len()));
        origins.collect()
    }
    bind(arguments, all(writes, |origin| origin.correlation_id))?;
    bind(arguments, all(writes, |origin| origin.causation_id))?;
    bind(arguments, all(writes, |origin| origin.actor.as_deref()))?;
    bind(arguments, all(writes, traceparent))?;
    bind(arguments, all(writes, tracestate))?;
    let staged: Vec<&StagedWrite> = writes.iter().map(|(write, _)| *write).collect();
    bind_streams_and_events(arguments, &staged)?;
    let numbers = (1_i64..).zip(&staged);
    let numbers =
        numbers.flat_map(|(number, write)| std::iter::repeat_n(number, write.events.len()));
    bind(arguments, numbers.collect::<Vec<i64>>())
}

fn relation(first: usize, columns: &[(&str, &str)]) -> String {
    let arrays = crate::statements::list(
        columns
            .iter()
            .enumerate()
            .map(|(index, (array, _))| format!("${}::{array}", first + index)),
    );
    let names = crate::statements::list(columns.iter().map(|(_, name)| *name));
    format!("unnest({arrays}) WITH ORDINALITY AS e({names}, ordinality)")
}

fn tenant(write: &StagedWrite) -> Option<&str> {
    write.tenant.as_ref().map(cqrs_core::TenantId::as_str)
}

/// Versions come from a bigint column, or are counted up from one.
fn version(event: &NewEvent) -> i64 {
    i64::try_from(event.aggregate_version).unwrap_or(i64::MAX)
}

/// Postgres has no unsigned integers; a schema version is a small number of the source code.
fn schema_version(event: &NewEvent) -> i32 {
    i32::try_from(event.schema_version).unwrap_or(i32::MAX)
}
