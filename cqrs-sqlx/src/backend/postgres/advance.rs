//! Moving a checkpoint together with the rows of its page, in one statement.

use std::sync::Arc;

use cqrs_core::Result;
use cqrs_core::mapping::Table;
use sqlx::PgConnection;
use sqlx::postgres::PgArguments;

use super::error;
use super::rows::{bind_addresses, bind_rows, delete_sql, upsert_sql};
use crate::backend::bind::bind;
use crate::backend::rows::written_columns;
use crate::backend::{Advance, RowVersion, RowWrites};
use crate::statements::Statements;

/// How many parameters the statement has that moves a checkpoint.
const OF_CHECKPOINT: usize = 4;

pub(super) async fn run(
    connection: &mut PgConnection,
    statements: &Statements,
    advance: &Advance,
    writes: Option<&RowWrites>,
) -> Result<Option<RowVersion>> {
    let mut arguments = PgArguments::default();
    bind(&mut arguments, &*advance.subscription)?;
    bind(&mut arguments, advance.segment)?;
    bind(&mut arguments, advance.position.0)?;
    bind(&mut arguments, advance.seen.0.as_str())?;
    let sql = match writes {
        None => Arc::clone(&advance.sql),
        Some(writes) => {
            if !writes.upserts.is_empty() {
                bind_rows(&mut arguments, writes.table, &writes.upserts)?;
            }
            if !writes.deletes.is_empty() {
                bind_addresses(&mut arguments, writes.table, &writes.deletes)?;
            }
            text(statements, &advance.sql, writes)
        }
    };
    let moved = sqlx::query_scalar_with(sqlx::AssertSqlSafe(sql), arguments)
        .fetch_optional(connection)
        .await
        .map_err(|cause| error(cause, "writing the rows of a page"))?;
    Ok(moved.map(RowVersion))
}

fn text(statements: &Statements, advance: &str, writes: &RowWrites) -> Arc<str> {
    let table = writes.table;
    let (upserts, deletes) = (!writes.upserts.is_empty(), !writes.deletes.is_empty());
    let shape = match (upserts, deletes) {
        (true, true) => "page with upserts and deletes",
        (true, false) => "page with upserts",
        (false, true) => "page with deletes",
        (false, false) => "page",
    };
    statements.get(table, shape, || build(table, advance, upserts, deletes))
}

/// ```sql
/// WITH moved AS (UPDATE cqrs_segment ... RETURNING concat(u.xmin, ...), ...),
///      written AS (INSERT INTO "plan_list" ... WHERE EXISTS (SELECT FROM moved) ON CONFLICT ...),
///      removed AS (DELETE FROM "plan_list" AS t ... AND EXISTS (SELECT FROM moved))
/// SELECT * FROM moved
/// ```
fn build(table: &Table, advance: &str, upserts: bool, deletes: bool) -> String {
    let mut sql = format!("WITH moved AS ({advance})");
    let mut first = OF_CHECKPOINT + 1;
    if upserts {
        let rows = upsert_sql(table, first, " WHERE EXISTS (SELECT FROM moved)");
        sql.push_str(&format!(", written AS ({rows})"));
        first += written_columns(table).count();
    }
    if deletes {
        let rows = delete_sql(table, first, " AND EXISTS (SELECT FROM moved)");
        sql.push_str(&format!(", removed AS ({rows})"));
    }
    sql.push_str(" SELECT * FROM moved");
    sql
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn rows_are_written_where_the_checkpoint_moves() {
        let table = Table::builder("plan_list")
            .tenant("tenant_id")
            .key::<Uuid>("id")
            .column::<i32>("stops")
            .build();
        assert_eq!(
            build(&table, "UPDATE s", true, true),
            "WITH moved AS (UPDATE s), \
             written AS (INSERT INTO \"plan_list\" (\"tenant_id\", \"id\", \"stops\") \
             SELECT k.c0, k.c1, k.c2 \
             FROM unnest($5::text[], $6::uuid[], $7::int4[]) AS k(c0, c1, c2) \
             WHERE EXISTS (SELECT FROM moved) ON CONFLICT (\"tenant_id\", \"id\") \
             DO UPDATE SET \"stops\" = excluded.\"stops\"), \
             removed AS (DELETE FROM \"plan_list\" AS t \
             USING unnest($8::text[], $9::uuid[]) AS k(c0, c1) \
             WHERE t.\"tenant_id\" = k.c0 AND t.\"id\" = k.c1 AND EXISTS (SELECT FROM moved)) \
             SELECT * FROM moved"
        );
    }
}
