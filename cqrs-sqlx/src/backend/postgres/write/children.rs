//! Writing children: one statement for each table and kind of change in a whole commit, after the
//! rows of their aggregates. Those are locked by then, and so are their children for everyone who
//! keeps to their version.

use cqrs_core::mapping::{Column, Table, Value};
use cqrs_core::staging::{ChildWrite, Operation, StagedWrite};
use sqlx::postgres::PgArguments;

use super::{Outcome, failure};
use crate::backend::bind::query;
use crate::backend::postgres::{Session, bind, error};
use crate::backend::{child_address, child_equals, children_changed, written_child_columns};
use crate::statements::{Statements, list, quoted};

/// What happens to rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Removed with their aggregate: the database may have done it already.
    Gone,
    Removed,
    Changed,
    Added,
}

impl Kind {
    /// What is removed may make room for what is changed and added.
    const ALL: [Self; 4] = [Self::Gone, Self::Removed, Self::Changed, Self::Added];

    fn rows(self, of: Operation, write: &ChildWrite) -> &[Vec<Value>] {
        match (self, of) {
            (Self::Gone, Operation::Remove) => &write.removed,
            (Self::Gone, _) | (Self::Removed, Operation::Remove) => &[],
            (Self::Removed, _) => &write.removed,
            (Self::Changed, _) => &write.changed,
            (Self::Added, _) => &write.added,
        }
    }

    fn shape(self) -> &'static str {
        match self {
            Self::Gone | Self::Removed => "remove children",
            Self::Changed => "change children",
            Self::Added => "add children",
        }
    }

    fn columns(self, table: &'static Table) -> Vec<(usize, &'static Column)> {
        match self {
            Self::Gone | Self::Removed => child_address(table).collect(),
            Self::Changed | Self::Added => written_child_columns(table).collect(),
        }
    }

    fn sql(self, table: &'static Table) -> String {
        let columns = self.columns(table);
        let name = quoted(table.name());
        let arrays = columns.iter().zip(1..).map(|((_, column), number)| {
            format!("${number}::{}", bind::array_type(column.column_type()))
        });
        let rows = format!(
            "unnest({}) AS g({})",
            list(arrays),
            list(columns.iter().map(|(index, _)| format!("c{index}"))),
        );
        let value = |index: usize, column: &Column| {
            format!("g.c{index}{}", bind::cast(column.column_type()))
        };
        let address: Vec<String> = child_address(table)
            .map(|(index, column)| {
                let name = format!("t.{}", quoted(column.name()));
                child_equals(column, &name, &value(index, column))
            })
            .collect();
        let address = address.join(" AND ");
        match self {
            Self::Gone | Self::Removed => {
                format!("DELETE FROM {name} AS t USING {rows} WHERE {address}")
            }
            Self::Changed => {
                let set = columns.iter().map(|(index, column)| {
                    format!("{} = {}", quoted(column.name()), value(*index, column))
                });
                format!(
                    "UPDATE {name} AS t SET {} FROM {rows} WHERE {address}",
                    list(set)
                )
            }
            Self::Added => format!(
                "INSERT INTO {name} ({}) SELECT {} FROM {rows}",
                list(columns.iter().map(|(_, column)| quoted(column.name()))),
                list(columns.iter().map(|(index, column)| value(*index, column))),
            ),
        }
    }
}

/// Writes the children of all writes.
pub(super) async fn apply(
    session: &mut Session,
    statements: &Statements,
    writes: &[StagedWrite],
) -> Outcome<()> {
    let mut tables: Vec<&'static Table> = Vec::new();
    for child in writes.iter().flat_map(|write| &write.children) {
        if !tables.iter().any(|table| std::ptr::eq(*table, child.table)) {
            tables.push(child.table);
        }
    }
    for table in tables {
        for kind in Kind::ALL {
            apply_one(session, statements, writes, table, kind).await?;
        }
    }
    Ok(())
}

async fn apply_one(
    session: &mut Session,
    statements: &Statements,
    writes: &[StagedWrite],
    table: &'static Table,
    kind: Kind,
) -> Outcome<()> {
    let mut rows: Vec<&Vec<Value>> = Vec::new();
    for write in writes {
        let of_table = write.children.iter();
        for child in of_table.filter(|child| std::ptr::eq(child.table, table)) {
            rows.extend(kind.rows(write.operation, child));
        }
    }
    if rows.is_empty() {
        return Ok(());
    }
    let sql = statements.get(table, kind.shape(), || kind.sql(table));
    let mut arguments = PgArguments::default();
    for (index, column) in kind.columns(table) {
        let values = rows.iter().map(|row| &row[index]);
        bind::add_column(&mut arguments, column.column_type(), values)?;
    }
    let all: Vec<&StagedWrite> = writes.iter().collect();
    let done = query(&sql, arguments)
        .execute(&mut session.connection)
        .await
        .map_err(|cause| match error::is_row_taken(&cause, table) {
            true => children_changed(table).into(),
            false => failure(cause, &all),
        })?;
    if kind != Kind::Gone && done.rows_affected() < rows.len() as u64 {
        return Err(children_changed(table).into());
    }
    Ok(())
}
