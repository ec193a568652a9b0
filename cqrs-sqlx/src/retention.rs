//! Removing old events from the log.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use cqrs_core::mapping::{ColumnError, ColumnType, RowSource, Value};
use cqrs_core::process::DEADLINE_PASSED;
use cqrs_core::{
    Envelope, Error, EventBus, EventFilter, Position, RawPayload, RequestContext, Result,
    StoreErrorKind,
};

use crate::backend::{Backend, Parameter, Parameters, stable_hash};
use crate::integrity::LINKED_HASH;
use crate::log::{EVENT_COLUMNS, read_event};
use crate::projector::{self, records};
use crate::reads::{self, Place};
use crate::select::Select;
use crate::store::Shared;
use crate::tenancy::{self, TenantSite};

/// What `cqrs_removed` holds.
pub(crate) const COLUMNS: &str = "aggregate_type, position";

/// A commit whose answer was lost is looked for in the log, so an event stays longer than anyone
/// can be looking.
const SHORTEST_AGE: Duration = Duration::from_secs(60 * 60);

/// How many events in a row an archive refuses before it is taken to be out of order.
const REFUSED: u32 = 100;

/// Which events may leave the log.
///
/// Whatever the policy says, these stay: events that a subscription has not passed, also one that
/// is halted or paused; events that are parked; those of event-sourced aggregates, since they are
/// what the aggregates are made of, from when [`verify`](crate::SqlStore::verify) or the first append
/// has said that they are; and, unless
/// [told](Self::forget_first_events), the first event of each aggregate. Events of deadlines that have
/// passed go: a process manager needs them once.
///
/// A run reads where the events are and how old, from the beginning of the log to where all are young:
/// also those that stay. What stays is read again in each run.
///
/// What has left is gone for whoever starts at the beginning of the log: a new subscription, which
/// begins with a warning, and a live projection; a reset or a rebuild that would miss it is
/// [refused](crate::Operations::despite_gaps). [Keep](Self::keep) the types whose events those need,
/// or take [snapshots](crate::Operations::snapshot).
///
/// # Example
///
/// ```
/// # use std::time::Duration;
/// use cqrs_sqlx::Retention;
///
/// let quarter = Retention::older_than(Duration::from_secs(90 * 24 * 60 * 60))
///     .keep("account")
///     .batch_size(500);
/// ```
#[derive(Debug, Clone)]
#[must_use = "a policy does nothing before it is applied"]
pub struct Retention {
    age: Duration,
    batch: u32,
    kept: Vec<String>,
    first_events: FirstEvents,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FirstEvents {
    Keep,
    Forget,
}

impl Retention {
    /// Events that were recorded longer ago than this, by the clock of the database; at least an
    /// hour. One that was recorded with a time in the future, by a clock that was wrong, stays until
    /// that is long ago, and holds up no other.
    pub fn older_than(age: Duration) -> Self {
        Self {
            age,
            batch: 1000,
            kept: Vec::new(),
            first_events: FirstEvents::Keep,
        }
    }

    /// Keeps the events of an aggregate type, however old.
    pub fn keep(mut self, aggregate_type: impl Into<String>) -> Self {
        self.kept.push(aggregate_type.into());
        self
    }

    /// How many events are removed in one transaction at most; 1000 unless told, at least 1.
    pub fn batch_size(mut self, events: u32) -> Self {
        self.batch = events.max(1);
        self
    }

    /// Removes the first event of each aggregate too. By it alone the log knows that the id of an
    /// aggregate that was removed for good was used: say this where ids are never used again, as
    /// random and time-ordered UUIDs are not.
    pub fn forget_first_events(mut self) -> Self {
        self.first_events = FirstEvents::Forget;
        self
    }

    fn check(&self) -> Result<TimeDelta> {
        if self.age < SHORTEST_AGE {
            let message = "events stay in the log for at least an hour";
            return Err(Error::store(StoreErrorKind::Usage, message));
        }
        // Older than any event.
        Ok(TimeDelta::from_std(self.age).unwrap_or(TimeDelta::MAX))
    }
}

/// What a run of a retention did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Removed {
    /// How many events were removed.
    pub events: u64,
    /// In how many transactions.
    pub batches: u64,
}

