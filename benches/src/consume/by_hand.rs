//! The same work by hand on sqlx.
//!
//! A loop over the log with a checkpoint reads the columns that it needs, and trusts positions, as
//! loops written by hand do: it has no horizon. The loop over a status column is the usual outbox.

use std::collections::HashMap;

use anyhow::Result;
use serde::Deserialize;
use sqlx::types::Json;
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

/// Writes a row.
pub(super) const SEEN_SQL: &str = "INSERT INTO bench_seen (tenant_id, id, last, amount) \
     VALUES ($1, $2, $3, $4) ON CONFLICT (tenant_id, id) \
     DO UPDATE SET last = excluded.last, amount = excluded.amount";

/// What a loop reads of a payload.
#[derive(Debug, Deserialize)]
pub(super) struct Amount {
    #[serde(alias = "by")]
    pub(super) quantity: i64,
}

type Row = (i64, String, String, Json<Amount>);

/// The next page of the log: one UNNEST statement for all, or a statement for each event. Returns
/// how many events it had, and the last position.
pub(super) async fn page(
    connection: &mut PgConnection,
    most: i64,
    bulk: bool,
) -> Result<(usize, i64)> {
    let mut transaction = connection.begin().await?;
    let from: i64 = sqlx::query_scalar("SELECT position FROM bench_checkpoint FOR UPDATE")
        .fetch_one(&mut *transaction)
        .await?;
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT position, tenant_id, aggregate_id, payload FROM cqrs_event \
         WHERE position > $1 ORDER BY position LIMIT $2",
    )
    .bind(from)
    .bind(most)
    .fetch_all(&mut *transaction)
    .await?;
    let last = rows.last().map_or(from, |row| row.0);
    let events = rows.len();
    if bulk {
        write_all(&mut transaction, rows).await?;
    } else {
        for row in rows {
            write_one(&mut transaction, row).await?;
        }
    }
    sqlx::query("UPDATE bench_checkpoint SET position = $1")
        .bind(last)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok((events, last))
}

async fn write_all(connection: &mut PgConnection, rows: Vec<Row>) -> Result<()> {
    // One statement may write a row only once.
    let mut last = HashMap::with_capacity(rows.len());
    for (position, tenant, id, Json(amount)) in rows {
        last.insert((tenant, Uuid::parse_str(&id)?), (position, amount.quantity));
    }
    let (mut tenants, mut ids) = (Vec::new(), Vec::new());
    let (mut positions, mut amounts) = (Vec::new(), Vec::new());
    for ((tenant, id), (position, amount)) in last {
        tenants.push(tenant);
        ids.push(id);
        positions.push(position);
        amounts.push(amount);
    }
    sqlx::query(
        "INSERT INTO bench_seen (tenant_id, id, last, amount) \
         SELECT * FROM unnest($1::text[], $2::uuid[], $3::int8[], $4::int8[]) \
         ON CONFLICT (tenant_id, id) DO UPDATE SET last = excluded.last, amount = excluded.amount",
    )
    .bind(tenants)
    .bind(ids)
    .bind(positions)
    .bind(amounts)
    .execute(connection)
    .await?;
    Ok(())
}

async fn write_one(connection: &mut PgConnection, row: Row) -> Result<()> {
    let (position, tenant, id, Json(amount)) = row;
    sqlx::query(SEEN_SQL)
        .bind(tenant)
        .bind(Uuid::parse_str(&id)?)
        .bind(position)
        .bind(amount.quantity)
        .execute(connection)
        .await?;
    Ok(())
}

/// The next page of the outbox: a row of the read table and an UPDATE of the status for each event.
pub(super) async fn status_page(connection: &mut PgConnection, most: i64) -> Result<usize> {
    let mut transaction = connection.begin().await?;
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT position, tenant_id, aggregate_id, payload FROM bench_outbox \
         WHERE status = 'NEW' ORDER BY position LIMIT $1 FOR UPDATE SKIP LOCKED",
    )
    .bind(most)
    .fetch_all(&mut *transaction)
    .await?;
    let events = rows.len();
    for row in rows {
        let position = row.0;
        write_one(&mut transaction, row).await?;
        sqlx::query("UPDATE bench_outbox SET status = 'SENT' WHERE position = $1")
            .bind(position)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(events)
}

/// An error of the driver, for the framework.
pub(super) fn driver_error(error: sqlx::Error) -> cqrs_core::Error {
    cqrs_core::Error::other(error)
}
