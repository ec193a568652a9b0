//! Where work waits for others of its kind.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::Work;

/// How many flushes of a lane are under way at most: while the server works on one, the next is made
/// ready.
const FLUSHES: usize = 2;

/// How many bytes of texts, documents and payloads go out in one flush: what is small is not to wait
/// for megabytes of others.
const LARGEST: usize = 1024 * 1024;

/// Work, and who waits for it.
pub(super) struct Waiting<W: Work> {
    pub(super) work: W,
    pub(super) caller: oneshot::Sender<W::Answer>,
}

impl<W: Work> Waiting<W> {
    /// Answers; nobody may be there to hear it.
    pub(super) fn answer(self, answer: impl FnOnce(W) -> W::Answer) {
        let _ = self.caller.send(answer(self.work));
    }
}

/// The lanes of a store for one kind of work.
pub(super) struct Lanes<W: Work> {
    lanes: Mutex<HashMap<W::Lane, Lane<W>>>,
    /// How much a flush takes.
    most: usize,
}

struct Lane<W: Work> {
    waiting: VecDeque<Waiting<W>>,
    flushes: usize,
    /// How much is under way alone.
    alone: usize,
}

impl<W: Work> Default for Lane<W> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            flushes: 0,
            alone: 0,
        }
    }
}

/// What work found in its lane.
pub(super) enum Entered<W: Work> {
    /// Nobody whom it would have to wait for.
    Empty(W, First<W::Lane>),
    /// A flush that will take it.
    Behind(oneshot::Receiver<W::Answer>),
    /// It is the next to flush.
    ToFlush(Turn<W>, oneshot::Receiver<W::Answer>),
}

impl<W: Work> Lanes<W> {
    pub(super) fn new(most: usize) -> Self {
        Self {
            lanes: Mutex::default(),
            most,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<W::Lane, Lane<W>>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(self: &Arc<Self>, work: W) -> Entered<W> {
        let id = work.lane();
        let mut lanes = self.lock();
        let lane = lanes.entry(id).or_default();
        if lane.flushes == 0 && lane.alone < W::ALONE {
            lane.alone += 1;
            let lanes = Arc::clone(self) as Arc<dyn Leave<W::Lane>>;
            let first = First { lanes, id };
            return Entered::Empty(work, first);
        }
        let (caller, answer) = oneshot::channel();
        lane.waiting.push_back(Waiting { work, caller });
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

/// The place of work that goes out alone.
pub(crate) struct First<L: Copy> {
    lanes: Arc<dyn Leave<L>>,
    id: L,
}

/// Lanes, whatever waits in them: answers carry a [`First`], and lanes the answers.
trait Leave<L>: Send + Sync {
    fn leave(&self, id: L);
}

impl<W: Work> Leave<W::Lane> for Lanes<W> {
    fn leave(&self, id: W::Lane) {
        if let Some(lane) = self.lock().get_mut(&id) {
            lane.alone -= 1;
        }
    }
}

impl<L: Copy> fmt::Debug for First<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("First").finish_non_exhaustive()
    }
}

impl<L: Copy> Drop for First<L> {
    fn drop(&mut self) {
        self.lanes.leave(self.id);
    }
}

/// The right to flush a lane.
pub(super) struct Turn<W: Work> {
    lanes: Arc<Lanes<W>>,
    id: W::Lane,
    over: bool,
}

impl<W: Work> Turn<W> {
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
    pub(super) fn take(&mut self) -> Vec<Waiting<W>> {
        let mut lanes = self.lanes.lock();
        let lane = lanes.entry(self.id).or_default();
        let mut bytes = 0;
        let taken = lane.waiting.iter().take(self.lanes.most);
        let taken = taken.take_while(|waiting| {
            bytes += waiting.work.size();
            bytes <= LARGEST
        });
        // One that is too large for any flush has one to itself: nothing behind it would go out else.
        let taken = taken.count().max(1).min(lane.waiting.len());
        lane.waiting.drain(..taken).collect()
    }
}

impl<W: Work> Drop for Turn<W> {
    /// Where it is not over, nothing may come of it soon, or its task was dropped, with its runtime
    /// say: who waits goes out alone.
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
            waiting.answer(|work| work.alone(None));
        }
    }
}
