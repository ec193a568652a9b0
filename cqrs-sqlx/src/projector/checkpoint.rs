//! The rows of `cqrs_segment`: where each segment of a subscription stands.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use cqrs_core::mapping::{ColumnError, ColumnType, RowSource, Value};
use cqrs_core::{Error, Position, Result, StoreErrorKind};

use super::claim::Segment;
use super::dead_letters;
use super::queries;
use super::status::SubscriptionFailure;
use crate::backend::{Backend, Parameter};
use crate::reads::{self, Place};
use crate::select::Select;
use crate::store::Shared;

/// What [`Checkpoint::read`] reads.
pub(crate) const COLUMNS: &str = "subscription, segment, segments, position, barrier, status, \
     failed_attempts, failed_position, error, retry_at, parks, replay_at, \
     updated_at, replay_set_at, history, mark, version";
/// How many they are.
pub(super) const WIDTH: usize = 17;

/// A row of `cqrs_segment`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checkpoint {
    pub(super) name: String,
    pub(super) segment: Segment,
    /// Everything of the segment up to here has been applied, or is among the dead letters.
    pub(super) position: Position,
    /// No page goes beyond.
    pub(super) barrier: Option<Position>,
    /// Whether it stands still until someone resumes it, since an event failed. It may be paused too.
    pub(super) halted: bool,
    /// Whether it does because somebody paused it.
    pub(super) paused: bool,
    /// Whether pages of it are applied.
    pub(super) active: bool,
    /// How often the event after `position` has failed.
    pub(super) failed_attempts: u32,
    /// Where it failed, as far as that is known.
    pub(super) failed_position: Option<Position>,
    /// Why it failed.
    pub(super) error: Option<String>,
    /// When it is tried again.
    pub(super) retry_at: Option<DateTime<Utc>>,
    /// Whether events of its aggregates may be parked.
    pub(super) parks: bool,
    /// When some of them are to be replayed.
    pub(super) replay_at: Option<DateTime<Utc>>,
    /// When the row was changed.
    updated_at: DateTime<Utc>,
    /// When `replay_at` was set.
    pub(super) replay_set_at: Option<DateTime<Utc>>,
    /// The failures of the event after `position` that are counted, as JSON.
    pub(super) history: String,
    /// How far it had come before it was reset.
    pub(super) mark: Position,
    /// The version of the projection whose rows it keeps.
    pub(super) version: u32,
}

impl Checkpoint {
    /// Reads a row with [`COLUMNS`].
    pub(super) fn read<R: RowSource>(row: &R) -> Result<Self> {
        read(row, |row| {
            let status = some(row.read_text(5)?)?;
            let attempts = some(row.read_i32(6)?)?;
            let error = row.read_text(8)?.map(str::to_owned);
            let retry_at = row.read_timestamp(9)?;
            let paused = status == "paused";
            Ok(Self {
                name: some(row.read_text(0)?)?.to_owned(),
                segment: Segment {
                    number: some(row.read_i32(1)?)?.into(),
                    of: some(row.read_i32(2)?)?.into(),
                },
                position: Position(some(row.read_i64(3)?)?),
                barrier: row.read_i64(4)?.map(Position),
                // One that is paused keeps why it was halted: an error that is not tried again.
                halted: status == "halted" || paused && error.is_some() && retry_at.is_none(),
                paused,
                active: status == "active",
                failed_attempts: u32::try_from(attempts).map_err(ColumnError::invalid)?,
                failed_position: row.read_i64(7)?.map(Position),
                error,
                retry_at,
                parks: some(row.read_bool(10)?)?,
                replay_at: row.read_timestamp(11)?,
                updated_at: some(row.read_timestamp(12)?)?,
                replay_set_at: row.read_timestamp(13)?,
                history: match attempts {
                    0 => "[]".to_owned(),
                    _ => format!("[{}]", some(row.read_text(14)?)?),
                },
                mark: Position(some(row.read_i64(15)?)?),
                version: u32::try_from(some(row.read_i32(16)?)?).map_err(ColumnError::invalid)?,
            })
        })
    }

