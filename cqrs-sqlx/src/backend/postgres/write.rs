//! Writing aggregates with their events.
//!
//! One aggregate is one statement in autocommit: a data-modifying CTE changes the row under its
//! version guard, and the events are inserted from what it changed. A stale version changes no
//! row, and so inserts no event.
//!
//! ```sql
//! WITH changed AS (
//!     UPDATE "route_plan" AS t SET "version" = $1, "status" = $2
//!     WHERE t."id" = $3 AND t."version" = $4 AND t."tenant_id" = $5 AND t."deleted_at" IS NULL
//!     RETURNING 1)
//! INSERT INTO cqrs_event (...) SELECT $6, ... FROM changed RETURNING position
//! ```
//!
//! An event-sourced aggregate has no row, and is written by [`append`].
//!
//! Several aggregates, one whose children change, and all that is written
//! [behind a pooler](super::process) are one transaction: one statement for each
//! table and operation, with arrays, and one for all events. Rows are locked in one order, by table
//! and id, those that are only guarded among them; streams come after all rows.

mod append;
mod children;
mod groups;
mod guard;
pub(super) mod history;
mod sql;
pub(super) mod together;

pub(super) use self::sql::placeholders;

use std::sync::Arc;

use cqrs_core::staging::{Operation, StagedWrite};
use cqrs_core::{Envelope, Error, Metadata, Position};
use sqlx::Row;
use sqlx::postgres::{PgArguments, PgRow};
use uuid::Uuid;

use self::groups::Locked;
use self::guard::Guard;
use self::history::Kept;
use self::sql::Strength;
use super::events;
use super::row::PgSource;
use super::{Session, bind, error};
use crate::backend::bind::query;
use crate::backend::{Backed, Committed, Returned, Written, version_column, written_columns};
use crate::log::read_event;
use crate::statements::{Statements, quoted};
use crate::tenancy::TenantSite;

/// Why a write failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// It was refused.
    Refused(Error),
    /// The connection broke.
    Disconnected(Error),
}

