//! The rows of `cqrs_dead_letter`: events that were parked or skipped.
//!
//! Whoever parks, replays or looks whether an aggregate is parked holds the lock of its segment. So
//! an event that arrives during a replay waits until that is over, and then stands behind what is
//! still parked, or behind nothing.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use cqrs_core::mapping::{ColumnType, RowSource, Value};
use cqrs_core::{Envelope, Position, RawPayload, Result};
use serde::{Deserialize, Serialize};

use super::checkpoint::{self, read, some};
use super::claim::Segment;
use crate::backend::{Backend, Parameter};
use crate::statements::{list, quoted};
use crate::verify::LiveColumn;

/// An aggregate: its type and its id.
pub(super) type Aggregate = (String, String);

/// Where they are.
pub(super) const TABLE: &str = "cqrs_dead_letter";

/// How many failures of an event are remembered.
pub(super) const HISTORY: usize = 20;

/// One failure of a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FailedAttempt {
    /// When it failed.
    pub at: DateTime<Utc>,
    /// Why: the messages of the error and of its sources.
    pub error: String,
}

/// Why an event goes to the dead letters.
#[derive(Debug)]
pub(super) struct Reason<'a> {
    pub(super) attempts: u32,
    pub(super) error: &'a str,
    pub(super) at: DateTime<Utc>,
    /// The failures before.
    pub(super) history: &'a str,
}

/// What an event becomes there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Parked { replay_at: Option<DateTime<Utc>> },
    Skipped,
}

fn insert<B: Backend>(is_one: &str) -> String {
    format!(
        "INSERT INTO cqrs_dead_letter (subscription, position, status, event_id, \
         tenant_id, aggregate_type, aggregate_id, aggregate_version, event_type, attempts, error, \
         history, replay_at, replay_set_at) \
         SELECT $1, position, $2, event_id, tenant_id, aggregate_type, aggregate_id, \
         aggregate_version, event_type, $3, $4, $5, $6, {} FROM cqrs_event WHERE {is_one}",
        B::DIALECT.now
    )
}

/// After a reset, or from a snapshot, there may be a record that it was skipped before.
const REPLACES: &str = "ON CONFLICT (subscription, position) DO UPDATE SET \
     status = excluded.status, attempts = excluded.attempts, error = excluded.error, \
     history = excluded.history, parked_at = excluded.parked_at, \
     replay_at = excluded.replay_at, replay_set_at = excluded.replay_set_at";

/// Whether an event is that of a parked aggregate.
pub(super) fn is_of(parked: &HashSet<Aggregate>, event: &Envelope<RawPayload>) -> bool {
    !parked.is_empty()
        && parked.contains(&(
            event.aggregate_type().to_owned(),
            event.aggregate_id_str().to_owned(),
        ))
}

/// The aggregates of a subscription that are parked; their number is bounded.
pub(super) async fn parked_aggregates<B: Backend>(
    connection: &mut B::Connection,
    name: &str,
) -> Result<HashSet<Aggregate>> {
    let sql = "SELECT DISTINCT aggregate_type, aggregate_id FROM cqrs_dead_letter \
               WHERE subscription = $1 AND status = 'parked'";
    let mut found = HashSet::new();
    B::fetch(
        connection,
        &sql.into(),
        &[Parameter::text(name)],
        None,
        |row| {
            found.insert(read(row, |row| {
                let aggregate_type = some(row.read_text(0)?)?.to_owned();
                Ok((aggregate_type, some(row.read_text(1)?)?.to_owned()))
            })?);
            Ok(())
        },
    )
    .await?;
    Ok(found)
}

/// Puts an event that failed among the dead letters.
pub(super) async fn put<B: Backend>(
    connection: &mut B::Connection,
    name: &str,
    position: Position,
    fate: Fate,
    reason: &Reason<'_>,
) -> Result<u64> {
    let (status, replay_at) = match fate {
        Fate::Parked { replay_at } => ("parked", replay_at),
        Fate::Skipped => ("skipped", None),
    };
    let error = checkpoint::without_nul(reason.error);
    let parameters = [
        Parameter::text(name),
        Parameter::text(status),
        Parameter::int(reason.attempts.into()),
        Parameter::text(&*error),
        Parameter::text(history(reason, &error)),
        checkpoint::time(replay_at),
        Parameter::int(position.0),
    ];
    let sql = format!("{} {REPLACES}", insert::<B>("position = $7"));
    B::execute(connection, &sql.into(), &parameters).await
}

