//! The rival: the same work by hand on sqlx.
//!
//! It writes what the framework writes, to the same columns: the row with its tenant, version and
//! audit columns, and the event with its ids, its canonical JSON and the hash of that. It does so
//! as well as sqlx allows: every statement is a literal, prepared once per connection; values
//! that occur twice are bound once; what is constant is a constant; rows are decoded by index.

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::domain::{Change, Place};

/// For whom a command runs.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// The tenant.
    pub(crate) tenant: String,
    /// The actor.
    pub(crate) actor: String,
}

/// The payload of the event. Its fields are in alphabetical order, so its JSON is canonical.
#[derive(Serialize)]
struct Placed<'a> {
    customer: &'a str,
    note: &'a str,
    quantity: i64,
}

/// The payload of the event. Its fields are in alphabetical order, so its JSON is canonical.
#[derive(Serialize)]
struct Changed<'a> {
    by: i64,
    note: &'a str,
}

/// The event of a commit.
pub(crate) struct Event {
    pub(crate) id: Uuid,
    pub(crate) correlation_id: Uuid,
    pub(crate) payload: String,
    pub(crate) content_hash: [u8; 32],
    pub(crate) occurred_at: DateTime<Utc>,
}

impl Event {
    fn new(payload: &impl Serialize) -> Result<Self> {
        let payload = serde_json::to_string(payload)?;
        Ok(Self {
            id: Uuid::now_v7(),
            correlation_id: Uuid::now_v7(),
            content_hash: Sha256::digest(payload.as_bytes()).into(),
            payload,
            occurred_at: Utc::now(),
        })
    }

    pub(crate) fn placed(place: &Place) -> Result<Self> {
        Self::new(&Placed {
            customer: &place.customer,
            note: &place.note,
            quantity: place.quantity,
        })
    }

    pub(crate) fn changed(change: &Change) -> Result<Self> {
        Self::new(&Changed {
            by: change.by,
            note: &change.note,
        })
    }
}

/// An order as it was loaded.
struct Loaded {
    version: i64,
    customer: String,
    quantity: i64,
}

/// Places an order with one statement, which commits itself.
///
/// # Errors
///
/// Where the database fails.
pub(crate) async fn place_in_one(
    connection: &mut PgConnection,
    caller: &Caller,
    place: &Place,
) -> Result<i64> {
    const SQL: &str = "WITH placed AS (\
         INSERT INTO bench_order (id, version, tenant_id, created_at, created_by, updated_at, \
         updated_by, customer, note, quantity) \
         VALUES ($1, 1, $2, $3, $4, $3, $4, $5, $6, $7)) \
         INSERT INTO cqrs_event (correlation_id, causation_id, actor, traceparent, tracestate, \
         tenant_id, aggregate_type, aggregate_id, event_id, aggregate_version, event_type, \
         schema_version, payload, content_hash, occurred_at) \
         VALUES ($8, NULL, $4, NULL, NULL, $2, 'order', $9, $10, 1, 'order.placed', 1, \
         $11::json, $12, $3) RETURNING position";
    let id = Uuid::now_v7();
    let event = Event::placed(place)?;
    Ok(sqlx::query_scalar(SQL)
        .bind(id)
        .bind(&caller.tenant)
        .bind(event.occurred_at)
        .bind(&caller.actor)
        .bind(&place.customer)
        .bind(&place.note)
        .bind(place.quantity)
        .bind(event.correlation_id)
        .bind(id.to_string())
        .bind(event.id)
        .bind(&event.payload)
        .bind(event.content_hash.as_slice())
        .fetch_one(connection)
        .await?)
}

/// Places an order in steps, within a transaction that the caller opened.
///
/// # Errors
///
/// Where the database fails.
pub(crate) async fn place_in_steps(
    transaction: &mut PgConnection,
    caller: &Caller,
    place: &Place,
) -> Result<i64> {
    const SQL: &str = "INSERT INTO bench_order (id, version, tenant_id, created_at, created_by, \
         updated_at, updated_by, customer, note, quantity) \
         VALUES ($1, 1, $2, $3, $4, $3, $4, $5, $6, $7)";
    let id = Uuid::now_v7();
    let event = Event::placed(place)?;
    sqlx::query(SQL)
        .bind(id)
        .bind(&caller.tenant)
        .bind(event.occurred_at)
        .bind(&caller.actor)
        .bind(&place.customer)
        .bind(&place.note)
        .bind(place.quantity)
        .execute(&mut *transaction)
        .await?;
    append(transaction, caller, id, 1, "order.placed", &event).await
}

