//! Events that a subscription could not apply.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::envelope::{Envelope, Position, RawPayload};
use crate::error::Error;

/// An event that a subscription could not apply, or that stands behind one.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The event.
    pub event: Envelope<RawPayload>,
    /// Whether it is parked or was skipped.
    pub status: DeadLetterStatus,
    /// How often it was put here or replayed in vain; 0 where it stands behind another.
    pub attempts: u32,
    /// Why it failed, the last time.
    pub error: Option<Arc<Error>>,
    /// When it is replayed; only the first of an aggregate has one.
    pub replay_at: Option<DateTime<Utc>>,
}

/// What a dead letter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeadLetterStatus {
    /// It will be applied when it is replayed, and the later events of its aggregate after it.
    Parked,
    /// It was left out for good, and the later events of its aggregate were applied.
    Skipped,
}

/// The dead letters of a subscription.
#[derive(Debug, Default)]
pub(super) struct DeadLetters(BTreeMap<Position, DeadLetter>);

impl DeadLetters {
    pub(super) fn all(&self) -> Vec<DeadLetter> {
        self.0.values().cloned().collect()
    }

    pub(super) fn positions(&self) -> impl Iterator<Item = Position> {
        self.0.keys().copied()
    }

    fn parked(&self) -> impl Iterator<Item = &DeadLetter> {
        let letters = self.0.values();
        letters.filter(|letter| letter.status == DeadLetterStatus::Parked)
    }

    /// How many events are parked.
    pub(super) fn count(&self) -> usize {
        self.parked().count()
    }

    /// Whether an event of this aggregate is parked.
    pub(super) fn holds(&self, event: &Envelope<RawPayload>) -> bool {
        self.parked().any(|letter| is_of_one(&letter.event, event))
    }

    /// Puts an event here that failed, or that stands behind another (`None`).
    pub(super) fn put(
        &mut self,
        event: Envelope<RawPayload>,
        status: DeadLetterStatus,
        error: Option<Error>,
        replay_at: Option<DateTime<Utc>>,
    ) {
        let letter = DeadLetter {
            status,
            attempts: u32::from(error.is_some()),
            error: error.map(Arc::new),
            replay_at,
            event,
        };
        self.0.insert(letter.event.position(), letter);
    }

    /// The first parked event of each aggregate that is to be replayed by now.
    pub(super) fn due(&self, now: DateTime<Utc>) -> Vec<Envelope<RawPayload>> {
        self.parked()
            .filter(|letter| letter.replay_at.is_some_and(|at| at <= now))
            .map(|letter| letter.event.clone())
            .collect()
    }

    /// The parked events of the aggregate of this one, in order.
    pub(super) fn of(&self, event: &Envelope<RawPayload>) -> Vec<Envelope<RawPayload>> {
        self.parked()
            .map(|letter| &letter.event)
            .filter(|parked| is_of_one(parked, event))
            .cloned()
            .collect()
    }

    /// A replay failed.
    pub(super) fn failed(
        &mut self,
        position: Position,
        error: Error,
        replay_at: Option<DateTime<Utc>>,
    ) {
        if let Some(letter) = self.0.get_mut(&position) {
            letter.attempts += 1;
            letter.error = Some(Arc::new(error));
            letter.replay_at = replay_at;
        }
    }

    pub(super) fn remove(&mut self, position: Position) -> Option<DeadLetter> {
        self.0.remove(&position)
    }

    /// Has the first parked event of the chosen aggregates replayed at this time; of how many.
    pub(super) fn replay(
        &mut self,
        at: DateTime<Utc>,
        chosen: impl Fn(&Envelope<RawPayload>) -> bool,
    ) -> u64 {
        let mut firsts: Vec<Envelope<RawPayload>> = Vec::new();
        for letter in self.parked().filter(|letter| chosen(&letter.event)) {
            if !firsts.iter().any(|first| is_of_one(first, &letter.event)) {
                firsts.push(letter.event.clone());
            }
        }
        for first in &firsts {
            if let Some(letter) = self.0.get_mut(&first.position()) {
                letter.replay_at = Some(at);
            }
        }
        firsts.len() as u64
    }
}

/// Whether two events are of one aggregate.
fn is_of_one(one: &Envelope<RawPayload>, other: &Envelope<RawPayload>) -> bool {
    one.aggregate_type() == other.aggregate_type()
        && one.aggregate_id_str() == other.aggregate_id_str()
}
