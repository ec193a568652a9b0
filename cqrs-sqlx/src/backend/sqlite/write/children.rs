//! Writing children, after the row of their aggregate.

use cqrs_core::Result;
use cqrs_core::mapping::{Column, ColumnRole, Table, Value};
use cqrs_core::staging::{Operation, StagedWrite};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteArguments;

use super::super::bind;
use super::super::error::{error, is_row_taken, write_error};
use super::compared;
use crate::backend::bind::query;
use crate::backend::{child_address, child_equals, children_changed, written_child_columns};
use crate::statements::{Statements, list, names, quoted};

/// Writes the children of a write.
pub(super) async fn write(
    connection: &mut SqliteConnection,
    statements: &Statements,
    write: &StagedWrite,
) -> Result<()> {
    for child in &write.children {
        let table = child.table;
        // What is removed may make room for what is changed and added.
        let sql = statements.get(table, "remove a child", || remove_sql(table));
        for row in &child.removed {
            let address: Vec<_> = child_address(table).collect();
            let removed = run(connection, &sql, table, &address, row, write).await?;
            // The database may have removed it with its aggregate.
            if removed == 0 && write.operation != Operation::Remove {
                return Err(children_changed(table));
            }
        }
        let written: Vec<_> = written_child_columns(table).collect();
        let sql = statements.get(table, "change a child", || change_sql(table));
        for row in &child.changed {
            if run(connection, &sql, table, &written, row, write).await? == 0 {
                return Err(children_changed(table));
            }
        }
        let sql = statements.get(table, "add a child", || add_sql(table));
        for row in &child.added {
            run(connection, &sql, table, &written, row, write).await?;
        }
    }
    Ok(())
}

/// Removes all children of the aggregate with this key, which is gone.
pub(in super::super) async fn remove_all(
    connection: &mut SqliteConnection,
    table: &'static Table,
    key: &Value,
) -> Result<()> {
    for child in table.children() {
        let Some(parent) = child.column_with(ColumnRole::Parent) else {
            continue;
        };
        let sql = format!(
            "DELETE FROM {} WHERE {} = $1",
            quoted(child.name()),
            compared(child, parent)
        );
        let mut arguments = SqliteArguments::default();
        bind::add(&mut arguments, parent.column_type(), key)?;
        query(&sql.into(), arguments)
            .execute(&mut *connection)
            .await
            .map_err(|cause| error(cause, "removing children"))?;
    }
    Ok(())
}

/// Runs a statement with the values that a row has in these columns; how many rows it changed.
async fn run(
    connection: &mut SqliteConnection,
    sql: &std::sync::Arc<str>,
    table: &Table,
    columns: &[(usize, &'static Column)],
    row: &[Value],
    write: &StagedWrite,
) -> Result<u64> {
    let mut arguments = SqliteArguments::default();
    for (index, column) in columns {
        bind::add(&mut arguments, column.column_type(), &row[*index])?;
    }
    query(sql, arguments)
        .execute(connection)
        .await
        .map(|result| result.rows_affected())
        .map_err(|cause| match is_row_taken(&cause, table) {
            true => children_changed(table),
            false => write_error(cause, write),
        })
}

/// `"plan_id" = $1 AND "seq" = $2`, with the parameter that each column has among `columns`.
fn address(table: &'static Table, columns: &[(usize, &'static Column)]) -> String {
    let conditions: Vec<String> = child_address(table)
        .filter_map(|(index, column)| {
            let number = columns.iter().position(|(other, _)| *other == index)? + 1;
            let name = compared(table, column);
            Some(child_equals(column, &name, &format!("${number}")))
        })
        .collect();
    conditions.join(" AND ")
}

fn remove_sql(table: &'static Table) -> String {
    let columns: Vec<_> = child_address(table).collect();
    format!(
        "DELETE FROM {} WHERE {}",
        quoted(table.name()),
        address(table, &columns)
    )
}

fn change_sql(table: &'static Table) -> String {
    let columns: Vec<_> = written_child_columns(table).collect();
    let set = columns
        .iter()
        .zip(1..)
        .map(|((_, column), number)| format!("{} = ${number}", quoted(column.name())));
    format!(
        "UPDATE {} SET {} WHERE {}",
        quoted(table.name()),
        list(set),
        address(table, &columns)
    )
}

fn add_sql(table: &'static Table) -> String {
    let columns: Vec<_> = written_child_columns(table).collect();
    format!(
        "INSERT INTO {} ({}) VALUES ({})",
        quoted(table.name()),
        names(columns.iter().map(|(_, column)| *column)),
        list((1..=columns.len()).map(|number| format!("${number}"))),
    )
}
