//! What became of a commit whose connection broke before the answer came.
//!
//! The server may still be working on it, or may only now be reading it from its socket. So the
//! question is not put before the server process that worked for the connection has ended, or behind
//! a pooler [its transaction](super::process); a process that does not notice its broken socket is
//! told to end. After that nothing can change any more, and the log tells: a commit's events are
//! there, or they are not.

use std::collections::HashMap;
use std::time::Duration;

use cqrs_core::staging::StagedWrite;
use cqrs_core::{Error, Position, Result, StoreErrorKind, TenantScope};
use sqlx::{PgConnection, Row as _};
use tokio::time::Instant;
use uuid::Uuid;

use super::Postgres;
use super::error::{error, is_forbidden};
use super::{process, row_security};
use crate::backend::{Backed as _, Process, Proof, Written};
use crate::connections::Connect;

/// How long to go on asking, for a server that restarts meanwhile.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long one may keep others from asking.
const TURN: Duration = Duration::from_secs(3);
/// How long a process may take to notice that its socket is closed before it is told to end.
const GRACE: Duration = Duration::from_millis(200);
/// The pause between two questions.
const PAUSE: Duration = Duration::from_millis(10);

/// A process that has to end before the question is put.
struct Ending<'p> {
    process: &'p Process,
    /// When it is told to.
    told_at: Instant,
    /// Whether anything depends on the answer.
    is_needed: bool,
    /// Whether it can only be waited for.
    is_left_alone: bool,
    /// Its id, when it was seen last.
    seen: Option<i32>,
}

