//! Processes, each with a horizon task and a worker of the subscription.

use std::collections::BTreeSet;

use super::log::{Event, Fate, Log};
use crate::backend::postgres::horizon::{PgHorizon, Seen};

/// The events of one page at most, so that pages end before the horizon does.
pub(super) const PAGE_SIZE: usize = 2;

/// What a process remembers. A crash takes all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Process {
    pub(super) known: PgHorizon,
    /// What the horizon task has told the worker.
    pub(super) horizon: i64,
    pub(super) look: Look,
    pub(super) pass: Pass,
}

/// Between the two statements of a look.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) enum Look {
    #[default]
    Idle,
    /// The first statement has read the log.
    Log(Seen),
    /// The first statement has read the holders, in a design that swaps the two.
    Holders(BTreeSet<String>),
}

/// Where a worker is in its pass.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) enum Pass {
    #[default]
    Idle,
    /// Its statement that claims and reads has begun, and sees this.
    Begun { upto: i64, snapshot: Vec<usize> },
    /// It has claimed the checkpoint.
    Claimed {
        from: i64,
        upto: i64,
        /// What the statement that reads will see, where it has begun already.
        snapshot: Option<Vec<usize>>,
    },
    /// It has read a page, and is applying it.
    Read { page: Vec<usize>, to: i64 },
    /// What it writes is committed, and the checkpoint still to be moved, in a design with two
    /// transactions; or the other way round.
    Between { page: Vec<usize>, to: i64 },
    /// It has claimed the checkpoint to replay what is parked.
    Replaying,
}

/// What the subscription keeps in the database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Subscription {
    pub(super) position: i64,
    /// The process whose transaction has locked the row.
    pub(super) claimed: Option<usize>,
    /// The events in the order in which they were applied: aggregate and version.
    pub(super) applied: Vec<(u8, u8)>,
    /// The positions in the dead letters, in order.
    pub(super) parked: Vec<usize>,
    /// Whether the first event of aggregate 0 cannot be applied.
    pub(super) poisoned: bool,
}

impl Subscription {
    /// Applies a page; what cannot be applied is parked, and what follows it of its aggregate.
    pub(super) fn apply(&mut self, log: &Log, page: &[usize]) {
        for &position in page {
            let event = log.event(position);
            if self.is_poison(event) || self.has_parked(log, event.aggregate) {
                self.parked.push(position);
            } else {
                self.applied.push((event.aggregate, event.version));
            }
        }
    }

    /// Applies what is parked, in order.
    pub(super) fn replay(&mut self, log: &Log) {
        let parked = std::mem::take(&mut self.parked);
        self.apply(log, &parked);
    }

    pub(super) fn nothing_is_skipped(&self, log: &Log) -> bool {
        let upto = usize::try_from(self.position).unwrap_or(0);
        (1..=upto.min(log.events.len())).all(|position| {
            let event = log.event(position);
            let taken = self.applied.contains(&(event.aggregate, event.version))
                || self.parked.contains(&position);
            match event.fate {
                Fate::Committed => taken,
                // It may still appear.
                Fate::InFlight => false,
                Fate::Aborted => true,
            }
        })
    }

    pub(super) fn nothing_is_applied_twice(&self) -> bool {
        let applied = &self.applied;
        (1..applied.len()).all(|index| !applied[..index].contains(&applied[index]))
    }

    pub(super) fn aggregates_are_in_order(&self) -> bool {
        (0..2).all(|aggregate| {
            let versions = self.applied.iter();
            versions
                .filter(|(of, _)| *of == aggregate)
                .zip(1..)
                .all(|((_, version), expected)| *version == expected)
        })
    }

    fn is_poison(&self, event: Event) -> bool {
        self.poisoned && event.aggregate == 0 && event.version == 1
    }

    fn has_parked(&self, log: &Log, aggregate: u8) -> bool {
        let mut parked = self.parked.iter();
        parked.any(|position| log.event(*position).aggregate == aggregate)
    }
}

/// The page between two positions, of what a snapshot sees, and where it brings the checkpoint.
pub(super) fn page(visible: &[usize], from: i64, upto: i64) -> (Vec<usize>, i64) {
    page_of(PAGE_SIZE, visible, from, upto)
}

/// As [`page`], of so many events at most.
pub(super) fn page_of(most: usize, visible: &[usize], from: i64, upto: i64) -> (Vec<usize>, i64) {
    let page: Vec<usize> = visible
        .iter()
        .copied()
        .filter(|position| (from + 1..=upto).contains(&(*position as i64)))
        .take(most)
        .collect();
    let to = match page.last() {
        Some(last) if page.len() == most => *last as i64,
        _ => upto,
    };
    (page, to)
}