    /// What is left until the next replay. Where the clock was set back since that was set, nothing.
    pub(super) fn until_replay(&self, now: DateTime<Utc>) -> Option<Duration> {
        let replay_at = self.replay_at?;
        let set_back = self.replay_set_at.is_some_and(|at| at > now);
        let left = (replay_at - now).to_std().unwrap_or_default();
        Some(if set_back { Duration::ZERO } else { left })
    }

    /// What is left of the delay after a failure. The clock may have been set back since: then
    /// nothing.
    pub(super) fn delay(&self, now: DateTime<Utc>) -> Option<Duration> {
        let retry_at = self.retry_at.filter(|_| self.updated_at <= now)?;
        let left = (retry_at - now).to_std().ok()?;
        Some(left).filter(|left| !left.is_zero())
    }

    pub(super) fn into_failure(self) -> SubscriptionFailure {
        SubscriptionFailure {
            name: self.name,
            position: self.failed_position,
            attempts: self.failed_attempts,
            error: self.error.unwrap_or_default(),
        }
    }
}

/// Reads the checkpoints of a subscription without claiming them, in the order of the segments,
/// with the time of the database.
pub(super) async fn all<B: Backend>(
    shared: &Arc<Shared<B>>,
    name: &str,
) -> Result<(Vec<Checkpoint>, DateTime<Utc>)> {
    let now = B::DIALECT.now;
    let sql = format!(
        "SELECT {COLUMNS}, {now} FROM cqrs_segment WHERE subscription = $1 ORDER BY segment"
    );
    let select = Select {
        sql: sql.into(),
        parameters: vec![Parameter::text(name)],
    };
    let found = reads::rows(Place::Alone(shared), &select, None, |row: &B::Row| {
        let now = read(row, |row| some(row.read_timestamp(WIDTH)?))?;
        Ok((Checkpoint::read(row)?, now))
    })
    .await?;
    let now = found.first().map_or(DateTime::UNIX_EPOCH, |(_, now)| *now);
    let checkpoints = found.into_iter().map(|(checkpoint, _)| checkpoint);
    Ok((checkpoints.collect(), now))
}

/// Reads the checkpoints of a subscription in a transaction, in the order of the segments.
pub(super) async fn read_all<B: Backend>(
    connection: &mut B::Connection,
    name: &str,
) -> Result<Vec<Checkpoint>> {
    read_and_lock::<B>(connection, name, "").await
}

async fn read_and_lock<B: Backend>(
    connection: &mut B::Connection,
    name: &str,
    lock: &'static str,
) -> Result<Vec<Checkpoint>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM cqrs_segment WHERE subscription = $1 ORDER BY segment{lock}"
    );
    let mut found = Vec::new();
    B::fetch(
        connection,
        &sql.into(),
        &[Parameter::text(name)],
        None,
        |row| {
            found.push(Checkpoint::read(row)?);
            Ok(())
        },
    )
    .await?;
    Ok(found)
}

/// Reads the checkpoint of the segment that is furthest behind; the subscription has applied
/// everything up to it.
pub(super) async fn find<B: Backend>(
    shared: &Arc<Shared<B>>,
    name: &str,
) -> Result<Option<Checkpoint>> {
    let (checkpoints, _) = all(shared, name).await?;
    Ok(least(checkpoints))
}

/// The one that is furthest behind.
pub(super) fn least(checkpoints: Vec<Checkpoint>) -> Option<Checkpoint> {
    checkpoints
        .into_iter()
        .min_by_key(|checkpoint| (checkpoint.position, checkpoint.active))
}

/// Reads the checkpoints of a subscription in a transaction, and locks them until it ends; waits
/// for pages under way.
pub(super) async fn lock_all<B: Backend>(
    connection: &mut B::Connection,
    name: &str,
) -> Result<Vec<Checkpoint>> {
    loop {
        let found = read_and_lock::<B>(connection, name, B::DIALECT.lock).await?;
        let complete = match found.first() {
            Some(first) => found.len() as i64 == first.segment.of,
            None => !exists::<B>(connection, name).await?,
        };
        if complete {
            return Ok(found);
        }
        // While it waited for a lock, someone replaced them by others. Those are visible now.
    }
}

