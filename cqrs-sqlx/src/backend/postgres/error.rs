//! What the database's errors mean.

use cqrs_core::staging::{Operation, StagedWrite};
use cqrs_core::{Error, StoreError, StoreErrorKind};
use sqlx::error::DatabaseError;

/// The unique key of the log: one event per aggregate and version.
const STREAM_KEY: &str = "cqrs_event_stream_key";

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
    let violated = cause
        .as_database_error()
        .and_then(DatabaseError::constraint)
        .and_then(|name| {
            writes.iter().find(|write| {
                write.operation == Operation::Insert
                    && (name == STREAM_KEY || is_primary_key(name, write))
                    && names_write(&cause, write)
            })
        });
    match violated {
        Some(write) => write.already_exists(),
        None => error(cause, "writing aggregates and their events"),
    }
}

fn is_primary_key(constraint: &str, write: &StagedWrite) -> bool {
    constraint.strip_suffix("_pkey") == Some(write.table.name())
}

/// Whether the detail of a violation is about this write, where several went out in one
/// statement: `Key (id)=(0190…) already exists.`
fn names_write(cause: &sqlx::Error, write: &StagedWrite) -> bool {
    let detail = cause
        .as_database_error()
        .and_then(|error| error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>())
        .and_then(sqlx::postgres::PgDatabaseError::detail);
    detail.is_none_or(|detail| detail.contains(&write.aggregate_id))
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

fn hint(database: &dyn DatabaseError) -> &'static str {
    if database.message().contains("cqrs_") {
        " (call `store.migrate()` once before use)"
    } else {
        " (call `store.verify(...)` to see every difference)"
    }
}
