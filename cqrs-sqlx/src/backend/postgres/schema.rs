//! Tables: creating, and comparing with what is there.

use std::fmt::Write;

use cqrs_core::Result;
use cqrs_core::mapping::{ColumnType, Table};
use sqlx::PgConnection;

use super::error::error;
use crate::backend::schema::{
    foreign_key_sql, null_sql, read_live_columns, read_live_foreign_keys, read_live_keys,
    tenant_index_sql,
};
use crate::statements::{names, quoted};
use crate::verify::{LiveColumn, LiveForeignKey, LiveKey};

/// The type of a new column.
pub(super) const fn type_name(column_type: ColumnType) -> &'static str {
    match column_type {
        ColumnType::Bool => "boolean",
        ColumnType::Int16 => "smallint",
        ColumnType::Int32 => "integer",
        ColumnType::Int64 => "bigint",
        ColumnType::Float32 => "real",
        ColumnType::Float64 => "double precision",
        ColumnType::Bytes => "bytea",
        ColumnType::Uuid => "uuid",
        ColumnType::Timestamp => "timestamp with time zone",
        ColumnType::Date => "date",
        ColumnType::Json => "jsonb",
        _ => "text",
    }
}

/// Whether a value that sqlx names like this decodes as this type.
pub(super) fn can_decode(column_type: ColumnType, sqlx_name: &str) -> bool {
    match column_type {
        ColumnType::Bool => sqlx_name == "BOOL",
        ColumnType::Int16 => sqlx_name == "INT2",
        ColumnType::Int32 => matches!(sqlx_name, "INT4" | "INT2"),
        ColumnType::Int64 => matches!(sqlx_name, "INT8" | "INT4" | "INT2"),
        ColumnType::Float32 => sqlx_name == "FLOAT4",
        ColumnType::Float64 => sqlx_name == "FLOAT8",
        ColumnType::Text => matches!(sqlx_name, "TEXT" | "VARCHAR" | "CHAR" | "NAME" | "citext"),
        ColumnType::Bytes => sqlx_name == "BYTEA",
        ColumnType::Uuid => sqlx_name == "UUID",
        ColumnType::Timestamp => sqlx_name == "TIMESTAMPTZ",
        ColumnType::Date => sqlx_name == "DATE",
        ColumnType::Json => matches!(sqlx_name, "JSONB" | "JSON"),
        _ => false,
    }
}

/// Whether values of this type can be written to and read from a column of the database.
pub(super) fn fits(
    column_type: ColumnType,
    live: &LiveColumn,
) -> std::result::Result<(), &'static str> {
    let name = live.type_name.as_str();
    let fits = match column_type {
        ColumnType::Text => {
            matches!(
                name,
                "text" | "character varying" | "character" | "name" | "citext"
            )
        }
        // json has no equality, which the comparison of an unchanged save needs.
        other => name == type_name(other),
    };
    if fits {
        Ok(())
    } else {
        Err(type_name(column_type))
    }
}

pub(super) fn create_table_sql(table: &Table) -> String {
    table.with_children().map(create_one_sql).collect()
}

fn create_one_sql(table: &Table) -> String {
    let mut sql = format!("CREATE TABLE IF NOT EXISTS {} (\n", quoted(table.name()));
    for column in table.columns() {
        let collation = match column.column_type() {
            ColumnType::Text => " COLLATE \"C\"",
            _ => "",
        };
        let null = null_sql(column);
        writeln!(
            sql,
            "    {} {}{collation}{null},",
            quoted(column.name()),
            type_name(column.column_type()),
        )
        .expect("writing to a String cannot fail");
    }
    write!(
        sql,
        "    CONSTRAINT {} PRIMARY KEY ({}){}\n);\n",
        quoted(&format!("{}_pkey", table.name())),
        names(table.primary_key()),
        foreign_key_sql(table),
    )
    .expect("writing to a String cannot fail");
    sql.extend(tenant_index_sql(table));
    sql
}

/// The columns of a table; empty where there is none.
pub(super) async fn live_columns(
    connection: &mut PgConnection,
    table: &str,
) -> Result<Vec<LiveColumn>> {
    let rows = sqlx::query(
        "SELECT a.attname::text,
                CASE WHEN t.typtype = 'b' AND a.atttypmod >= 0
                     THEN format_type(a.atttypid, NULL) ELSE format_type(a.atttypid, a.atttypmod)
                END,
                NOT a.attnotnull,
                a.atthasdef OR a.attidentity <> '' OR a.attgenerated <> '',
                a.attidentity = 'a' OR a.attgenerated <> ''
         FROM pg_attribute a
         JOIN pg_type t ON t.oid = a.atttypid
         WHERE a.attrelid = to_regclass(quote_ident($1)) AND a.attnum > 0 AND NOT a.attisdropped
         ORDER BY a.attnum",
    )
    .bind(table)
    .fetch_all(connection)
    .await;
    rows.and_then(|rows| read_live_columns(&rows))
        .map_err(|cause| error(cause, "reading the columns of a table"))
}

/// The keys of a table by which a conflict can be found: no deferrable ones.
pub(super) async fn live_keys(connection: &mut PgConnection, table: &str) -> Result<Vec<LiveKey>> {
    let rows = sqlx::query(
        "SELECT i.indexrelid::text, i.indisprimary, a.attname::text
         FROM pg_index i
         CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, place)
         JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
         WHERE i.indrelid = to_regclass(quote_ident($1))
               AND i.indisunique AND i.indisvalid AND i.indimmediate
               AND i.indpred IS NULL AND i.indexprs IS NULL AND k.place <= i.indnkeyatts
         ORDER BY NOT i.indisprimary, i.indexrelid, k.place",
    )
    .bind(table)
    .fetch_all(connection)
    .await;
    rows.and_then(|rows| read_live_keys(&rows))
        .map_err(|cause| error(cause, "reading the keys of a table"))
}

/// The foreign keys of a table. One that points to a table of that name elsewhere names its schema.
pub(super) async fn live_foreign_keys(
    connection: &mut PgConnection,
    table: &str,
) -> Result<Vec<LiveForeignKey>> {
    let rows = sqlx::query(
        "SELECT c.oid::text,
                CASE WHEN t.oid = to_regclass(quote_ident(t.relname))
                     THEN t.relname::text ELSE t.relnamespace::regnamespace::text || '.' || t.relname
                END,
                own.attname::text, other.attname::text,
                CASE c.confdeltype WHEN 'c' THEN NULL WHEN 'r' THEN 'RESTRICT'
                     WHEN 'n' THEN 'SET NULL' WHEN 'd' THEN 'SET DEFAULT'
                     ELSE CASE WHEN c.condeferred THEN NULL ELSE 'NO ACTION' END
                END
         FROM pg_constraint c
         JOIN pg_class t ON t.oid = c.confrelid
         CROSS JOIN unnest(c.conkey, c.confkey) WITH ORDINALITY AS k(own, other, place)
         JOIN pg_attribute own ON own.attrelid = c.conrelid AND own.attnum = k.own
         JOIN pg_attribute other ON other.attrelid = c.confrelid AND other.attnum = k.other
         WHERE c.conrelid = to_regclass(quote_ident($1)) AND c.contype = 'f'
         ORDER BY c.oid, k.place",
    )
    .bind(table)
    .fetch_all(connection)
    .await;
    rows.and_then(|rows| read_live_foreign_keys(&rows))
        .map_err(|cause| error(cause, "reading the foreign keys of a table"))
}
