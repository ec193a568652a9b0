//! Tables that are built to take the place of others.

use cqrs_core::mapping::Table;
use cqrs_core::{Error, Result, StoreErrorKind};
use sqlx::{Row, SqliteConnection};

use super::error::error;
use super::schema;
use crate::statements::quoted;

/// What creates the shadow of a table. Its indexes and triggers come with the switch, as only then
/// their names are free.
pub(super) async fn create_sql(
    connection: &mut SqliteConnection,
    table: &'static Table,
) -> Result<Vec<String>> {
    let shadow = table.shadow();
    for (name, wanted) in [(table.name(), true), (shadow.name(), false)] {
        let columns = schema::live_columns(connection, name).await?;
        if columns.is_empty() == wanted {
            let found = if wanted { "no such table" } else { "one" };
            return Err(Error::store(
                StoreErrorKind::Usage,
                format!("table {name} is in the way of a rebuild: found {found}"),
            ));
        }
    }
    Ok(vec![schema::create_table_sql(shadow)])
}

/// What puts it in the place of the table, with the indexes and triggers of that. An index of
/// columns that are no more is left out.
///
/// Views refer to the table by its name. The old way of renaming leaves them alone; the other one
/// would refuse, since they refer to nothing for a moment.
pub(super) async fn switch_sql(
    connection: &mut SqliteConnection,
    table: &'static Table,
) -> Result<Vec<String>> {
    let (name, shadow) = (quoted(table.name()), quoted(table.shadow().name()));
    let rows = sqlx::query(
        "SELECT m.sql FROM sqlite_schema AS m
         WHERE m.tbl_name = $1 AND m.type IN ('index', 'trigger') AND m.sql IS NOT NULL
               AND NOT (m.type = 'index' AND EXISTS (
                   SELECT 1 FROM pragma_index_xinfo(m.name) AS i
                   WHERE i.cid >= 0 AND i.key
                         AND i.name NOT IN (SELECT name FROM pragma_table_info($2))))
         ORDER BY m.type, m.name",
    )
    .bind(table.name())
    .bind(table.shadow().name())
    .fetch_all(connection)
    .await;
    let sql = |row: &sqlx::sqlite::SqliteRow| row.try_get::<String, _>(0);
    let kept = rows.and_then(|rows| rows.iter().map(sql).collect::<sqlx::Result<Vec<_>>>());
    let kept = kept.map_err(|cause| error(cause, "reading what belongs to a table"))?;
    let rename = format!(
        "PRAGMA legacy_alter_table = ON;\n\
         DROP TABLE {name};\n\
         ALTER TABLE {shadow} RENAME TO {name};\n\
         PRAGMA legacy_alter_table = OFF;\n"
    );
    Ok(std::iter::once(rename).chain(kept).collect())
}
