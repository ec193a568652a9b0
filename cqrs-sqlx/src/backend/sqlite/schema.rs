//! Tables: creating, and comparing with what is there.

use std::fmt::Write;

use cqrs_core::Result;
use cqrs_core::mapping::{ColumnType, Table};
use sqlx::SqliteConnection;

use super::error::error;
use crate::backend::schema::{
    foreign_key_sql, null_sql, read_live_columns, read_live_foreign_keys, read_live_keys,
    tenant_index_sql,
};
use crate::statements::{names, quoted};
use crate::verify::{LiveColumn, LiveForeignKey, LiveKey};

/// The type of a new column, one of those that a STRICT table knows.
pub(super) const fn type_name(column_type: ColumnType) -> &'static str {
    match column_type {
        ColumnType::Bool | ColumnType::Int16 | ColumnType::Int32 | ColumnType::Int64 => "integer",
        ColumnType::Float32 | ColumnType::Float64 => "real",
        ColumnType::Bytes | ColumnType::Uuid => "blob",
        _ => "text",
    }
}

/// The type that SQLite converts values to when they are stored, which it reads from the declared
/// one: <https://www.sqlite.org/datatype3.html#determination_of_column_affinity>.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Affinity {
    Integer,
    Text,
    Blob,
    Real,
    Numeric,
}

impl Affinity {
    fn of(declared: &str) -> Self {
        let has = |part: &&str| declared.contains(part);
        if has(&"int") {
            Self::Integer
        } else if ["char", "clob", "text"].iter().any(has) {
            Self::Text
        } else if has(&"blob") {
            Self::Blob
        } else if ["real", "floa", "doub"].iter().any(has) {
            Self::Real
        } else {
            Self::Numeric
        }
    }
}

/// Whether a column of the database keeps values of this type as they are.
///
/// A declared type that SQLite does not know has numeric affinity: it turns text that looks like a
/// number into one. No time, date or UUID does, so their usual names are fine; JSON may (`1.0`
/// would come back as `1`), so for it `json` is not.
pub(super) fn fits(
    column_type: ColumnType,
    live: &LiveColumn,
) -> std::result::Result<(), &'static str> {
    let declared = live.type_name.as_str();
    let affinity = Affinity::of(declared);
    let named = |names: &[&str]| names.iter().any(|name| declared.starts_with(name));
    let numeric = affinity == Affinity::Numeric && named(&["numeric", "decimal", "number"]);
    let fits = match column_type {
        // Without a type nothing is converted.
        _ if declared.is_empty() => true,
        ColumnType::Bool => affinity == Affinity::Integer || numeric || named(&["bool"]),
        ColumnType::Int16 | ColumnType::Int32 | ColumnType::Int64 => {
            affinity == Affinity::Integer || numeric
        }
        ColumnType::Float32 | ColumnType::Float64 => affinity == Affinity::Real || numeric,
        ColumnType::Bytes => affinity == Affinity::Blob || named(&["binary", "varbinary"]),
        ColumnType::Uuid => {
            affinity == Affinity::Blob || named(&["binary", "varbinary", "uuid", "guid"])
        }
        ColumnType::Timestamp => affinity == Affinity::Text || named(&["timestamp", "datetime"]),
        ColumnType::Date => affinity == Affinity::Text || declared == "date",
        _ => affinity == Affinity::Text,
    };
    if fits {
        Ok(())
    } else {
        Err(type_name(column_type))
    }
}

/// The table is STRICT, so that what others write has the types of the columns too.
pub(super) fn create_table_sql(table: &Table) -> String {
    table.with_children().map(create_one_sql).collect()
}

fn create_one_sql(table: &Table) -> String {
    let mut sql = format!("CREATE TABLE IF NOT EXISTS {} (\n", quoted(table.name()));
    for column in table.columns() {
        let column_name = quoted(column.name());
        let column_type = type_name(column.column_type());
        let null = null_sql(column);
        writeln!(sql, "    {column_name} {column_type}{null},")
            .expect("writing to a String cannot fail");
    }
    let key = names(table.primary_key());
    let foreign_key = foreign_key_sql(table);
    write!(sql, "    PRIMARY KEY ({key}){foreign_key}\n) STRICT;\n")
        .expect("writing to a String cannot fail");
    sql.extend(tenant_index_sql(table));
    sql
}

