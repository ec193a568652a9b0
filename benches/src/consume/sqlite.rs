//! The drain on SQLite: by a projection, and by hand with a statement for a page (`loop`) and with a
//! statement for each event (`each`).

use std::time::Instant;

use anyhow::{Result, ensure};
use cqrs_core::{Entity as _, Maintain as _, RequestContext, TenantId};
use cqrs_sqlx::{SqliteStore, StoreOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::types::Json;
use sqlx::{Connection as _, Executor as _, QueryBuilder};
use uuid::Uuid;

use super::by_hand::{Amount, SEEN_SQL};
use super::drain::PAGE;
use super::projections::{Bulk, Seen};
use crate::database::TENANT;
use crate::domain::{Order, Place};
use crate::harness::{Sample, take_turns};
use crate::report::{Case, OURS};

/// The loop by hand with a statement for a page.
const LOOP: &str = "loop";
const SIDES: [&str; 3] = [OURS, LOOP, "each"];

/// What a loop reads.
type Row = (i64, String, String, Json<Amount>);

/// Drains a log of so many events, in turns with loops by hand.
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
    let mut turn = async |side: &str| {
        connection
            .execute(
                "DELETE FROM bench_seen; DELETE FROM cqrs_segment; DELETE FROM cqrs_subscription; \
                 UPDATE bench_checkpoint SET position = 0; PRAGMA wal_checkpoint(TRUNCATE)",
            )
            .await?;
        let begun = Instant::now();
        let drained = if side == OURS {
            let projector = store.projector().page_size(PAGE.into());
            let projector = projector.projection(Bulk::default());
            usize::try_from(projector.run_until_idle().await?)?
        } else {
            drain_by_hand(&mut connection, side == LOOP).await?
        };
        let sample = Sample::once(drained, begun.elapsed());
        ensure!(drained == events, "{drained} events");
        verify(&mut connection, events).await?;
        Ok(sample)
    };
    for side in SIDES {
        turn(side).await?;
    }
    let samples = take_turns(&SIDES, rounds, turn).await?;
    store.close();
    Ok(Case::new("sqlite", "drain", SIDES, samples))
}

async fn drain_by_hand(connection: &mut SqliteConnection, bulk: bool) -> Result<usize> {
    let mut drained = 0;
    loop {
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        let from: i64 = sqlx::query_scalar("SELECT position FROM bench_checkpoint")
            .fetch_one(&mut *transaction)
            .await?;
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT position, tenant_id, aggregate_id, payload FROM cqrs_event \
             WHERE position > $1 ORDER BY position LIMIT $2",
        )
        .bind(from)
        .bind(PAGE)
        .fetch_all(&mut *transaction)
        .await?;
        let events = rows.len();
        let last = rows.last().map_or(from, |row| row.0);
        if bulk {
            write_all(&mut transaction, &rows).await?;
        } else {
            write_each(&mut transaction, &rows).await?;
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

/// One statement for all; of a full page it always has the same text, so it is prepared once.
async fn write_all(connection: &mut SqliteConnection, rows: &[Row]) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let ids = rows.iter().map(|row| Uuid::parse_str(&row.2));
    let ids = ids.collect::<Result<Vec<_>, _>>()?;
    let mut sql = QueryBuilder::new("INSERT INTO bench_seen (tenant_id, id, last, amount) ");
    sql.push_values(rows.iter().zip(ids), |mut values, (row, id)| {
        let (position, tenant, _, Json(amount)) = row;
        values.push_bind(tenant).push_bind(id);
        values.push_bind(position).push_bind(amount.quantity);
    });
    sql.push(
        " ON CONFLICT (tenant_id, id) DO UPDATE SET last = excluded.last, amount = excluded.amount",
    );
    sql.build().execute(connection).await?;
    Ok(())
}

async fn write_each(connection: &mut SqliteConnection, rows: &[Row]) -> Result<()> {
    for (position, tenant, id, Json(amount)) in rows {
        sqlx::query(SEEN_SQL)
            .bind(tenant)
            .bind(Uuid::parse_str(id)?)
            .bind(position)
            .bind(amount.quantity)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
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
