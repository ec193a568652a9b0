//! Commits of several callers, all of one table and operation, in one statement.
//!
//! ```sql
//! WITH changed AS (
//!     UPDATE "route_plan" AS t SET "version" = g."new_version", "status" = g."new_status"
//!     FROM (SELECT g.* FROM "route_plan" AS t JOIN unnest(...) WITH ORDINALITY AS g(...)
//!           ON t."id" = g."guard_key" AND t."version" = g."guard_version" AND ...
//!           ORDER BY g.ordinality FOR NO KEY UPDATE OF t SKIP LOCKED) AS g
//!     WHERE t."id" = g."guard_key" AND t."version" = g."guard_version" AND ...
//!     RETURNING g.ordinality)
//! INSERT INTO cqrs_event (...) SELECT e.correlation_id, ...
//! FROM unnest(...) WITH ORDINALITY AS e(...) JOIN changed ON changed.ordinality = e.write
//! ORDER BY e.ordinality RETURNING position, event_id
//! ```
//!
//! It decides nothing against anyone: a write that it left out, or all of them where it failed, are
//! committed by statements of their own.

use std::collections::HashMap;

use cqrs_core::staging::{Operation, StagedWrite};
use cqrs_core::{Metadata, Position};
use sqlx::Row;
use sqlx::postgres::PgArguments;
use uuid::Uuid;

use super::guard::{self, Guard};
use super::{Failure, Outcome, bind, events, failure, sql};
use crate::backend::bind::query;
use crate::backend::postgres::Session;
use crate::backend::{Committed, Written, transaction, written_columns};
use crate::statements::Statements;

/// See [`Backed::commit_together`](crate::backend::Backed::commit_together).
pub(in crate::backend::postgres) async fn commit(
    session: &mut Session,
    statements: &Statements,
    writes: &[(&StagedWrite, &Metadata)],
) -> Committed<Vec<Option<Written>>> {
    let committed = if session.is_pooled() {
        commit_in_transaction(session, statements, writes).await
    } else {
        commit_all(session, statements, writes).await
    };
    match committed {
        Ok(written) => Committed::Done(written),
        Err(Failure::Refused(error)) => Committed::Refused(error),
        Err(Failure::Disconnected(error)) => Committed::Lost(error),
    }
}

/// As [`commit_all`], where what became of a statement alone could not be found out.
async fn commit_in_transaction(
    session: &mut Session,
    statements: &Statements,
    writes: &[(&StagedWrite, &Metadata)],
) -> Outcome<Vec<Option<Written>>> {
    let refused = |cause| failure(cause, &[]);
    session.begin().await.map_err(refused)?;
    match commit_all(session, statements, writes).await {
        Ok(written) => {
            transaction::commit::<sqlx::Postgres>(&mut session.connection)
                .await
                .map_err(refused)?;
            Ok(written)
        }
        Err(Failure::Refused(error)) => {
            // Where even this fails, the connection is gone and the server rolls back itself.
            let _ = transaction::rollback::<sqlx::Postgres>(&mut session.connection).await;
            Err(Failure::Refused(error))
        }
        Err(disconnected) => Err(disconnected),
    }
}

async fn commit_all(
    session: &mut Session,
    statements: &Statements,
    writes: &[(&StagedWrite, &Metadata)],
) -> Outcome<Vec<Option<Written>>> {
    let staged: Vec<&StagedWrite> = writes.iter().map(|(write, _)| *write).collect();
    let (table, operation) = (staged[0].table, staged[0].operation);
    let text = statements.get(table, sql::shape_of_together(operation), || {
        sql::together(table, operation)
    });
    let mut arguments = PgArguments::default();
    for (index, column) in written_columns(table, operation) {
        let values = staged.iter().map(|write| &write.row[index]);
        bind::add_column(&mut arguments, column.column_type(), values)?;
    }
    if operation != Operation::Insert {
        guard::bind_arrays(&mut arguments, &staged, Guard::Versioned)?;
    }
    events::bind_of_callers(&mut arguments, writes)?;
    let rows = query(&text, arguments)
        .fetch_all(&mut session.connection)
        .await
        .map_err(|cause| failure(cause, &staged))?;
    let mut positions = HashMap::with_capacity(rows.len());
    for row in &rows {
        let read = || -> sqlx::Result<(Uuid, i64)> { Ok((row.try_get(1)?, row.try_get(0)?)) };
        let (event, position) = read().map_err(|cause| failure(cause, &staged))?;
        positions.insert(event, Position(position));
    }
    Ok(staged
        .iter()
        .map(|write| written(write, &positions))
        .collect())
}

/// What a write has written; `None` where it was left out.
fn written(write: &StagedWrite, positions: &HashMap<Uuid, Position>) -> Option<Written> {
    let events: Vec<Uuid> = write.events.iter().map(|event| event.event_id).collect();
    let position = events.iter().filter_map(|event| positions.get(event)).max();
    Some(Written {
        position: Some(*position?),
        events,
        envelopes: Vec::new(),
    })
}
