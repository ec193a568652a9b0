//! Pages: from a request to SQL.

use cqrs_core::maintenance::BulkScope;
use cqrs_core::mapping::{Column, Value};
use cqrs_core::{Direction, Entity, PageRequest, Paging, Query, Result, SortKey};

use super::{Builder, Layout, Select, count_at};
use crate::backend::{Dialect, Parameter};
use crate::statements::qualified;
use crate::tenancy::TenantSite;

/// A page of a query.
#[derive(Debug)]
pub(crate) struct PageSelect {
    pub(crate) paging: Paging,
    pub(crate) layout: Layout,
    /// The rows with all columns of the table, and the total after them where it is wanted.
    pub(crate) rows: Select,
    /// The total alone, where it is wanted.
    pub(crate) count: Option<Select>,
}

impl PageSelect {
    pub(crate) fn new<T: Entity>(
        query: &Query<T>,
        request: PageRequest,
        scope: &BulkScope,
        dialect: &Dialect,
    ) -> Result<Self> {
        let paging = Paging::new(query, request, scope.tenants.tenant().is_none())?;
        let count = match paging.wants_total() {
            true => Some(count_at(
                TenantSite::PageTotal,
                query.specification(),
                scope,
                dialect,
            )?),
            false => None,
        };
        // Its conditions come first and have the same parameters as those of the rows.
        let total = count.as_ref().map(|count| &*count.sql);
        let mut builder =
            Builder::entities(T::table(), dialect, paging.keys(), total, TenantSite::Page);
        builder.conditions(query.specification(), scope)?;
        if let Some(values) = paging.after() {
            builder.after(paging.keys(), values);
        }
        builder.order(paging.keys());
        builder.sql.push_str(" LIMIT ");
        builder.bind(Parameter::int(
            i64::try_from(paging.limit()).unwrap_or(i64::MAX),
        ));
        if paging.skip() > 0 {
            builder.sql.push_str(" OFFSET ");
            builder.bind(Parameter::int(
                i64::try_from(paging.skip()).unwrap_or(i64::MAX),
            ));
        }
        let rows = builder.finish()?;
        Ok(Self {
            paging,
            layout: Layout::of(T::table()),
            rows,
            count,
        })
    }
}

impl Builder<'_> {
    /// The rows that come after these values in the order of the keys.
    fn after(&mut self, keys: &[SortKey], values: &[Value]) {
        let table = self.table;
        let columns: Vec<&Column> = keys.iter().map(|key| &table.columns()[key.index]).collect();
        self.and();
        let one_direction = keys.iter().all(|key| key.direction == keys[0].direction);
        if one_direction && !columns.iter().any(|column| column.is_nullable()) {
            self.after_as_row(keys[0].direction, &columns, values);
            return;
        }
        // The first key bounds what is read, where the whole condition could not use an index.
        if !columns[0].is_nullable() {
            self.sql.push_str(&self.sorted(columns[0]));
            self.sql.push_str(match keys[0].direction {
                Direction::Ascending => " >= ",
                Direction::Descending => " <= ",
            });
            self.bind_value(columns[0], &values[0]);
            self.sql.push_str(" AND ");
        }
        self.sql.push('(');
        for last in 0..keys.len() {
            if last > 0 {
                self.sql.push_str(" OR ");
            }
            self.sql.push('(');
            for equal in 0..last {
                self.equal(columns[equal], &values[equal]);
                self.sql.push_str(" AND ");
            }
            self.behind(keys[last].direction, columns[last], &values[last]);
            self.sql.push(')');
        }
        self.sql.push(')');
    }

    /// A comparison of rows, which both databases answer from an index.
    fn after_as_row(&mut self, direction: Direction, columns: &[&Column], values: &[Value]) {
        let names = columns.iter().map(|column| self.sorted(column));
        let names = crate::statements::list(names);
        self.sql.push_str(&format!("({names})"));
        self.sql.push_str(match direction {
            Direction::Ascending => " > (",
            Direction::Descending => " < (",
        });
        for (index, (column, value)) in columns.iter().zip(values).enumerate() {
            if index > 0 {
                self.sql.push_str(", ");
            }
            self.bind_value(column, value);
        }
        self.sql.push(')');
    }

    fn equal(&mut self, column: &Column, value: &Value) {
        self.sql.push_str(&qualified(self.table, column.name()));
        if value.is_null() {
            self.sql.push_str(" IS NULL");
        } else {
            self.sql.push_str(" = ");
            self.bind_value(column, value);
        }
    }

    /// NULL comes last from small to large, and first from large to small.
    fn behind(&mut self, direction: Direction, column: &Column, value: &Value) {
        let name = self.sorted(column);
        match (direction, value.is_null()) {
            (Direction::Ascending, true) => self.sql.push_str("1 = 0"),
            (Direction::Descending, true) => {
                self.sql.push_str(&format!("{name} IS NOT NULL"));
            }
            (Direction::Ascending, false) => {
                self.sql.push_str(&format!("({name} > "));
                self.bind_value(column, value);
                if column.is_nullable() {
                    self.sql.push_str(&format!(" OR {name} IS NULL"));
                }
                self.sql.push(')');
            }
            (Direction::Descending, false) => {
                self.sql.push_str(&format!("{name} < "));
                self.bind_value(column, value);
            }
        }
    }

    fn bind_value(&mut self, column: &Column, value: &Value) {
        self.bind(Parameter::new(column.column_type(), value.clone()));
    }
}
