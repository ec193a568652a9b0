//! Aggregates with their children, in one statement: it has one snapshot, so nobody can commit
//! between an aggregate and its children.
//!
//! ```sql
//! WITH cqrs_root (c0, c1, n) AS MATERIALIZED (
//!     SELECT "plan"."version", "plan"."id", row_number() OVER (ORDER BY "plan"."id" ASC)
//!     FROM "plan" WHERE ... ORDER BY "plan"."id" ASC LIMIT $2)
//! SELECT c0, c1, CAST(NULL AS uuid), CAST(NULL AS integer), CAST(NULL AS text),
//!     0 AS part, n AS place FROM cqrs_root
//! UNION ALL
//! SELECT CAST(NULL AS bigint), CAST(NULL AS uuid), t."plan_id", t."seq", t."city", 1, t."seq"
//!     FROM "plan_stop" AS t WHERE t."plan_id" = ANY(ARRAY(SELECT c1 FROM cqrs_root))
//! ORDER BY part, place
//! ```
//!
//! Each row is an aggregate or a child, in columns of its own, with their own types: nothing is
//! converted. First come the aggregates in their order, then the children of each table by their
//! place, which are put to their aggregates by its key. A join would leave it to the estimates of
//! Postgres whether it reads the whole table of the children for the few that are asked for; the
//! array always goes by their index.
//!
//! An export hands on each aggregate before it has read the next, so there each is followed by its
//! children, by a join.

use std::collections::HashMap;
use std::fmt::Write;

use cqrs_core::mapping::{
    Column, ColumnError, ColumnRole, ColumnType, Loading, MappingError, RowSource, Table,
    read_value,
};
use cqrs_core::{Entity, Error, Predicate, Result, RowAddress, SortKey};

use super::{Builder, all_columns};
use crate::backend::Dialect;
use crate::statements::{list, qualified, quoted};
use crate::tenancy::{self, TenantSite};

/// Where in a row of entities the columns are that are not those of their table.
#[derive(Debug)]
pub(crate) struct Layout {
    table: &'static Table,
    /// Where the columns of each table of children begin.
    children: Vec<usize>,
    /// Which table a row is of: 0 for the entity itself.
    part: usize,
    /// How many there are on all pages, if that was asked for.
    pub(crate) total: usize,
}

/// The entities found so far, each with what was read beside it.
#[derive(Debug)]
pub(crate) struct Found<T, X> {
    pub(crate) entities: Vec<(Loading<T>, X)>,
    /// Where among them each is, if they have children.
    places: HashMap<RowAddress, usize>,
}

impl<T, X> Default for Found<T, X> {
    fn default() -> Self {
        Self {
            entities: Vec::new(),
            places: HashMap::new(),
        }
    }
}

impl Layout {
    pub(crate) fn of(table: &'static Table) -> Self {
        let mut end = table.columns().len();
        let mut begin = |child: &Table| {
            let begin = end;
            end += child.columns().len();
            begin
        };
        let children: Vec<usize> = table.children().iter().map(&mut begin).collect();
        let behind = if children.is_empty() { 0 } else { 2 };
        Self {
            table,
            children,
            part: end,
            total: end + behind,
        }
    }

    /// Which table of children a row is of; `None` for the entity itself.
    pub(crate) fn child<R: RowSource>(&self, row: &R) -> Result<Option<usize>> {
        if self.children.is_empty() {
            return Ok(None);
        }
        let part = row.read_i32(self.part).map_err(Error::other)?;
        Ok(part.and_then(|part| usize::try_from(part).ok()?.checked_sub(1)))
    }

    /// Reads a row of the table of children at `index` into its entity.
    pub(crate) fn read_child<T: Entity, R: RowSource>(
        &self,
        entity: &mut Loading<T>,
        index: usize,
        row: &R,
    ) -> Result<()> {
        Ok(entity.child(index, row, self.children[index])?)
    }

