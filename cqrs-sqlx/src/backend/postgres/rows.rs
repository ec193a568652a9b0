//! Rows of read models, a page at a time: one statement each, with one array per column.

use std::sync::Arc;

use cqrs_core::mapping::{Column, ColumnRole, Table, Value};
use cqrs_core::{Owned, ReadModel, Result, RowAddress};
use futures_util::TryStreamExt;
use sqlx::postgres::PgArguments;
use sqlx::{PgConnection, Row, ValueRef};

use super::row::{PgSource, check_columns};
use super::{bind, error};
use crate::backend::Advance;
use crate::backend::bind::{bind as bind_one, query};
use crate::backend::rows::{address_columns, equals, on_conflict, read_owned, written_columns};
use crate::statements::{Statements, list, names, quoted};
use crate::tenancy::TenantSite;

/// Loads the rows with these addresses.
pub(super) async fn load<R: ReadModel>(
    connection: &mut PgConnection,
    statements: &Statements,
    table: &'static Table,
    addresses: &[RowAddress],
) -> Result<Vec<Owned<R>>> {
    let sql = statements.get(table, "load rows", || load_sql(table));
    let mut arguments = PgArguments::default();
    bind_addresses(&mut arguments, table, addresses)?;
    let doing = || format!("loading rows of {}", table.name());
    let mut found = query(&sql, arguments).fetch(connection);
    let mut rows = Vec::with_capacity(addresses.len());
    while let Some(row) = found
        .try_next()
        .await
        .map_err(|cause| error(cause, &doing()))?
    {
        if rows.is_empty() {
            check_columns(&row, table)?;
        }
        rows.push(read_owned(&PgSource(row))?);
    }
    Ok(rows)
}

/// How many parameters find the checkpoint of a page.
const OF_PAGE: usize = 3;

/// Loads the rows with these addresses while the checkpoint of their page is as it was seen; `None`
/// where it is not.
///
/// Whoever writes the page compares the checkpoint again. That alone is not enough behind a pooler: a
/// crash of the server, which it may hide, takes rows and checkpoint back to what was seen, after rows
/// were loaded that are of pages behind it.
pub(super) async fn load_for<R: ReadModel>(
    connection: &mut PgConnection,
    statements: &Statements,
    table: &'static Table,
    addresses: &[RowAddress],
    page: &Advance,
) -> Result<Option<Vec<Owned<R>>>> {
    let shape = "load rows of a page";
    let sql = statements.get(table, shape, || load_for_sql(table, &page.is_seen));
    let mut arguments = PgArguments::default();
    bind_one(&mut arguments, &*page.subscription)?;
    bind_one(&mut arguments, page.segment)?;
    bind_one(&mut arguments, page.seen.0.as_str())?;
    bind_addresses(&mut arguments, table, addresses)?;
    let doing = || format!("loading rows of {}", table.name());
    let mut found = query(&sql, arguments).fetch(connection);
    let (mut is_seen, mut rows) = (false, Vec::with_capacity(addresses.len()));
    let key = table.index_of(ColumnRole::Key);
    while let Some(row) = found
        .try_next()
        .await
        .map_err(|cause| error(cause, &doing()))?
    {
        is_seen = true;
        let is_none = match key {
            Some(key) => row
                .try_get_raw(key)
                .map_err(|cause| error(cause, &doing()))?
                .is_null(),
            None => false,
        };
        if is_none {
            break;
        }
        if rows.is_empty() {
            check_columns(&row, table)?;
        }
        rows.push(read_owned(&PgSource(row))?);
    }
    Ok(is_seen.then_some(rows))
}

/// Inserts these rows, or replaces them.
pub(super) async fn upsert(
    connection: &mut PgConnection,
    statements: &Statements,
    table: &'static Table,
    rows: Vec<Vec<Value>>,
) -> Result<()> {
    let sql = statements.get(table, "upsert rows", || upsert_sql(table, 1, ""));
    let mut arguments = PgArguments::default();
    bind_rows(&mut arguments, table, &rows)?;
    run(connection, &sql, arguments, || {
        format!("writing rows of {}", table.name())
    })
    .await
}

/// Deletes the rows with these addresses.
pub(super) async fn delete(
    connection: &mut PgConnection,
    statements: &Statements,
    table: &'static Table,
    addresses: &[RowAddress],
) -> Result<()> {
    let sql = statements.get(table, "delete rows", || delete_sql(table, 1, ""));
    let mut arguments = PgArguments::default();
    bind_addresses(&mut arguments, table, addresses)?;
    run(connection, &sql, arguments, || {
        format!("deleting rows of {}", table.name())
    })
    .await
}

async fn run(
    connection: &mut PgConnection,
    sql: &Arc<str>,
    arguments: PgArguments,
    doing: impl FnOnce() -> String,
) -> Result<()> {
    query(sql, arguments)
        .execute(connection)
        .await
        .map(drop)
        .map_err(|cause| error(cause, &doing()))
}

/// Binds rows as an array for each column.
pub(super) fn bind_rows(
    arguments: &mut PgArguments,
    table: &Table,
    rows: &[Vec<Value>],
) -> Result<()> {
    for (index, column) in written_columns(table) {
        let values = rows.iter().map(|row| &row[index]);
        bind::add_column(arguments, column.column_type(), values)?;
    }
    Ok(())
}

