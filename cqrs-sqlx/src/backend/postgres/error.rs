//! What the database's errors mean.

use cqrs_core::mapping::Table;
use cqrs_core::staging::{Operation, StagedWrite};
use cqrs_core::{Error, StoreError, StoreErrorKind};
use sqlx::error::DatabaseError;

/// The unique key of the log: one event per aggregate and version.
const STREAM_KEY: &str = "cqrs_event_stream_key";

/// The key of the history: one revision per aggregate and version. An aggregate that was deleted has
/// left its revisions, as it has left its events.
const REVISION_KEY: &str = "cqrs_history_pkey";

/// Classifies an error. `doing` says what was being done.
pub(super) fn error(cause: sqlx::Error, doing: &str) -> Error {
    let (kind, message) = match &cause {
        sqlx::Error::Database(database) => {
            let kind = kind(database.as_ref());
            let hint = match &kind {
                StoreErrorKind::Schema => hint(database.as_ref()),
                _ => "",
            };
            (kind, format!("{doing}: {}{hint}", database.message()))
        }
        cause if is_disconnect(cause) => (
            StoreErrorKind::Unavailable,
            format!("{doing}: the connection to the database broke"),
        ),
        _ => (StoreErrorKind::Database, format!("{doing} failed")),
    };
    Error::Store(StoreError::new(kind, message).with_source(cause))
}

/// Classifies the error of the statement that carried these writes.
pub(super) fn write_error(cause: sqlx::Error, writes: &[&StagedWrite]) -> Error {
    let constraint = cause
        .as_database_error()
        .and_then(DatabaseError::constraint)
        .unwrap_or_default();
    let mut taken = writes.iter().filter(|write| {
        write.operation == Operation::Insert
            && (constraint == STREAM_KEY
                || constraint == REVISION_KEY
                || is_primary_key(constraint, write.table))
    });
    let detail = detail(&cause).unwrap_or_default();
    match (taken.next(), taken.next()) {
        (None, _) => error(cause, "writing aggregates and their events"),
        (Some(one), None) => one.already_exists(),
        (Some(first), Some(_)) => writes
            .iter()
            .find(|write| names(detail, write.aggregate_type, &write.aggregate_id))
            .unwrap_or(first)
            .already_exists(),
    }
}

/// Classifies the error of a COPY of new aggregates of one type, or of their events.
pub(super) fn copy_error(
    cause: sqlx::Error,
    table: &Table,
    aggregate_type: &'static str,
    ids: &[String],
) -> Error {
    let constraint = cause
        .as_database_error()
        .and_then(DatabaseError::constraint)
        .unwrap_or_default();
    let taken = constraint == STREAM_KEY || is_primary_key(constraint, table);
    let detail = detail(&cause).unwrap_or_default();
    let id = ids.iter().find(|id| names(detail, aggregate_type, id));
    match id.filter(|_| taken) {
        Some(id) => Error::AlreadyExists {
            aggregate: aggregate_type,
            id: id.clone(),
        },
        None => error(cause, "writing aggregates and their events in bulk"),
    }
}

/// Whether an event was refused because the aggregate has one of that version.
pub(super) fn is_stream_taken(cause: &sqlx::Error) -> bool {
    let constraint = cause
        .as_database_error()
        .and_then(DatabaseError::constraint);
    constraint == Some(STREAM_KEY)
}

/// Whether a row of this table was refused because there is one with its primary key.
pub(super) fn is_row_taken(cause: &sqlx::Error, table: &Table) -> bool {
    let constraint = cause
        .as_database_error()
        .and_then(DatabaseError::constraint);
    constraint.is_some_and(|constraint| is_primary_key(constraint, table))
}

/// Whether a constraint is the primary key of a table: `<table>_pkey`. The server cuts
/// names at 63 bytes; a name of its own making it cuts in front of the suffix.
fn is_primary_key(constraint: &str, table: &Table) -> bool {
    const LONGEST: usize = 63;
    const SUFFIX: &str = "_pkey";
    let table = table.name();
    if let Some(name) = constraint.strip_suffix(SUFFIX)
        && (name == table || constraint.len() == LONGEST && table.starts_with(name))
    {
        return true;
    }
    constraint.len() == LONGEST && format!("{table}{SUFFIX}").starts_with(constraint)
}

/// Which values violated a key: `Key (id)=(0190…) already exists.`
fn detail(cause: &sqlx::Error) -> Option<&str> {
    cause
        .as_database_error()?
        .try_downcast_ref::<sqlx::postgres::PgDatabaseError>()?
        .detail()
}

/// Whether the detail names this aggregate, by its key or by its stream.
fn names(detail: &str, kind: &str, id: &str) -> bool {
    detail.contains(&format!(")=({id})")) || detail.contains(&format!(")=({kind}, {id}, "))
}

