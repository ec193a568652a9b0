//! Connections: how they are opened, their transactions, and how they are repaired.

use std::path::Path;
use std::time::{Duration, Instant};

use cqrs_core::{Error, Result, StoreErrorKind};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode};
use sqlx::{ConnectOptions, Connection as _, Database, SqlStr, Sqlite};
use sqlx_core::transaction::{TransactionManager, begin_ansi_transaction_sql};

use super::error::{
    commit_error, error, is_no_savepoint, is_no_transaction, is_second_transaction,
};
use crate::backend::transaction;

/// How long the switch of a new database to its write-ahead log is tried.
const SWITCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens a connection.
///
/// - `journal_mode` is WAL, whatever the options say: without it readers and the writer block
///   each other, and a reader would fail a commit.
/// - `synchronous` is what the options say. SQLite's own default, FULL, is kept rather than the
///   faster NORMAL that goes with WAL so often: under NORMAL a commit that was acknowledged can
///   be lost with the power, and an outbox must not forget what it has told others.
/// - `foreign_keys` (on) and `busy_timeout` (5 s) are sqlx's defaults, and the options' to change.
pub(super) async fn open(options: &SqliteConnectOptions) -> Result<SqliteConnection> {
    let options = options.clone().journal_mode(SqliteJournalMode::Wal);
    let begun = Instant::now();
    loop {
        let cause = match options.connect().await {
            Ok(connection) => return Ok(connection),
            Err(cause) => error(cause, "connecting to the database"),
        };
        // SQLite does not wait for the lock that the switch to WAL needs.
        let busy =
            matches!(&cause, Error::Store(error) if *error.kind() == StoreErrorKind::Contention);
        if !busy || begun.elapsed() > SWITCH_TIMEOUT {
            return Err(cause);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Whether the database lives in memory, or in a temporary file of one connection.
pub(super) fn is_in_memory(options: &SqliteConnectOptions) -> bool {
    let file = options.get_filename();
    // The URL is the one way to learn the mode; not every file name makes a URL.
    let mode = options
        .clone()
        .filename("database")
        .to_url_lossy()
        .query_pairs()
        .any(|(key, value)| key == "mode" && value == "memory");
    mode || file == Path::new("")
        || file == Path::new(":memory:")
        || file.to_string_lossy().contains("mode=memory")
}

/// Begins a transaction that holds the write lock from the start. One that takes it with its first
/// write, after it has read, fails at once where another wrote in between.
pub(super) async fn begin(connection: &mut SqliteConnection) -> Result<()> {
    let begin = SqlStr::from_static("BEGIN IMMEDIATE");
    transaction::begin::<Sqlite>(connection, Some(begin))
        .await
        .map_err(|cause| error(cause, "beginning a transaction"))
}

/// Begins a transaction that reads what is there at its first read, and refuses to write until it
/// is [rolled back](rollback).
pub(super) async fn begin_reading(connection: &mut SqliteConnection) -> Result<()> {
    let begun = async {
        sqlx::raw_sql("PRAGMA query_only = 1")
            .execute(&mut *connection)
            .await?;
        transaction::begin::<Sqlite>(connection, None).await
    };
    begun
        .await
        .map_err(|cause| error(cause, "beginning a transaction"))
}

/// Commits the transaction.
pub(super) async fn commit(connection: &mut SqliteConnection) -> Result<()> {
    transaction::commit::<Sqlite>(connection)
        .await
        .map_err(commit_error)
}

/// Whether a transaction is open. Where none is, one is begun, for the rollback to come.
///
/// sqlx counts the transactions that it began, and does not see that SQLite has ended one by
/// itself, as it does for `OR ROLLBACK`, `RAISE(ROLLBACK, ...)` and some errors. SQLite tells by
/// refusing a second one.
pub(super) async fn is_in_transaction(connection: &mut SqliteConnection) -> Result<bool> {
    match sqlx::raw_sql("BEGIN").execute(connection).await {
        Ok(_) => Ok(false),
        Err(cause) if is_second_transaction(&cause) => Ok(true),
        Err(cause) => Err(error(cause, "looking for the transaction")),
    }
}

/// Sets the savepoint that [`release_mark`] looks for.
pub(super) async fn mark(connection: &mut SqliteConnection) -> Result<()> {
    sqlx::raw_sql("SAVEPOINT cqrs_mark")
        .execute(connection)
        .await
        .map(drop)
        .map_err(|cause| error(cause, "marking the transaction"))
}

/// Forgets the mark; `false` where it went with its transaction.
pub(super) async fn release_mark(connection: &mut SqliteConnection) -> Result<bool> {
    match sqlx::raw_sql("RELEASE cqrs_mark").execute(connection).await {
        Ok(_) => Ok(true),
        Err(cause) if is_no_savepoint(&cause) => Ok(false),
        Err(cause) => Err(error(cause, "looking for the transaction")),
    }
}

/// Rolls the transaction back, with all savepoints within.
pub(super) async fn rollback(connection: &mut SqliteConnection) -> Result<()> {
    let rolled_back = async {
        roll_back_all(&mut *connection).await?;
        allow_writing(connection).await
    };
    rolled_back
        .await
        .map_err(|cause| error(cause, "rolling back"))
}

async fn roll_back_all(connection: &mut SqliteConnection) -> sqlx::Result<()> {
    loop {
        let depth = transaction::depth::<Sqlite>(connection);
        if depth == 0 {
            return Ok(());
        }
        let outcome = transaction::roll_back_one::<Sqlite>(connection).await;
        if outcome.as_ref().is_err_and(is_no_transaction) {
            // SQLite has rolled back by itself, and sqlx still counts what is gone. Give it one.
            let begin = begin_ansi_transaction_sql(depth - 1);
            sqlx::raw_sql(begin).execute(&mut *connection).await?;
            transaction::roll_back_one::<Sqlite>(connection).await?;
        } else {
            outcome?;
        }
    }
}

/// Ends what [`begin_reading`] has begun.
async fn allow_writing(connection: &mut SqliteConnection) -> sqlx::Result<()> {
    sqlx::raw_sql("PRAGMA query_only = 0")
        .execute(connection)
        .await
        .map(drop)
}

/// Ends what an exchange of tables that was abandoned may have left on.
async fn rename_as_usual(connection: &mut SqliteConnection) -> sqlx::Result<()> {
    sqlx::raw_sql("PRAGMA legacy_alter_table = OFF")
        .execute(connection)
        .await
        .map(drop)
}

/// Waits until everything is done that was sent on a connection; `false` where that fails.
pub(super) async fn is_at_rest(connection: &mut SqliteConnection) -> bool {
    // Answered when everything is that was sent before it.
    connection.ping().await.is_ok()
}

/// Ends whatever is under way on a connection; `None` where that fails.
pub(super) async fn repair(mut connection: SqliteConnection) -> Option<SqliteConnection> {
    if !is_at_rest(&mut connection).await {
        return None;
    }
    // One more than there are transactions and savepoints: sqlx ignores the first where a commit
    // or rollback was abandoned before its answer came, and would else ignore that of the next
    // user's savepoint. One too many does nothing.
    for _ in 0..=transaction::depth::<Sqlite>(&connection) {
        start_rollback::<Sqlite>(&mut connection);
    }
    connection.ping().await.ok()?;
    roll_back_all(&mut connection).await.ok()?;
    allow_writing(&mut connection).await.ok()?;
    rename_as_usual(&mut connection).await.ok()?;
    // A transaction that was begun in SQL is not among those that sqlx counts.
    match sqlx::raw_sql("ROLLBACK").execute(&mut connection).await {
        Ok(_) => Some(connection),
        Err(cause) => is_no_transaction(&cause).then_some(connection),
    }
}

fn start_rollback<DB: Database>(connection: &mut DB::Connection) {
    DB::TransactionManager::start_rollback(connection);
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::str::FromStr;
    use std::task::{Context, Waker};

    use super::super::fixture::TempDatabase;
    use super::*;

    async fn memory() -> SqliteConnection {
        let options = SqliteConnectOptions::from_str("sqlite::memory:").unwrap();
        let mut connection = open(&options).await.unwrap();
        execute(&mut connection, "CREATE TABLE t (a)")
            .await
            .unwrap();
        connection
    }

    async fn execute(connection: &mut SqliteConnection, sql: &'static str) -> sqlx::Result<()> {
        sqlx::raw_sql(sql).execute(connection).await.map(drop)
    }

    async fn rows(connection: &mut SqliteConnection) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM t")
            .fetch_one(connection)
            .await
            .unwrap()
    }

    /// Polls once, which sends the command, and drops.
    fn abandon(future: impl Future) {
        let _ = pin!(future).poll(&mut Context::from_waker(Waker::noop()));
    }

    #[tokio::test]
    async fn a_database_is_in_memory_however_it_is_said() {
        for url in [
            "sqlite::memory:",
            "sqlite://:memory:",
            "sqlite:plans?mode=memory",
            "sqlite:plans?mode=memory&cache=private",
        ] {
            let options = SqliteConnectOptions::from_str(url).unwrap();
            assert!(is_in_memory(&options), "{url}");
        }
        let new = SqliteConnectOptions::new();
        assert!(is_in_memory(&new));
        assert!(is_in_memory(&new.clone().filename("plans").in_memory(true)));
        assert!(is_in_memory(&new.clone().filename("file:p?mode=memory")));
        for file in ["plans.db", "C:\\data\\plans.db", "/var/in memory.db"] {
            assert!(!is_in_memory(&new.clone().filename(file)), "{file}");
        }
    }

    #[tokio::test]
    async fn a_file_is_opened_with_its_write_ahead_log() {
        let database = TempDatabase::new();
        let mut connection = open(&database.options()).await.unwrap();
        for (pragma, expected) in [
            ("PRAGMA journal_mode", "wal"),
            ("PRAGMA synchronous", "2"),
            ("PRAGMA foreign_keys", "1"),
            ("PRAGMA busy_timeout", "5000"),
        ] {
            let value: String = match sqlx::query_scalar::<_, i64>(pragma)
                .fetch_one(&mut connection)
                .await
            {
                Ok(value) => value.to_string(),
                Err(_) => sqlx::query_scalar(pragma)
                    .fetch_one(&mut connection)
                    .await
                    .unwrap(),
            };
            assert_eq!(value, expected, "{pragma}");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_new_file_can_be_opened_by_many_at_once() {
        let database = TempDatabase::new();
        let barrier = std::sync::Arc::new(tokio::sync::Barrier::new(16));
        let tasks: Vec<_> = (0..16)
            .map(|_| {
                let options = database.options();
                let barrier = std::sync::Arc::clone(&barrier);
                tokio::spawn(async move {
                    barrier.wait().await;
                    open(&options).await.map(drop)
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn the_switch_to_the_write_ahead_log_waits_for_others() {
        let database = TempDatabase::new();
        let mut holder = database.options().connect().await.unwrap();
        execute(&mut holder, "BEGIN IMMEDIATE; CREATE TABLE t (a)")
            .await
            .unwrap();
        let options = database.options().busy_timeout(Duration::ZERO);
        let mut opening = pin!(open(&options));
        let early = tokio::time::timeout(Duration::from_millis(50), &mut opening);
        assert!(early.await.is_err(), "it waits");
        execute(&mut holder, "COMMIT").await.unwrap();
        opening.await.unwrap();
    }

    #[tokio::test]
    async fn a_begin_within_a_transaction_is_a_savepoint() {
        let mut connection = memory().await;
        begin(&mut connection).await.unwrap();
        execute(&mut connection, "INSERT INTO t VALUES (1)")
            .await
            .unwrap();
        let mut savepoint = connection.begin().await.unwrap();
        execute(&mut savepoint, "INSERT INTO t VALUES (2)")
            .await
            .unwrap();
        savepoint.rollback().await.unwrap();
        commit(&mut connection).await.unwrap();
        assert_eq!(rows(&mut connection).await, 1);
    }

    #[tokio::test]
    async fn repair_rolls_back_every_kind_of_transaction() {
        let mut connection = memory().await;
        begin(&mut connection).await.unwrap();
        execute(&mut connection, "INSERT INTO t VALUES (1)")
            .await
            .unwrap();
        let savepoint = connection.begin().await.unwrap();
        std::mem::forget(savepoint);
        let mut connection = repair(connection).await.unwrap();
        assert_eq!(rows(&mut connection).await, 0);

        execute(&mut connection, "BEGIN; INSERT INTO t VALUES (1)")
            .await
            .unwrap();
        let mut connection = repair(connection).await.unwrap();
        assert_eq!(rows(&mut connection).await, 0);
        begin(&mut connection).await.unwrap();
    }

    #[tokio::test]
    async fn repair_leaves_nothing_behind_of_an_abandoned_call() {
        let mut connection = memory().await;
        begin(&mut connection).await.unwrap();
        execute(&mut connection, "INSERT INTO t VALUES (1)")
            .await
            .unwrap();
        // Sent and done, but its answer is not taken.
        abandon(commit(&mut connection));
        let mut connection = repair(connection).await.unwrap();
        assert_eq!(rows(&mut connection).await, 1);

        abandon(begin(&mut connection));
        let mut connection = repair(connection).await.unwrap();
        begin(&mut connection).await.unwrap();
        let mut savepoint = connection.begin().await.unwrap();
        execute(&mut savepoint, "INSERT INTO t VALUES (2)")
            .await
            .unwrap();
        // Its rollback must not be the one that sqlx ignores.
        drop(savepoint);
        commit(&mut connection).await.unwrap();
        assert_eq!(rows(&mut connection).await, 1);
    }

    #[tokio::test]
    async fn a_transaction_that_sqlite_ended_itself_can_be_rolled_back() {
        let mut connection = memory().await;
        execute(
            &mut connection,
            "CREATE TABLE u (a UNIQUE ON CONFLICT ROLLBACK)",
        )
        .await
        .unwrap();
        for savepoints in 0..3 {
            begin(&mut connection).await.unwrap();
            for _ in 0..savepoints {
                transaction::begin::<Sqlite>(&mut connection, None)
                    .await
                    .unwrap();
            }
            execute(&mut connection, "INSERT INTO u VALUES (1)")
                .await
                .unwrap();
            execute(&mut connection, "INSERT INTO u VALUES (1)")
                .await
                .unwrap_err();
            rollback(&mut connection).await.unwrap();
            assert_eq!(transaction::depth::<Sqlite>(&connection), 0);
            begin(&mut connection).await.unwrap();
            rollback(&mut connection).await.unwrap();
        }
        let connection = repair(connection).await.unwrap();
        drop(connection);
    }

    #[tokio::test]
    async fn a_look_for_the_transaction_leaves_it_as_it_was() {
        let mut connection = memory().await;
        begin(&mut connection).await.unwrap();
        execute(&mut connection, "INSERT INTO t VALUES (1)")
            .await
            .unwrap();
        assert!(is_in_transaction(&mut connection).await.unwrap());
        let mut savepoint = connection.begin().await.unwrap();
        assert!(is_in_transaction(&mut savepoint).await.unwrap());
        savepoint.commit().await.unwrap();
        commit(&mut connection).await.unwrap();
        assert_eq!(rows(&mut connection).await, 1);
    }

    #[tokio::test]
    async fn savepoints_that_sqlite_ended_itself_can_be_rolled_back() {
        let mut connection = memory().await;
        for looked in [false, true] {
            for repaired in [false, true] {
                begin(&mut connection).await.unwrap();
                let mut outer = connection.begin().await.unwrap();
                let mut inner = outer.begin().await.unwrap();
                execute(&mut inner, "ROLLBACK").await.unwrap();
                inner.rollback().await.unwrap_err();
                drop(outer);
                if looked {
                    assert!(!is_in_transaction(&mut connection).await.unwrap());
                }
                if repaired {
                    connection = repair(connection).await.unwrap();
                } else {
                    rollback(&mut connection).await.unwrap();
                }
                begin(&mut connection).await.unwrap();
                execute(&mut connection, "INSERT INTO t VALUES (1)")
                    .await
                    .unwrap();
                rollback(&mut connection).await.unwrap();
            }
        }
        assert_eq!(rows(&mut connection).await, 0);
    }
}