/// A run of a retention that failed: what was removed all the same.
#[derive(Debug)]
pub struct RetentionError {
    removed: Removed,
    cause: Error,
}

impl RetentionError {
    /// What was removed.
    #[must_use]
    pub fn removed(&self) -> Removed {
        self.removed
    }

    /// What failed first.
    #[must_use]
    pub fn cause(&self) -> &Error {
        &self.cause
    }

    /// What failed first, owned.
    #[must_use]
    pub fn into_cause(self) -> Error {
        self.cause
    }
}

impl fmt::Display for RetentionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} events were removed, others could not be: {}",
            self.removed.events, self.cause
        )
    }
}

impl std::error::Error for RetentionError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // The message says what the cause says; what is behind that comes next.
        std::error::Error::source(&self.cause)
    }
}

/// Gives up what was removed.
impl From<RetentionError> for Error {
    fn from(error: RetentionError) -> Self {
        error.cause
    }
}

/// The archive of those who want none.
pub(crate) enum Nowhere {}

impl EventBus for Nowhere {
    async fn publish(&self, _: &[Envelope<RawPayload>]) -> Result<()> {
        match *self {}
    }
}

/// A part of the log: where the events are that may go, and where the next part begins.
struct Part {
    go: Vec<Position>,
    next: Option<Position>,
}

/// Applies a policy: part by part, archives what may go, and removes it. What the archive refuses
/// stays, and does not hold up what is behind it.
pub(crate) async fn run<B: Backend>(
    shared: &Arc<Shared<B>>,
    context: &RequestContext,
    retention: &Retention,
    archive: Option<&impl EventBus>,
) -> Result<Removed, RetentionError> {
    let operation = match archive {
        Some(_) => "archive_events",
        None => "remove_events",
    };
    let mut run = Run {
        context,
        operation,
        record: None,
        removed: Removed::default(),
        refused: None,
        in_a_row: 0,
    };
    let ended = run.go_through(shared, retention, archive).await;
    let removed = run.removed;
    // What was refused came before what ended the run.
    match run.refused.or(ended.err()) {
        None => Ok(removed),
        Some(cause) => Err(RetentionError { removed, cause }),
    }
}

async fn now<B: Backend>(shared: &Arc<Shared<B>>) -> Result<DateTime<Utc>> {
    let select = Select {
        sql: format!("SELECT {}", B::DIALECT.now).into(),
        parameters: Vec::new(),
    };
    let now = reads::rows(Place::Alone(shared), &select, None, |row: &B::Row| {
        row.read_timestamp(0)
            .and_then(|now| now.ok_or(ColumnError::UnexpectedNull))
            .map_err(Error::other)
    });
    now.await?
        .pop()
        .ok_or_else(|| Error::other("the database does not say what time it is"))
}

/// Events that no subscription needs any more: each has passed them, and has not parked them. Where
/// there is no subscription, nobody needs any.
const PASSED: &str = "position <= (SELECT coalesce(min(s.position), 9223372036854775807) \
                      FROM cqrs_segment AS s) \
                      AND NOT EXISTS (SELECT 1 FROM cqrs_dead_letter AS d \
                      WHERE d.position = cqrs_event.position AND d.status = 'parked')";

/// A deadline that has passed is a stream of one event, whose id is used once and which nobody loads.
fn is_deadline() -> String {
    format!("event_type = '{DEADLINE_PASSED}'")
}

/// Events that no aggregate is made of: a type may have been moved over since they were written.
fn is_unsourced() -> String {
    let is_deadline = is_deadline();
    format!(
        "(NOT sourced AND aggregate_type NOT IN \
         (SELECT t.aggregate_type FROM cqrs_sourced_type AS t) OR {is_deadline})"
    )
}

/// When events are old.
struct Ages {
    /// Those that were recorded before are.
    before: DateTime<Utc>,
    now: DateTime<Utc>,
}

impl Ages {
    fn is_old(&self, recorded_at: DateTime<Utc>) -> bool {
        recorded_at < self.before
    }

