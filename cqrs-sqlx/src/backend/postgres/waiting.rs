//! Who waits for a lock.

use sqlx::PgConnection;

use crate::backend::Process;

/// Cancels what a process of the server does where it waits for a lock, since nobody wants it any
/// more: in the queue it would hold up others, and keep the locks it has. Whether that was so.
pub(super) async fn give_up(
    connection: &mut PgConnection,
    process: &Process,
) -> Result<bool, sqlx::Error> {
    let cancelled = sqlx::query(
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity
         WHERE pid = $1 AND coalesce(backend_start::text, '') = $2
           AND cardinality(pg_blocking_pids(pid)) > 0",
    )
    .bind(process.id)
    .bind(&process.started)
    .fetch_optional(connection)
    .await?;
    Ok(cancelled.is_some())
}