/// Parks events behind those of their aggregates that are parked.
pub(super) async fn put_behind<B: Backend>(
    connection: &mut B::Connection,
    name: &str,
    events: &[Envelope<RawPayload>],
) -> Result<()> {
    let positions = events.iter().map(|event| Value::Int(event.position().0));
    let parameters = [
        Parameter::text(name),
        Parameter::text("parked"),
        Parameter::int(0),
        Parameter::new(ColumnType::Text, Value::Null),
        Parameter::text("[]"),
        checkpoint::time(None),
        Parameter::List(ColumnType::Int64, positions.collect()),
    ];
    let is_one = (B::DIALECT.in_list)("position", ColumnType::Int64, "$7");
    let sql = format!("{} {REPLACES}", insert::<B>(&is_one));
    B::execute(connection, &sql.into(), &parameters)
        .await
        .map(drop)
}

/// How many events of a subscription are parked. Until the transaction ends, nobody else can find
/// out, so that together they do not exceed what is allowed.
pub(super) async fn count<B: Backend>(connection: &mut B::Connection, name: &str) -> Result<u64> {
    let name = [Parameter::text(name)];
    let lock = format!(
        "UPDATE cqrs_subscription SET updated_at = {} WHERE name = $1",
        B::DIALECT.now
    );
    B::execute(connection, &lock.into(), &name).await?;
    let sql = "SELECT count(*) FROM cqrs_dead_letter WHERE subscription = $1 AND status = 'parked'";
    let mut found = 0;
    B::fetch(connection, &sql.into(), &name, None, |row| {
        found = read(row, |row| some(row.read_i64(0)?))?;
        Ok(())
    })
    .await?;
    Ok(u64::try_from(found).unwrap_or(0))
}

/// Forgets all dead letters of a subscription.
pub(super) async fn remove_all<B: Backend>(
    connection: &mut B::Connection,
    name: &str,
) -> Result<u64> {
    let sql = "DELETE FROM cqrs_dead_letter WHERE subscription = $1";
    B::execute(connection, &sql.into(), &[Parameter::text(name)]).await
}

/// Whether there are records of skipped events.
pub(super) async fn has_skipped<B: Backend>(
    connection: &mut B::Connection,
    name: &str,
) -> Result<bool> {
    let sql = "SELECT 1 FROM cqrs_dead_letter \
               WHERE subscription = $1 AND status = 'skipped' LIMIT 1";
    checkpoint::finds::<B>(connection, sql, name).await
}

/// Brings records back from a copy of them, beside those that are there.
pub(super) async fn bring_back<B: Backend>(
    connection: &mut B::Connection,
    copy: &str,
    columns: &[LiveColumn],
) -> Result<()> {
    let columns = list(columns.iter().map(|column| quoted(&column.name)));
    let sql = format!(
        "INSERT INTO {TABLE} ({columns}) SELECT {columns} FROM {} WHERE 1 = 1 \
         ON CONFLICT (subscription, position) DO NOTHING",
        quoted(copy)
    );
    B::execute(connection, &sql.into(), &[]).await.map(drop)
}

/// The first parked event of an aggregate, which is to be replayed now.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) aggregate: Aggregate,
    pub(super) position: Position,
    pub(super) attempts: u32,
    pub(super) history: String,
}

/// The parked aggregate of a segment whose replay is due for the longest time.
pub(super) async fn next_due<B: Backend>(
    connection: &mut B::Connection,
    name: &str,
    segment: Segment,
    now: DateTime<Utc>,
) -> Result<Option<Due>> {
    let in_segment = in_segment::<B>("$2", "$3");
    let sql = format!(
        "SELECT aggregate_type, aggregate_id, position, attempts, history FROM cqrs_dead_letter \
         WHERE subscription = $1 AND status = 'parked' AND {in_segment} \
         AND (replay_at <= $4 OR replay_at IS NOT NULL AND replay_set_at > $4) \
         ORDER BY replay_at, position LIMIT 1"
    );
    let parameters = [
        Parameter::text(name),
        Parameter::int(segment.number),
        Parameter::int(segment.of),
        checkpoint::time(Some(now)),
    ];
    let mut due = None;
    B::fetch(connection, &sql.into(), &parameters, None, |row| {
        due = Some(read(row, |row| {
            Ok(Due {
                aggregate: (
                    some(row.read_text(0)?)?.to_owned(),
                    some(row.read_text(1)?)?.to_owned(),
                ),
                position: Position(some(row.read_i64(2)?)?),
                attempts: u32::try_from(some(row.read_i32(3)?)?).unwrap_or(0),
                history: some(row.read_text(4)?)?.to_owned(),
            })
        })?);
        Ok(())
    })
    .await?;
    Ok(due)
}

