//! The guard: which row a write may change. It must have the key and, where the table has them, the
//! tenant and no deletion stamp; and be at the version that the write was made on.

use cqrs_core::Result;
use cqrs_core::mapping::{Column, ColumnRole, ColumnType, Table};
use cqrs_core::staging::StagedWrite;
use sqlx::postgres::PgArguments;

use crate::backend::bind::bind;
use crate::backend::postgres::bind;
use crate::backend::version_column;
use crate::statements::{list, quoted};
use crate::tenancy::{self, TenantSite};

/// Whether the version counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guard {
    /// The row must be at the version that the write expects.
    Versioned,
    /// The row may be at any version, to find out at which.
    AnyVersion,
}

fn key_column(table: &Table) -> (&str, ColumnType) {
    table
        .key_columns()
        .next()
        .map_or(("id", ColumnType::Text), |column| {
            (column.name(), column.column_type())
        })
}

/// The column, name and array type of each value of the guard, in the order in which they are
/// bound.
fn values(table: &Table, guard: Guard) -> Vec<(&str, &'static str, &'static str)> {
    let (key, key_type) = key_column(table);
    let mut values = vec![(key, "guard_key", bind::array_type(key_type))];
    if guard == Guard::Versioned {
        values.push((version_column(table), "guard_version", "int8[]"));
    }
    if let Some(tenant) = table.column_with(ColumnRole::Tenant) {
        values.push((tenant.name(), "guard_tenant", "text[]"));
    }
    values
}

/// How many values are bound.
pub(super) fn length(table: &Table, guard: Guard) -> usize {
    values(table, guard).len()
}

/// The condition on table `t`, with each value as the SQL that `value` gives for its offset.
pub(super) fn sql(
    site: TenantSite,
    table: &Table,
    guard: Guard,
    value: impl Fn(usize) -> String,
) -> String {
    let tenant = table.column_with(ColumnRole::Tenant).map(Column::name);
    let mut conditions: Vec<String> = values(table, guard)
        .iter()
        .enumerate()
        .map(|(offset, (column, _, _))| {
            let (name, value) = (format!("t.{}", quoted(column)), value(offset));
            if Some(*column) == tenant {
                tenancy::equals(site, &name, &value)
            } else {
                format!("{name} = {value}")
            }
        })
        .collect();
    if let Some(deleted) = table.column_with(ColumnRole::DeletedAt) {
        conditions.push(format!("t.{} IS NULL", quoted(deleted.name())));
    }
    conditions.join(" AND ")
}

/// The condition on table `t`, with the values as columns of `g`.
pub(super) fn sql_of_arrays(site: TenantSite, table: &Table, guard: Guard) -> String {
    let values = values(table, guard);
    sql(site, table, guard, |offset| {
        format!("g.{}", quoted(values[offset].1))
    })
}

/// The arrays of values from parameter `first` on, each with its name.
pub(super) fn arrays(table: &Table, guard: Guard, first: usize) -> Vec<(String, &'static str)> {
    values(table, guard)
        .into_iter()
        .enumerate()
        .map(|(offset, (_, name, array))| (format!("${}::{array}", first + offset), name))
        .collect()
}

/// The relation of guards bound as arrays from the first parameter on, as `g`, in their order.
pub(super) fn unnested(table: &Table, guard: Guard) -> String {
    let arrays = arrays(table, guard, 1);
    format!(
        "unnest({}) WITH ORDINALITY AS g({}, ordinality)",
        list(arrays.iter().map(|(array, _)| array)),
        list(arrays.iter().map(|(_, name)| quoted(name))),
    )
}

/// Binds the values of one guard.
pub(super) fn bind_one(arguments: &mut PgArguments, write: &StagedWrite) -> Result<()> {
    let (_, key_type) = key_column(write.table);
    bind::add(arguments, key_type, &write.key)?;
    bind(arguments, expected(write))?;
    if write.table.is_tenant() {
        bind(arguments, tenant(write))?;
    }
    Ok(())
}

/// Binds the values of the guards of one table as arrays.
pub(super) fn bind_arrays(
    arguments: &mut PgArguments,
    writes: &[&StagedWrite],
    guard: Guard,
) -> Result<()> {
    let table = writes[0].table;
    let (_, key_type) = key_column(table);
    bind::add_column(arguments, key_type, writes.iter().map(|write| &write.key))?;
    if guard == Guard::Versioned {
        let versions: Vec<i64> = writes.iter().map(|write| expected(write)).collect();
        bind(arguments, versions)?;
    }
    if table.is_tenant() {
        let tenants: Vec<Option<&str>> = writes.iter().map(|write| tenant(write)).collect();
        bind(arguments, tenants)?;
    }
    Ok(())
}

fn expected(write: &StagedWrite) -> i64 {
    i64::try_from(write.expected_version).unwrap_or(i64::MAX)
}

fn tenant(write: &StagedWrite) -> Option<&str> {
    write.tenant.as_ref().map(cqrs_core::TenantId::as_str)
}
