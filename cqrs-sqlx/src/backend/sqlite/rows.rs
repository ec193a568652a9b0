//! Rows of read models, several with one statement. There is no server to wait for, but each
//! statement goes to the thread of its connection and back, which costs more than a row.

use std::sync::Arc;

use cqrs_core::mapping::{Table, Value};
use cqrs_core::{Owned, ReadModel, Result, RowAddress, TenantId};
use futures_util::TryStreamExt;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteArguments;

use super::error::error;
use super::row::SqliteSource;
use super::{Sqlite, bind};
use crate::backend::Backed;
use crate::backend::bind::{bind, query};
use crate::backend::rows::{address_columns, equals, on_conflict, read_owned, written_columns};
use crate::statements::{Statements, list, names, qualified, quoted};
use crate::tenancy::TenantSite;

// Parameters have no numbers: SQLite takes `$1` for a name, and sqlx asks it for the name of each, which
// is looked for among all of the statement.

/// How many rows a statement has, the most first, and its shapes. Few of each are enough: the texts
/// are built, and prepared, once.
const CHUNKS: [Chunk; 4] = [
    Chunk::new(64, "load 64 rows", "upsert 64 rows"),
    Chunk::new(16, "load 16 rows", "upsert 16 rows"),
    Chunk::new(4, "load 4 rows", "upsert 4 rows"),
    Chunk::new(1, "load row", "upsert row"),
];

#[derive(Debug)]
struct Chunk {
    rows: usize,
    load: &'static str,
    upsert: &'static str,
}

impl Chunk {
    const fn new(rows: usize, load: &'static str, upsert: &'static str) -> Self {
        Self { rows, load, upsert }
    }
}

/// Parts of a list that each have a statement, which has so many parameters for an item.
fn chunks<T>(mut items: &[T], parameters: usize) -> impl Iterator<Item = (&'static Chunk, &[T])> {
    std::iter::from_fn(move || {
        let fits = |chunk: &&Chunk| {
            chunk.rows <= items.len()
                && (chunk.rows == 1 || chunk.rows * parameters <= Sqlite::DIALECT.max_parameters)
        };
        let chunk = CHUNKS.iter().find(fits)?;
        let (part, rest) = items.split_at(chunk.rows);
        items = rest;
        Some((chunk, part))
    })
}

/// Loads the rows with these addresses.
pub(super) async fn load<R: ReadModel>(
    connection: &mut SqliteConnection,
    statements: &Statements,
    table: &'static Table,
    addresses: &[RowAddress],
) -> Result<Vec<Owned<R>>> {
    let mut rows = Vec::with_capacity(addresses.len());
    for (chunk, addresses) in chunks(addresses, address_columns(table).count()) {
        let sql = statements.get(table, chunk.load, || load_sql(table, chunk.rows));
        let mut arguments = SqliteArguments::default();
        for address in addresses {
            bind_address(&mut arguments, table, address)?;
        }
        let doing = || format!("loading rows of {}", table.name());
        let mut found = query(&sql, arguments).fetch(&mut *connection);
        while let Some(row) = found
            .try_next()
            .await
            .map_err(|cause| error(cause, &doing()))?
        {
            rows.push(read_owned(&SqliteSource(row))?);
        }
    }
    Ok(rows)
}

/// Inserts these rows, or replaces them.
pub(super) async fn upsert(
    connection: &mut SqliteConnection,
    statements: &Statements,
    table: &'static Table,
    rows: Vec<Vec<Value>>,
) -> Result<()> {
    for (chunk, rows) in chunks(&rows, written_columns(table).count()) {
        let sql = statements.get(table, chunk.upsert, || upsert_sql(table, chunk.rows));
        let mut arguments = SqliteArguments::default();
        for row in rows {
            for (index, column) in written_columns(table) {
                bind::add(&mut arguments, column.column_type(), &row[index])?;
            }
        }
        run(connection, table, &sql, arguments).await?;
    }
    Ok(())
}

/// Deletes the rows with these addresses.
pub(super) async fn delete(
    connection: &mut SqliteConnection,
    statements: &Statements,
    table: &'static Table,
    addresses: &[RowAddress],
) -> Result<()> {
    let sql = statements.get(table, "delete row", || delete_sql(table));
    for address in addresses {
        let mut arguments = SqliteArguments::default();
        bind_address(&mut arguments, table, address)?;
        run(connection, table, &sql, arguments).await?;
    }
    Ok(())
}