async fn exists<B: Backend>(connection: &mut B::Connection, name: &str) -> Result<bool> {
    let sql = "SELECT segment FROM cqrs_segment WHERE subscription = $1 LIMIT 1";
    finds::<B>(connection, sql, name).await
}

/// Whether a statement finds anything of a subscription.
pub(super) async fn finds<B: Backend>(
    connection: &mut B::Connection,
    sql: &'static str,
    name: &str,
) -> Result<bool> {
    let mut found = false;
    B::fetch(
        connection,
        &sql.into(),
        &[Parameter::text(name)],
        None,
        |_| {
            found = true;
            Ok(())
        },
    )
    .await?;
    Ok(found)
}

/// Reads one checkpoint in a transaction and locks it; `None` where another worker holds it, or
/// where there is none such any more.
pub(super) async fn lock_one<B: Backend>(
    connection: &mut B::Connection,
    name: &str,
    segment: Segment,
) -> Result<Option<(Checkpoint, DateTime<Utc>)>> {
    lock_with::<B>(connection, (name, segment), B::DIALECT.claim).await
}

/// As [`lock_one`], and waits where another worker holds it.
pub(super) async fn wait_for_one<B: Backend>(
    connection: &mut B::Connection,
    name: &str,
    segment: Segment,
) -> Result<Option<(Checkpoint, DateTime<Utc>)>> {
    lock_with::<B>(connection, (name, segment), B::DIALECT.lock).await
}

async fn lock_with<B: Backend>(
    connection: &mut B::Connection,
    (name, segment): (&str, Segment),
    lock: &str,
) -> Result<Option<(Checkpoint, DateTime<Utc>)>> {
    let now = B::DIALECT.now;
    let sql = format!(
        "SELECT {COLUMNS}, {now}{} FROM cqrs_segment \
         WHERE subscription = $1 AND segment = $2 AND segments = $3{lock}",
        B::DIALECT.open_page
    );
    let parameters = [
        Parameter::text(name),
        Parameter::int(segment.number),
        Parameter::int(segment.of),
    ];
    let mut found = None;
    B::fetch(connection, &sql.into(), &parameters, None, |row| {
        let now = read(row, |row| some(row.read_timestamp(WIDTH)?))?;
        found = Some((Checkpoint::read(row)?, now));
        Ok(())
    })
    .await?;
    Ok(found)
}

/// An event that failed.
#[derive(Debug)]
pub(super) struct Failed<'a> {
    pub(super) name: &'a str,
    pub(super) segment: Segment,
    /// Where its segment stood.
    pub(super) from: Position,
    /// How often it had failed before.
    pub(super) attempts: u32,
    pub(super) position: Option<Position>,
    pub(super) error: &'a str,
    pub(super) at: DateTime<Utc>,
}

/// Records a failure in a transaction of its own: the event is tried again after a delay, or the
/// segment is halted. `false` where another worker has changed the row since it was claimed; what
/// it found out counts.
pub(super) async fn record_failure<B: Backend>(
    shared: &Shared<B>,
    failed: &Failed<'_>,
    retry_at: Option<DateTime<Utc>>,
) -> Result<bool> {
    let sql = format!(
        "UPDATE cqrs_segment SET failed_attempts = failed_attempts + 1, status = $6, \
         failed_position = $7, error = $8, retry_at = $9, updated_at = {}, \
         history = CASE WHEN failed_attempts = 0 THEN $10 \
         WHEN failed_attempts < {} THEN history || ',' || $10 ELSE history END \
         WHERE subscription = $1 AND segment = $2 AND segments = $3 AND position = $4 \
         AND failed_attempts = $5 AND status = 'active'",
        B::DIALECT.now,
        dead_letters::HISTORY,
    );
    let error = without_nul(failed.error);
    let parameters = [
        Parameter::text(failed.name),
        Parameter::int(failed.segment.number),
        Parameter::int(failed.segment.of),
        Parameter::int(failed.from.0),
        Parameter::int(failed.attempts.into()),
        Parameter::text(if retry_at.is_none() {
            "halted"
        } else {
            "active"
        }),
        position(failed.position),
        Parameter::text(&*error),
        time(retry_at),
        Parameter::text(dead_letters::attempt(failed.at, &error)),
    ];
    Ok(queries::execute(shared, &sql.into(), &parameters).await? > 0)
}