    /// Reads a row into the entities found so far, each with what `more` reads beside it.
    pub(crate) fn read<T: Entity, X, R: RowSource>(
        &self,
        found: &mut Found<T, X>,
        row: &R,
        more: impl FnOnce() -> Result<X>,
    ) -> Result<()> {
        let Some(index) = self.child(row)? else {
            if !self.children.is_empty() {
                let key = self.table.index_of(ColumnRole::Key).unwrap_or_default();
                let key = address(self.table, key, row, key)?;
                found.places.insert(key, found.entities.len());
            }
            found.entities.push((Loading::begin(row)?, more()?));
            return Ok(());
        };
        let child = &self.table.children()[index];
        let parent = child.index_of(ColumnRole::Parent).unwrap_or_default();
        let key = address(child, parent, row, self.children[index] + parent)?;
        let place = found.places.get(&key).ok_or_else(|| {
            let reason = ColumnError::invalid("it is no key of the aggregates that were found");
            column_error(child, parent, reason)
        })?;
        self.read_child(&mut found.entities[*place].0, index, row)
    }
}

/// The key of an entity, which the column at `index` of a table holds, at `at` in the row.
fn address<R: RowSource>(
    table: &Table,
    index: usize,
    row: &R,
    at: usize,
) -> Result<RowAddress, MappingError> {
    read_value(row, at, table.columns()[index].column_type())
        .map(|key| RowAddress::from_parts(None, vec![key]))
        .map_err(|reason| column_error(table, index, reason))
}

fn column_error(table: &Table, index: usize, reason: ColumnError) -> MappingError {
    MappingError {
        table: table.name().to_owned(),
        column: table.columns()[index].name().to_owned(),
        reason,
    }
}

/// Where the children come in the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Children {
    /// After all of the entities.
    Behind,
    /// Each after its entity.
    InTurn,
}

/// Whether a total is selected with the entities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Total {
    With,
    Without,
}

impl<'d> Builder<'d> {
    /// Selects whole entities, in the order of `keys`, with a total where there is a text for it.
    pub(super) fn entities(
        table: &'static Table,
        dialect: &'d Dialect,
        keys: &[SortKey],
        total: Option<&str>,
        site: TenantSite,
    ) -> Self {
        let mut builder = Self::new(table, dialect, "", site);
        let mut what = all_columns(table);
        if !table.children().is_empty() {
            let keys = builder.order_list(keys);
            write!(
                what,
                ", CAST(row_number() OVER (ORDER BY {keys}) AS integer)"
            )
            .expect("writing to a String cannot fail");
        }
        if let Some(total) = total {
            write!(what, ", ({total})").expect("writing to a String cannot fail");
        }
        builder.sql = format!("SELECT {what} FROM {}", quoted(table.name()));
        builder.entities = Some(total.map_or(Total::Without, |_| Total::With));
        builder
    }

    /// Adds the children to a finished select of entities.
    pub(super) fn with_children(mut self) -> Self {
        if let Some(total) = self.entities
            && !self.table.children().is_empty()
        {
            self.sql = self.family(total);
        }
        self
    }

    fn family(&self, total: Total) -> String {
        let (table, roots) = (self.table, &self.sql);
        let null = |column_type| format!("CAST(NULL AS {})", (self.dialect.type_name)(column_type));
        let root_names = (0..table.columns().len()).map(|index| format!("c{index}"));
        let mut names: Vec<String> = root_names.clone().collect();
        names.push("n".to_owned());
        if total == Total::With {
            names.push("total".to_owned());
        }
        let mut sql = format!(
            "WITH cqrs_root ({}) AS MATERIALIZED ({roots}) ",
            list(&names)
        );
        let (root_turn, child_turn, order) = match self.children {
            Children::Behind => ("", "", "part, place"),
            Children::InTurn => (", n AS turn", ", r.n", "turn, part, place"),
        };
        for (part, of) in table.with_children().enumerate() {
            let mut columns = Vec::new();
            for (other, table) in table.with_children().enumerate() {
                match (other == part, part) {
                    (true, 0) => columns.extend(root_names.clone()),
                    (true, _) => columns.extend(table.columns().iter().map(child_column)),
                    (false, _) => {
                        columns.extend(table.columns().iter().map(|c| null(c.column_type())));
                    }
                }
            }
            let total = match (total, part) {
                (Total::Without, _) => String::new(),
                (Total::With, 0) => ", total".to_owned(),
                (Total::With, _) => format!(", {}", null(ColumnType::Int64)),
            };
            let columns = list(columns);
            if part == 0 {
                write!(
                    sql,
                    "SELECT {columns}, 0 AS part, n AS place{total}{root_turn} FROM cqrs_root"
                )
            } else {
                let place = of.column_with(ColumnRole::Order).map(child_column);
                let place = place.unwrap_or_else(|| null(ColumnType::Int32));
                write!(
                    sql,
                    " UNION ALL SELECT {columns}, {part}, {place}{total}{child_turn} FROM {}",
                    self.children_of_roots(of)
                )
            }
            .expect("writing to a String cannot fail");
        }
        sql.push_str(" ORDER BY ");
        sql.push_str(order);
        sql
    }