/// Records that a replay failed, and when the next one is.
pub(super) async fn record_failure<B: Backend>(
    connection: &mut B::Connection,
    name: &str,
    due: &Due,
    reason: &Reason<'_>,
    replay_at: Option<DateTime<Utc>>,
) -> Result<()> {
    let sql = format!(
        "UPDATE cqrs_dead_letter SET attempts = $3, error = $4, history = $5, \
         replay_at = $6, replay_set_at = {} WHERE subscription = $1 AND position = $2",
        B::DIALECT.now
    );
    let error = checkpoint::without_nul(reason.error);
    let parameters = [
        Parameter::text(name),
        Parameter::int(due.position.0),
        Parameter::int(reason.attempts.into()),
        Parameter::text(&*error),
        Parameter::text(history(reason, &error)),
        checkpoint::time(replay_at),
    ];
    B::execute(connection, &sql.into(), &parameters)
        .await
        .map(drop)
}

/// Removes parked events that were applied, up to a position; how many they were.
pub(super) async fn remove<B: Backend>(
    connection: &mut B::Connection,
    name: &str,
    (aggregate_type, aggregate_id): &Aggregate,
    upto: Position,
) -> Result<u64> {
    let sql = "DELETE FROM cqrs_dead_letter WHERE subscription = $1 AND status = 'parked' \
               AND aggregate_type = $2 AND aggregate_id = $3 AND position <= $4";
    let parameters = [
        Parameter::text(name),
        Parameter::text(aggregate_type),
        Parameter::text(aggregate_id),
        Parameter::int(upto.0),
    ];
    B::execute(connection, &sql.into(), &parameters).await
}

/// Has the first parked event of an aggregate replayed at a time.
pub(super) async fn make_due<B: Backend>(
    connection: &mut B::Connection,
    name: &str,
    (aggregate_type, aggregate_id): &Aggregate,
    at: DateTime<Utc>,
) -> Result<u64> {
    let sql = "UPDATE cqrs_dead_letter SET replay_at = $4, replay_set_at = $4 \
               WHERE subscription = $1 AND position = \
               (SELECT min(d.position) FROM cqrs_dead_letter AS d WHERE d.subscription = $1 \
               AND d.status = 'parked' AND d.aggregate_type = $2 AND d.aggregate_id = $3)";
    let parameters = [
        Parameter::text(name),
        Parameter::text(aggregate_type),
        Parameter::text(aggregate_id),
        checkpoint::time(Some(at)),
    ];
    B::execute(connection, &sql.into(), &parameters).await
}

/// As [`make_due`], now.
pub(super) async fn make_due_now<B: Backend>(
    connection: &mut B::Connection,
    name: &str,
    aggregate: &Aggregate,
) -> Result<u64> {
    let now = now::<B>(connection).await?;
    make_due::<B>(connection, name, aggregate, now).await
}

/// Has the first parked event of every aggregate replayed now; how many they are.
pub(super) async fn make_all_due<B: Backend>(
    connection: &mut B::Connection,
    name: &str,
) -> Result<u64> {
    let sql = format!(
        "UPDATE cqrs_dead_letter SET replay_at = {0}, replay_set_at = {0} \
         WHERE subscription = $1 AND position IN \
         (SELECT min(d.position) FROM cqrs_dead_letter AS d WHERE d.subscription = $1 \
         AND d.status = 'parked' GROUP BY d.aggregate_type, d.aggregate_id)",
        B::DIALECT.now
    );
    B::execute(connection, &sql.into(), &[Parameter::text(name)]).await
}