/// Changes an order: loads it, and writes it with one statement, which commits itself.
///
/// # Errors
///
/// Where the database fails, or the order changed meanwhile.
pub(crate) async fn change_in_one(
    connection: &mut PgConnection,
    caller: &Caller,
    change: &Change,
) -> Result<i64> {
    const SQL: &str = "WITH changed AS (\
         UPDATE bench_order SET version = $4 + 1, updated_at = $5, updated_by = $6, \
         customer = $7, note = $8, quantity = $9 \
         WHERE id = $1 AND tenant_id = $3 AND version = $4 AND deleted_at IS NULL RETURNING 1) \
         INSERT INTO cqrs_event (correlation_id, causation_id, actor, traceparent, tracestate, \
         tenant_id, aggregate_type, aggregate_id, event_id, aggregate_version, event_type, \
         schema_version, payload, content_hash, occurred_at) \
         SELECT $10, NULL, $6, NULL, NULL, $3, 'order', $2, $11, $4 + 1, 'order.changed', 1, \
         $12::json, $13, $5 FROM changed RETURNING position";
    let id = change.id.uuid();
    let order = load(connection, caller, id).await?;
    let event = Event::changed(change)?;
    sqlx::query_scalar(SQL)
        .bind(id)
        .bind(id.to_string())
        .bind(&caller.tenant)
        .bind(order.version)
        .bind(event.occurred_at)
        .bind(&caller.actor)
        .bind(&order.customer)
        .bind(&change.note)
        .bind(order.quantity + change.by)
        .bind(event.correlation_id)
        .bind(event.id)
        .bind(&event.payload)
        .bind(event.content_hash.as_slice())
        .fetch_optional(connection)
        .await?
        .context("the order changed meanwhile")
}

/// Changes an order in steps, within a transaction that the caller opened.
///
/// # Errors
///
/// Where the database fails, or the order changed meanwhile.
pub(crate) async fn change_in_steps(
    transaction: &mut PgConnection,
    caller: &Caller,
    change: &Change,
) -> Result<i64> {
    const SQL: &str = "UPDATE bench_order SET version = $3 + 1, updated_at = $4, \
         updated_by = $5, customer = $6, note = $7, quantity = $8 \
         WHERE id = $1 AND tenant_id = $2 AND version = $3 AND deleted_at IS NULL";
    let id = change.id.uuid();
    let order = load(transaction, caller, id).await?;
    let event = Event::changed(change)?;
    let changed = sqlx::query(SQL)
        .bind(id)
        .bind(&caller.tenant)
        .bind(order.version)
        .bind(event.occurred_at)
        .bind(&caller.actor)
        .bind(&order.customer)
        .bind(&change.note)
        .bind(order.quantity + change.by)
        .execute(&mut *transaction)
        .await?;
    anyhow::ensure!(changed.rows_affected() == 1, "the order changed meanwhile");
    let version = order.version + 1;
    append(transaction, caller, id, version, "order.changed", &event).await
}

/// The columns that the command needs, and those that every command of an order would.
async fn load(connection: &mut PgConnection, caller: &Caller, id: Uuid) -> Result<Loaded> {
    type Row = (
        Uuid,
        i64,
        String,
        DateTime<Utc>,
        Option<String>,
        DateTime<Utc>,
        Option<String>,
        String,
        String,
        i64,
    );
    const SQL: &str = "SELECT id, version, tenant_id, created_at, created_by, updated_at, \
         updated_by, customer, note, quantity FROM bench_order \
         WHERE id = $1 AND tenant_id = $2 AND deleted_at IS NULL";
    let row: Row = sqlx::query_as(SQL)
        .bind(id)
        .bind(&caller.tenant)
        .fetch_one(connection)
        .await?;
    let (_, version, _, _, _, _, _, customer, _, quantity) = row;
    Ok(Loaded {
        version,
        customer,
        quantity,
    })
}

async fn append(
    transaction: &mut PgConnection,
    caller: &Caller,
    id: Uuid,
    version: i64,
    event_type: &str,
    event: &Event,
) -> Result<i64> {
    const SQL: &str = "INSERT INTO cqrs_event (correlation_id, causation_id, actor, \
         traceparent, tracestate, tenant_id, aggregate_type, aggregate_id, event_id, \
         aggregate_version, event_type, schema_version, payload, content_hash, occurred_at) \
         VALUES ($1, NULL, $2, NULL, NULL, $3, 'order', $4, $5, $6, $7, 1, $8::json, $9, $10) \
         RETURNING position";
    Ok(sqlx::query_scalar(SQL)
        .bind(event.correlation_id)
        .bind(&caller.actor)
        .bind(&caller.tenant)
        .bind(id.to_string())
        .bind(event.id)
        .bind(version)
        .bind(event_type)
        .bind(&event.payload)
        .bind(event.content_hash.as_slice())
        .bind(event.occurred_at)
        .fetch_one(transaction)
        .await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_canonical() {
        let place = Place {
            customer: "Kim \"K\"".to_owned(),
            note: "ring twice\n".to_owned(),
            quantity: 3,
        };
        let change = Change {
            id: crate::domain::OrderId::new(),
            by: -2,
            note: "späť".to_owned(),
        };
        for event in [Event::placed(&place), Event::changed(&change)] {
            let event = event.expect("a payload of text and numbers is JSON");
            let value = serde_json::from_str(&event.payload).expect("it was just written");
            let canonical = cqrs_core::canonical_json(&value);
            assert_eq!(event.payload, canonical);
            assert_eq!(
                event.content_hash,
                cqrs_core::ContentHash::of(&canonical).content()
            );
        }
    }
}
