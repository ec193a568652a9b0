//! Rows in the binary format of COPY.

use chrono::{DateTime, NaiveDate, Utc};
use cqrs_core::mapping::{ColumnType, Value};
use cqrs_core::staging::{NewEvent, StagedWrite};
use cqrs_core::{Error, Metadata, Result, StoreErrorKind};
use uuid::Uuid;

/// The signature, no flags, and no extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// In place of the number of fields of a row: there are no more.
const TRAILER: i16 = -1;
/// The columns of [`super::events::COLUMNS`].
const EVENT_FIELDS: usize = 16;
/// Midnight of 1 January 2000 UTC, from which Postgres counts, in seconds of Unix time.
const EPOCH: i64 = 946_684_800;

/// What rows are sent in, and somewhat more.
const PIECE: usize = 256 * 1024;

/// Encoded rows.
pub(super) struct Rows(Vec<u8>);

impl Rows {
    /// None yet.
    pub(super) fn new() -> Self {
        Self(HEADER.to_vec())
    }

    /// How many bytes they have.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes what was encoded so far.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::replace(&mut self.0, Vec::with_capacity(PIECE))
    }

    /// Says that nothing follows.
    pub(super) fn end(&mut self) {
        self.0.extend_from_slice(&TRAILER.to_be_bytes());
    }

    /// Begins a row of so many fields.
    pub(super) fn begin(&mut self, fields: usize) {
        // A table of Postgres has up to 1,600 columns.
        let fields = i16::try_from(fields).unwrap_or(i16::MAX);
        self.0.extend_from_slice(&fields.to_be_bytes());
    }

    /// Adds a field of a column's type.
    pub(super) fn value(&mut self, column_type: ColumnType, value: &Value) -> Result<()> {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "it was widened from an f32"
        )]
        match (column_type, value) {
            (_, Value::Null) => self.null(),
            (ColumnType::Bool, Value::Bool(v)) => self.field(&[u8::from(*v)])?,
            (ColumnType::Int16, Value::Int(v)) => {
                self.field(&fitting::<i16>(column_type, *v)?.to_be_bytes())?;
            }
            (ColumnType::Int32, Value::Int(v)) => {
                self.field(&fitting::<i32>(column_type, *v)?.to_be_bytes())?;
            }
            (ColumnType::Int64, Value::Int(v)) => self.field(&v.to_be_bytes())?,
            (ColumnType::Float32, Value::Float(v)) => self.field(&(*v as f32).to_be_bytes())?,
            (ColumnType::Float64, Value::Float(v)) => self.field(&v.to_be_bytes())?,
            (ColumnType::Text, Value::Text(v)) => self.field(v.as_bytes())?,
            (ColumnType::Bytes, Value::Bytes(v)) => self.field(v)?,
            (ColumnType::Uuid, Value::Uuid(v)) => self.uuid(*v),
            (ColumnType::Timestamp, Value::Timestamp(v)) => self.timestamp(*v),
            (ColumnType::Date, Value::Date(v)) => self.field(&days(*v).to_be_bytes())?,
            (ColumnType::Json, Value::Json(v)) => {
                // The version of the binary form of jsonb.
                self.length(v.len() + 1)?;
                self.0.push(1);
                self.0.extend_from_slice(v.as_bytes());
            }
            (_, other) => return Err(unexpected(column_type, other)),
        }
        Ok(())
    }

    /// Adds a row of the log.
    pub(super) fn event(
        &mut self,
        write: &StagedWrite,
        event: &NewEvent,
        metadata: &Metadata,
    ) -> Result<()> {
        let trace = metadata.trace.as_ref();
        let version = i64::try_from(event.aggregate_version).unwrap_or(i64::MAX);
        let schema_version = i32::try_from(event.schema_version).unwrap_or(i32::MAX);
        self.begin(EVENT_FIELDS);
        self.uuid(metadata.correlation_id);
        match metadata.causation_id {
            Some(id) => self.uuid(id),
            None => self.null(),
        }
        self.optional(metadata.actor.as_deref())?;
        self.optional(trace.map(|trace| trace.traceparent.as_str()))?;
        self.optional(trace.and_then(|trace| trace.tracestate.as_deref()))?;
        self.optional(write.tenant.as_ref().map(cqrs_core::TenantId::as_str))?;
        self.field(write.aggregate_type.as_bytes())?;
        self.field(write.aggregate_id.as_bytes())?;
        self.uuid(event.event_id);
        self.field(&version.to_be_bytes())?;
        self.field(event.event_type.as_bytes())?;
        self.field(&schema_version.to_be_bytes())?;
        self.field(event.payload.as_bytes())?;
        self.field(&event.content_hash.to_bytes())?;
        self.timestamp(event.occurred_at);
        self.optional(event.schema_id.as_deref())
    }

    fn length(&mut self, bytes: usize) -> Result<()> {
        let length = i32::try_from(bytes).map_err(|_| {
            Error::store(
                StoreErrorKind::Usage,
                format!("a value of {bytes} bytes is more than a field can hold"),
            )
        })?;
        self.0.extend_from_slice(&length.to_be_bytes());
        Ok(())
    }

    fn field(&mut self, bytes: &[u8]) -> Result<()> {
        self.length(bytes.len())?;
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn null(&mut self) {
        self.0.extend_from_slice(&(-1_i32).to_be_bytes());
    }

    fn optional(&mut self, text: Option<&str>) -> Result<()> {
        match text {
            Some(text) => self.field(text.as_bytes()),
            None => {
                self.null();
                Ok(())
            }
        }
    }

    fn uuid(&mut self, uuid: Uuid) {
        self.0.extend_from_slice(&16_i32.to_be_bytes());
        self.0.extend_from_slice(uuid.as_bytes());
    }

    fn timestamp(&mut self, time: DateTime<Utc>) {
        let micros = time.timestamp_micros() - EPOCH * 1_000_000;
        self.0.extend_from_slice(&8_i32.to_be_bytes());
        self.0.extend_from_slice(&micros.to_be_bytes());
    }
}

fn fitting<T: TryFrom<i64>>(column_type: ColumnType, value: i64) -> Result<T> {
    T::try_from(value).map_err(|_| unexpected(column_type, &Value::Int(value)))
}

fn days(date: NaiveDate) -> i32 {
    let epoch = EPOCH / 86_400;
    let days = date.to_epoch_days();
    i32::try_from(i64::from(days) - epoch).unwrap_or(i32::MAX)
}

#[cold]
fn unexpected(column_type: ColumnType, value: &Value) -> Error {
    Error::store(
        StoreErrorKind::Usage,
        format!("a mapping wrote {value:?} into a column of type {column_type}"),
    )
}
