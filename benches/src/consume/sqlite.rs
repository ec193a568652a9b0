//! The drain on SQLite.

use std::time::Instant;

use anyhow::{Result, ensure};
use cqrs_core::{Entity as _, Maintain as _, RequestContext, TenantId};
use cqrs_sqlx::{SqliteStore, StoreOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::types::Json;
use sqlx::{Connection as _, Executor as _};
use uuid::Uuid;

use super::by_hand::{Amount, SEEN_SQL};
use super::drain::PAGE;
use super::projections::{Bulk, Seen};
use crate::database::TENANT;
use crate::domain::{Order, Place};
use crate::harness::{Sample, take_turns};
use crate::report::{Case, OURS};

/// Drains a log of so many events, in turns with a loop by hand.
///
/// # Errors
///
/// Where the database fails, or a side did not do its work.
pub(crate) async fn drain(
    options: &SqliteConnectOptions,
    events: usize,
    rounds: usize,
) -> Result<Case> {
    let store = SqliteStore::connect_with(options.clone(), StoreOptions::default()).await?;
    store.migrate().await?;
    store
        .create_tables(&[Order::table(), Seen::table()])
        .await?;
    let orders = (0..events).map(|number| {
        Order::place(&Place {
            customer: format!("customer {number}"),
            note: "Leave it with the neighbours, please.".to_owned(),
            quantity: i64::try_from(number % 90).unwrap_or(0) + 1,
        })
    });
    let context = RequestContext::tenant(TenantId::new(TENANT)?);
    store
        .maintenance::<Order>(&context)
        .insert(orders.collect::<Vec<_>>())
        .await?;
    let mut connection = SqliteConnection::connect_with(options).await?;
    connection
        .execute(
            "CREATE TABLE bench_checkpoint (position INTEGER NOT NULL); \
             INSERT INTO bench_checkpoint VALUES (0)",
        )
        .await?;
    let sides = [true, false];
    let mut turn = async |ours: bool| {
        connection
            .execute(
                "DELETE FROM bench_seen; DELETE FROM cqrs_segment; DELETE FROM cqrs_subscription; \
                 UPDATE bench_checkpoint SET position = 0; PRAGMA wal_checkpoint(TRUNCATE)",
            )
            .await?;
        let begun = Instant::now();
        let drained = if ours {
            let projector = store.projector().page_size(PAGE.into());
            let projector = projector.projection(Bulk::default());
            usize::try_from(projector.run_until_idle().await?)?
        } else {
            drain_by_hand(&mut connection).await?
        };
        let sample = Sample::once(drained, begun.elapsed());
        ensure!(drained == events, "{drained} events");
        verify(&mut connection, events).await?;
        Ok(sample)
    };
    for ours in sides {
        turn(ours).await?;
    }
    let samples = take_turns(&sides, rounds, turn).await?;
    store.close();
    Ok(Case::new("sqlite", "drain", [OURS, "loop"], samples))
}

async fn drain_by_hand(connection: &mut SqliteConnection) -> Result<usize> {
    let mut drained = 0;
    loop {
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        let from: i64 = sqlx::query_scalar("SELECT position FROM bench_checkpoint")
            .fetch_one(&mut *transaction)
            .await?;
        let rows: Vec<(i64, String, String, Json<Amount>)> = sqlx::query_as(
            "SELECT position, tenant_id, aggregate_id, payload FROM cqrs_event \
             WHERE position > $1 ORDER BY position LIMIT $2",
        )
        .bind(from)
        .bind(PAGE)
        .fetch_all(&mut *transaction)
        .await?;
        let events = rows.len();
        let last = rows.last().map_or(from, |row| row.0);
        for (position, tenant, id, Json(amount)) in rows {
            sqlx::query(SEEN_SQL)
                .bind(tenant)
                .bind(Uuid::parse_str(&id)?)
                .bind(position)
                .bind(amount.quantity)
                .execute(&mut *transaction)
                .await?;
        }
        sqlx::query("UPDATE bench_checkpoint SET position = $1")
            .bind(last)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        drained += events;
        if events < usize::from(PAGE) {
            return Ok(drained);
        }
    }
}

async fn verify(connection: &mut SqliteConnection, events: usize) -> Result<()> {
    let (rows, right): (i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM bench_seen), count(*) FROM bench_seen AS s \
         JOIN cqrs_event AS e ON e.position = s.last AND e.tenant_id = s.tenant_id \
         AND json_extract(e.payload, '$.quantity') = s.amount \
         AND replace(e.aggregate_id, '-', '') = lower(hex(s.id))",
    )
    .fetch_one(connection)
    .await?;
    let events = i64::try_from(events)?;
    ensure!(
        (rows, right) == (events, events),
        "a side did not do its work: {rows} rows, {right} of them right, of {events}"
    );
    Ok(())
}
