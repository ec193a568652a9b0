//! Queries: from a specification to SQL.

mod pages;

pub(crate) use pages::PageSelect;

use std::fmt::Write;
use std::sync::Arc;

use cqrs_core::mapping::{Column, ColumnRole, ColumnType, MappingError, Table, Value};
use cqrs_core::{
    Direction, Entity, Predicate, Query, Result, RowKey, SortKey, Specification, TenantScope,
};

use crate::backend::{Dialect, Parameter};
use crate::statements::{Statements, list, qualified, quoted};

/// A query with its parameters.
///
/// The text depends on the shape of the query alone, so that equal shapes are one prepared
/// statement.
#[derive(Debug, PartialEq)]
pub(crate) struct Select {
    pub(crate) sql: Arc<str>,
    pub(crate) parameters: Vec<Parameter>,
}

/// The rows that a query selects, with all columns of the table.
pub(crate) fn rows<T: Entity>(
    query: &Query<T>,
    scope: &TenantScope,
    dialect: &Dialect,
) -> Result<Select> {
    let table = T::table();
    let columns = all_columns(table);
    let mut builder = Builder::new(table, dialect, &columns);
    builder.conditions(query.specification(), scope)?;
    builder.order(&query.sort_keys(scope.tenant().is_none()));
    if let Some(limit) = query.row_limit() {
        builder.sql.push_str(" LIMIT ");
        builder.bind(Parameter::int(i64::try_from(limit).unwrap_or(i64::MAX)));
    }
    Ok(builder.finish())
}

/// How many rows a specification is true for.
pub(crate) fn count<T: Entity>(
    specification: &Specification<T>,
    scope: &TenantScope,
    dialect: &Dialect,
) -> Result<Select> {
    let mut builder = Builder::new(T::table(), dialect, "count(*)");
    builder.conditions(specification, scope)?;
    Ok(builder.finish())
}

/// The row with this key. Its text is built once for each table; reads by key are what commands
/// begin with.
pub(crate) fn by_key<T: Entity>(
    statements: &Statements,
    key: &impl RowKey,
    scope: &TenantScope,
    dialect: &Dialect,
) -> Result<Select> {
    let table = T::table();
    let key = key.to_values().map_err(|reason| table.key_error(reason))?;
    let tenant = scope.tenant().filter(|_| table.is_tenant());
    let shape = match tenant {
        Some(_) => "by key in a tenant",
        None => "by key",
    };
    let sql = statements.get(table, shape, || by_key_sql::<T>(scope, dialect));
    let tenant = tenant.map(|tenant| Parameter::text(tenant.as_str()));
    let key = table
        .key_columns()
        .zip(key)
        .map(|(column, value)| Parameter::new(column.column_type(), value));
    Ok(Select {
        sql,
        parameters: tenant.into_iter().chain(key).collect(),
    })
}

fn by_key_sql<T: Entity>(scope: &TenantScope, dialect: &Dialect) -> String {
    let table = T::table();
    let mut builder = Builder::new(table, dialect, &all_columns(table));
    builder
        .conditions(&Specification::<T>::all(), scope)
        .expect("every row is a condition without values");
    for column in table.key_columns() {
        builder.and();
        write!(builder.sql, "{} = ", qualified(table, column.name()))
            .expect("writing to a String cannot fail");
        builder.bind(Parameter::new(column.column_type(), Value::Null));
    }
    // Only a read model's key may be that of several rows, across tenants.
    let unique = table.column_with(ColumnRole::Version).is_some() || !table.is_tenant();
    if scope.tenant().is_none() && !unique {
        builder.order(&Query::<T>::all().sort_keys(true));
        builder.sql.push_str(" LIMIT 1");
    }
    builder.sql
}

fn all_columns(table: &Table) -> String {
    list(
        table
            .columns()
            .iter()
            .map(|column| qualified(table, column.name())),
    )
}

struct Builder<'d> {
    table: &'static Table,
    dialect: &'d Dialect,
    sql: String,
    parameters: Vec<Parameter>,
    has_condition: bool,
}

