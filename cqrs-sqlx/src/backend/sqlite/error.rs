//! What the database's errors mean.

use cqrs_core::mapping::{Column, ColumnRole, Table};
use cqrs_core::staging::{Operation, StagedWrite};
use cqrs_core::{Error, StoreError, StoreErrorKind};
use sqlx::error::DatabaseError;

/// The unique key of the log: one event per aggregate and version. SQLite names a violated key by
/// its columns.
const STREAM_KEY: &str =
    "cqrs_event.aggregate_type, cqrs_event.aggregate_id, cqrs_event.aggregate_version";

/// The key of the history: one revision per aggregate and version. An aggregate that was deleted has
/// left its revisions, as it has left its events.
const REVISION_KEY: &str =
    "cqrs_history.aggregate_type, cqrs_history.aggregate_id, cqrs_history.version";

/// Classifies an error. `doing` says what was being done.
pub(super) fn error(cause: sqlx::Error, doing: &str) -> Error {
    let kind = kind(&cause);
    let what = match &kind {
        StoreErrorKind::Contention => ": the database is busy",
        StoreErrorKind::Unavailable => ": the database cannot be reached",
        StoreErrorKind::Constraint { .. } => ": a constraint was violated",
        StoreErrorKind::Schema => &missing(&cause),
        _ => " failed",
    };
    Error::Store(StoreError::new(kind, format!("{doing}{what}")).with_source(cause))
}

/// Classifies the error of a commit, which is never `Unavailable`: that would mean that the
/// outcome can be looked up.
pub(super) fn commit_error(cause: sqlx::Error) -> Error {
    let (kind, message) = match (&cause, kind(&cause)) {
        // The thread that works for the connection is gone, and with it what it last did.
        (sqlx::Error::WorkerCrashed, _) => (
            StoreErrorKind::OutcomeUnknown,
            "committing: the connection ended before it answered",
        ),
        (_, StoreErrorKind::Unavailable) => (StoreErrorKind::Database, "committing failed"),
        _ => return error(cause, "committing"),
    };
    Error::Store(StoreError::new(kind, message).with_source(cause))
}

/// Classifies the error of a statement that carried this write.
pub(super) fn write_error(cause: sqlx::Error, write: &StagedWrite) -> Error {
    let taken = write.operation == Operation::Insert
        && cause.as_database_error().is_some_and(|database| {
            database.is_unique_violation()
                && violated(database.message()).is_some_and(|key| {
                    [STREAM_KEY, REVISION_KEY].contains(&key) || is_key_of(key, write)
                })
        });
    if taken {
        return write.already_exists();
    }
    error(
        cause,
        &format!("writing {} {}", write.aggregate_type, write.aggregate_id),
    )
}

/// Whether SQLite has ended the transaction or savepoint by itself, as it does after some errors (a
/// full disk, no memory, a failed read), or there was none.
pub(super) fn is_no_transaction(cause: &sqlx::Error) -> bool {
    says(cause, "no transaction is active") || says(cause, "no such savepoint")
}

/// Whether a savepoint could not be released because it is not there.
pub(super) fn is_no_savepoint(cause: &sqlx::Error) -> bool {
    says(cause, "no such savepoint")
}

/// Whether a transaction could not be begun because one is open.
pub(super) fn is_second_transaction(cause: &sqlx::Error) -> bool {
    says(cause, "within a transaction")
}

fn says(cause: &sqlx::Error, text: &str) -> bool {
    cause
        .as_database_error()
        .is_some_and(|error| error.message().contains(text))
}

/// Whether the violated key is the primary key of the write's table, alone or within the tenant.
fn is_key_of(violated: &str, write: &StagedWrite) -> bool {
    let table = write.table;
    let Some(key) = table.key_columns().next().map(Column::name) else {
        return false;
    };
    let tenant = table.column_with(ColumnRole::Tenant).map(Column::name);
    let mut found_key = false;
    let known = violated.split(", ").all(|column| {
        let column = column
            .strip_prefix(table.name())
            .and_then(|column| column.strip_prefix('.'));
        found_key |= column == Some(key);
        column.is_some() && (column == Some(key) || column == tenant)
    });
    known && found_key
}

