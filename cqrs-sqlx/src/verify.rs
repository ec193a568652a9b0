//! Checking the tables of the code against those of the database.

mod events;
mod sql;

pub(crate) use events::verify_events;
pub(crate) use sql::{ParameterType, Prepared, ResultColumn, verify_sql};

use std::fmt;

use cqrs_core::mapping::{Column, ColumnRole, Table};
use cqrs_core::{Error, Result, StoreError, StoreErrorKind};

use crate::backend::Backed;
use crate::connections::Connection;
use crate::history::KEPT_COLUMNS;
use crate::integrity::HEAD_COLUMNS;
use crate::log::EVENT_COLUMNS;
use crate::projector;
use crate::projector::processes;
use crate::receipts::RECEIPT_COLUMNS;
use crate::retention;
use crate::sourced::SNAPSHOT_COLUMNS;

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
    /// Whether the database computes it, and refuses a value that is given.
    pub(crate) is_generated: bool,
}

/// A key as the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LiveKey {
    /// The names of its columns.
    pub(crate) columns: Vec<String>,
    /// Whether it is the primary key, and not one that is merely unique.
    pub(crate) is_primary: bool,
}

impl LiveKey {
    /// Whether it is a key of these columns, in any order.
    fn is_of(&self, columns: &[&str]) -> bool {
        let has = |column: &&str| self.columns.iter().any(|own| own == column);
        self.columns.len() == columns.len() && columns.iter().all(has)
    }
}

impl fmt::Display for LiveKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_primary { "primary" } else { "unique" };
        write!(f, "{kind} key ({})", self.columns.join(", "))
    }
}

/// A foreign key as the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LiveForeignKey {
    /// The table that it points to.
    pub(crate) target: String,
    /// The names of its columns, each with the one that it points to.
    pub(crate) columns: Vec<(String, String)>,
    /// What it does when what it points to is deleted, where that is in the way of a removal which
    /// deletes children after their aggregate.
    pub(crate) refusal: Option<String>,
}

impl fmt::Display for LiveForeignKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (own, other): (Vec<&str>, Vec<&str>) = self
            .columns
            .iter()
            .map(|(own, other)| (own.as_str(), other.as_str()))
            .unzip();
        let (own, other) = (own.join(", "), other.join(", "));
        write!(f, "foreign key ({own}) to {} ({other})", self.target)
    }
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
    row_level_security: bool,
) -> Result<()> {
    let mut differences = Vec::new();
    own_tables(connection, &mut differences).await?;
    let tables: Vec<&'static Table> = tables
        .iter()
        .filter(|table| !table.is_sourced())
        .flat_map(|table| table.with_children())
        .collect();
    one_writer(&tables, &mut differences);
    for table in &tables {
        let live = B::live_columns(connection.begin_work(), table.name()).await?;
        connection.end_work();
        compare::<B>(table, &live, &mut differences);
        compare_unwritten(table, &tables, &live, &mut differences);
        if !is_only_read(table, &tables) {
            let keys = B::live_keys(connection.begin_work(), table.name()).await?;
            connection.end_work();
            compare_key(table, &live, &keys, &mut differences);
        }
        if table.is_child() {
            let found = B::live_foreign_keys(connection.begin_work(), table.name()).await?;
            connection.end_work();
            compare_foreign_key(table, &live, &found, &mut differences);
        }
    }
    if row_level_security {
        let confined = tables.iter().flat_map(|table| table.with_children());
        let confined = confined.filter(|table| table.is_tenant());
        let confined: Vec<&str> = confined.map(Table::name).collect();
        differences.extend(B::policy_gaps(connection.begin_work(), &confined).await?);
        connection.end_work();
    }
    refuse("the schema of the database is not the code's", differences)
}

