//! Reading the log.

use cqrs_core::integrity::Hashing;
use cqrs_core::mapping::{ColumnError, RowSource};
use cqrs_core::{
    ContentHash, Envelope, Error, EventHeader, Metadata, Position, RawPayload, Result,
    StoreErrorKind, TenantId, TraceContext,
};

/// The columns of the log in the order in which [`read_event`] reads them.
pub(crate) const EVENT_COLUMNS: &str = "position, event_id, tenant_id, aggregate_type, \
     aggregate_id, aggregate_version, event_type, schema_version, schema_id, payload, \
     content_hash, correlation_id, causation_id, actor, traceparent, tracestate, occurred_at, \
     recorded_at";

/// Reads an event from a row with [`EVENT_COLUMNS`].
pub(crate) fn read_event<R: RowSource>(row: &R) -> Result<Envelope<RawPayload>> {
    read(row)
        .map_err(|error| Error::store(StoreErrorKind::Schema, format!("table cqrs_event: {error}")))
}

/// As [`read_event`], and compares the event with its hash where the store is told to.
pub(crate) fn read_verified<R: RowSource>(
    hashing: &Hashing,
    row: &R,
) -> Result<Envelope<RawPayload>> {
    let event = read_event(row)?;
    hashing
        .verify(&event)
        .map_err(|reason| Error::Undecodable {
            position: event.position(),
            reason,
        })?;
    Ok(event)
}

fn read<R: RowSource>(row: &R) -> std::result::Result<Envelope<RawPayload>, ColumnError> {
    fn some<T>(value: Option<T>) -> std::result::Result<T, ColumnError> {
        value.ok_or(ColumnError::UnexpectedNull)
    }
    let owned = |index| Ok::<_, ColumnError>(row.read_text(index)?.map(str::to_owned));

    let hash = some(row.read_bytes(10)?)?;
    let tenant = row
        .read_text(2)?
        .map(TenantId::new)
        .transpose()
        .map_err(ColumnError::invalid)?;
    let trace = owned(14)?.map(|traceparent| {
        Ok::<_, ColumnError>(TraceContext {
            traceparent,
            tracestate: owned(15)?,
        })
    });
    let header = EventHeader {
        position: Position(some(row.read_i64(0)?)?),
        event_id: some(row.read_uuid(1)?)?,
        tenant,
        aggregate_type: some(owned(3)?)?,
        aggregate_id: some(owned(4)?)?,
        aggregate_version: u64::try_from(some(row.read_i64(5)?)?).map_err(ColumnError::invalid)?,
        event_type: some(owned(6)?)?,
        schema_version: u32::try_from(some(row.read_i32(7)?)?).map_err(ColumnError::invalid)?,
        schema_id: owned(8)?,
        metadata: Metadata {
            correlation_id: some(row.read_uuid(11)?)?,
            causation_id: row.read_uuid(12)?,
            actor: owned(13)?,
            trace: trace.transpose()?,
        },
        content_hash: ContentHash::from_bytes(hash).map_err(ColumnError::invalid)?,
        occurred_at: some(row.read_timestamp(16)?)?,
        recorded_at: some(row.read_timestamp(17)?)?,
    };
    Ok(Envelope::new(
        header,
        RawPayload::new(some(row.read_json(9)?)?),
    ))
}
