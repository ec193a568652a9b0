//! Which segment a worker reads the pages of, where it does not lock them: the workers of one
//! process by turns, those of several by giving way.
//!
//! Two workers that read one page are no danger, since the version of the checkpoint lets one of
//! them write; but the other has read and applied it in vain. Within the process that is avoided:
//! a worker *takes* the segment of its page, and the others look at what is left. It keeps it as
//! long as its pages are full, up to [`LONGEST_TURN`], so that it can read ahead.
//!
//! Of other processes nothing is known but what they write. A worker that has lost a page to one
//! *leaves* the segment to it for a while: nobody of this process looks at its pages until the
//! patience of the process is over. Whoever loses then again has four times the patience; with
//! pages that are won it gets shorter. So the segments are shared out among the processes without
//! a word, each of them goes on being worked for when a process dies, and little is done in vain.
//!
//! It is all about who reads, and never about what is written.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many pages of one segment a worker reads before it looks which is furthest behind. Each turn
/// begins with a page that was not read ahead.
const LONGEST_TURN: u32 = 16;

/// Longer than most pages take.
const FIRST_PATIENCE: Duration = Duration::from_millis(20);
/// A process that has died is noticed after so much time at the latest.
const LONGEST_PATIENCE: Duration = Duration::from_secs(10);
/// How much longer patience is after each loss: few of them until it is long enough.
const BY_A_LOSS: u32 = 4;
/// How much of its patience a process loses by each page that it wins: what one loss adds is gone
/// after some 90 of them.
const LOSS_IN_WINS: u32 = 64;

/// The segments of one subscription, as the workers of one process share them.
#[derive(Debug)]
pub(super) struct Turns {
    known: Mutex<Known>,
    /// So that the workers of two processes do not begin at the same segments.
    shift: i64,
}

#[derive(Debug, Default)]
struct Known {
    workers: i64,
    taken: BTreeSet<i64>,
    lost: BTreeMap<i64, Lost>,
    /// How many turns have ended, and as which of them the last of each segment did.
    ended: u64,
    last: BTreeMap<i64, u64>,
}

/// A segment of which a page was lost.
#[derive(Debug)]
struct Lost {
    patience: Duration,
    /// Until when it is left to another process.
    until: Option<Instant>,
}

/// Which of several segments a worker would rather have, unless another is far behind: those whose
/// number and `at` make a multiple of `of`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Home {
    pub(super) at: i64,
    pub(super) of: i64,
}

/// What a worker is to look at.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) home: Home,
    /// The segments that it is not to look at.
    pub(super) except: Vec<i64>,
    ended: u64,
}

/// A worker has this segment until the value is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Arc<Turns>,
    segment: i64,
    pages: u32,
}

impl View {
    /// Of a worker that nobody gives way to.
    pub(super) fn whole() -> Self {
        Self {
            home: Home { at: 0, of: 1 },
            except: Vec::new(),
            ended: 0,
        }
    }
}

impl Default for Turns {
    fn default() -> Self {
        let random = RandomState::new().hash_one(0) % 1024;
        Self {
            known: Mutex::default(),
            shift: i64::try_from(random).unwrap_or(0),
        }
    }
}

impl Turns {
    /// Another worker shares them; its number.
    pub(super) fn join(&self) -> i64 {
        let mut known = self.lock();
        known.workers += 1;
        known.workers - 1
    }

    /// What a worker is to look at now.
    pub(super) fn view(&self, worker: i64, now: Instant) -> View {
        let known = self.lock();
        let left = known.lost.iter().filter(|(_, lost)| lost.is_left(now));
        let left = left.map(|(segment, _)| *segment);
        View {
            home: Home {
                at: self.shift + worker,
                of: known.workers.max(1),
            },
            except: known.taken.iter().copied().chain(left).collect(),
            ended: known.ended,
        }
    }

