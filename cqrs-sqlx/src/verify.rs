//! Checking the tables of the code against those of the database.

mod sql;

pub(crate) use sql::{ParameterType, Prepared, ResultColumn, verify_sql};

use std::fmt;

use cqrs_core::mapping::Table;
use cqrs_core::{Error, Result, StoreError, StoreErrorKind};

use crate::backend::Backed;
use crate::connections::Connection;
use crate::log::EVENT_COLUMNS;
use crate::projector;
use crate::receipts::RECEIPT_COLUMNS;

/// A column as the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LiveColumn {
    /// Its name.
    pub(crate) name: String,
    /// Its type, in the database's own words, in lower case.
    pub(crate) type_name: String,
    /// Whether it may be NULL.
    pub(crate) nullable: bool,
    /// Whether the database fills it when an insert leaves it out.
    pub(crate) has_default: bool,
}

/// The differences between the tables of the code and those of the database.
///
/// It is the source of the error of [`SqlStore::verify`](crate::SqlStore::verify), and of
/// [`SqlStore::verify_sql`](crate::SqlStore::verify_sql) for statements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaMismatch {
    differences: Vec<String>,
}

impl SchemaMismatch {
    /// One line per difference; each names the table, the column, what was expected and what was
    /// found.
    #[must_use]
    pub fn differences(&self) -> &[String] {
        &self.differences
    }
}

impl fmt::Display for SchemaMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.differences.join("\n"))
    }
}

impl std::error::Error for SchemaMismatch {}

/// Compares tables with the database's.
pub(crate) async fn verify<B: Backed>(
    connection: &mut Connection<B>,
    tables: &[&'static Table],
) -> Result<()> {
    let mut differences = Vec::new();
    own_tables(connection, &mut differences).await?;
    for table in tables {
        let live = B::live_columns(connection.begin_work(), table.name()).await?;
        connection.end_work();
        compare::<B>(table, &live, &mut differences);
    }
    refuse("the schema of the database is not the code's", differences)
}

/// The error of differences, if there are any.
fn refuse(what: &str, differences: Vec<String>) -> Result<()> {
    if differences.is_empty() {
        return Ok(());
    }
    let mismatch = SchemaMismatch { differences };
    Err(Error::Store(
        StoreError::new(StoreErrorKind::Schema, format!("{what}:\n{mismatch}"))
            .with_source(mismatch),
    ))
}

/// Looks for the framework's own tables. Their types are those of the migration that made them.
async fn own_tables<B: Backed>(
    connection: &mut Connection<B>,
    differences: &mut Vec<String>,
) -> Result<()> {
    const HINT: &str = "call `store.migrate()` once before use";
    for (table, columns) in [
        ("cqrs_event", EVENT_COLUMNS),
        ("cqrs_subscription", "name, segments, splits, updated_at"),
        ("cqrs_segment", projector::SEGMENT_COLUMNS),
        ("cqrs_dead_letter", projector::DEAD_LETTER_COLUMNS),
        ("cqrs_operation", projector::OPERATION_COLUMNS),
        ("cqrs_receipt", RECEIPT_COLUMNS),
    ] {
        let live = B::live_columns(connection.begin_work(), table).await?;
        connection.end_work();
        if live.is_empty() {
            differences.push(format!(
                "table {table}: expected, found no such table ({HINT})"
            ));
            continue;
        }
        for column in columns.split(", ") {
            if !live.iter().any(|live| live.name == column) {
                differences.push(format!(
                    "table {table}, column {column}: expected, found no such column ({HINT})"
                ));
            }
        }
    }
    Ok(())
}

fn compare<B: Backed>(table: &Table, live: &[LiveColumn], differences: &mut Vec<String>) {
    let name = table.name();
    if live.is_empty() {
        differences.push(format!("table {name}: expected, found no such table"));
        return;
    }
    for column in table.columns() {
        let expected = column.column_type();
        let Some(found) = live.iter().find(|live| live.name == column.name()) else {
            differences.push(format!(
                "table {name}, column {}: expected {expected}, found no such column",
                column.name()
            ));
            continue;
        };
        if let Err(wanted) = B::fits(expected, found) {
            differences.push(format!(
                "table {name}, column {}: expected {wanted}, found {}",
                column.name(),
                found.type_name
            ));
        }
        if found.nullable && !column.is_nullable() {
            differences.push(format!(
                "table {name}, column {}: expected not null, found nullable",
                column.name()
            ));
        }
        if !found.nullable && column.is_nullable() {
            differences.push(format!(
                "table {name}, column {}: expected nullable, found not null",
                column.name()
            ));
        }
    }
    for found in live {
        let known = table
            .columns()
            .iter()
            .any(|column| column.name() == found.name);
        if !known && !found.nullable && !found.has_default {
            differences.push(format!(
                "table {name}, column {}: the code does not write it, and it is not null without a default",
                found.name
            ));
        }
    }
}
