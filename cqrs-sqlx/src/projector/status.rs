//! Where subscriptions stand, for operators.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use cqrs_core::mapping::RowSource;
use cqrs_core::{Position, Result, TenantScope};

use super::checkpoint::{self, Checkpoint, read, some};
use super::processes;
use crate::backend::Backend;
use crate::reads::{self, Place};
use crate::select::Select;
use crate::store::Shared;

/// Where a subscription stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionStatus {
    /// Its name.
    pub name: String,
    /// Everything up to here has been applied, or is among the dead letters: the position of the
    /// segment that is furthest behind.
    pub position: Position,
    /// Whether it goes on: halted where a segment is, also where it is paused.
    pub state: SubscriptionState,
    /// Whether somebody [paused](crate::Operations::pause) it, whatever its state.
    pub paused: bool,
    /// How many positions the log is ahead. Positions that were drawn and never used, and events
    /// that the subscription does not read, count too: an upper bound of the events it has yet to
    /// apply.
    pub lag: u64,
    /// How long the next event has waited since it was recorded, by the clock of the database;
    /// zero where there is none.
    pub lag_time: Duration,
    /// Its segments, in order.
    pub segments: Vec<SegmentStatus>,
    /// How many segments it is to have: another number while they are being changed.
    pub wanted_segments: u32,
    /// How many events are parked.
    pub parked: u64,
    /// When the event was parked that is for the longest time.
    pub oldest_parked: Option<DateTime<Utc>>,
    /// Of how many skipped events there is a record.
    pub skipped: u64,
    /// How many [commands](crate::Operations::parked_commands) of a process manager are parked.
    pub parked_commands: u64,
    /// When the command was parked that is for the longest time, by the clock of the store.
    pub oldest_parked_command: Option<DateTime<Utc>>,
    /// The version of the projection whose rows it keeps; see
    /// [`RowProjection::VERSION`](cqrs_core::RowProjection::VERSION).
    pub version: u32,
    /// Whether it [builds](crate::Operations::rebuild) rows anew that nobody reads yet.
    pub builds: bool,
}

/// Where a segment of a subscription stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentStatus {
    /// Its number, from 0.
    pub segment: u32,
    /// As [`SubscriptionStatus::position`], for the events of its aggregates.
    pub position: Position,
    /// Whether it goes on.
    pub state: SubscriptionState,
    /// As [`SubscriptionStatus::paused`].
    pub paused: bool,
    /// As [`SubscriptionStatus::lag`].
    pub lag: u64,
    /// As [`SubscriptionStatus::lag_time`].
    pub lag_time: Duration,
}

/// Whether a subscription goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubscriptionState {
    /// It goes on.
    Active,
    /// It goes on, and [builds](crate::Operations::rebuild) rows anew that nobody reads yet.
    Building,
    /// The next event failed and will be tried again.
    Retrying(SubscriptionFailure),
    /// Somebody [paused](crate::Operations::pause) it.
    Paused,
    /// The next event failed too often. It stands still until it is
    /// [resumed](crate::Operations::resume). It may be [paused](SubscriptionStatus::paused) too.
    Halted(SubscriptionFailure),
}

/// The failure that halted a subscription, or may come to.
///
/// [`Store::wait_for`](cqrs_core::Store::wait_for) returns it inside of an
/// [`Error::Other`](cqrs_core::Error::Other) when it waits for a halted subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionFailure {
    /// The subscription.
    pub name: String,
    /// The event that failed. `None` where that is not known.
    pub position: Option<Position>,
    /// How often it failed.
    pub attempts: u32,
    /// Why, the last time: the messages of the error and of its sources.
    pub error: String,
}

impl fmt::Display for SubscriptionFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "subscription {:?} failed", self.name)?;
        if let Some(position) = self.position {
            write!(f, " at position {position}")?;
        }
        write!(f, " after {} attempts: {}", self.attempts, self.error)
    }
}

impl std::error::Error for SubscriptionFailure {}

/// Where every subscription stands, by name.
pub(crate) async fn statuses<B: Backend>(
    shared: &Arc<Shared<B>>,
) -> Result<Vec<SubscriptionStatus>> {
    let letters = letters(shared).await?;
    let commands = processes::count_parked(shared).await?;
    let mut all: Vec<SubscriptionStatus> = Vec::new();
    for segment in segments(shared).await? {
        match all.last_mut().filter(|last| last.name == segment.name) {
            Some(last) => last.add(segment),
            None => all.push(segment),
        }
    }
    for (name, status, count, oldest) in letters {
        let Some(subscription) = all.iter_mut().find(|status| status.name == name) else {
            continue;
        };
        if status == "parked" {
            (subscription.parked, subscription.oldest_parked) = (count, Some(oldest));
        } else {
            subscription.skipped = count;
        }
    }
    for (name, count, oldest) in commands {
        if let Some(process) = all.iter_mut().find(|status| status.name == name) {
            process.parked_commands = count;
            process.oldest_parked_command = Some(oldest);
        }
    }
    Ok(all)
}