    /// Whether it says nothing about those behind it: the clock was wrong when it was recorded.
    fn is_of_the_future(&self, recorded_at: DateTime<Utc>) -> bool {
        recorded_at > self.now
    }
}

/// Looks at the next events, and which of them may go. Each is judged by its own time. There is no index
/// by age, and the order of the log is nearly that of time: so nothing is looked for behind a part
/// in which all are young. What they say is not read: most of what is old may stay.
async fn part<B: Backend>(
    shared: &Arc<Shared<B>>,
    context: &RequestContext,
    retention: &Retention,
    ages: &Ages,
    from: Position,
) -> Result<Part> {
    let mut parameters = Parameters(vec![
        Parameter::int(from.0),
        Parameter::int(retention.batch.into()),
    ]);
    let goes = goes::<B>(context, retention, &mut parameters);
    let select = Select {
        sql: format!(
            "SELECT position, recorded_at, CAST(CASE WHEN {goes} THEN 1 ELSE 0 END AS bigint) \
             FROM cqrs_event WHERE position > $1 AND {PASSED} ORDER BY position LIMIT $2"
        )
        .into(),
        parameters: parameters.0,
    };
    let place = Place::Confined(shared, context.scope());
    let found = reads::rows(place, &select, None, |row: &B::Row| {
        read_part(row).map_err(Error::other)
    })
    .await?;
    let whole = found.len() as u64 >= u64::from(retention.batch);
    let goes_on = |at| ages.is_old(at) || ages.is_of_the_future(at);
    let next = found
        .last()
        .filter(|_| whole && found.iter().any(|&(_, at, _)| goes_on(at)))
        .map(|&(position, ..)| position);
    let go = found
        .into_iter()
        .filter_map(|(position, at, goes)| (goes && ages.is_old(at)).then_some(position));
    Ok(Part {
        go: go.collect(),
        next,
    })
}

fn read_part<R: RowSource>(
    row: &R,
) -> std::result::Result<(Position, DateTime<Utc>, bool), ColumnError> {
    let position = row.read_i64(0)?.ok_or(ColumnError::UnexpectedNull)?;
    let recorded_at = row.read_timestamp(1)?.ok_or(ColumnError::UnexpectedNull)?;
    Ok((Position(position), recorded_at, row.read_i64(2)? == Some(1)))
}

/// Reads the events at these positions. One that cannot be read is left out, with a warning.
async fn read_at<B: Backend>(
    shared: &Arc<Shared<B>>,
    context: &RequestContext,
    positions: &[Position],
) -> Result<Vec<Envelope<RawPayload>>> {
    if positions.is_empty() {
        return Ok(Vec::new());
    }
    let list = (B::DIALECT.in_list)("position", ColumnType::Int64, "$1");
    let select = Select {
        sql: format!("SELECT {EVENT_COLUMNS} FROM cqrs_event WHERE {list} ORDER BY position")
            .into(),
        parameters: vec![these(positions)],
    };
    let place = Place::Confined(shared, context.scope());
    let found = reads::rows(place, &select, None, |row: &B::Row| {
        let position = row.read_i64(0).map_err(Error::other)?;
        Ok(read_event(row).map_err(|error| (position, error)))
    })
    .await?;
    let readable = found.into_iter().filter_map(|read| {
        read.inspect_err(|(position, error)| {
            tracing::warn!(position, %error, "an event stays in the log, it cannot be archived");
        })
        .ok()
    });
    Ok(readable.collect())
}

fn these(positions: &[Position]) -> Parameter {
    let positions = positions.iter().map(|position| Value::Int(position.0));
    Parameter::List(ColumnType::Int64, positions.collect())
}

