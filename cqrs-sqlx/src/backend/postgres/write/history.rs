//! Keeping revisions of aggregates that have a history. The database makes the image of a row, so
//! it is of what is stored, whoever has filled a column.
//!
//! In the commit of one aggregate that is one more part of the statement:
//!
//! ```sql
//! WITH changed AS (
//!     UPDATE "plan" AS t SET ...
//!     RETURNING (SELECT row_to_json(r.*) FROM (SELECT t."version", t."id") AS r) AS state, ...),
//! kept AS (
//!     INSERT INTO cqrs_history (...) SELECT ..., changed.state, changed.children, ... FROM changed)
//! INSERT INTO cqrs_event ...
//! ```
//!
//! Else it is a statement for each table and operation: after rows and children were written,
//! before rows are deleted.

use chrono::{DateTime, Utc};
use cqrs_core::history::RevisionKind;
use cqrs_core::mapping::{Column, ColumnRole, ColumnType, Table, Value};
use cqrs_core::staging::StagedWrite;
use cqrs_core::{Error, Metadata, Result, StoreErrorKind};
use sqlx::postgres::PgArguments;

use super::groups;
use crate::backend::bind::{bind, query};
use crate::backend::postgres::{Session, bind};
use crate::backend::version_column;
use crate::history::KEPT_COLUMNS;
use crate::select::links;
use crate::statements::{Statements, list, quoted};
use crate::tenancy::TenantSite;

/// What [`one`] has to know, after the rest of the statement.
pub(super) fn bind_one(arguments: &mut PgArguments, write: &StagedWrite) -> Result<()> {
    bind(arguments, integer(write.new_version))?;
    bind(arguments, write.staged_at())
}

/// The part of a statement that keeps the revision of what `changed` has changed.
///
/// `origin` are the parameters of correlation and actor, `stream` those of tenant, type and id,
/// `first` the number of the first one of [`bind_one`].
pub(super) fn one(
    kind: RevisionKind,
    (correlation, actor): (String, String),
    stream: &str,
    first: usize,
) -> String {
    format!(
        ", kept AS (INSERT INTO cqrs_history ({KEPT_COLUMNS}) SELECT {stream}, ${first}, \
         '{kind}', changed.state, changed.children, {actor}, {correlation}, ${} FROM changed)",
        first + 1
    )
}

/// The image of row `t`: its state, and its children.
///
/// `r.*` is the row, where `r` may be a column of the table.
pub(super) fn image(table: &Table) -> String {
    let children = match table.children() {
        [] => "NULL::json".to_owned(),
        tables => {
            let tables = tables.iter().map(|child| {
                let rows = children(table, child);
                format!("{rows} AS {}", quoted(child.name()))
            });
            format!(
                "(SELECT row_to_json(r.*) FROM (SELECT {}) AS r)",
                list(tables)
            )
        }
    };
    let state = columns(table, "t");
    format!("(SELECT row_to_json(r.*) FROM (SELECT {state}) AS r) AS state, {children} AS children")
}

/// The children in a table, in the order of their places.
fn children(parent: &Table, child: &Table) -> String {
    let own = |of: &'static str| move |column: &Column| format!("{of}.{}", quoted(column.name()));
    let links = links(
        TenantSite::HistoryChildren,
        parent,
        child,
        own("c"),
        own("t"),
    );
    let place = child.column_with(ColumnRole::Order);
    let place = place.map_or("r.*".to_owned(), own("r"));
    format!(
        "(SELECT coalesce(json_agg(row_to_json(r.*) ORDER BY {place}), '[]') FROM \
         (SELECT {} FROM {} AS c WHERE {links}) AS r)",
        columns(child, "c"),
        quoted(child.name()),
    )
}

fn columns(table: &Table, of: &str) -> String {
    list(table.columns().iter().map(|column| {
        let name = quoted(column.name());
        match column.column_type() {
            ColumnType::Bytes => format!("encode({of}.{name}, 'hex') AS {name}"),
            _ => format!("{of}.{name}"),
        }
    }))
}

/// A row whose revision is to be kept.
#[derive(Debug)]
pub(in crate::backend::postgres) struct Kept {
    key: Value,
    id: String,
    /// The version that the row is at when this is done.
    at: u64,
    version: u64,
    changed_at: DateTime<Utc>,
}

