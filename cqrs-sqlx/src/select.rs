//! Queries: from a specification to SQL.

mod bulk;
mod family;
mod pages;

pub(crate) use self::bulk::{bulk, bulk_again};
#[cfg(feature = "postgres")]
pub(crate) use self::family::links;
use self::family::{Children, Total};
pub(crate) use self::family::{Found, Layout};
pub(crate) use self::pages::PageSelect;

use std::fmt::Write;
use std::sync::Arc;

use cqrs_core::maintenance::{BulkScope, Lifecycle};
use cqrs_core::mapping::{Column, ColumnRole, ColumnType, Table, Value};
use cqrs_core::{
    Direction, Entity, Error, Operand, Predicate, Query, Result, RowKey, RowLock, SortKey,
    Specification, StoreErrorKind, TenantScope,
};

use crate::backend::{Dialect, Parameter, Parameters};
use crate::statements::{Statements, list, qualified, quoted};
use crate::tenancy::{self, TenantSite};

/// A query with its parameters.
///
/// The text depends on the shape of the query alone, so that equal shapes are one prepared
/// statement.
#[derive(Debug, PartialEq)]
pub(crate) struct Select {
    pub(crate) sql: Arc<str>,
    pub(crate) parameters: Vec<Parameter>,
}

/// The rows that a query selects, with all columns of the table, and with their children.
///
/// Those of a query that locks, and that have children, are not locked: see [`locked_keys`].
pub(crate) fn rows<T: Entity>(
    query: &Query<T>,
    scope: &BulkScope,
    dialect: &Dialect,
) -> Result<Select> {
    rows_with(Children::Behind, query, scope, dialect)
}

/// The same, where each entity is followed by its children.
pub(crate) fn rows_in_turn<T: Entity>(
    query: &Query<T>,
    scope: &BulkScope,
    dialect: &Dialect,
) -> Result<Select> {
    rows_with(Children::InTurn, query, scope, dialect)
}

fn rows_with<T: Entity>(
    children: Children,
    query: &Query<T>,
    scope: &BulkScope,
    dialect: &Dialect,
) -> Result<Select> {
    query.check()?;
    let keys = query.sort_keys(scope.tenants.tenant().is_none());
    let builder = Builder::entities(T::table(), dialect, &keys, None, TenantSite::Rows);
    let mut builder = builder.selecting(query, &keys, scope)?;
    builder.children = children;
    if T::table().children().is_empty() {
        builder.lock(query.row_lock());
    }
    builder.finish()
}

/// The keys of the rows that a query locks, where they have children, and the lock is one of rows;
/// `None` where [`rows`] does it all.
///
/// A statement that waits for a lock goes on with the row as it is then, which may be younger than
/// the moment from which it sees everything else. So the children are read, and asked again whether
/// the query is true, by the [next](rows_of_keys) statement, while nobody changes them.
pub(crate) fn locked_keys<T: Entity>(
    query: &Query<T>,
    scope: &BulkScope,
    dialect: &Dialect,
) -> Result<Option<Select>> {
    let table = T::table();
    let key = table.key_columns().next();
    let Some(key) = key.filter(|_| !table.children().is_empty() && !dialect.lock.is_empty()) else {
        return Ok(None);
    };
    if query.row_lock().is_none() {
        return Ok(None);
    }
    let keys = query.sort_keys(scope.tenants.tenant().is_none());
    let key = qualified(table, key.name());
    let builder = Builder::new(table, dialect, &key, TenantSite::LockedRows);
    let mut builder = builder.selecting(query, &keys, scope)?;
    builder.lock(query.row_lock());
    builder.finish().map(Some)
}

/// The rows with these keys for which a query is true still, in its order.
pub(crate) fn rows_of_keys<T: Entity>(
    query: &Query<T>,
    keys: Vec<Value>,
    scope: &BulkScope,
    dialect: &Dialect,
) -> Result<Select> {
    let table = T::table();
    let order = query.sort_keys(scope.tenants.tenant().is_none());
    let mut builder = Builder::entities(table, dialect, &order, None, TenantSite::Rows);
    builder.conditions(query.specification(), scope)?;
    builder.keys(keys);
    builder.order(&order);
    builder.finish()
}

