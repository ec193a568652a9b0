//! Loads by key for several callers, in one statement.
//!
//! ```sql
//! SELECT found.*, wanted.place
//! FROM unnest($1::text[], $2::uuid[]) WITH ORDINALITY AS wanted("tenant", "key", place)
//! CROSS JOIN LATERAL (
//!     SELECT t."id", ... FROM "route_plan" AS t
//!     WHERE t."tenant_id" = wanted."tenant" AND t."id" = wanted."key" AND t."deleted_at" IS NULL
//!     LIMIT 1) AS found
//! ```
//!
//! A join by rows: whatever the statistics say, each key is looked up by itself.

use std::sync::Arc;

use cqrs_core::mapping::{Column, ColumnRole, Table};

use super::bind;
use crate::backend::Parameter;
use crate::statements::{Statements, list, quoted};
use crate::tenancy::{self, TenantSite};

/// The statement for lists of keys, and of tenants before them where there are two.
pub(super) fn by_keys(
    statements: &Statements,
    table: &'static Table,
    wanted: &[Parameter],
) -> Arc<str> {
    let tenant = table.column_with(ColumnRole::Tenant);
    match tenant.filter(|_| wanted.len() > 1) {
        None => statements.get(table, "by keys", || sql(table, None)),
        tenant => statements.get(table, "by keys in tenants", || sql(table, tenant)),
    }
}

fn sql(table: &Table, tenant: Option<&Column>) -> String {
    let column = |column: &Column| format!("t.{}", quoted(column.name()));
    let (mut arrays, mut names, mut conditions) = (Vec::new(), Vec::new(), Vec::new());
    if let Some(tenant) = tenant {
        let is_own = tenancy::equals(TenantSite::ByKeys, &column(tenant), "wanted.\"tenant\"");
        names.push("\"tenant\"");
        conditions.push(is_own);
        arrays.push("$1::text[]".to_owned());
    }
    if let Some(key) = table.key_columns().next() {
        let array = bind::array_type(key.column_type());
        arrays.push(format!("${}::{array}", arrays.len() + 1));
        names.push("\"key\"");
        conditions.push(format!("{} = wanted.\"key\"", column(key)));
    }
    if let Some(deleted) = table.column_with(ColumnRole::DeletedAt) {
        conditions.push(format!("{} IS NULL", column(deleted)));
    }
    format!(
        "SELECT found.*, wanted.place FROM unnest({}) WITH ORDINALITY AS wanted({}, place) \
         CROSS JOIN LATERAL (SELECT {} FROM {} AS t WHERE {} LIMIT 1) AS found",
        list(arrays),
        list(names),
        list(table.columns().iter().map(column)),
        quoted(table.name()),
        conditions.join(" AND "),
    )
}