impl Kept {
    /// That of a write: it is done before rows are deleted.
    pub(in crate::backend::postgres) fn of(write: &StagedWrite) -> Self {
        Self {
            key: write.key.clone(),
            id: write.aggregate_id.clone(),
            at: match groups::deletes(write) {
                true => write.expected_version,
                false => write.new_version,
            },
            version: write.new_version,
            changed_at: write.staged_at(),
        }
    }

    /// That of a row at this version, which goes up by one with the change.
    pub(in crate::backend::postgres) fn changed(
        key: &Value,
        id: &str,
        version: u64,
        deletes: bool,
        changed_at: DateTime<Utc>,
    ) -> Self {
        Self {
            key: key.clone(),
            id: id.to_owned(),
            at: if deletes { version } else { version + 1 },
            version: version + 1,
            changed_at,
        }
    }
}

/// Keeps the revisions of rows of one table, which are locked; whether all of them were at their
/// version. `refused` is the error where that fails.
pub(in crate::backend::postgres) async fn keep<E: From<Error>>(
    session: &mut Session,
    statements: &Statements,
    (table, aggregate_type): (&'static Table, &'static str),
    kind: RevisionKind,
    rows: &[Kept],
    metadata: &Metadata,
    refused: impl FnOnce(sqlx::Error) -> E,
) -> std::result::Result<bool, E> {
    if !table.keeps_history() || rows.is_empty() {
        return Ok(true);
    }
    let text = statements.get(table, "keep revisions", || keep_sql(table));
    let key = key_column(table).column_type();
    let mut arguments = PgArguments::default();
    bind(&mut arguments, aggregate_type)?;
    bind(&mut arguments, kind.name())?;
    bind(&mut arguments, metadata.actor.as_deref())?;
    bind(&mut arguments, metadata.correlation_id)?;
    bind::add_column(&mut arguments, key, rows.iter().map(|row| &row.key))?;
    bind(&mut arguments, all(rows, |row| integer(row.at)))?;
    bind(&mut arguments, all(rows, |row| row.id.as_str()))?;
    bind(&mut arguments, all(rows, |row| integer(row.version)))?;
    bind(&mut arguments, all(rows, |row| row.changed_at))?;
    let done = query(&text, arguments)
        .execute(&mut session.connection)
        .await
        .map_err(refused)?;
    Ok(done.rows_affected() == rows.len() as u64)
}

/// The error of rows that are not at the version that was written.
pub(in crate::backend::postgres) fn not_kept(table: &Table) -> Error {
    Error::store(
        StoreErrorKind::Database,
        format!(
            "not all rows of table {} are at the version that was written; a trigger may keep them",
            table.name()
        ),
    )
}

fn keep_sql(table: &Table) -> String {
    let key = key_column(table);
    let tenant = table.column_with(ColumnRole::Tenant);
    let tenant = tenant.map_or("NULL".to_owned(), |tenant| {
        format!("t.{}", quoted(tenant.name()))
    });
    format!(
        "INSERT INTO cqrs_history ({KEPT_COLUMNS}) SELECT {tenant}, $1, g.id, g.version, $2, \
         i.state, i.children, $3, $4, g.changed_at \
         FROM unnest($5::{}, $6::int8[], $7::text[], $8::int8[], $9::timestamptz[]) \
         AS g(key, at, id, version, changed_at) \
         JOIN {} AS t ON t.{} = g.key AND t.{} = g.at, LATERAL (SELECT {}) AS i",
        bind::array_type(key.column_type()),
        quoted(table.name()),
        quoted(key.name()),
        quoted(version_column(table)),
        image(table),
    )
}

fn all<'r, T>(rows: &'r [Kept], read: impl Fn(&'r Kept) -> T) -> Vec<T> {
    rows.iter().map(read).collect()
}

fn key_column(table: &Table) -> &Column {
    table
        .key_columns()
        .next()
        .expect("the derive gives every aggregate a key")
}

fn integer(version: u64) -> i64 {
    i64::try_from(version).unwrap_or(i64::MAX)
}
