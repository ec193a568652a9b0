//! The rival: COPY by hand, in the binary format, into both tables.

use anyhow::Result;
use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use sqlx::Executor as _;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::database::{ACTOR, TENANT};
use crate::domain::Place;

/// What is sent at once.
const CHUNK: usize = 128 * 1024;
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const END: [u8; 2] = [0xff, 0xff];
/// The microseconds from 1970 to 2000, where Postgres begins to count.
const EPOCH: i64 = 946_684_800_000_000;

/// A row of both tables, with everything computed.
pub(super) struct Row {
    id: Uuid,
    text: String,
    customer: String,
    note: String,
    quantity: i64,
    at: DateTime<Utc>,
    event_id: Uuid,
    correlation_id: Uuid,
    payload: String,
    content_hash: [u8; 32],
}

impl Row {
    pub(super) fn new(place: &Place) -> Result<Self> {
        let id = Uuid::now_v7();
        let payload = serde_json::to_string(&serde_json::json!({
            "customer": place.customer,
            "note": place.note,
            "quantity": place.quantity,
        }))?;
        Ok(Self {
            id,
            text: id.to_string(),
            customer: place.customer.clone(),
            note: place.note.clone(),
            quantity: place.quantity,
            at: Utc::now(),
            event_id: Uuid::now_v7(),
            correlation_id: Uuid::now_v7(),
            content_hash: Sha256::digest(payload.as_bytes()).into(),
            payload,
        })
    }

    fn order(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&10_i16.to_be_bytes());
        field(out, self.id.as_bytes());
        field(out, &1_i64.to_be_bytes());
        field(out, TENANT.as_bytes());
        self.time(out);
        field(out, ACTOR.as_bytes());
        self.time(out);
        field(out, ACTOR.as_bytes());
        field(out, self.customer.as_bytes());
        field(out, self.note.as_bytes());
        field(out, &self.quantity.to_be_bytes());
    }

    fn event(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&12_i16.to_be_bytes());
        field(out, self.correlation_id.as_bytes());
        field(out, ACTOR.as_bytes());
        field(out, TENANT.as_bytes());
        field(out, b"order");
        field(out, self.text.as_bytes());
        field(out, self.event_id.as_bytes());
        field(out, &1_i64.to_be_bytes());
        field(out, b"order.placed");
        field(out, &1_i32.to_be_bytes());
        field(out, self.payload.as_bytes());
        field(out, &self.content_hash);
        self.time(out);
    }

    fn time(&self, out: &mut Vec<u8>) {
        field(out, &(self.at.timestamp_micros() - EPOCH).to_be_bytes());
    }
}

fn field(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Inserts all rows in one transaction.
///
/// # Errors
///
/// Where the database fails.
pub(super) async fn insert(connection: &mut PgConnection, rows: &[Row]) -> Result<()> {
    const ORDERS: &str = "COPY bench_order (id, version, tenant_id, created_at, created_by, \
         updated_at, updated_by, customer, note, quantity) FROM STDIN BINARY";
    const EVENTS: &str = "COPY cqrs_event (correlation_id, actor, tenant_id, aggregate_type, \
         aggregate_id, event_id, aggregate_version, event_type, schema_version, payload, \
         content_hash, occurred_at) FROM STDIN BINARY";
    connection.execute("BEGIN").await?;
    copy(connection, ORDERS, rows, Row::order).await?;
    copy(connection, EVENTS, rows, Row::event).await?;
    connection.execute("COMMIT").await?;
    Ok(())
}

async fn copy(
    connection: &mut PgConnection,
    statement: &str,
    rows: &[Row],
    encode: fn(&Row, &mut Vec<u8>),
) -> Result<()> {
    let mut copy = connection.copy_in_raw(statement).await?;
    let mut out = Vec::with_capacity(CHUNK + 4_096);
    out.extend_from_slice(HEADER);
    for row in rows {
        encode(row, &mut out);
        if out.len() >= CHUNK {
            copy.send(out.as_slice()).await?;
            out.clear();
        }
    }
    out.extend_from_slice(&END);
    copy.send(out.as_slice()).await?;
    copy.finish().await?;
    Ok(())
}
