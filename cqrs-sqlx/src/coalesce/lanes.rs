//! Where commits wait.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cqrs_core::staging::{Operation, StagedWrite};
use tokio::sync::oneshot;

use super::{Answer, Commit, Waiting, size};

/// How many flushes of a lane are under way at most: while the server works on one, the next is made
/// ready.
const FLUSHES: usize = 2;

/// How many bytes of texts, documents and payloads go out in one flush: small commits are not to wait
/// for megabytes of others.
const LARGEST: usize = 1024 * 1024;

/// The lanes of a store.
#[derive(Debug)]
pub(super) struct Lanes {
    lanes: Mutex<HashMap<LaneId, Lane>>,
    /// How many commits a flush takes.
    most: usize,
}

/// A table, by its address, and an operation.
type LaneId = (usize, Operation);

#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<Waiting>,
    flushes: usize,
    /// Whether a commit that found it empty is under way.
    first: bool,
}

/// What a commit found.
pub(super) enum Entered {
    /// Nobody.
    Empty(Box<Commit>, First),
    /// A flush that will take it.
    Behind(oneshot::Receiver<Answer>),
    /// It is the next to flush.
    ToFlush(Turn, oneshot::Receiver<Answer>),
}

impl Lanes {
    pub(super) fn new(most: usize) -> Self {
        Self {
            lanes: Mutex::default(),
            most,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<LaneId, Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(self: &Arc<Self>, commit: Box<Commit>) -> Entered {
        let id = lane_of(&commit.write);
        let mut lanes = self.lock();
        let lane = lanes.entry(id).or_default();
        if lane.flushes == 0 && !lane.first {
            lane.first = true;
            let first = First {
                lanes: Arc::clone(self),
                id,
            };
            return Entered::Empty(commit, first);
        }
        let (caller, answer) = oneshot::channel();
        lane.waiting.push_back(Waiting { commit, caller });
        if lane.flushes == FLUSHES {
            return Entered::Behind(answer);
        }
        lane.flushes += 1;
        let turn = Turn {
            lanes: Arc::clone(self),
            id,
            over: false,
        };
        Entered::ToFlush(turn, answer)
    }
}

fn lane_of(write: &StagedWrite) -> LaneId {
    (std::ptr::from_ref(write.table) as usize, write.operation)
}

/// The place of a commit that found its lane empty.
#[derive(Debug)]
pub(crate) struct First {
    lanes: Arc<Lanes>,
    id: LaneId,
}

impl Drop for First {
    fn drop(&mut self) {
        if let Some(lane) = self.lanes.lock().get_mut(&self.id) {
            lane.first = false;
        }
    }
}

/// The right to flush a lane.
pub(super) struct Turn {
    lanes: Arc<Lanes>,
    id: LaneId,
    over: bool,
}

impl Turn {
    /// Whether somebody waits; else the turn is over.
    pub(super) fn goes_on(&mut self) -> bool {
        let mut lanes = self.lanes.lock();
        let Some(lane) = lanes.get_mut(&self.id) else {
            return false;
        };
        if lane.waiting.is_empty() {
            lane.flushes -= 1;
            self.over = true;
        }
        !self.over
    }

    /// Those who wait, in the order in which they came, as far as they go out together.
    pub(super) fn take(&mut self) -> Vec<Waiting> {
        let mut lanes = self.lanes.lock();
        let lane = lanes.entry(self.id).or_default();
        let mut bytes = 0;
        let taken = lane.waiting.iter().take(self.lanes.most);
        let taken = taken.take_while(|waiting| {
            bytes += size(&waiting.commit.write);
            bytes <= LARGEST
        });
        let taken = taken.count();
        lane.waiting.drain(..taken).collect()
    }
}

impl Drop for Turn {
    /// Where it is not over, nothing may come of it soon, or its task was dropped, with its runtime
    /// say: who waits commits alone.
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let mut lanes = self.lanes.lock();
        let Some(lane) = lanes.get_mut(&self.id) else {
            return;
        };
        lane.flushes -= 1;
        let left = std::mem::take(&mut lane.waiting);
        drop(lanes);
        for waiting in left {
            waiting.answer(|commit| Answer::Alone(commit, None));
        }
    }
}
