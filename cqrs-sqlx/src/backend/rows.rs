//! Rows of read models: what is the same for every database.

use cqrs_core::mapping::{
    Column, ColumnError, ColumnRole, MappingError, RowCursor, RowSource, Table,
};
use cqrs_core::{Owned, ReadModel, Result, TenantId};

use crate::statements::{list, names, quoted};
use crate::tenancy::{self, TenantSite};

/// Reads a row that holds all columns of the table of `R`.
pub(super) fn read_owned<R: ReadModel, S: RowSource>(row: &S) -> Result<Owned<R>> {
    let table = R::table();
    let tenant = table
        .index_of(ColumnRole::Tenant)
        .map(|index| {
            row.read_text(index)
                .and_then(|text| text.ok_or(ColumnError::UnexpectedNull))
                .and_then(|text| TenantId::new(text).map_err(ColumnError::invalid))
                .map_err(|reason| MappingError {
                    table: table.name().to_owned(),
                    column: table.columns()[index].name().to_owned(),
                    reason,
                })
        })
        .transpose()?;
    Ok(Owned {
        tenant,
        row: R::read_row(&mut RowCursor::new(table, row))?,
    })
}

/// The columns of an address: the tenant, then the key.
pub(super) fn address_columns(table: &Table) -> impl Iterator<Item = &Column> {
    table
        .column_with(ColumnRole::Tenant)
        .into_iter()
        .chain(table.key_columns())
}

/// The columns that are written, with their places among [all](Table::columns); others fill the rest.
pub(super) fn written_columns(table: &Table) -> impl Iterator<Item = (usize, &Column)> + Clone {
    let columns = table.columns().iter().enumerate();
    columns.filter(|(_, column)| column.is_written())
}

/// The condition that a column of an address has its value.
pub(super) fn equals(site: TenantSite, column: &Column, name: &str, value: &str) -> String {
    match column.role() {
        ColumnRole::Tenant => tenancy::equals(site, name, value),
        _ => format!("{name} = {value}"),
    }
}

/// What an insert does where there is a row with the same address: replaces it.
///
/// `ON CONFLICT ("tenant_id", "id") DO UPDATE SET "stops" = excluded."stops"`.
pub(super) fn on_conflict(table: &Table) -> String {
    let replaced: Vec<String> = written_columns(table)
        .filter(|(_, column)| !matches!(column.role(), ColumnRole::Key | ColumnRole::Tenant))
        .map(|(_, column)| {
            let name = quoted(column.name());
            format!("{name} = excluded.{name}")
        })
        .collect();
    let action = if replaced.is_empty() {
        "DO NOTHING".to_owned()
    } else {
        format!("DO UPDATE SET {}", list(replaced))
    };
    let open = tenancy::is_open(TenantSite::ReplaceRows);
    let address = address_columns(table).filter(|column| !open || column.role() == ColumnRole::Key);
    format!("ON CONFLICT ({}) {action}", names(address))
}
