//! The same by hand.

use std::collections::HashMap;

use anyhow::{Result, ensure};
use chrono::{DateTime, Utc};
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::{BEHIND, BELOW, Question, ROWS};
use crate::database::TENANT;

/// An order with all its columns.
type OrderRow = (
    i64,
    String,
    DateTime<Utc>,
    Option<String>,
    DateTime<Utc>,
    Option<String>,
    Option<DateTime<Utc>>,
    Option<String>,
    Uuid,
    String,
    String,
    i64,
);

/// Asks once; a sum over the answer.
pub(super) async fn ask(connection: &mut PgConnection, question: Question) -> Result<i64> {
    match question {
        Question::Finder => finder(connection).await,
        Question::ReadModel => read_model(connection).await,
        Question::Page => page(connection).await,
        Question::Count => count(connection).await,
    }
}

async fn finder(connection: &mut PgConnection) -> Result<i64> {
    let rows: Vec<OrderRow> = sqlx::query_as(
        "SELECT version, tenant_id, created_at, created_by, updated_at, updated_by, deleted_at, \
         deleted_by, id, customer, note, quantity FROM bench_order \
         WHERE tenant_id = $1 AND deleted_at IS NULL AND quantity > $2 \
         ORDER BY quantity ASC, id ASC LIMIT $3",
    )
    .bind(TENANT)
    .bind(0_i64)
    .bind(i64::from(ROWS))
    .fetch_all(connection)
    .await?;
    Ok(rows.iter().map(|row| row.11).sum())
}

async fn read_model(connection: &mut PgConnection) -> Result<i64> {
    let rows: Vec<(String, Uuid, String, i64)> = sqlx::query_as(
        "SELECT tenant_id, id, customer, quantity FROM bench_summary \
         WHERE tenant_id = $1 ORDER BY quantity ASC, id ASC LIMIT $2",
    )
    .bind(TENANT)
    .bind(i64::from(ROWS))
    .fetch_all(connection)
    .await?;
    Ok(rows.iter().map(|row| row.3).sum())
}

/// One row more than the page has says whether there is another page.
async fn page(connection: &mut PgConnection) -> Result<i64> {
    let rows = usize::try_from(ROWS)?;
    let mut baskets: Vec<(i64, String, Uuid, i64)> = sqlx::query_as(
        "SELECT version, tenant_id, id, number FROM bench_basket \
         WHERE tenant_id = $1 AND (number, id) > ($2, $3) ORDER BY number ASC, id ASC LIMIT $4",
    )
    .bind(TENANT)
    .bind(BEHIND)
    .bind(Uuid::max())
    .bind(i64::from(ROWS) + 1)
    .fetch_all(&mut *connection)
    .await?;
    ensure!(baskets.len() > rows, "there are more baskets");
    baskets.truncate(rows);
    let ids: Vec<Uuid> = baskets.iter().map(|basket| basket.2).collect();
    let lines: Vec<(Uuid, i32, String, i64)> = sqlx::query_as(
        "SELECT basket_id, seq, article, pieces FROM bench_line \
         WHERE basket_id = ANY($1) ORDER BY basket_id, seq",
    )
    .bind(&ids)
    .fetch_all(connection)
    .await?;
    let mut lines_of: HashMap<Uuid, Vec<(i32, String, i64)>> = HashMap::new();
    for (basket, seq, article, pieces) in lines {
        lines_of
            .entry(basket)
            .or_default()
            .push((seq, article, pieces));
    }
    let baskets = baskets.into_iter().map(|basket| {
        let lines = lines_of.remove(&basket.2).unwrap_or_default();
        (basket, lines)
    });
    let baskets: Vec<_> = baskets.collect();
    let lines = baskets.iter().flat_map(|(_, lines)| lines);
    Ok(lines.map(|line| line.2).sum())
}

async fn count(connection: &mut PgConnection) -> Result<i64> {
    Ok(sqlx::query_scalar(
        "SELECT count(*) FROM bench_order \
         WHERE tenant_id = $1 AND deleted_at IS NULL AND quantity < $2",
    )
    .bind(TENANT)
    .bind(BELOW)
    .fetch_one(connection)
    .await?)
}
