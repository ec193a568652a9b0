//! Who holds the horizon.

use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use crate::health::HorizonHolder;

/// The transactions that the [horizon](super::horizon) waits for, with their sessions. A prepared
/// one has none; its name is found by its transaction id, which it holds a lock on.
const HOLDERS: &str = "
    SELECT l.pid, p.gid,
           extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, p.prepared))::float8,
           a.state, a.query, a.application_name
    FROM (SELECT DISTINCT pid, virtualtransaction FROM pg_locks
          WHERE locktype = 'relation'
            AND relation = 'cqrs_event'::regclass
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND mode = 'RowExclusiveLock'
            AND granted) AS l
    LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
    LEFT JOIN LATERAL (
        SELECT p.gid, p.prepared
        FROM pg_locks AS x
        JOIN pg_prepared_xacts AS p ON p.transaction = x.transactionid
        WHERE l.pid IS NULL AND x.pid IS NULL AND x.locktype = 'transactionid'
          AND x.virtualtransaction = l.virtualtransaction
        LIMIT 1) AS p ON true
    ORDER BY 3 DESC NULLS LAST, 1, 2";

/// Looks once; the oldest first.
pub(super) async fn look(connection: &mut PgConnection) -> Result<Vec<HorizonHolder>, sqlx::Error> {
    let rows = sqlx::query(HOLDERS).fetch_all(connection).await?;
    rows.iter().map(holder).collect()
}

fn holder(row: &PgRow) -> Result<HorizonHolder, sqlx::Error> {
    // None for a session that has ended since.
    let age: Option<f64> = row.try_get(2)?;
    Ok(HorizonHolder {
        pid: row.try_get(0)?,
        prepared: row.try_get(1)?,
        age: Duration::try_from_secs_f64(age.unwrap_or(0.0)).unwrap_or_default(),
        state: row.try_get(3)?,
        query: row.try_get(4)?,
        application: row.try_get(5)?,
    })
}
