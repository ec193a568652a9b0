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

/// A commit that the database refuses, for a deferred constraint say, leaves sqlx believing in the
/// transaction; rolling back ends it there too.
pub(super) async fn commit<DB: Database>(connection: &mut DB::Connection) -> sqlx::Result<()> {
    let committed = DB::TransactionManager::commit(connection).await;
    if let Err(cause) = committed {
        if cause.as_database_error().is_some() {
            let _ = rollback::<DB>(connection).await;
        }
        return Err(cause);
    }
    Ok(())
}

/// Releases the innermost savepoint. Where the database refuses, sqlx keeps counting it.
pub(super) async fn release<DB: Database>(connection: &mut DB::Connection) -> sqlx::Result<()> {
    DB::TransactionManager::commit(connection).await
}

/// Rolls back the innermost savepoint, or where there is none the transaction.
pub(super) async fn roll_back_one<DB: Database>(
    connection: &mut DB::Connection,
) -> sqlx::Result<()> {
    DB::TransactionManager::rollback(connection).await
}

/// Rolls back the transaction with all its savepoints.
pub(super) async fn rollback<DB: Database>(connection: &mut DB::Connection) -> sqlx::Result<()> {
    while depth::<DB>(connection) > 0 {
        roll_back_one::<DB>(connection).await?;
    }
    Ok(())
}

/// How many transactions and savepoints sqlx counts.
pub(super) fn depth<DB: Database>(connection: &DB::Connection) -> usize {
    DB::TransactionManager::get_transaction_depth(connection)
}
