//! Aggregates with their children, in one statement: it has one snapshot, so nobody can commit
//! between an aggregate and its children.
//!
//! ```sql
//! WITH cqrs_root (c0, c1, n) AS MATERIALIZED (
//!     SELECT "plan"."version", "plan"."id", row_number() OVER (ORDER BY "plan"."id" ASC)
//!     FROM "plan" WHERE ... ORDER BY "plan"."id" ASC LIMIT $2)
//! SELECT c0, c1, CAST(NULL AS uuid), CAST(NULL AS integer), CAST(NULL AS text),
//!     0 AS part, n, CAST(NULL AS integer) AS place FROM cqrs_root
//! UNION ALL
//! SELECT CAST(NULL AS bigint), CAST(NULL AS uuid), t."plan_id", t."seq", t."city", 1, r.n, t."seq"
//!     FROM cqrs_root AS r JOIN "plan_stop" AS t ON t."plan_id" = r.c1
//! ORDER BY n, part, place
//! ```
//!
//! Each row is an aggregate or a child, in columns of its own, with their own types: nothing is
//! converted. Rows come as they are put together: each aggregate, then its children by table.

use std::fmt::Write;

use cqrs_core::mapping::{Column, ColumnRole, ColumnType, Loading, RowSource, Table};
use cqrs_core::{Entity, Error, Predicate, Result, SortKey};

use super::{Builder, all_columns};
use crate::backend::Dialect;
use crate::statements::{list, qualified, quoted};
use crate::tenancy::{self, TenantSite};

/// Where in a row of entities the columns are that are not those of their table.
#[derive(Debug)]
pub(crate) struct Layout {
    /// Where the columns of each table of children begin.
    children: Vec<usize>,
    /// Which table a row is of: 0 for the entity itself.
    part: usize,
    /// How many there are on all pages, if that was asked for.
    pub(crate) total: usize,
}

impl Layout {
    pub(crate) fn of(table: &Table) -> Self {
        let mut end = table.columns().len();
        let mut begin = |child: &Table| {
            let begin = end;
            end += child.columns().len();
            begin
        };
        let children: Vec<usize> = table.children().iter().map(&mut begin).collect();
        let behind = if children.is_empty() { 0 } else { 3 };
        Self {
            children,
            part: end,
            total: end + behind,
        }
    }

    /// Reads a row into the entities found so far, each with what `more` reads beside it.
    pub(crate) fn read<T: Entity, X, R: RowSource>(
        &self,
        found: &mut Vec<(Loading<T>, X)>,
        row: &R,
        more: impl FnOnce() -> Result<X>,
    ) -> Result<()> {
        let part = if self.children.is_empty() {
            Some(0)
        } else {
            row.read_i32(self.part).map_err(Error::other)?
        };
        let child = part.and_then(|part| usize::try_from(part).ok()?.checked_sub(1));
        match (child, found.last_mut()) {
            (Some(index), Some((entity, _))) => {
                Ok(entity.child(index, row, self.children[index])?)
            }
            _ => {
                found.push((Loading::begin(row)?, more()?));
                Ok(())
            }
        }
    }
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
            write!(what, ", row_number() OVER (ORDER BY {keys})")
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
            self.sql = family(self.table, self.dialect, &self.sql, total);
        }
        self
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

fn family(table: &Table, dialect: &Dialect, roots: &str, total: Total) -> String {
    let null = |column_type| format!("CAST(NULL AS {})", (dialect.type_name)(column_type));
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
    for (part, of) in table.with_children().enumerate() {
        let mut columns = Vec::new();
        for (other, table) in table.with_children().enumerate() {
            match (other == part, part) {
                (true, 0) => columns.extend(root_names.clone()),
                (true, _) => columns.extend(table.columns().iter().map(child_column)),
                (false, _) => columns.extend(table.columns().iter().map(|c| null(c.column_type()))),
            }
        }
        let place = of.column_with(ColumnRole::Order).map(child_column);
        let place = place.unwrap_or_else(|| null(ColumnType::Int32));
        let total = match (total, part) {
            (Total::Without, _) => String::new(),
            (Total::With, 0) => ", total".to_owned(),
            (Total::With, _) => format!(", {}", null(ColumnType::Int64)),
        };
        let columns = list(columns);
        if part == 0 {
            write!(
                sql,
                "SELECT {columns}, 0 AS part, n, {place} AS place{total} FROM cqrs_root"
            )
        } else {
            write!(
                sql,
                " UNION ALL SELECT {columns}, {part}, r.n, {place}{total} \
                 FROM cqrs_root AS r JOIN {} AS t ON {}",
                quoted(of.name()),
                links(TenantSite::Children, table, of, child_column, |column| {
                    let index = table.index_of_name(column.name()).unwrap_or_default();
                    format!("r.c{index}")
                }),
            )
        }
        .expect("writing to a String cannot fail");
    }
    sql.push_str(" ORDER BY n, part, place");
    sql
}

fn child_column(column: &Column) -> String {
    format!("t.{}", quoted(column.name()))
}