/// The condition of an event that may go, whatever its age.
fn goes<B: Backend>(
    context: &RequestContext,
    retention: &Retention,
    parameters: &mut Parameters,
) -> String {
    // What is parked is still to be replayed.
    let parked = "SELECT position FROM cqrs_dead_letter WHERE status = 'parked'";
    let mut conditions = vec![
        format!("position NOT IN ({parked})"),
        is_unsourced(),
        // A chain must not have gaps.
        format!("length(content_hash) < {LINKED_HASH}"),
    ];
    if retention.first_events == FirstEvents::Keep {
        conditions.push(format!("(aggregate_version > 1 OR {})", is_deadline()));
    }
    if !retention.kept.is_empty() {
        let kept = retention.kept.iter().cloned().map(Value::Text).collect();
        let list = parameters.add(Parameter::List(ColumnType::Text, kept));
        let kept = (B::DIALECT.in_list)("aggregate_type", ColumnType::Text, &list);
        conditions.push(format!("NOT ({kept})"));
    }
    if let Some(tenant) = context.scope().tenant() {
        let tenant = parameters.add(Parameter::text(tenant.as_str()));
        conditions.push(tenancy::equals(TenantSite::Retention, "tenant_id", &tenant));
    }
    conditions.join(" AND ")
}

/// One run of a policy, and what it has done by now.
struct Run<'r> {
    context: &'r RequestContext,
    operation: &'static str,
    /// Where it is recorded, once it has removed something.
    record: Option<i64>,
    removed: Removed,
    /// Why the archive has refused something, the first time.
    refused: Option<Error>,
    /// How many events it has refused since it took one.
    in_a_row: u32,
}

