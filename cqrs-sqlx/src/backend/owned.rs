//! Reading rows of read models together with their tenants.

use cqrs_core::mapping::{ColumnError, ColumnRole, MappingError, RowCursor, RowSource};
use cqrs_core::{Owned, ReadModel, Result, TenantId};

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
