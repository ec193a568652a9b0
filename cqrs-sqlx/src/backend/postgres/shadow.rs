//! Tables that are built to take the place of others, with what belongs to those in the database.
//!
//! What is made beside its original and has a name of its own in the schema is called
//! `<original>__new` until the switch.

use cqrs_core::mapping::{Column, Table};
use cqrs_core::{Error, Result, StoreErrorKind};
use sqlx::PgConnection;

use super::error::error;
use super::schema;
use crate::statements::{list, quoted};

/// What hangs on a table and could not follow: `$1`.
const OBSTACLES: &str = "
    SELECT 'view ' || v.relname
    FROM pg_depend d
    JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
    JOIN pg_class v ON v.oid = r.ev_class
    WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = to_regclass(quote_ident($1))
          AND v.oid <> d.refobjid
    UNION
    SELECT 'rule ' || r.rulename
    FROM pg_rewrite r
    WHERE r.ev_class = to_regclass(quote_ident($1)) AND r.rulename <> '_RETURN'
    UNION
    SELECT 'publication ' || p.pubname
    FROM pg_publication_rel m JOIN pg_publication p ON p.oid = m.prpubid
    WHERE m.prrelid = to_regclass(quote_ident($1))
    UNION
    SELECT 'foreign key ' || f.conname || ' of ' || f.conrelid::regclass::text
    FROM pg_constraint f
    WHERE f.contype = 'f' AND f.confrelid = to_regclass(quote_ident($1))
    UNION
    SELECT 'trigger ' || g.tgname
    FROM pg_trigger g
    WHERE g.tgrelid = to_regclass(quote_ident($1)) AND NOT g.tgisinternal
    UNION
    SELECT 'sequence ' || s.relname
    FROM pg_depend d JOIN pg_class s ON d.classid = 'pg_class'::regclass AND s.oid = d.objid
    WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = to_regclass(quote_ident($1))
          AND s.relkind = 'S'
    UNION
    SELECT 'kind of relation ' || c.relkind::text
    FROM pg_class c WHERE c.oid = to_regclass(quote_ident($1)) AND c.relkind <> 'r'
    UNION
    SELECT 'partitioning or inheritance'
    FROM pg_inherits i WHERE to_regclass(quote_ident($1)) IN (i.inhrelid, i.inhparent)
    UNION
    SELECT 'schema ' || c.relnamespace::regnamespace::text || ', in which no tables are created'
    FROM pg_class c
    WHERE c.oid = to_regclass(quote_ident($1)) AND c.relnamespace::regnamespace::text
          IS DISTINCT FROM quote_ident(current_schema())
    ORDER BY 1";

/// Statements that give the table `$2` what the table `$1` has: columns that the database fills,
/// defaults, constraints, indexes, rights, owner, row-level security. `$3` are the columns of the
/// code; what is about columns that are no more is left out. The primary key is the code's.
const COPY: &str = "
    WITH old AS (SELECT c.* FROM pg_class c WHERE c.oid = to_regclass(quote_ident($1))),
    filled AS (
        SELECT a.*, pg_get_expr(d.adbin, d.adrelid) AS expr, a.attname = ANY ($3) AS is_ours
        FROM old JOIN pg_attribute a ON a.attrelid = old.oid
        JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE a.attnum > 0 AND NOT a.attisdropped),
    gone AS (
        SELECT a.attnum FROM old JOIN pg_attribute a ON a.attrelid = old.oid
        WHERE a.attnum > 0 AND NOT a.attname = ANY ($3)
              AND a.attnum NOT IN (SELECT attnum FROM filled)),
    statements(place, sql) AS (
        SELECT 1, format('ALTER TABLE %I ADD COLUMN %I %s %s%s', $2, attname,
                         format_type(atttypid, atttypmod),
                         CASE attgenerated
                             WHEN 's' THEN 'GENERATED ALWAYS AS (' || expr || ') STORED'
                             WHEN 'v' THEN 'GENERATED ALWAYS AS (' || expr || ') VIRTUAL'
                             ELSE 'DEFAULT ' || expr END,
                         CASE WHEN attnotnull THEN ' NOT NULL' ELSE '' END)
        FROM filled WHERE NOT is_ours
        UNION ALL
        SELECT 2, format('ALTER TABLE %I ALTER COLUMN %I SET DEFAULT %s', $2, attname, expr)
        FROM filled WHERE is_ours AND attgenerated = ''
        UNION ALL
        SELECT 3, format('ALTER TABLE %I ADD CONSTRAINT %I %s', $2,
                         CASE WHEN k.contype IN ('u', 'x') THEN left(k.conname, 58) || '__new'
                              ELSE k.conname END,
                         pg_get_constraintdef(k.oid))
        FROM old JOIN pg_constraint k ON k.conrelid = old.oid
        WHERE k.contype IN ('c', 'f', 'u', 'x')
              AND NOT EXISTS (SELECT 1 FROM gone WHERE gone.attnum = ANY (k.conkey))
        UNION ALL
        SELECT 4, format('CREATE %sINDEX %I ON %I%s',
                         CASE WHEN i.indisunique THEN 'UNIQUE ' ELSE '' END,
                         left(x.relname, 58) || '__new', $2,
                         substring(pg_get_indexdef(x.oid) FROM ' USING .*$'))
        FROM old JOIN pg_index i ON i.indrelid = old.oid JOIN pg_class x ON x.oid = i.indexrelid
        WHERE NOT EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = x.oid
                                                              AND k.conrelid = old.oid)
              AND i.indisvalid
              AND NOT EXISTS (SELECT 1 FROM gone WHERE gone.attnum = ANY (i.indkey::int2[]))
        UNION ALL
        SELECT 5, format('GRANT %s ON %I TO %s%s', a.privilege_type, $2,
                         CASE a.grantee WHEN 0 THEN 'PUBLIC'
                                        ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
                         CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
        FROM old CROSS JOIN LATERAL aclexplode(old.relacl) AS a WHERE a.grantee <> old.relowner
        UNION ALL
        SELECT 5, format('GRANT %s (%I) ON %I TO %s%s', a.privilege_type, c.attname, $2,
                         CASE a.grantee WHEN 0 THEN 'PUBLIC'
                                        ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
                         CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
        FROM old JOIN pg_attribute c ON c.attrelid = old.oid
        CROSS JOIN LATERAL aclexplode(c.attacl) AS a
        WHERE c.attnum > 0 AND c.attnum NOT IN (SELECT attnum FROM gone)
        UNION ALL
        SELECT 6, format('CREATE POLICY %I ON %I AS %s FOR %s TO %s%s%s', p.polname, $2,
                         CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
                         CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT'
                                       WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE'
                                       ELSE 'ALL' END,
                         (SELECT string_agg(CASE r WHEN 0 THEN 'PUBLIC'
                                            ELSE quote_ident(pg_get_userbyid(r)) END, ', ')
                          FROM unnest(p.polroles) AS r),
                         coalesce(' USING (' || pg_get_expr(p.polqual, p.polrelid) || ')', ''),
                         coalesce(' WITH CHECK (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')',
                                  ''))
        FROM old JOIN pg_policy p ON p.polrelid = old.oid
        UNION ALL
        SELECT 7, format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', $2)
        FROM old WHERE relrowsecurity
        UNION ALL
        SELECT 8, format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', $2)
        FROM old WHERE relforcerowsecurity
        UNION ALL
        SELECT 9, format('ALTER TABLE %I OWNER TO %I', $2, pg_get_userbyid(relowner))
        FROM old WHERE pg_get_userbyid(relowner) <> current_user)
    SELECT sql FROM statements ORDER BY place, sql";