/// Removes one dead letter; those of its aggregate that stood behind it are replayed.
pub(super) async fn discard<B: Backend>(
    connection: &mut B::Connection,
    name: &str,
    position: Position,
) -> Result<u64> {
    let parameters = [Parameter::text(name), Parameter::int(position.0)];
    let sql = "SELECT d.aggregate_type, d.aggregate_id FROM cqrs_dead_letter AS d \
               WHERE d.subscription = $1 AND d.position = $2 AND d.status = 'parked' \
               AND NOT EXISTS (SELECT 1 FROM cqrs_dead_letter AS o \
               WHERE o.subscription = $1 AND o.position < $2 AND o.status = 'parked' \
               AND o.aggregate_type = d.aggregate_type AND o.aggregate_id = d.aggregate_id)";
    let mut first_of: Option<Aggregate> = None;
    B::fetch(connection, &sql.into(), &parameters, None, |row| {
        first_of = Some(read(row, |row| {
            let aggregate_type = some(row.read_text(0)?)?.to_owned();
            Ok((aggregate_type, some(row.read_text(1)?)?.to_owned()))
        })?);
        Ok(())
    })
    .await?;
    let sql = "DELETE FROM cqrs_dead_letter WHERE subscription = $1 AND position = $2";
    let removed = B::execute(connection, &sql.into(), &parameters).await?;
    if let Some(aggregate) = first_of {
        make_due_now::<B>(connection, name, &aggregate).await?;
    }
    Ok(removed)
}

async fn now<B: Backend>(connection: &mut B::Connection) -> Result<DateTime<Utc>> {
    let sql = format!("SELECT {}", B::DIALECT.now);
    let mut now = DateTime::UNIX_EPOCH;
    B::fetch(connection, &sql.into(), &[], None, |row| {
        now = read(row, |row| some(row.read_timestamp(0)?))?;
        Ok(())
    })
    .await?;
    Ok(now)
}

/// Writes into a segment's row when the next replay is, and whether anything is parked at all.
pub(super) async fn note_next<B: Backend>(
    connection: &mut B::Connection,
    name: &str,
    segment: Segment,
) -> Result<()> {
    let in_segment = in_segment::<B>("$2", "$3");
    let parked = format!(
        "FROM cqrs_dead_letter WHERE subscription = $1 AND status = 'parked' AND {in_segment}"
    );
    let sql = format!(
        "UPDATE cqrs_segment SET replay_at = (SELECT min(replay_at) {parked}), \
         replay_set_at = (SELECT max(replay_set_at) {parked} AND replay_at IS NOT NULL), \
         parks = EXISTS (SELECT 1 {parked}) WHERE subscription = $1 AND segment = $2"
    );
    let parameters = [
        Parameter::text(name),
        Parameter::int(segment.number),
        Parameter::int(segment.of),
    ];
    B::execute(connection, &sql.into(), &parameters)
        .await
        .map(drop)
}

fn in_segment<B: Backend>(segment: &str, segments: &str) -> String {
    let test = (B::DIALECT.in_segment)(segment, segments);
    format!("({segments} = 1 OR {test})")
}

/// A failure, as JSON.
pub(super) fn attempt(at: DateTime<Utc>, error: &str) -> String {
    let error = error.to_owned();
    serde_json::to_string(&FailedAttempt { at, error }).unwrap_or_default()
}

/// A history with one failure more.
fn history(reason: &Reason<'_>, error: &str) -> String {
    let mut all = attempts(reason.history);
    all.push(FailedAttempt {
        at: reason.at,
        error: error.to_owned(),
    });
    let first = all.len().saturating_sub(HISTORY);
    serde_json::to_string(&all[first..]).unwrap_or_default()
}

/// The failures of a history.
pub(super) fn attempts(history: &str) -> Vec<FailedAttempt> {
    serde_json::from_str(history).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_keeps_the_last_failures() {
        let at = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        let mut text = "[]".to_owned();
        for number in 0..25 {
            let error = &format!("\"{number}\"");
            let reason = Reason {
                attempts: number,
                error,
                at,
                history: &text,
            };
            text = history(&reason, error);
        }
        let attempts = attempts(&text);
        assert_eq!(attempts.len(), HISTORY);
        assert_eq!(attempts[0].error, "\"5\"");
        assert_eq!(
            attempts[HISTORY - 1],
            FailedAttempt {
                at,
                error: "\"24\"".to_owned()
            }
        );
    }
}