/// How many rows a specification is true for.
pub(crate) fn count<T: Entity>(
    specification: &Specification<T>,
    scope: &BulkScope,
    dialect: &Dialect,
) -> Result<Select> {
    count_at(TenantSite::Count, specification, scope, dialect)
}

fn count_at<T: Entity>(
    site: TenantSite,
    specification: &Specification<T>,
    scope: &BulkScope,
    dialect: &Dialect,
) -> Result<Select> {
    let mut builder = Builder::new(T::table(), dialect, "count(*)", site);
    specification.predicate().check(T::table())?;
    builder.conditions(specification, scope)?;
    builder.finish()
}

/// Whether a specification is true for any row.
pub(crate) fn exists<T: Entity>(
    specification: &Specification<T>,
    scope: &BulkScope,
    dialect: &Dialect,
) -> Result<Select> {
    let mut builder = Builder::new(T::table(), dialect, "1", TenantSite::Exists);
    specification.predicate().check(T::table())?;
    builder.sql.insert_str(0, "SELECT EXISTS (");
    builder.conditions(specification, scope)?;
    builder.sql.push(')');
    builder.finish()
}

/// Whether there is a row with this key, living or deleted.
pub(crate) fn has_row<T: Entity>(
    key: &impl RowKey,
    scope: &TenantScope,
    dialect: &Dialect,
) -> Result<Select> {
    let table = T::table();
    let key = key.to_values().map_err(|reason| table.key_error(reason))?;
    let rows = BulkScope {
        tenants: scope.clone(),
        lifecycle: Lifecycle::Any,
    };
    let mut builder = Builder::new(table, dialect, "1", TenantSite::Exists);
    builder.sql.insert_str(0, "SELECT EXISTS (");
    builder.conditions(&Specification::<T>::all(), &rows)?;
    for (column, value) in table.key_columns().zip(key) {
        builder.and();
        write!(builder.sql, "{} = ", qualified(table, column.name()))
            .expect("writing to a String cannot fail");
        builder.bind(Parameter::new(column.column_type(), value));
    }
    builder.sql.push(')');
    builder.finish()
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
    let keys = Query::<T>::all().sort_keys(true);
    let mut builder = Builder::entities(table, dialect, &keys, None, TenantSite::ByKey);
    builder
        .conditions(&Specification::<T>::all(), &living(scope))
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
        builder.order(&keys);
        builder.sql.push_str(" LIMIT 1");
    }
    builder.with_children().sql
}

/// The rows of a tenant scope that are not deleted: all that a repository sees.
pub(crate) fn living(tenants: &TenantScope) -> BulkScope {
    BulkScope {
        tenants: tenants.clone(),
        lifecycle: Lifecycle::Living,
    }
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
    site: TenantSite,
    sql: String,
    parameters: Parameters,
    has_condition: bool,
    /// Whether whole entities are selected, and with them a total.
    entities: Option<Total>,
    children: Children,
    /// The parameter that is the tenant, where the rows are those of one.
    tenant: Option<String>,
    /// How many levels of the condition are open.
    depth: usize,
}

impl<'d> Builder<'d> {
    fn new(table: &'static Table, dialect: &'d Dialect, what: &str, site: TenantSite) -> Self {
        Self {
            table,
            dialect,
            site,
            sql: format!("SELECT {what} FROM {}", quoted(table.name())),
            parameters: Parameters::default(),
            has_condition: false,
            entities: None,
            children: Children::Behind,
            tenant: None,
            depth: 0,
        }
    }

    /// What a query selects, in its order and up to its limit.
    fn selecting<T>(
        mut self,
        query: &Query<T>,
        keys: &[SortKey],
        scope: &BulkScope,
    ) -> Result<Self> {
        self.conditions(query.specification(), scope)?;
        self.order(keys);
        if let Some(limit) = query.row_limit() {
            self.sql.push_str(" LIMIT ");
            self.bind(Parameter::int(i64::try_from(limit).unwrap_or(i64::MAX)));
        }
        Ok(self)
    }

