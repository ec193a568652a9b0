//! Bringing the framework's tables up to date, in one process at a time.

use cqrs_core::Result;
use sqlx::migrate::Migrator;

use super::Session;
use super::error::error;
use crate::backend::migrations::{DOING, failed};
use crate::backend::transaction;

/// Runs what has not run yet.
pub(super) async fn run(session: &mut Session, migrator: Migrator) -> Result<()> {
    if session.is_pooled() {
        return run_in_transaction(session, migrator).await;
    }
    migrator
        .run_direct(None, &mut session.connection, false)
        .await
        .map_err(|cause| failed(cause, error))
}

/// As sqlx does, with its lock held for the length of a transaction: a lock of the session would stay
/// behind in a pooler, and keep out everybody who migrates later.
async fn run_in_transaction(session: &mut Session, mut migrator: Migrator) -> Result<()> {
    let doing = |cause| error(cause, DOING);
    session.begin().await.map_err(doing)?;
    let connection = &mut session.connection;
    let database: String = sqlx::query_scalar("SELECT current_database()")
        .fetch_one(&mut *connection)
        .await
        .map_err(doing)?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(lock_of(&database))
        .execute(&mut *connection)
        .await
        .map_err(doing)?;
    migrator.set_locking(false);
    migrator
        .run_direct(None, &mut *connection, false)
        .await
        .map_err(|cause| failed(cause, error))?;
    transaction::commit::<sqlx::Postgres>(connection)
        .await
        .map_err(doing)
}

/// The lock that sqlx takes for migrations of a database.
fn lock_of(database: &str) -> i64 {
    0x3d32_ad9e * i64::from(crc32(database.as_bytes()))
}

fn crc32(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0xedb8_8320;
    let step = |crc: u32, _| (crc >> 1) ^ (POLYNOMIAL & (crc & 1).wrapping_neg());
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), step)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_that_of_the_standard() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }
}