impl<'d> Builder<'d> {
    fn new(table: &'static Table, dialect: &'d Dialect, what: &str) -> Self {
        Self {
            table,
            dialect,
            sql: format!("SELECT {what} FROM {}", quoted(table.name())),
            parameters: Vec::new(),
            has_condition: false,
        }
    }

    fn finish(self) -> Select {
        Select {
            sql: self.sql.into(),
            parameters: self.parameters,
        }
    }

    fn and(&mut self) {
        self.sql.push_str(if self.has_condition {
            " AND "
        } else {
            " WHERE "
        });
        self.has_condition = true;
    }

    fn bind(&mut self, parameter: Parameter) {
        self.parameters.push(parameter);
        write!(self.sql, "${}", self.parameters.len()).expect("writing to a String cannot fail");
    }

    /// The tenant, that the row lives, and the specification.
    fn conditions<T>(
        &mut self,
        specification: &Specification<T>,
        scope: &TenantScope,
    ) -> Result<()> {
        if let (Some(column), Some(tenant)) =
            (self.table.column_with(ColumnRole::Tenant), scope.tenant())
        {
            self.and();
            self.sql.push_str(&qualified(self.table, column.name()));
            self.sql.push_str(" = ");
            self.bind(Parameter::text(tenant.as_str()));
        }
        if let Some(column) = self.table.column_with(ColumnRole::DeletedAt) {
            self.and();
            self.sql.push_str(&qualified(self.table, column.name()));
            self.sql.push_str(" IS NULL");
        }
        if *specification.predicate() != Predicate::All {
            self.and();
            self.predicate(specification.predicate())?;
        }
        Ok(())
    }

    fn predicate(&mut self, predicate: &Predicate) -> Result<()> {
        match predicate {
            Predicate::All => self.sql.push_str("1 = 1"),
            Predicate::Compare {
                column,
                column_type,
                comparison,
                value,
            } => {
                let bytes = *column_type == ColumnType::Text && comparison.is_ordering();
                self.sql.push_str(&qualified(self.table, column));
                if bytes {
                    self.sql.push_str(self.dialect.byte_order);
                }
                write!(self.sql, " {} ", comparison.operator())
                    .expect("writing to a String cannot fail");
                self.bind(Parameter::new(*column_type, value.clone()));
            }
            Predicate::IsNull { column } => {
                self.sql.push_str(&qualified(self.table, column));
                self.sql.push_str(" IS NULL");
            }
            Predicate::And(a, b) => self.junction(a, " AND ", b)?,
            Predicate::Or(a, b) => self.junction(a, " OR ", b)?,
            Predicate::Not(a) => {
                self.sql.push_str("NOT (");
                self.predicate(a)?;
                self.sql.push(')');
            }
            Predicate::Invalid { column, reason } => {
                return Err(MappingError {
                    table: self.table.name().to_owned(),
                    column: (*column).to_owned(),
                    reason: reason.clone(),
                }
                .into());
            }
            other => unreachable!("a predicate this backend does not know: {other:?}"),
        }
        Ok(())
    }

    fn junction(&mut self, a: &Predicate, word: &str, b: &Predicate) -> Result<()> {
        self.sql.push('(');
        self.predicate(a)?;
        self.sql.push_str(word);
        self.predicate(b)?;
        self.sql.push(')');
        Ok(())
    }

    fn order(&mut self, keys: &[SortKey]) {
        let keys = keys.iter().map(|key| {
            let column = &self.table.columns()[key.index];
            match key.direction {
                Direction::Ascending => self.sort_key(column, " ASC", " NULLS LAST"),
                Direction::Descending => self.sort_key(column, " DESC", " NULLS FIRST"),
            }
        });
        let keys = list(keys);
        self.sql.push_str(" ORDER BY ");
        self.sql.push_str(&keys);
    }

    /// The name of a column whose order counts.
    fn sorted(&self, column: &Column) -> String {
        let mut name = qualified(self.table, column.name());
        if column.column_type() == ColumnType::Text {
            name.push_str(self.dialect.byte_order);
        }
        name
    }

    fn sort_key(&self, column: &Column, direction: &str, nulls: &str) -> String {
        let mut key = self.sorted(column);
        key.push_str(direction);
        if column.is_nullable() {
            key.push_str(nulls);
        }
        key
    }
}
