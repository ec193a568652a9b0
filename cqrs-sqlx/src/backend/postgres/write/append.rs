//! Appending to the streams of event-sourced aggregates. There is no row: the event at the version
//! that the write expects must be there, and the unique key of the log refuses a second one behind
//! it.
//!
//! One aggregate is one statement in autocommit:
//!
//! ```sql
//! INSERT INTO cqrs_event (...) SELECT $1, ... FROM cqrs_event AS h
//! WHERE h.aggregate_type = $7 AND h.aggregate_id = $8 AND h.aggregate_version = $10 - 1
//!   AND h.tenant_id = $6 AND pg_advisory_xact_lock(...) IS NOT NULL
//! RETURNING position
//! ```
//!
//! Where its events are a chain, the same statement writes down in `cqrs_chain_head` where it ends.
//!
//! Only where it is refused, a second statement asks for the version. The lock is there for those who
//! guard the stream: they hold it shared, so that nothing is appended until their commit is over.

use std::collections::BTreeMap;

use cqrs_core::mapping::Table;
use cqrs_core::staging::{ChangeMarker, Operation, StagedWrite};
use cqrs_core::{Metadata, Result, TenantId};
use sqlx::Row;
use sqlx::postgres::PgArguments;
use uuid::Uuid;

use super::sql::placeholders;
use super::{Failure, Outcome, events, failure, written};
use crate::backend::bind::{bind, query};
use crate::backend::postgres::events::{EVENT, ORIGIN, STREAM};
use crate::backend::postgres::{Session, error};
use crate::backend::{Returned, Written, stable_hash};
use crate::integrity::{HEAD_COLUMNS, REPLACE_HEAD};
use crate::statements::Statements;
use crate::tenancy::{self, TenantSite};

/// The first key of the advisory locks on streams; the second is a hash of type and id.
const LOCK: i32 = 0x5354_524d;

/// Appends the events of one aggregate in autocommit.
pub(super) async fn one(
    session: &mut Session,
    statements: &Statements,
    write: &StagedWrite,
    metadata: &Metadata,
) -> Outcome<Written> {
    let (shape, is_new) = (shape(write), write.operation == Operation::Insert);
    let several = write.events.len() > 1;
    let text = statements.get(write.table, shape, || one_sql(is_new, several, write.table));
    let mut arguments = PgArguments::default();
    events::bind_origin(&mut arguments, metadata)?;
    events::bind_stream(&mut arguments, write)?;
    match write.events.as_slice() {
        [event] => events::bind_event(&mut arguments, event)?,
        several => events::bind_events(&mut arguments, &several.iter().collect::<Vec<_>>())?,
    }
    if !is_new {
        bind(&mut arguments, LOCK)?;
        bind(&mut arguments, hash(write))?;
    }
    let appended = query(&text, arguments)
        .fetch_all(&mut session.connection)
        .await;
    match appended {
        Ok(rows) if !rows.is_empty() => return written(&[write], rows, Returned::Positions),
        Ok(_) => {}
        Err(cause) if !is_new && error::is_stream_taken(&cause) => {}
        Err(cause) => return Err(failure(cause, &[write])),
    }
    check(session, &[write], &[], Lock::No).await?;
    // It was refused, and now is as expected: the event before it has come to be meanwhile.
    Err(write.conflict(write.expected_version).into())
}

fn shape(write: &StagedWrite) -> &'static str {
    match (write.operation, write.events.len()) {
        (Operation::Insert, 1) => "begin a stream, one event",
        (Operation::Insert, _) => "begin a stream, events",
        (_, 1) => "append one event",
        (_, _) => "append events",
    }
}