/// The error of differences, if there are any.
pub(crate) fn refuse(what: &str, differences: Vec<String>) -> Result<()> {
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
    let events = format!("{EVENT_COLUMNS}, sourced");
    for (table, columns) in [
        ("cqrs_event", events.as_str()),
        ("cqrs_subscription", "name, segments, splits, updated_at"),
        ("cqrs_segment", projector::SEGMENT_COLUMNS),
        ("cqrs_dead_letter", projector::DEAD_LETTER_COLUMNS),
        ("cqrs_operation", projector::OPERATION_COLUMNS),
        ("cqrs_rebuild", projector::REBUILD_COLUMNS),
        ("cqrs_process", processes::INSTANCE_COLUMNS),
        ("cqrs_process_task", processes::TASK_COLUMNS),
        ("cqrs_removed", retention::COLUMNS),
        ("cqrs_projection_snapshot", projector::SNAPSHOT_COLUMNS),
        ("cqrs_history", KEPT_COLUMNS),
        ("cqrs_receipt", RECEIPT_COLUMNS),
        ("cqrs_snapshot", SNAPSHOT_COLUMNS),
        ("cqrs_sourced_type", "aggregate_type"),
        ("cqrs_chain_head", HEAD_COLUMNS),
        (
            "cqrs_subject_key",
            "scope, subject, secret, created_at, forgotten_at, forgotten_by",
        ),
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
        compare_filling(name, column, found, differences);
        if column.is_generated() {
            // Whether what it computes may be NULL is not what the database says of it.
            continue;
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
}

/// Looks for columns that an insert must give and does not. A read model may name the table of an
/// aggregate, which gives more of them.
fn compare_unwritten(
    table: &Table,
    tables: &[&'static Table],
    live: &[LiveColumn],
    differences: &mut Vec<String>,
) {
    let name = table.name();
    for found in live {
        let mut columns = tables
            .iter()
            .filter(|table| table.name() == name)
            .flat_map(|table| table.columns());
        let written = columns.any(|column| column.name() == found.name && column.is_written());
        if !written && !found.nullable && !found.has_default {
            differences.push(format!(
                "table {name}, column {}: the code does not write it, and it is not null without a default",
                found.name
            ));
        }
    }
}

fn compare_filling(
    table: &str,
    column: &Column,
    found: &LiveColumn,
    differences: &mut Vec<String>,
) {
    let difference = match (
        column.is_written(),
        column.is_generated(),
        found.is_generated,
    ) {
        (true, _, true) => {
            "expected one that the code writes, found one that the database generates \
             (mark the field with `#[mapper(generated)]`)"
        }
        (_, true, false) => "expected one that the database generates, found one that it does not",
        _ => return,
    };
    differences.push(format!(
        "table {table}, column {}: {difference}",
        column.name()
    ));
}

/// Whether it is a read model that names the table of an aggregate, or of children: their key is
/// the one that counts.
fn is_only_read(table: &Table, tables: &[&'static Table]) -> bool {
    let writes = |table: &Table| table.is_aggregate() || table.is_child();
    let of_name = |other: &&&Table| other.name() == table.name();
    !writes(table) && tables.iter().filter(of_name).any(|other| writes(other))
}

/// Looks for the key that inserts rely on to be told that a row is there.
fn compare_key(
    table: &Table,
    live: &[LiveColumn],
    keys: &[LiveKey],
    differences: &mut Vec<String>,
) {
    let expected: Vec<&str> = table.primary_key().map(Column::name).collect();
    let is_there = |column: &&str| live.iter().any(|live| live.name == *column);
    if keys.iter().any(|key| key.is_of(&expected)) || !expected.iter().all(is_there) {
        return;
    }
    let found: Vec<String> = keys.iter().map(ToString::to_string).collect();
    let found = match found.as_slice() {
        [] => "none".to_owned(),
        found => found.join(", "),
    };
    let columns = expected.join(", ");
    differences.push(format!(
        "table {}, column {columns}: expected primary key ({columns}), found {found}",
        table.name()
    ));
}

/// Looks for the foreign key without which children may be there whose aggregate is not, and for what
/// would keep aggregates that have children from being deleted.
fn compare_foreign_key(
    table: &Table,
    live: &[LiveColumn],
    found: &[LiveForeignKey],
    differences: &mut Vec<String>,
) {
    let Some((column, (parent, key))) = table.column_with(ColumnRole::Parent).zip(table.parent())
    else {
        return;
    };
    let column = column.name();
    let at_column =
        |foreign: &&LiveForeignKey| foreign.columns.iter().any(|(own, _)| own == column);
    let is_right = |foreign: &LiveForeignKey| {
        let points = |(own, other): &(String, String)| own == column && other == key;
        foreign.target == parent && foreign.columns.iter().any(points)
    };
    let right: Vec<&LiveForeignKey> = found.iter().filter(|foreign| is_right(foreign)).collect();
    for refusal in right.iter().filter_map(|foreign| foreign.refusal.as_ref()) {
        differences.push(format!(
            "table {}, column {column}: expected foreign key ({column}) to {parent} ({key}) with \
             ON DELETE CASCADE, or deferred, found ON DELETE {refusal}",
            table.name()
        ));
    }
    if !right.is_empty() || !live.iter().any(|live| live.name == column) {
        return;
    }
    let found: Vec<String> = found
        .iter()
        .filter(at_column)
        .map(ToString::to_string)
        .collect();
    let found = match found.as_slice() {
        [] => "none".to_owned(),
        found => found.join(", "),
    };
    differences.push(format!(
        "table {}, column {column}: expected foreign key ({column}) to {parent} ({key}), found {found}",
        table.name()
    ));
}

/// Reports tables whose rows are written as two types. A read model may name the table of an
/// aggregate: it only reads it.
fn one_writer(tables: &[&'static Table], differences: &mut Vec<String>) {
    let mut seen: Vec<&'static Table> = Vec::new();
    let written = tables
        .iter()
        .filter(|table| table.is_aggregate() || table.is_child());
    for table in written.copied() {
        let type_name = |table: &Table| table.type_name().unwrap_or("a type without a name");
        match seen.iter().find(|other| other.name() == table.name()) {
            Some(other) if std::ptr::eq(*other, table) => {}
            Some(other) => differences.push(format!(
                "table {}: expected rows of one type, found those of {} and of {}",
                table.name(),
                type_name(other),
                type_name(table)
            )),
            None => seen.push(table),
        }
    }
}