    /// Takes a segment that was found; `None` where another worker has, or had since the view.
    pub(super) fn take(self: &Arc<Self>, segment: i64, view: &View) -> Option<Turn> {
        let mut known = self.lock();
        let is_old = known
            .last
            .get(&segment)
            .is_some_and(|last| *last > view.ended);
        let is_free = !is_old && known.taken.insert(segment);
        drop(known);
        is_free.then(|| Turn {
            turns: Arc::clone(self),
            segment,
            pages: 0,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lost {
    fn is_left(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }
}

impl Turn {
    /// Whether the page behind the one that is begun may be of the same turn.
    pub(super) fn goes_on(&mut self, segments: i64) -> bool {
        self.pages += 1;
        segments == 1 || self.pages < LONGEST_TURN
    }

    /// The page is committed: the segment is not left any more, and patience gets a little shorter.
    pub(super) fn won(&self) {
        if let Some(lost) = self.turns.lock().lost.get_mut(&self.segment) {
            lost.until = None;
            lost.patience = (lost.patience - lost.patience / LOSS_IN_WINS).max(FIRST_PATIENCE);
        }
    }

    /// Somebody else was faster.
    pub(super) fn lost(&self, now: Instant) {
        let mut known = self.turns.lock();
        let before = known.lost.get(&self.segment);
        let patience = before.map_or(FIRST_PATIENCE, |before| {
            let longer = before.patience.saturating_mul(BY_A_LOSS);
            longer.min(LONGEST_PATIENCE)
        });
        let until = Some(now + patience);
        known.lost.insert(self.segment, Lost { patience, until });
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut known = self.turns.lock();
        known.taken.remove(&self.segment);
        known.ended += 1;
        let ended = known.ended;
        known.last.insert(self.segment, ended);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock that is set by hand.
    struct Clock(Instant);

    impl Clock {
        fn advance(&mut self, by: Duration) {
            self.0 += by;
        }
    }

    fn turns() -> (Arc<Turns>, Clock) {
        (Arc::default(), Clock(Instant::now()))
    }

    fn except(turns: &Turns, clock: &Clock) -> Vec<i64> {
        turns.view(0, clock.0).except
    }

    fn take(turns: &Arc<Turns>, clock: &Clock) -> Turn {
        turns.take(0, &turns.view(0, clock.0)).unwrap()
    }

    #[test]
    fn a_segment_is_taken_by_one_until_it_is_dropped() {
        let (turns, clock) = turns();
        let view = turns.view(0, clock.0);
        let turn = turns.take(3, &view).unwrap();
        assert!(turns.take(3, &view).is_none());
        assert_eq!(except(&turns, &clock), [3]);
        drop(turn);
        assert_eq!(except(&turns, &clock), [0; 0]);
        assert!(turns.take(3, &view).is_none(), "what was seen is old");
        assert!(turns.take(4, &view).is_some());
        assert!(turns.take(3, &turns.view(0, clock.0)).is_some());
    }

    #[test]
    fn a_turn_among_several_segments_ends() {
        let (turns, clock) = turns();
        let mut turn = take(&turns, &clock);
        assert!((1..LONGEST_TURN).all(|_| turn.goes_on(2)));
        assert!(!turn.goes_on(2));
        assert!(turn.goes_on(1), "there is no other");
    }

    #[test]
    fn each_worker_has_a_home_of_its_own() {
        let (turns, clock) = turns();
        let workers: Vec<_> = (0..3).map(|_| turns.join()).collect();
        assert_eq!(workers, [0, 1, 2]);
        for segment in 0..6 {
            let is_home = |worker: &&i64| {
                let Home { at, of } = turns.view(**worker, clock.0).home;
                (segment + at) % of == 0
            };
            assert_eq!(workers.iter().filter(is_home).count(), 1, "{segment}");
        }
    }

    #[test]
    fn what_was_lost_is_left_for_a_while() {
        let (turns, mut clock) = turns();
        take(&turns, &clock).lost(clock.0);
        assert_eq!(except(&turns, &clock), [0]);
        clock.advance(FIRST_PATIENCE);
        assert_eq!(except(&turns, &clock), [0; 0]);
        take(&turns, &clock).lost(clock.0);
        clock.advance(FIRST_PATIENCE * (BY_A_LOSS - 1));
        assert_eq!(except(&turns, &clock), [0], "it has more patience");
        take(&turns, &clock).won();
        assert_eq!(except(&turns, &clock), [0; 0]);
    }

    #[test]
    fn patience_gets_shorter_with_pages_that_are_won() {
        let (turns, clock) = turns();
        let turn = take(&turns, &clock);
        let patience = || turns.lock().lost[&0].patience;
        turn.lost(clock.0);
        turn.lost(clock.0);
        assert_eq!(patience(), BY_A_LOSS * FIRST_PATIENCE);
        turn.won();
        assert!(patience() > FIRST_PATIENCE);
        (0..2 * LOSS_IN_WINS).for_each(|_| turn.won());
        assert_eq!(patience(), FIRST_PATIENCE);
    }

    #[test]
    fn patience_has_an_end() {
        let (turns, mut clock) = turns();
        let turn = take(&turns, &clock);
        (0..20).for_each(|_| turn.lost(clock.0));
        drop(turn);
        assert_eq!(except(&turns, &clock), [0]);
        clock.advance(LONGEST_PATIENCE);
        assert_eq!(except(&turns, &clock), [0; 0]);
    }
}