/// Binds addresses as an array for each of their columns.
pub(super) fn bind_addresses(
    arguments: &mut PgArguments,
    table: &Table,
    addresses: &[RowAddress],
) -> Result<()> {
    if let Some(tenant) = table.column_with(ColumnRole::Tenant) {
        let tenants: Vec<Value> = addresses
            .iter()
            .map(|address| {
                address.tenant().map_or(Value::Null, |tenant| {
                    Value::Text(tenant.as_str().to_owned())
                })
            })
            .collect();
        bind::add_column(arguments, tenant.column_type(), tenants.iter())?;
    }
    for (index, column) in table.key_columns().enumerate() {
        bind::add_column(
            arguments,
            column.column_type(),
            addresses
                .iter()
                .map(|address| address.key().get(index).unwrap_or(&Value::Null)),
        )?;
    }
    Ok(())
}

/// `unnest($1::text[], $2::uuid[]) AS k(c0, c1)`.
fn arrays<'t>(columns: impl Iterator<Item = &'t Column> + Clone, first: usize) -> String {
    let values = columns
        .clone()
        .zip(first..)
        .map(|(column, number)| format!("${number}::{}", bind::array_type(column.column_type())));
    let names = columns.zip(0..).map(|(_, number)| format!("c{number}"));
    format!("unnest({}) AS k({})", list(values), list(names))
}

/// `t."tenant_id" = k.c0 AND t."id" = k.c1`.
fn same_address(site: TenantSite, table: &Table) -> String {
    address_columns(table)
        .zip(0..)
        .map(|(column, number)| {
            let name = format!("t.{}", quoted(column.name()));
            let value = format!("k.c{number}{}", bind::cast(column.column_type()));
            equals(site, column, &name, &value)
        })
        .collect::<Vec<_>>()
        .join(" AND ")
}

fn address_arrays(table: &Table, first: usize) -> String {
    let columns: Vec<&Column> = address_columns(table).collect();
    arrays(columns.iter().copied(), first)
}

fn load_sql(table: &Table) -> String {
    format!("SELECT {} FROM {}", columns_of_rows(table), found(table, 1))
}

/// No row where the checkpoint is not as it was seen; one without values where it is, and there are
/// no rows.
fn load_for_sql(table: &Table, is_seen: &str) -> String {
    format!(
        "SELECT {} FROM ({is_seen}) AS seen LEFT JOIN ({}) ON TRUE",
        columns_of_rows(table),
        found(table, OF_PAGE + 1)
    )
}

fn columns_of_rows(table: &Table) -> String {
    let columns = table.columns().iter();
    list(columns.map(|column| format!("t.{}", quoted(column.name()))))
}

fn found(table: &Table, first: usize) -> String {
    format!(
        "{} JOIN {} AS t ON {}",
        address_arrays(table, first),
        quoted(table.name()),
        same_address(TenantSite::LoadRows, table),
    )
}

/// Deletes rows whose addresses are bound from `first` on; `condition` is another one, with its `AND`.
pub(super) fn delete_sql(table: &Table, first: usize, condition: &str) -> String {
    format!(
        "DELETE FROM {} AS t USING {} WHERE {}{condition}",
        quoted(table.name()),
        address_arrays(table, first),
        same_address(TenantSite::DeleteRows, table),
    )
}

/// Inserts or replaces rows that are bound from `first` on; `condition` is one with its `WHERE`.
pub(super) fn upsert_sql(table: &Table, first: usize, condition: &str) -> String {
    let columns = written_columns(table).map(|(_, column)| column);
    let values = columns
        .clone()
        .zip(0..)
        .map(|(column, number)| format!("k.c{number}{}", bind::cast(column.column_type())));
    format!(
        "INSERT INTO {} ({}) SELECT {} FROM {}{condition} {}",
        quoted(table.name()),
        names(columns.clone()),
        list(values),
        arrays(columns, first),
        on_conflict(table),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::LazyLock;
    use uuid::Uuid;

    static TABLE: LazyLock<Table> = LazyLock::new(|| {
        Table::builder("plan_list")
            .tenant("tenant_id")
            .key::<Uuid>("id")
            .column::<i32>("stops")
            .column::<serde_json::Value>("depot")
            .build()
    });

    #[test]
    fn a_page_is_loaded_with_one_statement() {
        assert_eq!(
            load_sql(&TABLE),
            "SELECT t.\"tenant_id\", t.\"id\", t.\"stops\", t.\"depot\" \
             FROM unnest($1::text[], $2::uuid[]) AS k(c0, c1) \
             JOIN \"plan_list\" AS t ON t.\"tenant_id\" = k.c0 AND t.\"id\" = k.c1"
        );
    }

    #[test]
    fn a_page_is_written_with_one_statement() {
        assert_eq!(
            upsert_sql(&TABLE, 1, ""),
            "INSERT INTO \"plan_list\" (\"tenant_id\", \"id\", \"stops\", \"depot\") \
             SELECT k.c0, k.c1, k.c2, k.c3::jsonb \
             FROM unnest($1::text[], $2::uuid[], $3::int4[], $4::text[]) AS k(c0, c1, c2, c3) \
             ON CONFLICT (\"tenant_id\", \"id\") \
             DO UPDATE SET \"stops\" = excluded.\"stops\", \"depot\" = excluded.\"depot\""
        );
    }

    #[test]
    fn a_table_of_keys_alone_has_nothing_to_replace() {
        let table = Table::builder("seen").key::<Uuid>("id").build();
        assert!(upsert_sql(&table, 1, "").ends_with("ON CONFLICT (\"id\") DO NOTHING"));
        assert_eq!(
            delete_sql(&table, 1, ""),
            "DELETE FROM \"seen\" AS t USING unnest($1::uuid[]) AS k(c0) WHERE t.\"id\" = k.c0"
        );
    }
}