    /// The rows `t` of a table of children that belong to the roots; with the rows `r` of these
    /// where their number, or the tenant of each, is asked for.
    fn children_of_roots(&self, of: &Table) -> String {
        let table = self.table;
        let root = |column: &Column| {
            let index = table.index_of_name(column.name()).unwrap_or_default();
            format!("c{index}")
        };
        let name = quoted(of.name());
        let own_tenant = of.column_with(ColumnRole::Tenant);
        let tenant = own_tenant.zip(self.tenant.as_ref());
        let parent = of
            .column_with(ColumnRole::Parent)
            .zip(table.key_columns().next());
        match parent {
            Some((parent, key))
                if self.children == Children::Behind
                    && own_tenant.is_some() == tenant.is_some() =>
            {
                let roots = format!("SELECT {} FROM cqrs_root", root(key));
                let among = (self.dialect.in_rows)(&child_column(parent), &roots);
                let tenant = tenant.map_or_else(String::new, |(own, tenant)| {
                    let own = child_column(own);
                    let confined = tenancy::equals(TenantSite::Children, &own, tenant);
                    format!(" AND {confined}")
                });
                format!("{name} AS t WHERE {among}{tenant}")
            }
            _ => {
                let links = links(TenantSite::Children, table, of, child_column, |column| {
                    format!("r.{}", root(column))
                });
                format!("cqrs_root AS r JOIN {name} AS t ON {links}")
            }
        }
    }

    /// Whether a condition is true for any of the children in a table.
    pub(super) fn any_child(&mut self, child: &str, predicate: &Predicate) -> Result<()> {
        let parent = self.table;
        let child = parent.child(child).unwrap_or(parent);
        let links = links(
            TenantSite::AnyChild,
            parent,
            child,
            |own| qualified(child, own.name()),
            |parents| qualified(parent, parents.name()),
        );
        write!(
            self.sql,
            "EXISTS (SELECT 1 FROM {} WHERE {links}",
            quoted(child.name()),
        )
        .expect("writing to a String cannot fail");
        self.table = child;
        if *predicate != Predicate::All {
            self.sql.push_str(" AND ");
            self.nested(|builder| builder.predicate(predicate))?;
        }
        self.table = parent;
        self.sql.push(')');
        Ok(())
    }
}

/// Which children belong to a parent: those with its key, and its tenant.
pub(crate) fn links(
    site: TenantSite,
    parent: &Table,
    child: &Table,
    own: impl Fn(&Column) -> String,
    parents: impl Fn(&Column) -> String,
) -> String {
    let mut links = Vec::new();
    let key = child.column_with(ColumnRole::Parent);
    if let Some((key, parent)) = key.zip(parent.key_columns().next()) {
        links.push(format!("{} = {}", own(key), parents(parent)));
    }
    let tenant = child.column_with(ColumnRole::Tenant);
    if let Some((tenant, parent)) = tenant.zip(parent.column_with(ColumnRole::Tenant)) {
        links.push(tenancy::equals(site, &own(tenant), &parents(parent)));
    }
    links.join(" AND ")
}

fn child_column(column: &Column) -> String {
    format!("t.{}", quoted(column.name()))
}
