//! Row-level security: a second wall between tenants, which the database keeps.
//!
//! The policies compare a row's tenant with a setting of the transaction, `cqrs.tenant`. Work across
//! all tenants says so with another, `cqrs.system`. Where neither is set, no row is there.

use std::fmt::Write;

use cqrs_core::mapping::{Column, ColumnRole, Table};
use cqrs_core::{Result, TenantScope};
use sqlx::{PgConnection, Row};

use super::error;
use crate::statements::quoted;
use crate::tenancy::{self, TenantSite};

/// The name of the policy on every table.
const POLICY: &str = "cqrs_tenant";

/// Whether the transaction is across all tenants.
const SYSTEM: &str = "current_setting('cqrs.system', true) = 'on'";

/// The framework's own tables with rows of tenants, and the column that says whose they are.
pub(super) const OWN_TABLES: [(&str, &str); 8] = [
    ("cqrs_event", "tenant_id"),
    ("cqrs_history", "tenant_id"),
    ("cqrs_process", "scope"),
    ("cqrs_process_task", "scope"),
    ("cqrs_receipt", "scope"),
    ("cqrs_snapshot", "tenant_id"),
    ("cqrs_chain_head", "tenant_id"),
    ("cqrs_subject_key", "scope"),
];

/// Confines the open transaction to a scope. The settings end with it.
pub(super) async fn confine(connection: &mut PgConnection, scope: &TenantScope) -> Result<()> {
    let (tenant, system) = match scope {
        TenantScope::Tenant(tenant) => (tenant.as_str(), "off"),
        TenantScope::System => ("", "on"),
    };
    sqlx::query("SELECT set_config('cqrs.tenant', $1, true), set_config('cqrs.system', $2, true)")
        .bind(tenant)
        .bind(system)
        .execute(connection)
        .await
        .map(drop)
        .map_err(|cause| error(cause, "confining a transaction to its tenant"))
}

/// The statements that put tables and those of their children behind policies, and the framework's own; those without tenants are
/// left out. They may be run again.
pub(super) fn sql(tables: &[&Table]) -> String {
    let mut sql = String::new();
    let stored = tables.iter().filter(|table| !table.is_sourced());
    for table in stored.flat_map(|table| table.with_children()) {
        if let Some(tenant) = table.column_with(ColumnRole::Tenant).map(Column::name) {
            policy(&mut sql, table.name(), &is_own(tenant));
        }
    }
    for (table, column) in OWN_TABLES {
        let mut condition = is_own(column);
        if column == "tenant_id" {
            // An aggregate without tenants is everyone's.
            condition = format!("{} IS NULL OR {condition}", quoted(column));
        }
        policy(&mut sql, table, &condition);
    }
    sql
}

fn is_own(column: &str) -> String {
    let setting = "nullif(current_setting('cqrs.tenant', true), '')";
    tenancy::equals(TenantSite::Policy, &quoted(column), setting)
}

/// Forced, so that it holds for the owner of the table too. What may be seen may be written.
fn policy(sql: &mut String, table: &str, condition: &str) {
    let name = quoted(table);
    write!(
        sql,
        "ALTER TABLE {name} ENABLE ROW LEVEL SECURITY;\n\
         ALTER TABLE {name} FORCE ROW LEVEL SECURITY;\n\
         DROP POLICY IF EXISTS {POLICY} ON {name};\n\
         CREATE POLICY {POLICY} ON {name} USING ({SYSTEM} OR {condition});\n"
    )
    .expect("writing to a String cannot fail");
}

/// Puts a copy of a table that is behind policies behind one that lets only work across all tenants
/// see it.
pub(super) async fn guard_copy(
    connection: &mut PgConnection,
    table: &str,
    copy: &str,
) -> Result<()> {
    let guarded: Option<bool> = sqlx::query_scalar(
        "SELECT relrowsecurity FROM pg_class WHERE oid = to_regclass(quote_ident($1))",
    )
    .bind(table)
    .fetch_optional(&mut *connection)
    .await
    .map_err(|cause| error(cause, "looking for the policies of row-level security"))?;
    if guarded != Some(true) {
        return Ok(());
    }
    let mut sql = String::new();
    policy(&mut sql, copy, "FALSE");
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
        .execute(connection)
        .await
        .map(drop)
        .map_err(|cause| error(cause, "putting a table behind a policy"))
}

/// What lets rows of one tenant be seen by another: a role that is above policies, and tables that
/// have none, or more than this one.
pub(super) async fn gaps(connection: &mut PgConnection, tables: &[&str]) -> Result<Vec<String>> {
    let looked = look(connection, tables).await;
    looked.map_err(|cause| error(cause, "looking for the policies of row-level security"))
}

async fn look(connection: &mut PgConnection, tables: &[&str]) -> sqlx::Result<Vec<String>> {
    let mut gaps = Vec::new();
    let role = sqlx::query(
        "SELECT rolname::text, rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user",
    )
    .fetch_one(&mut *connection)
    .await?;
    if role.try_get(1)? {
        let role: String = role.try_get(0)?;
        gaps.push(format!(
            "role {role}: expected one that row-level security holds for, found a superuser or one \
             with BYPASSRLS"
        ));
    }
    let own = OWN_TABLES.iter().map(|(name, _)| *name);
    let names: Vec<&str> = tables.iter().copied().chain(own).collect();
    let found = sqlx::query(
        "SELECT t.name, c.relrowsecurity AND c.relforcerowsecurity,
                (SELECT coalesce(string_agg(p.polname::text || CASE
                         WHEN p.polwithcheck IS NULL
                              AND pg_get_expr(p.polqual, p.polrelid) LIKE '%cqrs.tenant%' THEN ''
                         ELSE ' with another condition' END, ', ' ORDER BY p.polname), 'no policy')
                 FROM pg_policy p WHERE p.polrelid = c.oid AND p.polpermissive)
         FROM unnest($1::text[]) WITH ORDINALITY AS t(name, ordinality)
         JOIN pg_class c ON c.oid = to_regclass(quote_ident(t.name))
         ORDER BY t.ordinality",
    )
    .bind(names)
    .fetch_all(connection)
    .await?;
    for row in found {
        let (table, forced): (String, bool) = (row.try_get(0)?, row.try_get(1)?);
        let policies: String = row.try_get(2)?;
        if !forced {
            gaps.push(format!(
                "table {table}: expected forced row-level security, found none"
            ));
        }
        if policies != POLICY {
            gaps.push(format!(
                "table {table}: expected the policy {POLICY} alone, found {policies}"
            ));
        }
    }
    Ok(gaps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_for_the_tables_of_tenants() {
        let table = Table::builder("plan")
            .tenant("org")
            .key::<i64>("id")
            .build();
        let other = Table::builder("country").key::<i64>("id").build();
        let sql = sql(&[&table, &other]);
        assert!(sql.contains(
            "CREATE POLICY cqrs_tenant ON \"plan\" USING (current_setting('cqrs.system', true) = \
             'on' OR \"org\" = nullif(current_setting('cqrs.tenant', true), ''));"
        ));
        assert!(sql.contains("ALTER TABLE \"plan\" FORCE ROW LEVEL SECURITY;"));
        assert!(!sql.contains("country"));
        assert!(
            sql.contains("ON \"cqrs_event\" USING") && sql.contains("\"tenant_id\" IS NULL OR")
        );
        assert!(sql.contains("ON \"cqrs_receipt\" USING"));
    }
}