fn one_sql(is_new: bool, several: bool, table: &Table) -> String {
    let first = ORIGIN + STREAM + 1;
    let origin = placeholders(1, ORIGIN + STREAM);
    let (tenant, kind, id) = (ORIGIN + 1, ORIGIN + 2, ORIGIN + 3);
    let version = first + 1;
    let mut from = Vec::new();
    let (values, before) = if several {
        from.push(events::unnested(first, false));
        let values = "e.event_id, e.aggregate_version, e.event_type, e.schema_version, \
             e.payload::json, e.content_hash, e.occurred_at, e.schema_id"
            .to_owned();
        (values, format!("(${version}::int8[])[1] - 1"))
    } else {
        let event = placeholders(first, 4);
        let values = format!(
            "{event}, ${}::json, ${}, ${}, ${}",
            first + 4,
            first + 5,
            first + 6,
            first + 7
        );
        (values, format!("${version} - 1"))
    };
    let mut guard = String::new();
    if !is_new {
        from.push("cqrs_event AS h".to_owned());
        guard = format!(
            " WHERE h.aggregate_type = ${kind} AND h.aggregate_id = ${id} \
             AND h.aggregate_version = {before}"
        );
        if table.is_tenant() {
            let own = tenancy::equals(TenantSite::StreamHead, "h.tenant_id", &format!("${tenant}"));
            guard.push_str(" AND ");
            guard.push_str(&own);
        }
        let (class, key) = (first + EVENT, first + EVENT + 1);
        guard.push_str(&format!(
            " AND pg_advisory_xact_lock(${class}, ${key}) IS NOT NULL"
        ));
    }
    let from = match from.as_slice() {
        [] => String::new(),
        from => format!(" FROM {}", from.join(", ")),
    };
    let order = if several {
        " ORDER BY e.ordinality"
    } else {
        ""
    };
    let insert = format!(
        "INSERT INTO cqrs_event ({}, sourced) SELECT {origin}, {values}, true{from}{guard}{order} \
         RETURNING position",
        events::COLUMNS,
    );
    if !table.is_chained() {
        return insert;
    }
    let last = "aggregate_type, aggregate_id, tenant_id, aggregate_version, content_hash";
    format!(
        "WITH logged AS ({insert}, {last}), head AS (INSERT INTO cqrs_chain_head ({HEAD_COLUMNS}) \
         SELECT {last} FROM logged ORDER BY aggregate_version DESC LIMIT 1 {REPLACE_HEAD}) \
         SELECT position FROM logged"
    )
}

/// Writes down where the streams of chained aggregates end.
pub(super) async fn note_heads(session: &mut Session, writes: &[&StagedWrite]) -> Outcome<()> {
    let chained = writes.iter().filter(|write| write.table.is_chained());
    let ends: Vec<_> = chained
        .filter_map(|write| Some((*write, write.events.last()?)))
        .collect();
    if ends.is_empty() {
        return Ok(());
    }
    let text = format!(
        "INSERT INTO cqrs_chain_head ({HEAD_COLUMNS}) \
         SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::int8[], $5::bytea[]) \
         {REPLACE_HEAD}"
    );
    let mut arguments = PgArguments::default();
    let kinds: Vec<&str> = ends.iter().map(|(write, _)| write.aggregate_type).collect();
    bind(&mut arguments, kinds)?;
    let ids: Vec<&str> = ends
        .iter()
        .map(|(write, _)| write.aggregate_id.as_str())
        .collect();
    bind(&mut arguments, ids)?;
    let tenants: Vec<Option<&str>> = ends
        .iter()
        .map(|(write, _)| write.tenant.as_ref().map(TenantId::as_str))
        .collect();
    bind(&mut arguments, tenants)?;
    let versions = ends
        .iter()
        .map(|(_, last)| i64::try_from(last.aggregate_version).unwrap_or(i64::MAX));
    bind(&mut arguments, versions.collect::<Vec<i64>>())?;
    let hashes: Vec<Vec<u8>> = ends
        .iter()
        .map(|(_, last)| last.content_hash.to_bytes())
        .collect();
    bind(&mut arguments, hashes)?;
    query(&text.into(), arguments)
        .execute(&mut session.connection)
        .await
        .map(drop)
        .map_err(|cause| failure(cause, writes))
}

/// Locks streams, and compares their versions with those that are expected: nobody else appends to
/// them until the transaction ends.
///
/// What a lone write has read meanwhile is no matter, since the log refuses its events then. Nothing
/// refuses those of a guard: so its version is read after the lock, by a statement that sees all that
/// was committed under it.
pub(super) async fn hold(
    session: &mut Session,
    guards: &[&StagedWrite],
    writes: &[&StagedWrite],
) -> Outcome<()> {
    let lock_with_the_check = if guards.is_empty() && writes.len() < 2 {
        Lock::Yes
    } else {
        lock(session, guards, writes).await?;
        Lock::No
    };
    let begun = |write: &&StagedWrite| write.operation != Operation::Insert;
    let expected = guards.iter().chain(writes).copied().filter(begun);
    let expected: Vec<&StagedWrite> = expected.collect();
    check(session, &expected, &[], lock_with_the_check).await
}

