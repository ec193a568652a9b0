//! Who waits for a lock.

use sqlx::PgConnection;

use super::error::is_forbidden;
use super::process;
use crate::backend::Process;

/// Cancels what a process of the server does where it waits for a lock, since nobody wants it any
/// more: in the queue it would hold up others, and keep the locks it has. Whether it waits. Where
/// the role may not cancel it, it goes on to do so.
pub(super) async fn give_up(
    connection: &mut PgConnection,
    process: &Process,
) -> Result<bool, sqlx::Error> {
    let cancel = process::ask(
        process,
        "SELECT pg_cancel_backend(pid)",
        "WHERE cardinality(pg_blocking_pids(pid)) > 0",
    );
    match cancel.fetch_optional(connection).await {
        // The server minds it only of one that waits.
        Err(cause) if is_forbidden(&cause) => Ok(true),
        cancelled => Ok(cancelled?.is_some()),
    }
}
