//! Tables: what is the same for every database.

use cqrs_core::mapping::{Column, ColumnRole, Table};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{ColumnIndex, Decode, Row, SqlSafeStr, Type};

use crate::statements::{names, quoted};
use crate::verify::LiveColumn;

/// The migrations of the framework's own tables: these, by number, name and SQL.
pub(super) fn migrations(scripts: &[(i64, &'static str, &'static str)]) -> Migrator {
    let migrations = scripts.iter().map(|(version, name, sql)| {
        Migration::new(
            *version,
            (*name).into(),
            MigrationType::Simple,
            sql.into_sql_str(),
            false,
        )
    });
    let mut migrator = Migrator::with_migrations(migrations.collect());
    // A table of its own: the migrations of the application are not ours to know.
    migrator.dangerous_set_table_name("_cqrs_migrations");
    migrator
}

/// An aggregate's id is unique over all tenants; a read model's key is unique within one.
pub(super) fn primary_key(table: &Table) -> impl Iterator<Item = &Column> {
    let tenant = table
        .column_with(ColumnRole::Tenant)
        .filter(|_| !is_aggregate(table));
    tenant.into_iter().chain(table.key_columns())
}

/// The index that finds the aggregates of a tenant, where the primary key does not.
pub(super) fn tenant_index_sql(table: &Table) -> Option<String> {
    let tenant = table
        .column_with(ColumnRole::Tenant)
        .filter(|_| is_aggregate(table))?;
    Some(format!(
        "CREATE INDEX IF NOT EXISTS {} ON {} ({}, {});\n",
        quoted(&format!("{}_tenant", table.name())),
        quoted(table.name()),
        quoted(tenant.name()),
        names(table.key_columns()),
    ))
}

fn is_aggregate(table: &Table) -> bool {
    table.column_with(ColumnRole::Version).is_some()
}

/// Reads rows of name, type, whether it may be NULL, and whether it has a default.
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
            })
        })
        .collect()
}
