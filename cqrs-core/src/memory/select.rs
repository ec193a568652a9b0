//! Queries over rows in memory.

use super::overlay::is_alive;
use super::state::Row;
use crate::context::TenantScope;
use crate::error::Result;
use crate::mapping::{Entity, RowCursor, Table, ValueRow};
use crate::specification::{Query, Specification};

/// Whether a row of this table exists within the scope.
pub(super) fn is_within(scope: &TenantScope, table: &Table, row: &ValueRow) -> bool {
    let row = row.values();
    is_alive(table, row)
        && match (scope.tenant(), super::overlay::tenant(table, row)) {
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
    scope: &TenantScope,
    rows: impl Iterator<Item = &'r Row>,
) -> Result<Vec<Row>> {
    let (table, predicate) = (T::table(), specification.predicate());
    predicate.check(table)?;
    Ok(rows
        .filter(|row| is_within(scope, table, row))
        .filter(|row| predicate.truth(table, row.values()) == Some(true))
        .cloned()
        .collect())
}

/// Orders rows, cuts them to the limit, and reads them.
///
/// # Errors
///
/// Where a row does not fit its type, or the order is by what has none.
pub(super) fn read_in_order<T: Entity>(query: &Query<T>, mut rows: Vec<Row>) -> Result<Vec<T>> {
    query.check()?;
    rows.sort_by(|a, b| query.compare_rows(a.values(), b.values()));
    let limit = query
        .row_limit()
        .and_then(|limit| usize::try_from(limit).ok())
        .unwrap_or(usize::MAX);
    rows.iter().take(limit).map(|row| read(row)).collect()
}

/// Reads one row.
///
/// # Errors
///
/// Where the row does not fit its type.
pub(super) fn read<T: Entity>(row: &ValueRow) -> Result<T> {
    Ok(T::read_row(&mut RowCursor::new(T::table(), row))?)
}