/// The columns of a table; empty where there is none.
pub(super) async fn live_columns(
    connection: &mut SqliteConnection,
    table: &str,
) -> Result<Vec<LiveColumn>> {
    // SQLite declares the columns of a primary key nullable unless they are said not to be, yet
    // nobody means that. An INTEGER that is the whole key is the rowid, which fills itself.
    let rows = sqlx::query(
        "SELECT name,
                lower(type),
                \"notnull\" = 0 AND pk = 0,
                dflt_value IS NOT NULL
                    OR (pk = 1 AND lower(type) = 'integer'
                        AND (SELECT count(*) FROM pragma_table_info($1) WHERE pk > 0) = 1)
                    OR hidden IN (2, 3),
                hidden IN (2, 3)
         FROM pragma_table_xinfo($1)
         WHERE hidden <> 1
         ORDER BY cid",
    )
    .bind(table)
    .fetch_all(connection)
    .await;
    rows.and_then(|rows| read_live_columns(&rows))
        .map_err(|cause| error(cause, "reading the columns of a table"))
}

/// The keys of a table. One that is the rowid has no index.
pub(super) async fn live_keys(
    connection: &mut SqliteConnection,
    table: &str,
) -> Result<Vec<LiveKey>> {
    let rows = sqlx::query(
        "SELECT key, is_primary, column FROM (
             SELECT '' AS key, 1 AS is_primary, name AS column, pk AS place
             FROM pragma_table_info($1) WHERE pk > 0
             UNION ALL
             SELECT i.name, 0, c.name, c.seqno
             FROM pragma_index_list($1) AS i, pragma_index_info(i.name) AS c
             WHERE i.\"unique\" AND NOT i.partial AND i.origin <> 'pk'
                   AND NOT EXISTS (SELECT 1 FROM pragma_index_info(i.name) WHERE name IS NULL))
         ORDER BY is_primary DESC, key, place",
    )
    .bind(table)
    .fetch_all(connection)
    .await;
    rows.and_then(|rows| read_live_keys(&rows))
        .map_err(|cause| error(cause, "reading the keys of a table"))
}