/// Statements that give the indexes of the table `$2` the names of those of `$1`, once that is
/// gone.
const NAMES: &str = "
    SELECT format('ALTER INDEX %I RENAME TO %I', n.relname,
                  CASE WHEN i.indisprimary THEN $1 || '_pkey' ELSE o.relname END)
    FROM pg_index i JOIN pg_class n ON n.oid = i.indexrelid
    LEFT JOIN (SELECT c.relname FROM pg_index j JOIN pg_class c ON c.oid = j.indexrelid
               WHERE j.indrelid = to_regclass(quote_ident($1))) AS o
        ON n.relname = left(o.relname, 58) || '__new'
    WHERE i.indrelid = to_regclass(quote_ident($2)) AND (i.indisprimary OR o.relname IS NOT NULL)
    ORDER BY 1";

/// What creates the shadow of a table.
pub(super) async fn create_sql(
    connection: &mut PgConnection,
    table: &'static Table,
) -> Result<Vec<String>> {
    let shadow = table.shadow();
    let usage = |message| Err(Error::store(StoreErrorKind::Usage, message));
    for (name, wanted) in [(table.name(), true), (shadow.name(), false)] {
        let columns = schema::live_columns(connection, name).await?;
        if columns.is_empty() == wanted {
            let found = if wanted { "no such table" } else { "one" };
            return usage(format!(
                "table {name} is in the way of a rebuild: found {found}"
            ));
        }
    }
    let obstacles = texts(connection, sqlx::query_scalar(OBSTACLES).bind(table.name())).await?;
    if !obstacles.is_empty() {
        return usage(format!(
            "table {} cannot be exchanged, since something hangs on it that would not follow: {}. \
             Remove that before the rebuild, and make it anew after",
            table.name(),
            obstacles.join(", ")
        ));
    }
    let columns: Vec<&str> = table.columns().iter().map(Column::name).collect();
    let copy = sqlx::query_scalar(COPY)
        .bind(table.name())
        .bind(shadow.name())
        .bind(columns);
    let copied = texts(connection, copy).await?;
    let create = schema::create_table_sql(shadow);
    Ok(std::iter::once(create).chain(copied).collect())
}

/// What puts it in the place of the table.
pub(super) async fn exchange_sql(
    connection: &mut PgConnection,
    table: &'static Table,
) -> Result<Vec<String>> {
    let shadow = table.shadow().name();
    let names = sqlx::query_scalar(NAMES).bind(table.name()).bind(shadow);
    let names = texts(connection, names).await?;
    let (name, shadow) = (quoted(table.name()), quoted(shadow));
    let exchange = [
        format!("DROP TABLE {name}"),
        format!("ALTER TABLE {shadow} RENAME TO {name}"),
    ];
    Ok(exchange.into_iter().chain(names).collect())
}

/// At the beginning of a transaction, has its statements see one moment at which these tables have
/// their names. The lock comes before that moment: one that was exchanged behind it would be read
/// without the rows that were made since.
pub(super) fn one_moment(tables: &[&str]) -> String {
    let tables = list(tables.iter().map(|name| quoted(name)));
    format!(
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; LOCK TABLE {tables} IN ACCESS SHARE MODE"
    )
}

async fn texts<'q>(
    connection: &mut PgConnection,
    query: sqlx::query::QueryScalar<'q, sqlx::Postgres, String, sqlx::postgres::PgArguments>,
) -> Result<Vec<String>> {
    query
        .fetch_all(connection)
        .await
        .map_err(|cause| error(cause, "reading what belongs to a table"))
}
