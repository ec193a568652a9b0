//! Bulk work: one statement for each row and event, as in any other write, in one transaction.

use cqrs_core::history::StoredRevision;
use cqrs_core::maintenance::{BulkChange, BulkWrites, ChosenRow, Inserted};
use cqrs_core::mapping::{ColumnRole, Table};
use cqrs_core::{AggregateRoot, Error, Metadata, Result, StoreErrorKind};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteArguments;

use super::write::history;
use super::{bind, error, write};
use crate::backend::bind::{bind, query};
use crate::backend::{Returned, Written, version_column};
use crate::statements::{Statements, quoted};

/// Inserts rows and events within a transaction.
pub(super) async fn insert(
    connection: &mut SqliteConnection,
    statements: &Statements,
    writes: BulkWrites<'_>,
    metadata: &Metadata,
) -> Result<Inserted> {
    let mut inserted = Inserted::default();
    for write in writes {
        let write = [write?];
        let returned = Returned::Positions;
        let written = write::apply(connection, statements, &write, metadata, returned).await?;
        inserted.rows += 1;
        inserted.position = inserted.position.max(written.position);
    }
    Ok(inserted)
}

/// Changes rows, and appends their events.
pub(super) async fn change<A: AggregateRoot>(
    connection: &mut SqliteConnection,
    statements: &Statements,
    change: &BulkChange<A>,
    rows: &[ChosenRow<A>],
    returned: Returned,
) -> Result<Written> {
    let table = A::table();
    let sql = change_sql(table, change).into();
    let refused = |cause| error::error(cause, "changing rows in bulk");
    let (mut first, mut last) = (None, None);
    for row in rows {
        let mut image = match change.deletes {
            true => history::image(connection, statements, table, &row.key).await?,
            false => None,
        };
        let event = change.event_of(row);
        let mut arguments = SqliteArguments::default();
        for (index, value) in &change.assignments {
            let column = &table.columns()[*index];
            bind::add(&mut arguments, column.column_type(), value)?;
        }
        if let Some(key) = table.key_columns().next() {
            bind::add(&mut arguments, key.column_type(), &row.key)?;
        }
        bind(&mut arguments, write::integer(row.version))?;
        if table.is_chained() && !change.deletes {
            bind(&mut arguments, event.content_hash.link().map(Vec::from))?;
        }
        let result = query(&sql, arguments)
            .execute(&mut *connection)
            .await
            .map_err(refused)?;
        if result.rows_affected() != 1 {
            return Err(Error::store(
                StoreErrorKind::Database,
                format!(
                    "{} {} was not changed; a trigger may keep it",
                    A::TYPE,
                    row.aggregate_id
                ),
            ));
        }
        if change.deletes {
            write::remove_children(connection, table, &row.key).await?;
        } else {
            image = history::image(connection, statements, table, &row.key).await?;
        }
        if let Some(image) = image {
            let revision = StoredRevision {
                version: row.version + 1,
                kind: change.kind,
                tenant: row.tenant.clone(),
                actor: change.metadata.actor.clone(),
                correlation_id: change.metadata.correlation_id,
                changed_at: change.event.occurred_at,
                image,
            };
            let of = (A::TYPE, row.aggregate_id.as_str());
            history::keep(connection, of, &revision, refused).await?;
        }
        let stream = write::Stream {
            tenant: row.tenant.as_ref(),
            aggregate_type: A::TYPE,
            aggregate_id: &row.aggregate_id,
            is_sourced: false,
        };
        let position = write::append(connection, stream, &event, &change.metadata, refused).await?;
        first.get_or_insert(position);
        last = Some(position);
    }
    let envelopes = match (returned, first, last) {
        (Returned::Events, Some(first), Some(last)) => {
            write::appended(connection, first, last).await?
        }
        _ => Vec::new(),
    };
    Ok(Written {
        events: Vec::new(),
        position: last,
        envelopes,
    })
}

fn change_sql<A: AggregateRoot>(table: &Table, change: &BulkChange<A>) -> String {
    let name = quoted(table.name());
    let version = quoted(version_column(table));
    let key = table.key_columns().next().map_or("id", |key| key.name());
    let first = change.assignments.len() + 1;
    // Key and version were read from the row: they are compared as it holds them.
    let guard = format!(
        "{name}.{} = ${first} AND {name}.{version} = ${}",
        quoted(key),
        first + 1
    );
    if change.deletes {
        return format!("DELETE FROM {name} WHERE {guard}");
    }
    let set: String = change
        .assignments
        .iter()
        .enumerate()
        .map(|(place, (index, _))| {
            let column = &table.columns()[*index];
            format!(", {} = ${}", quoted(column.name()), place + 1)
        })
        .collect();
    let head = table.column_with(ColumnRole::ChainHead);
    let head = head.map(|head| format!(", {} = ${}", quoted(head.name()), first + 2));
    let head = head.unwrap_or_default();
    format!("UPDATE {name} SET {version} = {version} + 1{set}{head} WHERE {guard}")
}
