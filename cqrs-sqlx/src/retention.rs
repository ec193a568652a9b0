//! Removing old events from the log.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use cqrs_core::mapping::{ColumnError, ColumnType, RowSource, Value};
use cqrs_core::{
    Envelope, Error, EventBus, Position, RawPayload, RequestContext, Result, StoreErrorKind,
};

use crate::backend::{Backend, Parameter, Parameters};
use crate::log::{EVENT_COLUMNS, read_event};
use crate::reads::{self, Place};
use crate::select::Select;
use crate::store::Shared;
use crate::tenancy::{self, TenantSite};

/// A commit whose answer was lost is looked for in the log, so an event stays longer than anyone
/// can be looking.
const SHORTEST_AGE: Duration = Duration::from_secs(60 * 60);

/// Which events may leave the log.
///
/// Whatever the policy says, these stay: events that a subscription has not passed, also one that
/// is halted or paused; events that are parked; those of event-sourced aggregates, since they are
/// what the aggregates are made of; and, unless
/// [told](Self::forget_first_events), the first event of each aggregate.
///
/// What has left is gone for whoever starts at the beginning of the log: a new subscription, a
/// rebuild, a live projection. [Keep](Self::keep) the types whose events those need.
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
    /// hour.
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

/// An archive for those who want none.
pub(crate) struct Nowhere;

impl EventBus for Nowhere {
    async fn publish(&self, _: &[Envelope<RawPayload>]) -> Result<()> {
        Ok(())
    }
}

/// A part of the log: the events that may go, and where the next part begins.
struct Part {
    events: Vec<Envelope<RawPayload>>,
    next: Option<Position>,
}

/// Applies a policy: part by part, archives what may go, and removes it.
pub(crate) async fn run<B: Backend>(
    shared: &Arc<Shared<B>>,
    context: &RequestContext,
    retention: &Retention,
    archive: &impl EventBus,
) -> Result<Removed> {
    let age = retention.check()?;
    let before = now(shared).await?.checked_sub_signed(age);
    let Some(before) = before else {
        return Ok(Removed::default());
    };
    let mut removed = Removed::default();
    let mut after = Some(Position::START);
    while let Some(from) = after {
        let part = part(shared, context, retention, before, from).await?;
        if !part.events.is_empty() {
            archive.publish(&part.events).await?;
            removed.events += remove(shared, &part.events).await?;
            removed.batches += 1;
        }
        after = part.next;
    }
    Ok(removed)
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

/// Reads the next events, and which of them may go. It reads them all, up to the first that is too
/// young: there is no index by age, and the order of the log is nearly that of time.
async fn part<B: Backend>(
    shared: &Arc<Shared<B>>,
    context: &RequestContext,
    retention: &Retention,
    before: DateTime<Utc>,
    from: Position,
) -> Result<Part> {
    let mut parameters = Parameters(vec![
        Parameter::int(from.0),
        Parameter::int(retention.batch.into()),
    ]);
    let goes = goes::<B>(context, retention, &mut parameters);
    let select = Select {
        sql: format!(
            "SELECT {EVENT_COLUMNS}, CAST(CASE WHEN {goes} THEN 1 ELSE 0 END AS bigint) \
             FROM cqrs_event WHERE position > $1 AND {PASSED} ORDER BY position LIMIT $2"
        )
        .into(),
        parameters: parameters.0,
    };
    let place = Place::Confined(shared, context.scope());
    let found = reads::rows(place, &select, None, |row: &B::Row| {
        let goes = row.read_i64(18).map_err(Error::other)? == Some(1);
        Ok((read_event(row)?, goes))
    })
    .await?;
    let whole = found.len() as u64 >= u64::from(retention.batch);
    let old = found
        .iter()
        .take_while(|(event, _)| event.recorded_at() < before)
        .count();
    let next = found
        .last()
        .filter(|_| whole && old == found.len())
        .map(|(event, _)| event.position());
    let events = found
        .into_iter()
        .take(old)
        .filter_map(|(event, goes)| goes.then_some(event));
    Ok(Part {
        events: events.collect(),
        next,
    })
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
        "NOT sourced".to_owned(),
    ];
    if retention.first_events == FirstEvents::Keep {
        conditions.push("aggregate_version > 1".to_owned());
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

/// Removes events that are archived, as far as nobody has come to need them since.
async fn remove<B: Backend>(
    shared: &Arc<Shared<B>>,
    events: &[Envelope<RawPayload>],
) -> Result<u64> {
    let positions = events.iter().map(|event| Value::Int(event.position().0));
    let list = (B::DIALECT.in_list)("position", ColumnType::Int64, "$1");
    let sql = format!("DELETE FROM cqrs_event WHERE {list} AND {PASSED}").into();
    let positions = Parameter::List(ColumnType::Int64, positions.collect());
    crate::projector::execute(shared, &sql, &[positions]).await
}