/// Locks streams in one order, so that two transactions that meet on the same ones do not wait for
/// each other.
///
/// New ones are not locked: nobody can guard them, the key of the log refuses a second, and a batch
/// may begin more of them than the server has room for locks. Their events are
/// [inserted](events::insert) in one order instead.
async fn lock(
    session: &mut Session,
    guards: &[&StagedWrite],
    writes: &[&StagedWrite],
) -> Outcome<()> {
    let mut streams: BTreeMap<i32, bool> = guards.iter().map(|guard| (hash(guard), true)).collect();
    let begun = writes
        .iter()
        .filter(|write| write.operation != Operation::Insert);
    streams.extend(begun.map(|write| (hash(write), false)));
    if streams.is_empty() {
        return Ok(());
    }
    let mut arguments = PgArguments::default();
    bind(&mut arguments, LOCK)?;
    bind(
        &mut arguments,
        streams.keys().copied().collect::<Vec<i32>>(),
    )?;
    bind(
        &mut arguments,
        streams.values().copied().collect::<Vec<bool>>(),
    )?;
    let text = "SELECT CASE WHEN is_read THEN pg_advisory_xact_lock_shared($1, k) \
         ELSE pg_advisory_xact_lock($1, k) END FROM unnest($2::int4[], $3::bool[]) AS s(k, is_read)";
    query(&text.into(), arguments)
        .execute(&mut session.connection)
        .await
        .map(drop)
        .map_err(|cause| failure(cause, &[guards, writes].concat()))
}

fn hash(write: &StagedWrite) -> i32 {
    let text = write.aggregate_type.bytes().chain([0]);
    stable_hash(text.chain(write.aggregate_id.bytes()))
}

/// Whether a check also locks the stream, of which there is one then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lock {
    Yes,
    No,
}

/// Compares the versions of streams with those that writes expect, without the events that the
/// transaction has just added.
pub(super) async fn check(
    session: &mut Session,
    writes: &[&StagedWrite],
    added: &[Uuid],
    lock: Lock,
) -> Outcome<()> {
    let Some(first) = writes.first() else {
        return Ok(());
    };
    let locked = match lock {
        Lock::Yes => ", pg_advisory_xact_lock($5, $6)",
        Lock::No => "",
    };
    let own = tenancy::equals(TenantSite::StreamVersion, "e.tenant_id", "g.tenant");
    let text = format!(
        "SELECT g.ordinality, last.aggregate_version, last.event_type{locked} \
         FROM unnest($1::text[], $2::text[], $3::text[]) \
         WITH ORDINALITY AS g(kind, id, tenant, ordinality), \
         LATERAL (SELECT e.aggregate_version, e.event_type FROM cqrs_event AS e \
         WHERE e.aggregate_type = g.kind AND e.aggregate_id = g.id \
         AND e.event_id <> ALL ($4::uuid[]) \
         AND (g.tenant IS NULL OR {own}) ORDER BY e.aggregate_version DESC LIMIT 1) AS last"
    );
    let mut arguments = PgArguments::default();
    bind_streams(&mut arguments, writes)?;
    bind(&mut arguments, added)?;
    if lock == Lock::Yes {
        bind(&mut arguments, LOCK)?;
        bind(&mut arguments, hash(first))?;
    }
    let rows = query(&text.into(), arguments)
        .fetch_all(&mut session.connection)
        .await
        .map_err(|cause| failure(cause, writes))?;
    let mut found: Vec<Option<(i64, String)>> = vec![None; writes.len()];
    for row in &rows {
        let read = || -> sqlx::Result<(i64, i64, String)> {
            Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))
        };
        let (ordinality, version, event_type) = read().map_err(|cause| failure(cause, writes))?;
        let place = usize::try_from(ordinality - 1).ok();
        if let Some(slot) = place.and_then(|place| found.get_mut(place)) {
            *slot = Some((version, event_type));
        }
    }
    for (write, found) in writes.iter().zip(found) {
        let refused = match found {
            None if write.operation == Operation::Insert => continue,
            Some(_) if write.operation == Operation::Insert => write.already_exists(),
            None => write.not_found(),
            Some((_, last)) if last == ChangeMarker::Removed.event_type() => write.not_found(),
            Some((version, _)) => match u64::try_from(version).unwrap_or(0) {
                version if version == write.expected_version => continue,
                version => write.conflict(version),
            },
        };
        return Err(Failure::Refused(refused));
    }
    Ok(())
}

/// A new aggregate is looked for over all tenants.
fn bind_streams(arguments: &mut PgArguments, writes: &[&StagedWrite]) -> Result<()> {
    let kinds: Vec<&str> = writes.iter().map(|write| write.aggregate_type).collect();
    let ids: Vec<&str> = writes
        .iter()
        .map(|write| write.aggregate_id.as_str())
        .collect();
    let tenants: Vec<Option<&str>> = writes
        .iter()
        .map(|write| match write.operation {
            Operation::Insert => None,
            _ => write.tenant.as_ref().map(TenantId::as_str),
        })
        .collect();
    bind(arguments, kinds)?;
    bind(arguments, ids)?;
    bind(arguments, tenants)
}