impl Failure {
    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Refused(error) | Self::Disconnected(error) => error,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

type Outcome<T> = std::result::Result<T, Failure>;

fn failure(cause: sqlx::Error, writes: &[&StagedWrite]) -> Failure {
    let disconnected = error::is_disconnect(&cause);
    let error = error::write_error(cause, writes);
    if disconnected {
        Failure::Disconnected(error)
    } else {
        Failure::Refused(error)
    }
}

/// Commits writes on a connection that is in no transaction.
pub(super) async fn commit(
    session: &mut Session,
    statements: &Statements,
    writes: &[StagedWrite],
    metadata: &Metadata,
) -> Committed {
    let outcome = match writes {
        writes if session.is_pooled() => {
            commit_several(session, statements, writes, metadata).await
        }
        [write] if write.is_sourced() => append::one(session, statements, write, metadata).await,
        [write] if write.children.is_empty() => {
            write_one(session, statements, write, metadata, Returned::Positions).await
        }
        writes => commit_several(session, statements, writes, metadata).await,
    };
    match outcome {
        Ok(written) => Committed::Done(written),
        Err(Failure::Refused(error)) => Committed::Refused(error),
        Err(Failure::Disconnected(error)) => Committed::Lost(error),
    }
}

async fn commit_several(
    session: &mut Session,
    statements: &Statements,
    writes: &[StagedWrite],
    metadata: &Metadata,
) -> Outcome<Written> {
    let all: Vec<&StagedWrite> = writes.iter().collect();
    session
        .begin()
        .await
        .map_err(|cause| failure(cause, &all))?;
    match apply(
        session,
        statements,
        &[],
        writes,
        metadata,
        Returned::Positions,
    )
    .await
    {
        Ok(written) => {
            super::transaction::commit::<sqlx::Postgres>(&mut session.connection)
                .await
                .map_err(|cause| failure(cause, &all))?;
            Ok(written)
        }
        Err(Failure::Refused(error)) => {
            // Where even this fails, the connection is gone and the server rolls back itself.
            let _ = super::Postgres::rollback(session).await;
            Err(Failure::Refused(error))
        }
        Err(disconnected) => Err(disconnected),
    }
}

/// Changes one row and appends its events, in one statement.
async fn write_one(
    session: &mut Session,
    statements: &Statements,
    write: &StagedWrite,
    metadata: &Metadata,
    returned: Returned,
) -> Outcome<Written> {
    let table = write.table;
    let several = write.events.len() > 1;
    let shape = sql::shape_of_one(write.operation, several, returned);
    let text = statements.get(table, shape, || {
        sql::one(table, write.operation, several, returned)
    });

    let mut arguments = PgArguments::default();
    for (index, column) in written_columns(table, write.operation) {
        bind::add(&mut arguments, column.column_type(), &write.row[index])?;
    }
    if write.operation != Operation::Insert {
        guard::bind_one(&mut arguments, write)?;
    }
    events::bind_origin(&mut arguments, metadata)?;
    events::bind_stream(&mut arguments, write)?;
    match write.events.as_slice() {
        [event] => events::bind_event(&mut arguments, event)?,
        several => events::bind_events(&mut arguments, &several.iter().collect::<Vec<_>>())?,
    }
    if table.keeps_history() {
        history::bind_one(&mut arguments, write)?;
    }

    let rows = query(&text, arguments)
        .fetch_all(&mut session.connection)
        .await
        .map_err(|cause| failure(cause, &[write]))?;
    if rows.is_empty() {
        explain(session, statements, &[write]).await?;
        return Ok(Written::default());
    }
    written(&[write], rows, returned)
}

/// Checks guards and applies writes within a transaction.
pub(super) async fn apply(
    session: &mut Session,
    statements: &Statements,
    guards: &[StagedWrite],
    writes: &[StagedWrite],
    metadata: &Metadata,
    returned: Returned,
) -> Outcome<Written> {
    let (read, guarded): (Vec<_>, Vec<_>) = guards.iter().partition(|guard| guard.is_sourced());
    let groups = groups::of(writes);
    for rows in groups::locked_first(&groups, &guarded) {
        lock(session, statements, &rows).await?;
    }
    if let [write] = writes
        && !write.is_sourced()
        && !keeps_changed_children(write)
    {
        let written = write_one(session, statements, write, metadata, returned).await?;
        children::apply(session, statements, writes).await?;
        append::hold(session, &read, &[]).await?;
        return Ok(written);
    }
    let mut unchanged: Vec<&StagedWrite> = Vec::new();
    for group in &groups {
        if groups::deletes(group[0]) && group[0].table.keeps_history() {
            // One that is not at its version is not deleted either.
            let rows = Locked {
                writes: group.clone(),
                strength: Strength::Delete,
            };
            lock(session, statements, &rows).await?;
            keep_revisions(session, statements, group, metadata).await?;
        }
        let left = apply_group(session, statements, group).await?;
        explain(session, statements, &left).await?;
        unchanged.extend(left);
    }
    children::apply(session, statements, writes).await?;
    for mut group in groups {
        group.retain(|write| !groups::deletes(write) && !is_among(&unchanged, write));
        if !keep_revisions(session, statements, &group, metadata).await? {
            return Err(history::not_kept(group[0].table).into());
        }
    }
    let streams: Vec<&StagedWrite> = writes.iter().filter(|write| write.is_sourced()).collect();
    append::hold(session, &read, &streams).await?;
    let changed: Vec<&StagedWrite> = writes
        .iter()
        .filter(|write| !is_among(&unchanged, write))
        .collect();
    if changed.is_empty() {
        return Ok(Written::default());
    }
    let sourced = !streams.is_empty();
    let text = statements.get(
        writes[0].table,
        events::shape_of_insert(returned, sourced),
        || events::insert(returned, sourced),
    );
    let mut arguments = PgArguments::default();
    events::bind_origin(&mut arguments, metadata)?;
    events::bind_streams_and_events(&mut arguments, &changed)?;
    if sourced {
        events::bind_sourced(&mut arguments, &changed)?;
    }
    let rows = query(&text, arguments)
        .fetch_all(&mut session.connection)
        .await
        .map_err(|cause| failure(cause, &changed))?;
    let events: usize = changed.iter().map(|write| write.events.len()).sum();
    if rows.len() < events {
        return Err(refused(session, &changed, &rows).await);
    }
    append::note_heads(session, &streams).await?;
    written(&changed, rows, returned)
}

fn is_among(writes: &[&StagedWrite], write: &StagedWrite) -> bool {
    writes.iter().any(|other| std::ptr::eq(*other, write))
}

/// Whether its revision can be kept only when its children are written.
fn keeps_changed_children(write: &StagedWrite) -> bool {
    write.table.keeps_history() && !write.children.is_empty() && !groups::deletes(write)
}

/// Keeps the revisions of writes of one table and operation; whether all rows were at their version.
async fn keep_revisions(
    session: &mut Session,
    statements: &Statements,
    writes: &[&StagedWrite],
    metadata: &Metadata,
) -> Outcome<bool> {
    let Some(first) = writes.first() else {
        return Ok(true);
    };
    let rows: Vec<Kept> = writes.iter().map(|write| Kept::of(write)).collect();
    let (of, kind) = ((first.table, first.aggregate_type), first.operation.into());
    let refused = |cause| failure(cause, writes);
    history::keep(session, statements, of, kind, &rows, metadata, refused).await
}

/// Why some of the events of these writes were not added, by the rows of those that were: others have
/// added theirs meanwhile.
async fn refused(session: &mut Session, writes: &[&StagedWrite], rows: &[PgRow]) -> Failure {
    let added = rows.iter().map(|row| row.try_get(1));
    let added: Vec<Uuid> = match added.collect::<sqlx::Result<_>>() {
        Ok(added) => added,
        Err(cause) => return failure(cause, writes),
    };
    let is_refused = |write: &&&StagedWrite| {
        let events = &mut write.events.iter();
        events.any(|event| !added.contains(&event.event_id))
    };
    let refused: Vec<&StagedWrite> = writes.iter().filter(is_refused).copied().collect();
    if let Some(new) = refused
        .iter()
        .find(|write| write.operation == Operation::Insert)
    {
        return Failure::Refused(new.already_exists());
    }
    match append::check(session, &refused, &added, append::Lock::No).await {
        Ok(()) => Failure::Refused(Error::other("events were not added to the log")),
        Err(failure) => failure,
    }
}

/// What writes have written, from the rows that their events returned.
fn written(writes: &[&StagedWrite], rows: Vec<PgRow>, returned: Returned) -> Outcome<Written> {
    let position = highest(&rows).map_err(|cause| failure(cause, writes))?;
    let mut envelopes = Vec::new();
    if returned == Returned::Events {
        for row in rows {
            envelopes.push(read_event(&PgSource(row))?);
        }
        envelopes.sort_by_key(Envelope::position);
    }
    let events = writes.iter().flat_map(|write| &write.events);
    Ok(Written {
        events: events.map(|event| event.event_id).collect(),
        position,
        envelopes,
    })
}

/// Locks rows of one table in their order, and checks those that are guarded.
async fn lock(session: &mut Session, statements: &Statements, rows: &Locked<'_>) -> Outcome<()> {
    let (writes, strength) = (&rows.writes, rows.strength);
    let table = writes[0].table;
    let text = statements.get(table, strength.shape(), || sql::lock(table, strength));
    let versions = versions(session, &text, writes).await?;
    for (write, found) in writes.iter().zip(versions) {
        if groups::is_guard(write) {
            match found {
                None => return Err(write.not_found().into()),
                Some(found) if found == write.expected_version => {}
                Some(found) => return Err(write.conflict(found).into()),
            }
        }
    }
    Ok(())
}

/// The versions of the rows of these writes, from a statement that selects those that are there with
/// their places.
async fn versions(
    session: &mut Session,
    text: &Arc<str>,
    writes: &[&StagedWrite],
) -> Outcome<Vec<Option<u64>>> {
    let mut arguments = PgArguments::default();
    guard::bind_arrays(&mut arguments, writes, Guard::AnyVersion)?;
    let rows = query(text, arguments)
        .fetch_all(&mut session.connection)
        .await
        .map_err(|cause| failure(cause, writes))?;
    let mut versions: Vec<Option<u64>> = vec![None; writes.len()];
    for row in &rows {
        let read = || -> sqlx::Result<(i64, i64)> { Ok((row.try_get(0)?, row.try_get(1)?)) };
        let (ordinality, version) = read().map_err(|cause| failure(cause, writes))?;
        let place = usize::try_from(ordinality - 1).ok();
        if let Some(slot) = place.and_then(|place| versions.get_mut(place)) {
            *slot = Some(u64::try_from(version).unwrap_or(0));
        }
    }
    Ok(versions)
}

/// Writes the rows of a group; returns the writes that changed no row.
async fn apply_group<'w>(
    session: &mut Session,
    statements: &Statements,
    group: &[&'w StagedWrite],
) -> Outcome<Vec<&'w StagedWrite>> {
    let table = group[0].table;
    let operation = group[0].operation;
    let several = group.len() > 1;
    let text = statements.get(table, sql::shape_of_many(operation, several), || {
        sql::many(table, operation, several)
    });
    let mut arguments = PgArguments::default();
    for (index, column) in written_columns(table, operation) {
        let values = group.iter().map(|write| &write.row[index]);
        bind::add_column(&mut arguments, column.column_type(), values)?;
    }
    if operation == Operation::Insert {
        query(&text, arguments)
            .execute(&mut session.connection)
            .await
            .map_err(|cause| failure(cause, group))?;
        return Ok(Vec::new());
    }
    guard::bind_arrays(&mut arguments, group, Guard::Versioned)?;
    let rows = query(&text, arguments)
        .fetch_all(&mut session.connection)
        .await
        .map_err(|cause| failure(cause, group))?;
    let mut left: Vec<Option<&StagedWrite>> = group.iter().copied().map(Some).collect();
    for row in &rows {
        let ordinality: i64 = row.try_get(0).map_err(|cause| failure(cause, group))?;
        if let Some(slot) = usize::try_from(ordinality - 1)
            .ok()
            .and_then(|index| left.get_mut(index))
        {
            *slot = None;
        }
    }
    Ok(left.into_iter().flatten().collect())
}