/// Whether a row of this table was refused because there is one with its primary key.
pub(super) fn is_row_taken(cause: &sqlx::Error, table: &Table) -> bool {
    let database = cause.as_database_error();
    let message = database.filter(|database| database.is_unique_violation());
    let named = message.and_then(|database| violated(database.message()));
    let key = table.primary_key().map(Column::name);
    let key: Vec<String> = key
        .map(|column| format!("{}.{column}", table.name()))
        .collect();
    named.is_some_and(|named| {
        named.split(", ").count() == key.len()
            && named
                .split(", ")
                .all(|column| key.iter().any(|key| key == column))
    })
}

/// What a constraint's message names: `UNIQUE constraint failed: plan.id` names `plan.id`.
fn violated(message: &str) -> Option<&str> {
    message
        .split_once("constraint failed: ")
        .map(|(_, name)| name)
}

/// What is missing, and what to do about it.
fn missing(cause: &sqlx::Error) -> String {
    let message = cause
        .as_database_error()
        .map_or("a table or column is missing", DatabaseError::message);
    let hint = if message.contains("cqrs_") {
        "call `store.migrate()` once before use"
    } else {
        "call `store.verify(...)` to see every difference"
    };
    format!(": {message} ({hint})")
}

fn kind(cause: &sqlx::Error) -> StoreErrorKind {
    match cause {
        sqlx::Error::Database(database) => database_kind(database.as_ref()),
        // The connection is of no more use; nothing was sent on it.
        sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed
        | sqlx::Error::InvalidSavePointStatement
        | sqlx::Error::Io(_) => StoreErrorKind::Unavailable,
        _ => StoreErrorKind::Database,
    }
}

/// The primary result codes of <https://www.sqlite.org/rescode.html>.
fn database_kind(database: &dyn DatabaseError) -> StoreErrorKind {
    const ERROR: i32 = 1;
    const BUSY: i32 = 5;
    const LOCKED: i32 = 6;
    const CANTOPEN: i32 = 14;
    const PROTOCOL: i32 = 15;
    const SCHEMA: i32 = 17;
    const CONSTRAINT: i32 = 19;

    let extended = database.code().and_then(|code| code.parse::<i32>().ok());
    match extended.map(|code| code & 0xff) {
        // PROTOCOL: the race for a lock of the write-ahead log was lost too often. SCHEMA: another
        // connection changed a table between preparing and running.
        Some(BUSY | LOCKED | PROTOCOL | SCHEMA) => StoreErrorKind::Contention,
        Some(CANTOPEN) => StoreErrorKind::Unavailable,
        Some(CONSTRAINT) => StoreErrorKind::Constraint {
            name: violated(database.message()).map(str::to_owned),
        },
        Some(ERROR) if is_missing(database.message()) => StoreErrorKind::Schema,
        // A full disk, a failed read, a damaged or read-only file: trying again changes nothing.
        _ => StoreErrorKind::Database,
    }
}