impl Run<'_> {
    async fn go_through<B: Backend>(
        &mut self,
        shared: &Arc<Shared<B>>,
        retention: &Retention,
        archive: Option<&impl EventBus>,
    ) -> Result<()> {
        let age = retention.check()?;
        let now = now(shared).await?;
        let Some(before) = now.checked_sub_signed(age) else {
            return Ok(());
        };
        let ages = Ages { before, now };
        let mut after = Some(Position::START);
        while let Some(from) = after {
            let Part { mut go, next } = part(shared, self.context, retention, &ages, from).await?;
            after = next;
            if let Some(archive) = archive {
                let events = read_at(shared, self.context, &go).await?;
                go = self.hand_over(archive, &events).await;
            }
            if !go.is_empty() {
                self.remove(shared, &go).await?;
            }
            if self.in_a_row >= REFUSED {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Archives a batch, and event by event where it is refused: else those that are refused each time
    /// would keep their neighbours in the log, until there is nothing else at its head. What was taken.
    async fn hand_over(
        &mut self,
        archive: &impl EventBus,
        events: &[Envelope<RawPayload>],
    ) -> Vec<Position> {
        if events.is_empty() {
            return Vec::new();
        }
        let Err(error) = archive.publish(events).await else {
            self.in_a_row = 0;
            return events.iter().map(Envelope::position).collect();
        };
        self.refused.get_or_insert(error);
        if events.len() == 1 {
            self.in_a_row += 1;
            return Vec::new();
        }
        let mut taken = Vec::new();
        for event in events {
            match archive.publish(std::slice::from_ref(event)).await {
                Ok(()) => {
                    taken.push(event.position());
                    self.in_a_row = 0;
                }
                Err(_) => self.in_a_row += 1,
            }
            if self.in_a_row >= REFUSED {
                break;
            }
        }
        taken
    }

    /// Removes a batch.
    async fn remove<B: Backend>(
        &mut self,
        shared: &Arc<Shared<B>>,
        positions: &[Position],
    ) -> Result<()> {
        let mut connection = projector::begin(shared).await?;
        let done = self.remove_in::<B>(connection.get(), positions).await;
        (self.removed, self.record) = projector::end(connection, done).await?;
        Ok(())
    }

    /// Removes events that are archived, as far as nobody has come to need them since, and keeps up to
    /// where events have left. The record of the run says so in the same transaction. What is then
    /// removed in all, and where that is recorded.
    async fn remove_in<B: Backend>(
        &self,
        connection: &mut B::Connection,
        positions: &[Position],
    ) -> Result<(Removed, Option<i64>)> {
        hold::<B>(connection).await?;
        let list = (B::DIALECT.in_list)("position", ColumnType::Int64, "$1");
        let sql = format!(
            "DELETE FROM cqrs_event WHERE {list} AND {PASSED} AND {} \
             RETURNING aggregate_type, position",
            is_unsourced()
        );
        let mut removed = self.removed;
        removed.batches += 1;
        let mut last: BTreeMap<String, i64> = BTreeMap::new();
        B::fetch(connection, &sql.into(), &[these(positions)], None, |row| {
            let (aggregate_type, position) = read_removed(row).map_err(Error::other)?;
            removed.events += 1;
            let last = last.entry(aggregate_type).or_default();
            *last = position.max(*last);
            Ok(())
        })
        .await?;
        let Some(&upto) = last.values().max() else {
            return Ok((removed, self.record));
        };
        let record = self.record::<B>(connection, removed.events, upto).await?;
        let sql: Arc<str> = "INSERT INTO cqrs_removed (aggregate_type, position) VALUES ($1, $2) \
                             ON CONFLICT (aggregate_type) DO UPDATE SET position = CASE \
                             WHEN excluded.position > cqrs_removed.position \
                             THEN excluded.position ELSE cqrs_removed.position END"
            .into();
        for (aggregate_type, position) in last {
            let parameters = [Parameter::text(aggregate_type), Parameter::int(position)];
            B::execute(connection, &sql, &parameters).await?;
        }
        Ok((removed, Some(record)))
    }

    /// Records what the run has done: in the row of its first batch, unless that was deleted since.
    async fn record<B: Backend>(
        &self,
        connection: &mut B::Connection,
        events: u64,
        upto: i64,
    ) -> Result<i64> {
        let mut detail = format!("events: {events}, up to position: {upto}");
        if let Some(tenant) = self.context.scope().tenant() {
            detail += &format!(", of tenant: {tenant}");
        }
        if let Some(record) = self.record
            && records::correct::<B>(connection, record, detail.clone()).await?
        {
            return Ok(record);
        }
        records::begin::<B>(connection, self.context, (self.operation, detail)).await
    }
}

/// Waits for batches under way, and lets none begin before the transaction ends: who goes back in the
/// log holds this from the look for a [`gap`] on.
pub(crate) async fn hold<B: Backend>(connection: &mut B::Connection) -> Result<()> {
    if B::DIALECT.lock_rows.is_empty() {
        return Ok(());
    }
    let parameters = [
        Parameter::new(
            ColumnType::Int32,
            Value::Int(stable_hash("cqrs_removed".bytes()).into()),
        ),
        Parameter::List(ColumnType::Int32, vec![Value::Int(0)]),
    ];
    B::execute(connection, &B::DIALECT.lock_rows.into(), &parameters)
        .await
        .map(drop)
}

/// A place in the log behind which events have left it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    aggregate_type: String,
    upto: Position,
}

impl Gap {
    /// The error of what would be folded from a position on.
    pub(crate) fn refuse(&self, subscription: &str, start: Position) -> Error {
        Error::store(
            StoreErrorKind::Usage,
            format!(
                "subscription {subscription:?} cannot be folded from position {start} on: {self}. \
                 Restore it from a snapshot, or go on with `despite_gaps`"
            ),
        )
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            aggregate_type,
            upto,
        } = self;
        write!(
            f,
            "events of {aggregate_type:?} up to position {upto} have left the log"
        )
    }
}

/// The last gap behind a position for those who read these events; `None` where they get them all.
pub(crate) async fn gap<B: Backend>(
    connection: &mut B::Connection,
    filter: &EventFilter,
    start: Position,
) -> Result<Option<Gap>> {
    let sql = format!("SELECT {COLUMNS} FROM cqrs_removed WHERE position > $1 ORDER BY position");
    let mut gap = None;
    B::fetch(
        connection,
        &sql.into(),
        &[Parameter::int(start.0)],
        None,
        |row| {
            let (aggregate_type, upto) = read_removed(row).map_err(Error::other)?;
            if filter.reads(&aggregate_type) {
                let upto = Position(upto);
                gap = Some(Gap {
                    aggregate_type,
                    upto,
                });
            }
            Ok(())
        },
    )
    .await?;
    Ok(gap)
}

fn read_removed<R: RowSource>(row: &R) -> std::result::Result<(String, i64), ColumnError> {
    let aggregate_type = row.read_text(0)?.ok_or(ColumnError::UnexpectedNull)?;
    let position = row.read_i64(1)?.ok_or(ColumnError::UnexpectedNull)?;
    Ok((aggregate_type.to_owned(), position))
}
