//! Rows of read models: a prepared statement run for each row. There is no server to wait for, so
//! nothing would be gained by sending several at once.

use std::sync::Arc;

use cqrs_core::mapping::{Table, Value};
use cqrs_core::{Owned, ReadModel, Result, RowAddress, TenantId};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteArguments;

use super::bind;
use super::error::error;
use super::row::SqliteSource;
use crate::backend::bind::{bind, query};
use crate::backend::rows::{address_columns, equals, on_conflict, read_owned};
use crate::statements::{Statements, list, names, qualified, quoted};
use crate::tenancy::TenantSite;

/// Loads the rows with these addresses.
pub(super) async fn load<R: ReadModel>(
    connection: &mut SqliteConnection,
    statements: &Statements,
    table: &'static Table,
    addresses: &[RowAddress],
) -> Result<Vec<Owned<R>>> {
    let sql = statements.get(table, "load row", || load_sql(table));
    let mut rows = Vec::with_capacity(addresses.len());
    for address in addresses {
        let arguments = address_arguments(table, address)?;
        let row = query(&sql, arguments)
            .fetch_optional(&mut *connection)
            .await
            .map_err(|cause| error(cause, &format!("loading rows of {}", table.name())))?;
        if let Some(row) = row {
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
    let sql = statements.get(table, "upsert row", || upsert_sql(table));
    for row in rows {
        let mut arguments = SqliteArguments::default();
        for (column, value) in table.columns().iter().zip(&row) {
            bind::add(&mut arguments, column.column_type(), value)?;
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
        let arguments = address_arguments(table, address)?;
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

fn address_arguments(table: &Table, address: &RowAddress) -> Result<SqliteArguments> {
    let mut arguments = SqliteArguments::default();
    if table.is_tenant() {
        let tenant = address.tenant().map(TenantId::as_str);
        bind(&mut arguments, tenant)?;
    }
    for (column, value) in table.key_columns().zip(address.key()) {
        bind::add(&mut arguments, column.column_type(), value)?;
    }
    Ok(arguments)
}

/// `"plan"."tenant_id" = $1 AND "plan"."id" = $2`.
fn same_address(site: TenantSite, table: &Table) -> String {
    address_columns(table)
        .zip(1..)
        .map(|(column, number)| {
            let name = qualified(table, column.name());
            equals(site, column, &name, &format!("${number}"))
        })
        .collect::<Vec<_>>()
        .join(" AND ")
}

fn load_sql(table: &Table) -> String {
    format!(
        "SELECT {} FROM {} WHERE {}",
        list(
            table
                .columns()
                .iter()
                .map(|column| qualified(table, column.name()))
        ),
        quoted(table.name()),
        same_address(TenantSite::LoadRows, table),
    )
}

fn delete_sql(table: &Table) -> String {
    format!(
        "DELETE FROM {} WHERE {}",
        quoted(table.name()),
        same_address(TenantSite::DeleteRows, table),
    )
}

fn upsert_sql(table: &Table) -> String {
    format!(
        "INSERT INTO {} ({}) VALUES ({}) {}",
        quoted(table.name()),
        names(table.columns()),
        list((1..=table.columns().len()).map(|number| format!("${number}"))),
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
            load_sql(&table),
            "SELECT \"plan_list\".\"tenant_id\", \"plan_list\".\"id\", \"plan_list\".\"stops\" \
             FROM \"plan_list\" \
             WHERE \"plan_list\".\"tenant_id\" = $1 AND \"plan_list\".\"id\" = $2"
        );
        assert_eq!(
            upsert_sql(&table),
            "INSERT INTO \"plan_list\" (\"tenant_id\", \"id\", \"stops\") VALUES ($1, $2, $3) \
             ON CONFLICT (\"tenant_id\", \"id\") DO UPDATE SET \"stops\" = excluded.\"stops\""
        );
        assert_eq!(
            delete_sql(&table),
            "DELETE FROM \"plan_list\" \
             WHERE \"plan_list\".\"tenant_id\" = $1 AND \"plan_list\".\"id\" = $2"
        );
    }
}
