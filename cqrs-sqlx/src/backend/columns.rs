//! Columns that are written, and those by which rows are found.

use cqrs_core::mapping::{Column, ColumnRole, Table};
use cqrs_core::staging::{Operation, StagedWrite};
use cqrs_core::{Error, StoreErrorKind};

use crate::tenancy::{self, TenantSite};

/// The columns that an operation writes, with their positions in the row.
pub(crate) fn written_columns(
    table: &'static Table,
    operation: Operation,
) -> impl Iterator<Item = (usize, &'static Column)> {
    let soft_delete = table.is_soft_delete();
    table
        .columns()
        .iter()
        .enumerate()
        .filter(move |(_, column)| {
            if !column.is_written() {
                return false;
            }
            let role = column.role();
            let deletion = matches!(role, ColumnRole::DeletedAt | ColumnRole::DeletedBy);
            match operation {
                Operation::Insert => !deletion,
                Operation::Update | Operation::UpdateIfChanged => {
                    !deletion && !StagedWrite::keeps(role)
                }
                Operation::Remove => {
                    soft_delete && !StagedWrite::keeps(role) && role != ColumnRole::Data
                }
            }
        })
}

/// The name of the version column.
pub(crate) fn version_column(table: &Table) -> &str {
    table
        .column_with(ColumnRole::Version)
        .map_or("version", Column::name)
}

/// The columns of a table of children that are written, with their positions in the row.
pub(crate) fn written_child_columns(
    table: &'static Table,
) -> impl Iterator<Item = (usize, &'static Column)> {
    let columns = table.columns().iter().enumerate();
    columns.filter(|(_, column)| column.is_written())
}

/// The columns by which a row of a table of children is found, with their positions in the row:
/// its primary key, and its tenant.
pub(crate) fn child_address(
    table: &'static Table,
) -> impl Iterator<Item = (usize, &'static Column)> {
    let is_key = |column: &Column| table.primary_key().any(|key| key == column);
    let columns = table.columns().iter().enumerate();
    columns.filter(move |(_, column)| column.role() == ColumnRole::Tenant || is_key(column))
}

/// The condition that a column of a child's address has a value.
pub(crate) fn child_equals(column: &Column, name: &str, value: &str) -> String {
    if column.role() == ColumnRole::Tenant {
        return tenancy::equals(TenantSite::ChildRows, name, value);
    }
    format!("{name} = {value}")
}

/// The error of a change to children whose rows are not those that were loaded.
pub(crate) fn children_changed(table: &Table) -> Error {
    Error::store(
        StoreErrorKind::Contention,
        format!(
            "rows of {} are not those that were loaded: someone changed them without the version \
             of their aggregate",
            table.name()
        ),
    )
}