impl SubscriptionStatus {
    fn add(&mut self, segment: Self) {
        self.position = self.position.min(segment.position);
        self.lag = self.lag.max(segment.lag);
        self.lag_time = self.lag_time.max(segment.lag_time);
        self.paused |= segment.paused;
        if segment.state.rank() > self.state.rank() {
            self.state = segment.state;
        }
        self.segments.extend(segment.segments);
    }
}

impl SubscriptionState {
    fn of(checkpoint: Checkpoint, builds: bool) -> Self {
        match (checkpoint.halted, checkpoint.failed_attempts) {
            (true, _) => Self::Halted(checkpoint.into_failure()),
            (false, _) if checkpoint.paused => Self::Paused,
            (false, 0) if builds => Self::Building,
            (false, 0) => Self::Active,
            (false, _) => Self::Retrying(checkpoint.into_failure()),
        }
    }

    /// What matters more is higher.
    fn rank(&self) -> u8 {
        match self {
            Self::Active | Self::Building => 0,
            Self::Retrying(_) => 1,
            Self::Paused => 2,
            Self::Halted(_) => 3,
        }
    }
}

/// The status of every segment, as if its subscription had no other.
async fn segments<B: Backend>(shared: &Arc<Shared<B>>) -> Result<Vec<SubscriptionStatus>> {
    let order = B::DIALECT.byte_order;
    let select = Select {
        sql: format!(
            "SELECT {}, {}, (SELECT coalesce(max(e.position), 0) FROM cqrs_event AS e), \
             (SELECT e.recorded_at FROM cqrs_event AS e WHERE e.position > s.position \
             ORDER BY e.position LIMIT 1), \
             (SELECT q.segments FROM cqrs_subscription AS q WHERE q.name = s.subscription), \
             EXISTS (SELECT 1 FROM cqrs_rebuild AS b WHERE b.building = s.subscription) \
             FROM cqrs_segment AS s ORDER BY subscription{order}, segment",
            checkpoint::COLUMNS,
            B::DIALECT.now,
        )
        .into(),
        parameters: Vec::new(),
    };
    let place = Place::Confined(shared, &TenantScope::System);
    reads::rows(place, &select, None, segment::<B>).await
}

fn segment<B: Backend>(row: &B::Row) -> Result<SubscriptionStatus> {
    let checkpoint = Checkpoint::read(row)?;
    read(row, |row| {
        let now = some(row.read_timestamp(checkpoint::WIDTH)?)?;
        let last = some(row.read_i64(checkpoint::WIDTH + 1)?)?;
        let next = row.read_timestamp(checkpoint::WIDTH + 2)?;
        let wanted = row.read_i32(checkpoint::WIDTH + 3)?.unwrap_or(1);
        let builds = some(row.read_bool(checkpoint::WIDTH + 4)?)?;
        let (name, version) = (checkpoint.name.clone(), checkpoint.version);
        let segment = SegmentStatus {
            segment: u32::try_from(checkpoint.segment.number).unwrap_or(0),
            position: checkpoint.position,
            lag: u64::try_from(last - checkpoint.position.0).unwrap_or(0),
            lag_time: next
                .and_then(|next| (now - next).to_std().ok())
                .unwrap_or_default(),
            paused: checkpoint.paused,
            state: SubscriptionState::of(checkpoint, builds),
        };
        Ok(SubscriptionStatus {
            name,
            position: segment.position,
            state: segment.state.clone(),
            paused: segment.paused,
            lag: segment.lag,
            lag_time: segment.lag_time,
            segments: vec![segment],
            wanted_segments: u32::try_from(wanted).unwrap_or(1),
            parked: 0,
            oldest_parked: None,
            skipped: 0,
            parked_commands: 0,
            oldest_parked_command: None,
            version,
            builds,
        })
    })
}

/// How many dead letters there are, by subscription and status, and since when.
async fn letters<B: Backend>(
    shared: &Arc<Shared<B>>,
) -> Result<Vec<(String, String, u64, DateTime<Utc>)>> {
    let select = Select {
        sql: "SELECT subscription, status, count(*), min(parked_at) FROM cqrs_dead_letter \
              GROUP BY subscription, status"
            .into(),
        parameters: Vec::new(),
    };
    reads::rows(Place::Alone(shared), &select, None, |row: &B::Row| {
        read(row, |row| {
            let count = u64::try_from(some(row.read_i64(2)?)?).unwrap_or(0);
            let name = some(row.read_text(0)?)?.to_owned();
            let status = some(row.read_text(1)?)?.to_owned();
            Ok((name, status, count, some(row.read_timestamp(3)?)?))
        })
    })
    .await
}