/// What forgets the failures of a segment, among other columns that are set.
pub(super) const FORGETS_FAILURES: &str =
    "failed_attempts = 0, failed_position = NULL, error = NULL, retry_at = NULL";

/// Pauses the segments of a subscription. Those that are halted keep their failure.
pub(super) async fn pause<B: Backend>(connection: &mut B::Connection, name: &str) -> Result<u64> {
    let sql = format!(
        "UPDATE cqrs_segment SET status = 'paused', updated_at = {} \
         WHERE subscription = $1 AND status <> 'paused'",
        B::DIALECT.now
    );
    B::execute(connection, &sql.into(), &[Parameter::text(name)]).await
}

/// Halts the active segments of a subscription for a reason that is no event's.
pub(super) async fn halt<B: Backend>(shared: &Shared<B>, name: &str, error: &str) -> Result<()> {
    let sql = format!(
        "UPDATE cqrs_segment SET status = 'halted', error = $2, retry_at = NULL, updated_at = {} \
         WHERE subscription = $1 AND status = 'active'",
        B::DIALECT.now
    );
    let parameters = [Parameter::text(name), Parameter::text(without_nul(error))];
    queries::execute(shared, &sql.into(), &parameters)
        .await
        .map(drop)
}

/// Brings the segments of a subscription back, and forgets their failures: those that are halted go
/// on, unless they are paused.
pub(super) async fn set_back<B: Backend>(
    connection: &mut B::Connection,
    name: &str,
    to: Position,
) -> Result<u64> {
    let sql = format!(
        "UPDATE cqrs_segment SET \
         mark = CASE WHEN mark < position THEN position ELSE mark END, \
         position = CASE WHEN position < $2 THEN position ELSE $2 END, \
         status = CASE WHEN status = 'halted' THEN 'active' ELSE status END, \
         {FORGETS_FAILURES}, parks = FALSE, replay_at = NULL, updated_at = {} WHERE subscription = $1",
        B::DIALECT.now
    );
    let parameters = [Parameter::text(name), Parameter::int(to.0)];
    B::execute(connection, &sql.into(), &parameters).await
}

/// Sets a subscription's halted and paused segments active and forgets their failures.
pub(super) async fn reactivate<B: Backend>(
    connection: &mut B::Connection,
    name: &str,
) -> Result<u64> {
    let sql = format!(
        "UPDATE cqrs_segment SET status = 'active', {FORGETS_FAILURES}, updated_at = {} WHERE subscription = $1",
        B::DIALECT.now
    );
    B::execute(connection, &sql.into(), &[Parameter::text(name)]).await
}

/// Says of what version the rows are that a subscription keeps.
pub(super) async fn set_version<B: Backend>(
    connection: &mut B::Connection,
    name: &str,
    version: u32,
) -> Result<()> {
    let sql = "UPDATE cqrs_segment SET version = $2 WHERE subscription = $1";
    let parameters = [Parameter::text(name), Parameter::int(version.into())];
    B::execute(connection, &sql.into(), &parameters)
        .await
        .map(drop)
}

/// No database takes NUL in text.
pub(super) fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

pub(super) fn position(position: Option<Position>) -> Parameter {
    let value = position.map_or(Value::Null, |position| Value::Int(position.0));
    Parameter::new(ColumnType::Int64, value)
}

pub(super) fn time(time: Option<DateTime<Utc>>) -> Parameter {
    Parameter::new(
        ColumnType::Timestamp,
        time.map_or(Value::Null, Value::Timestamp),
    )
}

pub(super) fn read<R, T>(
    row: &R,
    read: impl FnOnce(&R) -> std::result::Result<T, ColumnError>,
) -> Result<T> {
    read(row).map_err(|error| {
        Error::store(
            StoreErrorKind::Schema,
            format!("the tables of subscriptions: {error}"),
        )
    })
}

pub(super) fn some<T>(value: Option<T>) -> std::result::Result<T, ColumnError> {
    value.ok_or(ColumnError::UnexpectedNull)
}