fn is_missing(message: &str) -> bool {
    message.contains("no such table")
        || message.contains("no such column")
        || message.contains("has no column named")
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use sqlx::{AssertSqlSafe, Connection, SqliteConnection};

    use super::super::fixture::{PLAN, insert_plan};
    use super::*;

    /// The error of the last of these statements.
    async fn failure(sql: &str) -> sqlx::Error {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
            .execute(&mut connection)
            .await
            .unwrap_err()
    }

    fn kind_of(error: &Error) -> &StoreErrorKind {
        match error {
            Error::Store(error) => error.kind(),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn missing_tables_and_columns_are_errors_of_the_schema() {
        for sql in [
            "SELECT 1 FROM cqrs_event",
            "CREATE TABLE t (a); SELECT b FROM t",
            "CREATE TABLE t (a); INSERT INTO t (b) VALUES (1)",
            "UPDATE t SET a = 1",
        ] {
            let error = error(failure(sql).await, "reading");
            assert_eq!(kind_of(&error), &StoreErrorKind::Schema, "{sql}");
            assert_eq!(
                error.to_string().contains("store.migrate()"),
                sql.contains("cqrs_event"),
                "{error}"
            );
        }
    }

    #[tokio::test]
    async fn what_was_done_is_in_the_message_and_the_cause_is_the_source() {
        let error = error(failure("SELECT oops(").await, "reading plans");
        assert_eq!(kind_of(&error), &StoreErrorKind::Database);
        assert_eq!(error.to_string(), "reading plans failed");
        assert!(
            error
                .source()
                .is_some_and(<dyn std::error::Error>::is::<sqlx::Error>)
        );
    }

    #[tokio::test]
    async fn constraints_carry_the_name_of_the_message() {
        for (sql, name) in [
            (
                "CREATE TABLE t (a UNIQUE, b); INSERT INTO t VALUES (1, 1), (1, 2)",
                Some("t.a"),
            ),
            (
                "CREATE TABLE t (a, CONSTRAINT positive CHECK (a > 0)); INSERT INTO t VALUES (0)",
                Some("positive"),
            ),
            (
                "CREATE TABLE t (a NOT NULL); INSERT INTO t VALUES (NULL)",
                Some("t.a"),
            ),
            (
                "CREATE TABLE p (a PRIMARY KEY); CREATE TABLE c (a REFERENCES p);
                 INSERT INTO c VALUES (1)",
                None,
            ),
        ] {
            let error = error(failure(sql).await, "writing");
            let name = name.map(str::to_owned);
            assert_eq!(kind_of(&error), &StoreErrorKind::Constraint { name });
            assert!(!error.is_retryable() && !error.is_conflict());
        }
    }

    #[tokio::test]
    async fn only_the_key_of_an_insert_means_that_it_exists() {
        let table = PLAN.name();
        let violation = |columns: &str, values: &str| {
            format!(
                "CREATE TABLE {table} (id, tenant_id, name, UNIQUE ({columns}));
                 INSERT INTO {table} VALUES ({values}), ({values})"
            )
        };
        let write = insert_plan("north", "a");
        for (columns, exists) in [
            ("id", true),
            ("tenant_id, id", true),
            ("name", false),
            ("tenant_id", false),
            ("id, name", false),
        ] {
            let cause = failure(&violation(columns, "1, 2, 3")).await;
            let error = write_error(cause, &write);
            assert_eq!(
                matches!(error, Error::AlreadyExists { .. }),
                exists,
                "{columns}: {error}"
            );
        }
        let cause = failure(&violation("id", "1, 2, 3")).await;
        let update = StagedWrite {
            operation: Operation::Update,
            ..write
        };
        assert!(!write_error(cause, &update).is_conflict());
    }

    #[test]
    fn a_commit_is_never_said_to_be_unavailable() {
        let broken = || sqlx::Error::Io(std::io::Error::other("broken"));
        assert_eq!(
            kind_of(&error(broken(), "reading")),
            &StoreErrorKind::Unavailable
        );
        let commit = commit_error(broken());
        assert_eq!(kind_of(&commit), &StoreErrorKind::Database);
        let commit = commit_error(sqlx::Error::WorkerCrashed);
        assert_eq!(kind_of(&commit), &StoreErrorKind::OutcomeUnknown);
        assert!(!commit.is_retryable());
    }

    #[tokio::test]
    async fn a_database_that_cannot_be_opened_is_unavailable() {
        let directory = std::env::temp_dir();
        let missing = format!("sqlite:{}/no/such/directory.db", directory.display());
        let cause = SqliteConnection::connect(&missing).await.unwrap_err();
        let error = error(cause, "connecting");
        assert_eq!(kind_of(&error), &StoreErrorKind::Unavailable);
        assert!(error.is_retryable());
    }
}
