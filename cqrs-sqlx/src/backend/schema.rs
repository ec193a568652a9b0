//! Tables: what is the same for every database.

use cqrs_core::mapping::{Column, ColumnRole, Table};
use sqlx::{ColumnIndex, Decode, Row, Type};

use crate::statements::{names, quoted};
use crate::verify::{LiveColumn, LiveForeignKey, LiveKey};

/// What stands behind the type of a new column. What the code does not write cannot be required
/// before somebody has said where else it comes from.
pub(super) fn null_sql(column: &Column) -> &'static str {
    if column.is_generated() {
        " /* generated: add GENERATED ALWAYS AS (...) STORED */"
    } else if !column.is_written() {
        " /* read only: others write it */"
    } else if column.is_nullable() {
        ""
    } else {
        " NOT NULL"
    }
}

/// Children go with their aggregate.
///
/// `,\n    FOREIGN KEY ("plan_id") REFERENCES "plan" ("id") ON DELETE CASCADE`.
pub(super) fn foreign_key_sql(table: &Table) -> String {
    let column = table.column_with(ColumnRole::Parent);
    let Some(((parent, key), column)) = table.parent().zip(column) else {
        return String::new();
    };
    format!(
        ",\n    FOREIGN KEY ({}) REFERENCES {} ({}) ON DELETE CASCADE",
        quoted(column.name()),
        quoted(parent),
        quoted(key),
    )
}

/// The index that finds the aggregates of a tenant, where the primary key does not.
pub(super) fn tenant_index_sql(table: &Table) -> Option<String> {
    let tenant = table
        .column_with(ColumnRole::Tenant)
        .filter(|_| table.is_aggregate())?;
    Some(format!(
        "CREATE INDEX IF NOT EXISTS {} ON {} ({}, {});\n",
        quoted(&format!("{}_tenant", table.name())),
        quoted(table.name()),
        quoted(tenant.name()),
        names(table.key_columns()),
    ))
}

/// Reads rows of name, type, whether it may be NULL, whether it has a default, and whether the
/// database computes it.
pub(super) fn read_live_columns<R>(rows: &[R]) -> sqlx::Result<Vec<LiveColumn>>
where
    R: Row,
    usize: ColumnIndex<R>,
    for<'r> String: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> bool: Decode<'r, R::Database> + Type<R::Database>,
{
    rows.iter()
        .map(|row| {
            Ok(LiveColumn {
                name: row.try_get(0)?,
                type_name: row.try_get(1)?,
                nullable: row.try_get(2)?,
                has_default: row.try_get(3)?,
                is_generated: row.try_get(4)?,
            })
        })
        .collect()
}

/// Reads rows of the name of a key, whether it is the primary one, and one of its columns.
pub(super) fn read_live_keys<R>(rows: &[R]) -> sqlx::Result<Vec<LiveKey>>
where
    R: Row,
    usize: ColumnIndex<R>,
    for<'r> String: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> bool: Decode<'r, R::Database> + Type<R::Database>,
{
    let mut keys: Vec<(String, LiveKey)> = Vec::new();
    for row in rows {
        let (name, is_primary, column): (String, bool, String) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        match keys.last_mut() {
            Some((last, key)) if *last == name => key.columns.push(column),
            _ => {
                let columns = vec![column];
                keys.push((
                    name,
                    LiveKey {
                        columns,
                        is_primary,
                    },
                ));
            }
        }
    }
    Ok(keys.into_iter().map(|(_, key)| key).collect())
}

/// Reads rows of the name of a foreign key, the table that it points to, one of its columns, the
/// one that this points to, and what it does where it is in the way of a deletion.
pub(super) fn read_live_foreign_keys<R>(rows: &[R]) -> sqlx::Result<Vec<LiveForeignKey>>
where
    R: Row,
    usize: ColumnIndex<R>,
    for<'r> String: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> Option<String>: Decode<'r, R::Database> + Type<R::Database>,
{
    let mut keys: Vec<(String, LiveForeignKey)> = Vec::new();
    for row in rows {
        let (name, target): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let column = (row.try_get(2)?, row.try_get(3)?);
        let refusal = row.try_get(4)?;
        match keys.last_mut() {
            Some((last, key)) if *last == name => key.columns.push(column),
            _ => {
                let columns = vec![column];
                let key = LiveForeignKey {
                    target,
                    columns,
                    refusal,
                };
                keys.push((name, key));
            }
        }
    }
    Ok(keys.into_iter().map(|(_, key)| key).collect())
}