/// Whether the connection is gone, so that the answer to what was sent is not known.
pub(super) fn is_disconnect(cause: &sqlx::Error) -> bool {
    match cause {
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::Tls(_) => true,
        sqlx::Error::Database(error) => error
            .code()
            .is_some_and(|code| code.starts_with("08") || is_shutdown(&code)),
        _ => false,
    }
}

/// 57P01 `admin_shutdown`, 57P02 `crash_shutdown`, 57P03 `cannot_connect_now`, 57P05
/// `idle_session_timeout`; 25P03 `idle_in_transaction_session_timeout`.
fn is_shutdown(code: &str) -> bool {
    matches!(code, "57P01" | "57P02" | "57P03" | "57P05" | "25P03")
}

fn kind(database: &dyn DatabaseError) -> StoreErrorKind {
    let code = database.code().unwrap_or_default();
    match code.as_ref() {
        _ if is_outdated(database) => StoreErrorKind::Unavailable,
        code if code.starts_with("08") || is_shutdown(code) => StoreErrorKind::Unavailable,
        // too_many_connections
        "53300" => StoreErrorKind::Unavailable,
        // serialization_failure, deadlock_detected, lock_not_available
        "40001" | "40P01" | "55P03" => StoreErrorKind::Contention,
        // query_canceled, by statement_timeout or an operator
        "57014" => StoreErrorKind::TimedOut,
        // Integrity constraint violations.
        code if code.starts_with("23") => StoreErrorKind::Constraint {
            name: database.constraint().map(str::to_owned),
        },
        // undefined_table, undefined_column, undefined_function, datatype_mismatch,
        // undefined_object, invalid_schema_name
        "42P01" | "42703" | "42883" | "42804" | "42704" | "3F000" => StoreErrorKind::Schema,
        _ => StoreErrorKind::Database,
    }
}

/// Whether the connection has prepared a statement on a table that has columns of other types now,
/// as after the switch of a rebuild. It would be refused for as long as the connection lives, and
/// is fine on a new one.
///
/// The code is that of everything that is not supported.
fn is_outdated(database: &dyn DatabaseError) -> bool {
    let database = database.try_downcast_ref::<sqlx::postgres::PgDatabaseError>();
    database.is_some_and(|database| {
        database.code() == "0A000" && database.routine() == Some("RevalidateCachedQuery")
    })
}

fn hint(database: &dyn DatabaseError) -> &'static str {
    if database.message().contains("cqrs_") {
        " (call `store.migrate()` once before use)"
    } else {
        " (call `store.verify(...)` to see every difference)"
    }
}

/// Whether a refused savepoint tells of a transaction: of one that has failed, or of none.
pub(super) fn in_transaction(cause: &sqlx::Error) -> Option<bool> {
    match cause.as_database_error()?.code()?.as_ref() {
        // in_failed_sql_transaction
        "25P02" => Some(true),
        // no_active_sql_transaction
        "25P01" => Some(false),
        _ => None,
    }
}

/// Whether a statement divided by zero, as one does that makes sure of something.
pub(super) fn is_division_by_zero(cause: &sqlx::Error) -> bool {
    has_code(cause, "22012")
}

/// Whether the role may not do that: `insufficient_privilege`.
pub(super) fn is_forbidden(cause: &sqlx::Error) -> bool {
    has_code(cause, "42501")
}

fn has_code(cause: &sqlx::Error, code: &str) -> bool {
    let cause = cause.as_database_error();
    cause.and_then(DatabaseError::code).as_deref() == Some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &'static str) -> &'static Table {
        let table = Table::builder(name).version().key::<i64>("id").build();
        Box::leak(Box::new(table))
    }

    #[test]
    fn the_detail_names_the_whole_id() {
        let detail = "Key (id)=(10) already exists.";
        assert!(names(detail, "order", "10"));
        assert!(!names(detail, "order", "1"));
        let detail =
            "Key (aggregate_type, aggregate_id, aggregate_version)=(order, 10, 1) already exists.";
        assert!(names(detail, "order", "10"));
        assert!(!names(detail, "order", "1"));
    }

    #[test]
    fn a_primary_key_is_known_by_its_name_also_where_it_was_cut() {
        let long = "a23456789_123456789_123456789_123456789_123456789_123456789_123";
        assert!(is_primary_key("orders_pkey", table("orders")));
        assert!(!is_primary_key("orders_label_pkey", table("orders")));
        assert!(is_primary_key(long, table(long)), "cut at the end");
        let cut = format!("{}_pkey", &long[..58]);
        assert!(
            is_primary_key(&cut, table(long)),
            "cut in front of the suffix"
        );
    }
}