/// See [`Backed::resolve`](crate::backend::Backed::resolve).
pub(super) async fn resolve(
    postgres: &Postgres,
    process: &Process,
    proofs: &[Proof<'_>],
) -> Result<Vec<Option<Written>>> {
    let give_up = Instant::now() + PATIENCE;
    let mut ending = Ending {
        process,
        // Who waits for others to be done has given the process its time meanwhile.
        told_at: Instant::now() + GRACE,
        is_needed: proofs.iter().any(|proof| !matches!(proof, Proof::Nothing)),
        is_left_alone: false,
        seen: None,
    };
    loop {
        let attempt = async {
            let permit = postgres.resolvers.acquire().await;
            let _permit = permit.expect("nobody closes it");
            let turn = tokio::time::timeout(TURN, ask(postgres, &mut ending, proofs));
            turn.await.unwrap_or_else(|_| {
                Err(Error::store(
                    StoreErrorKind::Unavailable,
                    format!("the database did not answer within {TURN:?}"),
                ))
            })
        };
        let Ok(answer) = tokio::time::timeout_at(give_up, attempt).await else {
            return Err(ending.given_up());
        };
        match answer {
            Ok(found) => return Ok(found),
            Err(cause) if Instant::now() < give_up && is_unavailable(&cause) => {
                tracing::debug!(%cause, "the outcome of a commit is not known yet");
                tokio::time::sleep(PAUSE * 5).await;
            }
            Err(cause) => return Err(cause),
        }
    }
}

async fn ask(
    postgres: &Postgres,
    ending: &mut Ending<'_>,
    proofs: &[Proof<'_>],
) -> Result<Vec<Option<Written>>> {
    let mut session = postgres.connect().await?;
    ending.wait_until_gone(&mut session.connection).await?;
    // In a transaction: a setting of the session would stay behind in a pooler, for whoever comes next.
    Postgres::begin(&mut session).await?;
    row_security::confine(&mut session.connection, &TenantScope::System).await?;
    let found = look(&mut session.connection, proofs).await?;
    let _ = Postgres::rollback(&mut session).await;
    Ok(found)
}

fn is_unavailable(error: &Error) -> bool {
    matches!(error, Error::Store(error) if *error.kind() == StoreErrorKind::Unavailable)
}

impl Ending<'_> {
    async fn wait_until_gone(&mut self, connection: &mut PgConnection) -> Result<()> {
        let failed = |cause| error(cause, "finding out what became of a commit");
        loop {
            let alive = process::ask(self.process, "SELECT pid", "")
                .fetch_optional(&mut *connection)
                .await
                .map_err(failed)?;
            self.seen = alive
                .map(|row| row.try_get(0))
                .transpose()
                .map_err(failed)?;
            let Some(pid) = self.seen else {
                return Ok(());
            };
            if !self.is_left_alone && Instant::now() >= self.told_at {
                self.tell(connection, pid).await.map_err(failed)?;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Tells it to end. Where the role may not, it may end by itself.
    async fn tell(&mut self, connection: &mut PgConnection, pid: i32) -> sqlx::Result<()> {
        // One whose beginning is not visible may be another of the same id.
        let is_known = !matches!(self.process, Process::Own { started, .. } if started.is_empty());
        if is_known {
            let told = process::ask(self.process, "SELECT pg_terminate_backend(pid)", "")
                .execute(&mut *connection)
                .await;
            match told {
                Err(cause) if is_forbidden(&cause) && self.is_needed => {}
                told => return told.map(drop),
            }
        }
        self.is_left_alone = true;
        if self.is_needed {
            tracing::warn!(
                process = pid,
                "the answer to a commit was lost, and the role of the store may not end the server \
                 process that works on it, but wait for it: GRANT pg_signal_backend, \
                 pg_read_all_stats TO that role"
            );
        }
        Ok(())
    }

    /// The error when there is no answer in the end.
    fn given_up(&self) -> Error {
        let why = match self.seen {
            Some(pid) => format!("server process {pid} still works on it after {PATIENCE:?}"),
            None => format!("the database did not answer within {PATIENCE:?}"),
        };
        Error::store(StoreErrorKind::OutcomeUnknown, why)
    }
}

async fn look(connection: &mut PgConnection, proofs: &[Proof<'_>]) -> Result<Vec<Option<Written>>> {
    let positions = positions(connection, proofs)
        .await
        .map_err(|cause| error(cause, "looking for the events of a commit"))?;
    let mut found = Vec::with_capacity(proofs.len());
    for proof in proofs {
        found.push(match proof {
            Proof::Events(writes) => written(writes, &positions),
            Proof::Nothing => None,
            Proof::Transaction(id) => is_committed(connection, id)
                .await
                .map_err(|cause| error(cause, "asking what became of a transaction"))?
                .then(Written::default),
        });
    }
    Ok(found)
}

async fn is_committed(connection: &mut PgConnection, transaction: &str) -> sqlx::Result<bool> {
    let status: Option<String> = sqlx::query_scalar("SELECT pg_xact_status($1::text::xid8)")
        .bind(transaction)
        .fetch_one(connection)
        .await?;
    Ok(status.as_deref() == Some("committed"))
}

/// The events of these writes that are in the log, if any are.
fn written(writes: &[StagedWrite], positions: &HashMap<Uuid, Position>) -> Option<Written> {
    let events = writes.iter().flat_map(|write| &write.events);
    let events: Vec<Uuid> = events
        .map(|event| event.event_id)
        .filter(|id| positions.contains_key(id))
        .collect();
    let position = events.iter().map(|id| positions[id]).max()?;
    Some(Written {
        events,
        position: Some(position),
        envelopes: Vec::new(),
    })
}

/// Where the events that are proofs are in the log; those that are not there are left out.
async fn positions(
    connection: &mut PgConnection,
    proofs: &[Proof<'_>],
) -> sqlx::Result<HashMap<Uuid, Position>> {
    let writes = proofs.iter().flat_map(|proof| match proof {
        Proof::Events(writes) => *writes,
        Proof::Transaction(_) | Proof::Nothing => &[],
    });
    let (mut types, mut ids, mut versions, mut events) = (vec![], vec![], vec![], vec![]);
    for write in writes {
        for event in &write.events {
            types.push(write.aggregate_type);
            ids.push(write.aggregate_id.as_str());
            versions.push(i64::try_from(event.aggregate_version).unwrap_or(i64::MAX));
            events.push(event.event_id);
        }
    }
    if events.is_empty() {
        return Ok(HashMap::new());
    }
    let found: Vec<(Uuid, i64)> = sqlx::query_as(
        "SELECT l.event_id, l.position
         FROM unnest($1::text[], $2::text[], $3::int8[], $4::uuid[])
              AS e(aggregate_type, aggregate_id, aggregate_version, event_id)
         JOIN cqrs_event AS l ON l.aggregate_type = e.aggregate_type
              AND l.aggregate_id = e.aggregate_id
              AND l.aggregate_version = e.aggregate_version
              AND l.event_id = e.event_id",
    )
    .bind(types)
    .bind(ids)
    .bind(versions)
    .bind(events)
    .fetch_all(connection)
    .await?;
    Ok(found
        .into_iter()
        .map(|(id, position)| (id, Position(position)))
        .collect())
}