/// The foreign keys of a table. One that names no columns of the other table points to its primary
/// key.
pub(super) async fn live_foreign_keys(
    connection: &mut SqliteConnection,
    table: &str,
) -> Result<Vec<LiveForeignKey>> {
    let rows = sqlx::query(
        "SELECT CAST(f.id AS text), lower(f.\"table\"), lower(f.\"from\"),
                lower(coalesce(
                    f.\"to\",
                    (SELECT name FROM pragma_table_info(f.\"table\") WHERE pk = f.seq + 1),
                    '?')),
                CASE WHEN f.on_delete = 'CASCADE' THEN NULL
                     WHEN f.on_delete = 'NO ACTION' AND EXISTS (
                         SELECT 1 FROM sqlite_schema AS s
                         WHERE s.type = 'table' AND lower(s.name) = lower($1)
                         AND s.sql LIKE '%INITIALLY%DEFERRED%') THEN NULL
                     ELSE f.on_delete
                END
         FROM pragma_foreign_key_list($1) AS f
         ORDER BY f.id, f.seq",
    )
    .bind(table)
    .fetch_all(connection)
    .await;
    rows.and_then(|rows| read_live_foreign_keys(&rows))
        .map_err(|cause| error(cause, "reading the foreign keys of a table"))
}

#[cfg(test)]
mod tests {
    use sqlx::{AssertSqlSafe, Connection};

    use super::super::fixture::{EVERY_TYPE, PLAN, READ_MODEL};
    use super::*;

    async fn run(connection: &mut SqliteConnection, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
            .execute(connection)
            .await
            .unwrap();
    }

    async fn memory() -> SqliteConnection {
        SqliteConnection::connect("sqlite::memory:").await.unwrap()
    }

    #[tokio::test]
    async fn a_created_table_is_the_one_expected() {
        let mut connection = memory().await;
        for table in [&*PLAN, &*EVERY_TYPE, &*READ_MODEL] {
            let sql = create_table_sql(table);
            run(&mut connection, &sql).await;
            run(&mut connection, &sql).await;
            let live = live_columns(&mut connection, table.name()).await.unwrap();
            assert_eq!(live.len(), table.columns().len());
            for (column, live) in table.columns().iter().zip(&live) {
                assert_eq!(live.name, column.name());
                assert_eq!(fits(column.column_type(), live), Ok(()), "{live:?}");
                assert_eq!(live.nullable, column.is_nullable(), "{live:?}");
                assert!(!live.has_default, "{live:?}");
            }
        }
    }

    #[test]
    fn an_aggregate_is_found_by_its_tenant() {
        let sql = create_table_sql(&PLAN);
        assert!(sql.contains("PRIMARY KEY (\"id\")"), "{sql}");
        assert!(sql.contains("ON \"plan\" (\"tenant_id\", \"id\")"), "{sql}");
        let sql = create_table_sql(&READ_MODEL);
        assert!(
            sql.contains("PRIMARY KEY (\"tenant\", \"depot\", \"day\")"),
            "{sql}"
        );
        assert!(!sql.contains("CREATE INDEX"), "{sql}");
    }

    #[tokio::test]
    async fn there_are_no_columns_of_no_table() {
        let live = live_columns(&mut memory().await, "nothing").await.unwrap();
        assert_eq!(live, []);
    }

    #[tokio::test]
    async fn keys_and_defaults_of_a_users_own_table_are_known() {
        let mut connection = memory().await;
        run(
            &mut connection,
            "CREATE TABLE t (row INTEGER PRIMARY KEY, id UUID, at DATETIME NOT NULL DEFAULT 0,
                             \"double\" INT AS (row * 2));
             CREATE TABLE u (id BLOB PRIMARY KEY, n VARCHAR(20))",
        )
        .await;
        let live = live_columns(&mut connection, "t").await.unwrap();
        let found: Vec<_> = live
            .iter()
            .map(|live| {
                (
                    live.name.as_str(),
                    live.type_name.as_str(),
                    live.nullable,
                    live.has_default,
                    live.is_generated,
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                ("row", "integer", false, true, false),
                ("id", "uuid", true, false, false),
                ("at", "datetime", false, true, false),
                ("double", "int", true, true, true),
            ]
        );
        let live = live_columns(&mut connection, "u").await.unwrap();
        assert!(!live[0].nullable && !live[0].has_default);
        assert_eq!(live[1].type_name, "varchar(20)");
    }

    #[tokio::test]
    async fn keys_of_all_rows_are_known() {
        let mut connection = memory().await;
        run(
            &mut connection,
            "CREATE TABLE t (row INTEGER PRIMARY KEY, a, b, UNIQUE (b, a));
             CREATE UNIQUE INDEX part ON t (a) WHERE a > 0;
             CREATE UNIQUE INDEX half ON t (b, abs(a));
             CREATE INDEX plain ON t (b);
             CREATE TABLE u (a, b, PRIMARY KEY (b, a))",
        )
        .await;
        let key = |is_primary, columns: &[&str]| LiveKey {
            columns: columns.iter().map(|column| (*column).to_owned()).collect(),
            is_primary,
        };
        let keys = live_keys(&mut connection, "t").await.unwrap();
        assert_eq!(keys, [key(true, &["row"]), key(false, &["b", "a"])]);
        let keys = live_keys(&mut connection, "u").await.unwrap();
        assert_eq!(keys, [key(true, &["b", "a"])]);
    }

    #[test]
    fn the_declared_types_that_users_write_are_known() {
        use ColumnType::*;
        let live = |type_name: &str| LiveColumn {
            name: "c".to_owned(),
            type_name: type_name.to_owned(),
            nullable: false,
            has_default: false,
            is_generated: false,
        };
        for (column_type, good, bad) in [
            (
                Bool,
                &["boolean", "bool", "integer", "tinyint"][..],
                &["text", "date"][..],
            ),
            (
                Int32,
                &["int", "integer", "int4", "bigint", "decimal(10, 0)"],
                &["boolean", "real", "text"],
            ),
            (
                Float64,
                &["real", "double precision", "float", "numeric"],
                &["integer", "text"],
            ),
            (
                Text,
                &["text", "varchar(20)", "character(20)", "clob", ""],
                &["string", "integer", "blob"],
            ),
            (Bytes, &["blob", "varbinary(16)", ""], &["text", "uuid"]),
            (
                Uuid,
                &["blob", "uuid", "binary(16)"],
                &["text", "varchar(36)", "integer"],
            ),
            (
                Timestamp,
                &["text", "timestamp", "datetime", "timestamp with time zone"],
                &["integer", "date"],
            ),
            (Date, &["text", "date"], &["datetime", "integer"]),
            (Json, &["text", "clob"], &["json", "jsonb", "blob"]),
        ] {
            for name in good {
                assert_eq!(
                    fits(column_type, &live(name)),
                    Ok(()),
                    "{column_type} in {name}"
                );
            }
            for name in bad {
                let wanted = fits(column_type, &live(name)).unwrap_err();
                assert_eq!(wanted, type_name(column_type), "{column_type} in {name}");
                assert_eq!(fits(column_type, &live(wanted)), Ok(()));
            }
        }
    }
}
