//! How far the log can be trusted.
//!
//! There is one writer at a time, and it draws positions in its transaction. So whatever is
//! visible is complete up to its highest position.

use cqrs_core::Position;
use sqlx::SqliteConnection;

use crate::backend::Horizon;

/// Looks once.
pub(super) async fn look(connection: &mut SqliteConnection) -> Result<Horizon, sqlx::Error> {
    let position: i64 = sqlx::query_scalar(
        "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'cqrs_event'), 0)",
    )
    .fetch_one(connection)
    .await?;
    Ok(Horizon {
        position: Position(position),
        writers: false,
    })
}
