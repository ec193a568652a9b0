//! The same by hand: a transaction with a statement for the row and one for the event.

use anyhow::{Context as _, Result};
use chrono::SecondsFormat;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqlitePool, SqlitePoolOptions};
use uuid::Uuid;

use crate::database::{ACTOR, TENANT};
use crate::domain::{Change, Place};
use crate::hand_written::Event;

/// Takes the write lock at once: a transaction that has read before would fail where another wrote
/// in between.
const BEGIN: &str = "BEGIN IMMEDIATE";

/// How many connections read: as many as those of the framework.
const READERS: u32 = 10;

/// One connection writes, for whoever opens more has writers wait for each other in a loop; others
/// read beside it.
#[derive(Clone)]
pub(super) struct Pools {
    pub(super) writer: SqlitePool,
    readers: SqlitePool,
}

impl Pools {
    pub(super) fn open(file: &SqliteConnectOptions) -> Self {
        let pool = |most| {
            SqlitePoolOptions::new()
                .max_connections(most)
                .test_before_acquire(false)
                .connect_lazy_with(file.clone())
        };
        Self {
            writer: pool(1),
            readers: pool(READERS),
        }
    }

    pub(super) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// Places an order.
pub(super) async fn place(pools: &Pools, place: &Place) -> Result<()> {
    let id = Uuid::now_v7();
    let event = Event::placed(place)?;
    let at = text(&event);
    let mut transaction = pools.writer.begin_with(BEGIN).await?;
    sqlx::query(
        "INSERT INTO bench_order (id, version, tenant_id, created_at, created_by, updated_at, \
         updated_by, customer, note, quantity) VALUES ($1, 1, $2, $3, $4, $3, $4, $5, $6, $7)",
    )
    .bind(id)
    .bind(TENANT)
    .bind(&at)
    .bind(ACTOR)
    .bind(&place.customer)
    .bind(&place.note)
    .bind(place.quantity)
    .execute(&mut *transaction)
    .await?;
    append(&mut transaction, id, 1, "order.placed", &event, &at).await?;
    Ok(transaction.commit().await?)
}

/// Loads an order, changes it and writes it under its version.
pub(super) async fn change(pools: &Pools, change: &Change) -> Result<()> {
    type Row = (
        Uuid,
        i64,
        String,
        String,
        Option<String>,
        String,
        Option<String>,
        String,
        String,
        i64,
    );
    let id = change.id.uuid();
    let (_, version, _, _, _, _, _, customer, _, quantity): Row = sqlx::query_as(
        "SELECT id, version, tenant_id, created_at, created_by, updated_at, updated_by, \
         customer, note, quantity FROM bench_order \
         WHERE id = $1 AND tenant_id = $2 AND deleted_at IS NULL",
    )
    .bind(id)
    .bind(TENANT)
    .fetch_optional(&pools.readers)
    .await?
    .context("the order is gone")?;
    let event = Event::changed(change)?;
    let at = text(&event);
    let mut transaction = pools.writer.begin_with(BEGIN).await?;
    let changed = sqlx::query(
        "UPDATE bench_order SET version = $3 + 1, updated_at = $4, updated_by = $5, \
         customer = $6, note = $7, quantity = $8 \
         WHERE id = $1 AND tenant_id = $2 AND version = $3 AND deleted_at IS NULL",
    )
    .bind(id)
    .bind(TENANT)
    .bind(version)
    .bind(&at)
    .bind(ACTOR)
    .bind(customer)
    .bind(&change.note)
    .bind(quantity + change.by)
    .execute(&mut *transaction)
    .await?;
    anyhow::ensure!(changed.rows_affected() == 1, "the order changed meanwhile");
    append(
        &mut transaction,
        id,
        version + 1,
        "order.changed",
        &event,
        &at,
    )
    .await?;
    Ok(transaction.commit().await?)
}

async fn append(
    connection: &mut SqliteConnection,
    id: Uuid,
    version: i64,
    event_type: &str,
    event: &Event,
    at: &str,
) -> Result<i64> {
    let appended = sqlx::query(
        "INSERT INTO cqrs_event (correlation_id, actor, tenant_id, aggregate_type, aggregate_id, \
         event_id, aggregate_version, event_type, schema_version, payload, content_hash, \
         occurred_at) VALUES ($1, $2, $3, 'order', $4, $5, $6, $7, 1, $8, $9, $10)",
    )
    .bind(event.correlation_id)
    .bind(ACTOR)
    .bind(TENANT)
    .bind(id.to_string())
    .bind(event.id)
    .bind(version)
    .bind(event_type)
    .bind(&event.payload)
    .bind(event.content_hash.as_slice())
    .bind(at)
    .execute(connection)
    .await?;
    Ok(appended.last_insert_rowid())
}

/// A time as the columns hold it.
fn text(event: &Event) -> String {
    event
        .occurred_at
        .to_rfc3339_opts(SecondsFormat::Micros, true)
}
