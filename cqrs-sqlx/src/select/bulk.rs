//! The rows of a bulk change.

use cqrs_core::AggregateRoot;
use cqrs_core::maintenance::BulkChange;
use cqrs_core::mapping::{Column, ColumnRole, Value};
use cqrs_core::{Direction, Result, SortKey};

use super::{Builder, Select};
use crate::backend::{Dialect, Parameter, version_column};
use crate::statements::{list, qualified};
use crate::tenancy::TenantSite;

/// Key, version and, where the table has one, tenant of the first rows behind a key that a change
/// reaches; locked until the end of the transaction.
pub(crate) fn bulk<A: AggregateRoot>(
    change: &BulkChange<A>,
    after: Option<&Value>,
    dialect: &Dialect,
) -> Result<Select> {
    let table = A::table();
    let key = table.index_of(ColumnRole::Key).unwrap_or(0);
    let column = &table.columns()[key];
    let tenant = table.column_with(ColumnRole::Tenant);
    let columns = [column.name(), version_column(table)]
        .into_iter()
        .chain(tenant.map(Column::name))
        .map(|name| qualified(table, name));
    let mut builder = Builder::new(table, dialect, &list(columns), TenantSite::BulkRows);
    builder.conditions(&change.specification, &change.rows)?;
    builder.differs(&change.assignments[..change.compared]);
    if let Some(after) = after {
        builder.and();
        let key = builder.sorted(column);
        builder.sql.push_str(&key);
        builder.sql.push_str(" > ");
        builder.bind(Parameter::new(column.column_type(), after.clone()));
    }
    builder.order(&[SortKey {
        index: key,
        direction: Direction::Ascending,
    }]);
    builder.sql.push_str(" LIMIT ");
    builder.bind(Parameter::int(change.batch_size.into()));
    builder.sql.push_str(if change.deletes {
        dialect.lock_to_delete
    } else {
        dialect.lock_to_change
    });
    builder.finish()
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
