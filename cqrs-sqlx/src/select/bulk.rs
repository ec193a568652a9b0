//! The rows of a bulk change.

use cqrs_core::AggregateRoot;
use cqrs_core::maintenance::BulkChange;
use cqrs_core::mapping::{Column, ColumnRole, Value};
use cqrs_core::{Direction, Result, SortKey};

use super::{Builder, Select};
use crate::backend::{Dialect, Parameter, version_column};
use crate::statements::{list, qualified};
use crate::tenancy::TenantSite;

/// Key, version and, where the table has them, tenant and head of the chain of the first rows behind a key that a change
/// reaches; locked until the end of the transaction.
pub(crate) fn bulk<A: AggregateRoot>(
    change: &BulkChange<A>,
    after: Option<&Value>,
    dialect: &Dialect,
) -> Result<Select> {
    let mut builder = chosen(change, dialect)?;
    if let Some(after) = after {
        let column = &A::table().columns()[key_index::<A>()];
        builder.and();
        let key = builder.sorted(column);
        builder.sql.push_str(&key);
        builder.sql.push_str(" > ");
        builder.bind(Parameter::new(column.column_type(), after.clone()));
    }
    builder.order(&[by_key::<A>()]);
    builder.sql.push_str(" LIMIT ");
    builder.bind(Parameter::int(change.batch_size.into()));
    builder.sql.push_str(if change.deletes {
        dialect.lock_to_delete
    } else {
        dialect.lock_to_change
    });
    builder.finish()
}

/// Of the rows with these keys, which [`bulk`] has locked, those that the change reaches still;
/// `None` where that is all of them.
///
/// A statement that waits for a lock looks at the row again, but at its children as they were when
/// it began. They are those of the row that it has waited for in the next statement.
pub(crate) fn bulk_again<A: AggregateRoot>(
    change: &BulkChange<A>,
    keys: Vec<Value>,
    dialect: &Dialect,
) -> Result<Option<Select>> {
    let waits = !dialect.lock_to_change.is_empty();
    if keys.is_empty() || !waits || !change.specification.predicate().asks_for_children() {
        return Ok(None);
    }
    let mut builder = chosen(change, dialect)?;
    builder.keys(keys);
    builder.order(&[by_key::<A>()]);
    builder.finish().map(Some)
}

fn chosen<'d, A: AggregateRoot>(
    change: &BulkChange<A>,
    dialect: &'d Dialect,
) -> Result<Builder<'d>> {
    let table = A::table();
    let key = table.columns()[key_index::<A>()].name();
    let tenant = table.column_with(ColumnRole::Tenant);
    let head = table.column_with(ColumnRole::ChainHead);
    let columns = [key, version_column(table)]
        .into_iter()
        .chain(tenant.map(Column::name))
        .chain(head.map(Column::name))
        .map(|name| qualified(table, name));
    let mut builder = Builder::new(table, dialect, &list(columns), TenantSite::BulkRows);
    builder.conditions(&change.specification, &change.rows)?;
    builder.differs(&change.assignments[..change.compared]);
    Ok(builder)
}

fn key_index<A: AggregateRoot>() -> usize {
    A::table().index_of(ColumnRole::Key).unwrap_or(0)
}

fn by_key<A: AggregateRoot>() -> SortKey {
    SortKey {
        index: key_index::<A>(),
        direction: Direction::Ascending,
    }
}

impl Builder<'_> {
    /// That one of these columns differs, where there are any.
    fn differs(&mut self, assignments: &[(usize, Value)]) {
        if assignments.is_empty() {
            return;
        }
        self.and();
        self.sql.push('(');
        for (place, (index, value)) in assignments.iter().enumerate() {
            if place > 0 {
                self.sql.push_str(" OR ");
            }
            let column = &self.table.columns()[*index];
            let column_type = column.column_type();
            let parameter = self
                .parameters
                .add(Parameter::new(column_type, value.clone()));
            let name = qualified(self.table, column.name());
            let differs = (self.dialect.differs)(&name, column_type, &parameter);
            self.sql.push_str(&differs);
        }
        self.sql.push(')');
    }
}
