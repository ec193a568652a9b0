//! Where a subscription begins, and what it does about failures.

use std::time::Duration;

use chrono::{DateTime, Utc};

/// Where a subscription begins when it is first registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum StartAt {
    /// At the first event of the log.
    #[default]
    Beginning,
    /// After the events that are in the log by then. One that was being committed at that moment
    /// may be read or not.
    Now,
    /// At the first event that was recorded at this time or later, by the clock of the database.
    Time(DateTime<Utc>),
}

/// What becomes of an event that cannot be applied, also when it is tried again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum FailurePolicy {
    /// The subscription stands still in front of it until it is resumed: nothing is lost, and
    /// nothing goes on. With several segments, the segment stands still.
    #[default]
    Halt,
    /// It is left out, with a record of it among the dead letters, and the next event is applied,
    /// also where it is of the same aggregate.
    Skip,
    /// It goes to the dead letters, and every later event of its aggregate goes there behind it,
    /// while the events of all other aggregates are applied. So the events of each aggregate are
    /// applied in their order, also when they are replayed.
    Park(Parking),
}

/// How events are parked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parking {
    at_most: u32,
    replay_interval: Option<Duration>,
}

impl Default for Parking {
    /// 1000 events, which wait until someone has them replayed.
    fn default() -> Self {
        Self::at_most(1000)
    }
}

impl Parking {
    /// At most so many events of a subscription are parked; the next one halts it. At least one.
    #[must_use]
    pub fn at_most(events: u32) -> Self {
        Self {
            at_most: events.max(1),
            replay_interval: None,
        }
    }

    /// Replays what is parked by itself, this long after it last failed.
    #[must_use]
    pub fn replayed_every(mut self, interval: Duration) -> Self {
        self.replay_interval = Some(interval);
        self
    }

    /// How many events may be parked.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.at_most
    }

    /// How long after its last failure an event is replayed by itself.
    #[must_use]
    pub fn replay_interval(&self) -> Option<Duration> {
        self.replay_interval
    }
}