/// Says why these writes of one table changed no row: `Ok` where each of them had nothing to
/// change.
async fn explain(
    session: &mut Session,
    statements: &Statements,
    writes: &[&StagedWrite],
) -> Outcome<()> {
    let Some(first) = writes.first() else {
        return Ok(());
    };
    let table = first.table;
    let text = statements.get(table, "versions", || {
        format!(
            "SELECT g.ordinality, t.{} FROM {} AS t JOIN {} ON {}",
            quoted(version_column(table)),
            quoted(table.name()),
            guard::unnested(table, Guard::AnyVersion),
            guard::sql_of_arrays(TenantSite::GuardVersion, table, Guard::AnyVersion),
        )
    });
    let versions = versions(session, &text, writes).await?;
    for (write, found) in writes.iter().zip(versions) {
        match found {
            None => return Err(write.not_found().into()),
            Some(found)
                if write.operation == Operation::UpdateIfChanged
                    && found == write.expected_version => {}
            Some(found) => return Err(write.conflict(found).into()),
        }
    }
    Ok(())
}

fn highest(rows: &[PgRow]) -> sqlx::Result<Option<Position>> {
    let mut highest = None;
    for row in rows {
        highest = highest.max(Some(Position(row.try_get(0)?)));
    }
    Ok(highest)
}