async fn run(
    connection: &mut SqliteConnection,
    table: &Table,
    sql: &Arc<str>,
    arguments: SqliteArguments,
) -> Result<()> {
    query(sql, arguments)
        .execute(connection)
        .await
        .map(drop)
        .map_err(|cause| error(cause, &format!("writing rows of {}", table.name())))
}

fn bind_address(
    arguments: &mut SqliteArguments,
    table: &Table,
    address: &RowAddress,
) -> Result<()> {
    if table.is_tenant() {
        let tenant = address.tenant().map(TenantId::as_str);
        bind(arguments, tenant)?;
    }
    for (column, value) in table.key_columns().zip(address.key()) {
        bind::add(arguments, column.column_type(), value)?;
    }
    Ok(())
}

/// `"plan"."tenant_id" = $1 AND "plan"."id" = $2`, with parameters from `first` on.
fn same_address(site: TenantSite, table: &Table) -> String {
    address_columns(table)
        .map(|column| {
            let name = qualified(table, column.name());
            equals(site, column, &name, "?")
        })
        .collect::<Vec<_>>()
        .join(" AND ")
}

fn load_sql(table: &Table, rows: usize) -> String {
    let addresses = vec![same_address(TenantSite::LoadRows, table); rows];
    format!(
        "SELECT {} FROM {} WHERE {}",
        list(
            table
                .columns()
                .iter()
                .map(|column| qualified(table, column.name()))
        ),
        quoted(table.name()),
        addresses.join(" OR "),
    )
}

fn delete_sql(table: &Table) -> String {
    format!(
        "DELETE FROM {} WHERE {}",
        quoted(table.name()),
        same_address(TenantSite::DeleteRows, table),
    )
}

fn upsert_sql(table: &Table, rows: usize) -> String {
    let columns = written_columns(table).map(|(_, column)| column);
    let row = format!("({})", list(columns.clone().map(|_| "?")));
    format!(
        "INSERT INTO {} ({}) VALUES {} {}",
        quoted(table.name()),
        names(columns),
        list(std::iter::repeat_n(row.as_str(), rows)),
        on_conflict(table),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_address_a_row_by_tenant_and_key() {
        let table = Table::builder("plan_list")
            .tenant("tenant_id")
            .key::<i64>("id")
            .column::<i32>("stops")
            .build();
        assert_eq!(
            load_sql(&table, 2),
            "SELECT \"plan_list\".\"tenant_id\", \"plan_list\".\"id\", \"plan_list\".\"stops\" \
             FROM \"plan_list\" \
             WHERE \"plan_list\".\"tenant_id\" = ? AND \"plan_list\".\"id\" = ? \
             OR \"plan_list\".\"tenant_id\" = ? AND \"plan_list\".\"id\" = ?"
        );
        assert_eq!(
            upsert_sql(&table, 2),
            "INSERT INTO \"plan_list\" (\"tenant_id\", \"id\", \"stops\") \
             VALUES (?, ?, ?), (?, ?, ?) \
             ON CONFLICT (\"tenant_id\", \"id\") DO UPDATE SET \"stops\" = excluded.\"stops\""
        );
        assert_eq!(
            delete_sql(&table),
            "DELETE FROM \"plan_list\" \
             WHERE \"plan_list\".\"tenant_id\" = ? AND \"plan_list\".\"id\" = ?"
        );
    }

    #[test]
    fn a_list_is_parted_into_few_statements() {
        let sizes = |items: usize, parameters| {
            let items = vec![(); items];
            chunks(&items, parameters)
                .map(|(chunk, part)| (chunk.rows, part.len()))
                .inspect(|(rows, part)| assert_eq!(rows, part))
                .map(|(rows, _)| rows)
                .collect::<Vec<_>>()
        };
        assert_eq!(sizes(0, 3), [0; 0]);
        assert_eq!(sizes(3, 3), [1, 1, 1]);
        assert_eq!(sizes(150, 3), [64, 64, 16, 4, 1, 1]);
        assert_eq!(sizes(64, 1_000), [16, 16, 16, 16]);
        assert_eq!(sizes(2, 40_000), [1, 1]);
    }
}
