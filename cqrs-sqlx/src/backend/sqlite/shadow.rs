//! Tables that are built to take the place of others.

use cqrs_core::mapping::Table;
use cqrs_core::{Error, Result, StoreErrorKind};
use sqlx::{AssertSqlSafe, Row, SqliteConnection};

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
    refuse_constraints(connection, table).await?;
    refuse_children(connection, table).await?;
    Ok(vec![schema::create_table_sql(shadow)])
}

/// Refuses a table with constraints that the new one would not have: they are in the text of its
/// definition alone.
async fn refuse_constraints(
    connection: &mut SqliteConnection,
    table: &'static Table,
) -> Result<()> {
    let found = texts(
        connection,
        "SELECT 'unique constraint of ' || (SELECT group_concat(name, ', ')
                                            FROM pragma_index_info(i.name))
         FROM pragma_index_list($1) AS i WHERE i.origin = 'u'
         UNION
         SELECT 'foreign key to ' || f.\"table\" FROM pragma_foreign_key_list($1) AS f
         UNION
         SELECT 'generated column ' || c.name FROM pragma_table_xinfo($1) AS c
         WHERE c.hidden IN (2, 3)
         ORDER BY 1",
        &[table.name()],
    )
    .await?;
    if found.is_empty() {
        return Ok(());
    }
    Err(Error::store(
        StoreErrorKind::Usage,
        format!(
            "table {} cannot be exchanged, since the new one would not have: {}. Indexes are kept, \
             also unique ones",
            table.name(),
            found.join(", ")
        ),
    ))
}

/// Refuses a table that others point to: SQLite deletes the rows of a table before it drops it, and
/// with them what hangs on them.
async fn refuse_children(connection: &mut SqliteConnection, table: &'static Table) -> Result<()> {
    let children = texts(
        connection,
        "SELECT DISTINCT m.name FROM sqlite_schema AS m, pragma_foreign_key_list(m.name) AS f
         WHERE m.type = 'table' AND lower(f.\"table\") = lower($1) AND lower(m.name) <> lower($1)
         ORDER BY 1",
        &[table.name()],
    )
    .await?;
    if children.is_empty() {
        return Ok(());
    }
    Err(Error::store(
        StoreErrorKind::Usage,
        format!(
            "table {} cannot be exchanged, since something hangs on it that would not follow: \
             foreign keys of {}. Remove that before the rebuild, and make it anew after",
            table.name(),
            children.join(", ")
        ),
    ))
}

/// Puts it in the place of the table, with the indexes and triggers of that. An index of columns
/// that are no more is left out.
pub(super) async fn exchange(
    connection: &mut SqliteConnection,
    table: &'static Table,
) -> Result<()> {
    refuse_children(connection, table).await?;
    let kept = texts(
        connection,
        "SELECT m.sql FROM sqlite_schema AS m
         WHERE lower(m.tbl_name) = lower($1) AND m.type IN ('index', 'trigger') AND m.sql IS NOT NULL
               AND NOT (m.type = 'index' AND EXISTS (
                   SELECT 1 FROM pragma_index_xinfo(m.name) AS i
                   WHERE i.cid >= 0 AND i.key
                         AND lower(i.name) NOT IN
                             (SELECT lower(name) FROM pragma_table_info($2))))
         ORDER BY m.type, m.name",
        &[table.name(), table.shadow().name()],
    )
    .await?;
    let (name, shadow) = (quoted(table.name()), quoted(table.shadow().name()));
    // Views refer to the table by its name. The old way of renaming leaves them alone; the other
    // one would refuse, since they refer to nothing for a moment. It is no part of the transaction,
    // so it ends also where something fails.
    run(connection, "PRAGMA legacy_alter_table = ON".to_owned()).await?;
    let renamed = run(
        connection,
        format!("DROP TABLE {name}; ALTER TABLE {shadow} RENAME TO {name}"),
    )
    .await;
    run(connection, "PRAGMA legacy_alter_table = OFF".to_owned()).await?;
    renamed?;
    for sql in kept {
        run(connection, sql).await?;
    }
    Ok(())
}

async fn run(connection: &mut SqliteConnection, sql: String) -> Result<()> {
    let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await;
    done.map(drop)
        .map_err(|cause| error(cause, "exchanging a table"))
}

async fn texts(
    connection: &mut SqliteConnection,
    sql: &'static str,
    parameters: &[&str],
) -> Result<Vec<String>> {
    let mut query = sqlx::query(sql);
    for parameter in parameters {
        query = query.bind(*parameter);
    }
    let rows = query.fetch_all(connection).await;
    let text = |row: &sqlx::sqlite::SqliteRow| row.try_get::<String, _>(0);
    rows.and_then(|rows| rows.iter().map(text).collect())
        .map_err(|cause| error(cause, "reading what belongs to a table"))
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::sync::LazyLock;

    use sqlx::SqliteConnection;
    use sqlx::sqlite::SqliteConnectOptions;

    use super::super::connection::{begin, open, repair, rollback};
    use super::*;

    static TABLE: LazyLock<Table> = LazyLock::new(|| {
        let table = Table::builder("plan_list").key::<i64>("id");
        table.column::<i64>("stops").build()
    });

    async fn memory() -> SqliteConnection {
        let options = SqliteConnectOptions::new().in_memory(true);
        let mut connection = open(&options).await.unwrap();
        let table = schema::create_table_sql(&TABLE);
        run(&mut connection, table).await.unwrap();
        connection
    }

    /// Whether tables are renamed the old way.
    async fn is_old(connection: &mut SqliteConnection) -> bool {
        let old: i64 = sqlx::query_scalar("PRAGMA legacy_alter_table")
            .fetch_one(connection)
            .await
            .unwrap();
        old == 1
    }

    /// Polls a future so often, and drops it; whether it was ready.
    async fn poll(times: usize, future: impl Future) -> bool {
        let mut future = pin!(future);
        let mut left = times;
        std::future::poll_fn(|context| match future.as_mut().poll(context) {
            std::task::Poll::Ready(_) => std::task::Poll::Ready(true),
            std::task::Poll::Pending if left == 0 => std::task::Poll::Ready(false),
            std::task::Poll::Pending => {
                left -= 1;
                std::task::Poll::Pending
            }
        })
        .await
    }

    #[tokio::test]
    async fn an_exchange_that_fails_leaves_nothing_on() {
        let mut connection = memory().await;
        begin(&mut connection).await.unwrap();
        exchange(&mut connection, &TABLE).await.unwrap_err();
        assert!(!is_old(&mut connection).await);
        rollback(&mut connection).await.unwrap();
        let columns = schema::live_columns(&mut connection, "plan_list").await;
        assert_eq!(columns.unwrap().len(), 2, "the table is there");
    }

    #[tokio::test]
    async fn an_exchange_that_is_abandoned_leaves_nothing_on() {
        let mut connection = memory().await;
        for times in 0.. {
            begin(&mut connection).await.unwrap();
            for sql in create_sql(&mut connection, &TABLE).await.unwrap() {
                run(&mut connection, sql).await.unwrap();
            }
            let done = poll(times, exchange(&mut connection, &TABLE)).await;
            connection = repair(connection).await.unwrap();
            assert!(!is_old(&mut connection).await, "after {times} polls");
            if done {
                return;
            }
        }
    }
}
