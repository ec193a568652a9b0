//! Queries over rows in memory.

use super::overlay::is_alive;
use super::state::Row;
use crate::context::TenantScope;
use crate::error::Result;
use crate::maintenance::{BulkScope, Lifecycle};
use crate::mapping::{Entity, Loading, Table, ValueRow};
use crate::specification::{Page, Paging, Query, Specification};

/// The rows of a tenant scope that are not deleted.
pub(super) fn living(tenants: &TenantScope) -> BulkScope {
    BulkScope {
        tenants: tenants.clone(),
        lifecycle: Lifecycle::Living,
    }
}

/// Whether a row of this table exists within the scope.
pub(super) fn is_within(rows: &BulkScope, table: &Table, row: &ValueRow) -> bool {
    let row = row.values();
    rows.lifecycle.admits(!is_alive(table, row))
        && match (rows.tenants.tenant(), super::overlay::tenant(table, row)) {
            (Some(wanted), Some(owner)) => wanted.as_str() == owner,
            _ => true,
        }
}

/// The rows for which the specification is true.
///
/// # Errors
///
/// Where a value of the specification cannot be stored, also if there is no row.
pub(super) fn filter<'r, T: Entity>(
    specification: &Specification<T>,
    scope: &BulkScope,
    rows: impl Iterator<Item = &'r Row>,
) -> Result<Vec<Row>> {
    let (table, predicate) = (T::table(), specification.predicate());
    predicate.check(table)?;
    Ok(rows
        .filter(|row| is_within(scope, table, row))
        .filter(|row| predicate.truth(table, row) == Some(true))
        .cloned()
        .collect())
}

/// Orders rows, and cuts them to the limit.
///
/// # Errors
///
/// Where the order is by what has none.
pub(super) fn order<T: Entity>(query: &Query<T>, rows: &mut Vec<Row>) -> Result<()> {
    query.check()?;
    rows.sort_by(|a, b| query.compare_rows(a.values(), b.values()));
    let limit = query
        .row_limit()
        .and_then(|limit| usize::try_from(limit).ok())
        .unwrap_or(usize::MAX);
    rows.truncate(limit);
    Ok(())
}

/// Orders rows, cuts them to the limit, and reads them.
///
/// # Errors
///
/// Where a row does not fit its type, or the order is by what has none.
pub(super) fn read_in_order<T: Entity>(query: &Query<T>, mut rows: Vec<Row>) -> Result<Vec<T>> {
    order(query, &mut rows)?;
    rows.iter().map(|row| read(row)).collect()
}

/// Orders rows, and makes the page of them.
///
/// # Errors
///
/// Where a row does not fit its type.
pub(super) fn read_page<T: Entity>(
    query: &Query<T>,
    paging: &Paging,
    mut rows: Vec<Row>,
) -> Result<Page<T>> {
    let total = paging.wants_total().then_some(rows.len() as u64);
    rows.sort_by(|a, b| query.compare_rows(a.values(), b.values()));
    rows.retain(|row| paging.is_after(row.values()));
    let skip = usize::try_from(paging.skip()).unwrap_or(usize::MAX);
    let limit = usize::try_from(paging.limit()).unwrap_or(usize::MAX);
    let rows = rows.iter().skip(skip).take(limit).map(|row| {
        let keys = paging.keys().iter();
        let values = keys.map(|key| row.values()[key.index].clone()).collect();
        Ok((read(row)?, values))
    });
    Ok(paging.page(rows.collect::<Result<_>>()?, total))
}

/// Reads one row.
///
/// # Errors
///
/// Where the row does not fit its type.
pub(super) fn read<T: Entity>(row: &ValueRow) -> Result<T> {
    Ok(Loading::whole(row)?)
}
