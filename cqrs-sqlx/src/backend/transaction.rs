//! Transactions through sqlx's own bookkeeping, so that a user's `connection.begin()` inside of
//! one becomes a savepoint.
//!
//! sqlx itself does not export the `TransactionManager` trait, and its `Transaction` borrows the
//! connection, which a unit of work must keep over many calls.

use sqlx::{Database, SqlStr};
use sqlx_core::transaction::TransactionManager;

pub(super) async fn begin<DB: Database>(
    connection: &mut DB::Connection,
    statement: Option<SqlStr>,
) -> sqlx::Result<()> {
    DB::TransactionManager::begin(connection, statement).await
}

pub(super) async fn commit<DB: Database>(connection: &mut DB::Connection) -> sqlx::Result<()> {
    DB::TransactionManager::commit(connection).await
}

pub(super) async fn rollback<DB: Database>(connection: &mut DB::Connection) -> sqlx::Result<()> {
    DB::TransactionManager::rollback(connection).await
}