    /// That the key is one of these.
    fn keys(&mut self, keys: Vec<Value>) {
        let Some(column) = self.table.key_columns().next() else {
            return;
        };
        self.and();
        let column_type = column.column_type();
        let list = self.parameters.add(Parameter::List(column_type, keys));
        let operand = qualified(self.table, column.name());
        let sql = (self.dialect.in_list)(&operand, column_type, &list);
        self.sql.push_str(&sql);
    }

    fn lock(&mut self, lock: Option<RowLock>) {
        let Some(lock) = lock else { return };
        self.sql.push_str(self.dialect.lock);
        if lock == RowLock::SkipLocked {
            self.sql.push_str(self.dialect.skip_locked);
        }
    }

    fn finish(self) -> Result<Select> {
        let (count, most) = (self.parameters.0.len(), self.dialect.max_parameters);
        if count > most {
            return Err(Error::store(
                StoreErrorKind::Usage,
                format!("a query with {count} values, of {most} at most: a list is one with `in_`"),
            ));
        }
        let builder = self.with_children();
        Ok(Select {
            sql: builder.sql.into(),
            parameters: builder.parameters.0,
        })
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
        let number = self.parameters.add(parameter);
        self.sql.push_str(&number);
    }

    /// The tenant, whether the row is deleted, and the specification.
    fn conditions<T>(&mut self, specification: &Specification<T>, scope: &BulkScope) -> Result<()> {
        let tenant = scope.tenants.tenant();
        if let (Some(column), Some(tenant)) = (self.table.column_with(ColumnRole::Tenant), tenant) {
            self.and();
            let column = qualified(self.table, column.name());
            let number = self.parameters.add(Parameter::text(tenant.as_str()));
            let condition = tenancy::equals(self.site, &column, &number);
            self.sql.push_str(&condition);
            self.tenant = Some(number);
        }
        let deleted = match scope.lifecycle {
            Lifecycle::Living => Some(" IS NULL"),
            Lifecycle::Deleted => Some(" IS NOT NULL"),
            Lifecycle::Any => None,
        };
        if let (Some(column), Some(test)) = (self.table.column_with(ColumnRole::DeletedAt), deleted)
        {
            self.and();
            self.sql.push_str(&qualified(self.table, column.name()));
            self.sql.push_str(test);
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
                operand,
                comparison,
                value,
            } => {
                let column_type = operand.column_type();
                let bytes = column_type == ColumnType::Text && comparison.is_ordering();
                let operand = self.operand(operand);
                self.sql.push_str(&operand);
                if bytes {
                    self.sql.push_str(self.dialect.byte_order);
                }
                write!(self.sql, " {} ", comparison.operator())
                    .expect("writing to a String cannot fail");
                self.bind(Parameter::new(column_type, value.clone()));
            }
            Predicate::In { operand, values } => {
                let column_type = operand.column_type();
                let operand = self.operand(operand);
                let list = Parameter::List(column_type, values.clone());
                let list = self.parameters.add(list);
                let sql = (self.dialect.in_list)(&operand, column_type, &list);
                self.sql.push_str(&sql);
            }
            Predicate::Text {
                operand,
                test,
                text,
            } => {
                let operand = self.operand(operand);
                let sql = (self.dialect.text_test)(&operand, *test, text, &mut self.parameters);
                self.sql.push_str(&sql);
            }
            Predicate::IsNull { operand } => {
                let operand = self.operand(operand);
                self.sql.push_str(&operand);
                self.sql.push_str(" IS NULL");
            }
            Predicate::AnyChild { table, predicate } => self.any_child(table, predicate)?,
            Predicate::And(terms) => self.list(terms, " AND ")?,
            Predicate::Or(terms) => self.list(terms, " OR ")?,
            Predicate::Not(inner) => {
                self.sql.push_str("NOT ");
                self.nested(|builder| builder.predicate(inner))?;
            }
            other => unreachable!("a predicate this backend does not know: {other:?}"),
        }
        Ok(())
    }

    fn operand(&mut self, operand: &Operand) -> String {
        let column = qualified(self.table, operand.column());
        match operand.json() {
            Some(place) => (self.dialect.json)(&column, place, &mut self.parameters),
            None => column,
        }
    }

    /// A list as a balanced tree: databases parse a flat one into a tree as deep as it is long,
    /// and limit the depth.
    fn list(&mut self, terms: &[Predicate], word: &str) -> Result<()> {
        if let [term] = terms {
            return self.predicate(term);
        }
        let (left, right) = terms.split_at(terms.len().div_ceil(2));
        self.nested(|builder| {
            builder.list(left, word)?;
            builder.sql.push_str(word);
            builder.list(right, word)
        })
    }

    /// What `write` writes, in parentheses.
    fn nested(&mut self, write: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        // SQLite has 1000 levels, of which an operand needs some; the stack of Postgres has more.
        const MAX_DEPTH: usize = 900;
        if self.depth == MAX_DEPTH {
            return Err(Error::store(
                StoreErrorKind::Usage,
                "a condition too deep and too wide for the database: use `in_` for a list of values",
            ));
        }
        self.depth += 1;
        self.sql.push('(');
        write(self)?;
        self.sql.push(')');
        self.depth -= 1;
        Ok(())
    }

    fn order(&mut self, keys: &[SortKey]) {
        let keys = self.order_list(keys);
        self.sql.push_str(" ORDER BY ");
        self.sql.push_str(&keys);
    }

    fn order_list(&self, keys: &[SortKey]) -> String {
        list(keys.iter().map(|key| {
            let column = &self.table.columns()[key.index];
            match key.direction {
                Direction::Ascending => self.sort_key(column, " ASC", " NULLS LAST"),
                Direction::Descending => self.sort_key(column, " DESC", " NULLS FIRST"),
            }
        }))
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

#[cfg(all(test, feature = "postgres", feature = "sqlite"))]
mod tests {
    use cqrs_core::{ReadModel, RequestContext};

    use super::*;
    use crate::backend::Backed;

    #[derive(Debug, Clone, ReadModel)]
    #[read_model(table = "plan")]
    struct Plan {
        #[read_model(key)]
        id: i64,
        city: String,
        weight: f64,
        details: serde_json::Value,
    }

    fn sql(condition: Specification<Plan>, dialect: &Dialect) -> String {
        let context = RequestContext::system();
        let select =
            count(&condition, &living(context.scope()), dialect).expect("a good condition");
        let (_, condition) = select.sql.split_once(" WHERE ").expect("a condition");
        condition.replace("\"plan\".", "")
    }

    #[test]
    fn the_text_depends_on_the_shape_alone() {
        let f = Plan::fields();
        for dialect in [&crate::Postgres::DIALECT, &crate::Sqlite::DIALECT] {
            let none = Vec::<f64>::new();
            for (one, other) in [
                (f.id.in_([1]), f.id.in_(0..100)),
                (f.weight.in_([0.5]), f.weight.in_(none)),
                (f.city.starts_with("a"), f.city.starts_with("\u{10ffff}")),
                (f.city.like("%"), f.city.like("a_b")),
                (
                    f.details.key("a").as_text().eq("x"),
                    f.details.index(0).key("\"; --").as_text().eq("y"),
                ),
            ] {
                assert_eq!(sql(one, dialect), sql(other, dialect));
            }
        }
    }

    #[test]
    fn each_database_has_its_words() {
        let f = Plan::fields();
        let condition = || {
            f.id.in_([1])
                & f.city.starts_with("G")
                & (f.id.lt(2) | f.details.key("a").as_bool().eq(true))
        };
        assert_eq!(
            sql(condition(), &crate::Postgres::DIALECT),
            "((\"id\" = ANY($1) AND \"city\" COLLATE \"C\" LIKE $2) AND (\"id\" < $3 OR \
             (jsonb_path_query_first(\"details\", $4::jsonpath, '{}', true)::bool) = $5))"
        );
        assert_eq!(
            sql(condition(), &crate::Sqlite::DIALECT),
            "((\"id\" IN (SELECT value FROM json_each($1)) AND \
             (\"city\" COLLATE BINARY >= $2 AND \"city\" COLLATE BINARY < $3)) AND (\"id\" < $4 OR \
             (CASE json_type(\"details\", $5) WHEN 'true' THEN 1 WHEN 'false' THEN 0 END) = $6))"
        );
    }
}
