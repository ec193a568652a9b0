//! Segments whose pages are applied without a lock, while their number changes.
//!
//! An event may fail: it is put aside, under the lock of its segment's row, which is where the page
//! is compared with the barrier of a change.
//!
//! The log is quiet: how a page ends before what may still appear, and what a crash of the server
//! takes, is the topic of [`unlocked`](super::unlocked), and the same for each segment.

use std::collections::BTreeSet;

use stateright::{Model, Property};

use super::{ORDER, SETTLES, SKIPPED, TWICE, settled};

/// The aggregate of each event, by position.
const LOG: [u8; 5] = [0, 1, 1, 0, 1];
/// So that nearly every page is full, and another is read ahead.
const PAGE_SIZE: usize = 1;

/// How a worker recognises the row of its segment's checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Split {
    /// What the crate does: whatever is done to a row gives it another version, also the barrier of
    /// a change, and new segments have new rows.
    Versions,
    /// By the number of the segment and where it stands.
    PositionAlone,
    /// By a version, which the barrier does not touch.
    BarrierApart,
    /// As the crate does; but what is put aside is not compared with the barrier.
    AsideBehindTheBarrier,
}

/// A row of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Row {
    position: usize,
    version: u8,
}

/// What a worker has read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Page {
    segment: usize,
    seen: Row,
    /// Positions.
    events: Vec<usize>,
    to: usize,
    /// How many segments there were, and how far pages went.
    of: usize,
    upto: usize,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Worker {
    page: Option<Page>,
    /// The page behind it, that was read ahead.
    ahead: Option<Page>,
    /// Whether the event of the page has failed.
    failed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct State {
    segments: Vec<Row>,
    /// How many there are to be.
    wanted: usize,
    barrier: Option<usize>,
    /// The positions in the order in which they were applied, or put aside.
    applied: Vec<usize>,
    workers: Vec<Worker>,
    next: u8,
    changes: u8,
    crashes: u8,
    /// Whether a page came too late, after the segments had changed.
    overtaken: bool,
    /// Whether an event was not put aside, since it is behind the barrier.
    held_back: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Action {
    /// A worker reads the row and the page of a segment.
    Read(usize, usize),
    /// It reads the page behind that.
    ReadAhead(usize),
    /// It writes rows and checkpoint; where the event fails, it goes on to put that aside.
    Commit(usize),
    /// It puts the event aside that has failed, and moves the checkpoint behind it.
    PutAside(usize),
    /// Somebody asks for one segment where there are two, or for two.
    Change,
    /// Whoever finds that all have arrived replaces them.
    Replace,
    /// A process is killed.
    Crash(usize),
}

/// Two workers.
#[derive(Debug, Clone)]
pub(super) struct Segments {
    pub(super) design: Split,
    pub(super) begins_with: usize,
    pub(super) changes: u8,
    pub(super) crashes: u8,
    /// The event that fails.
    pub(super) poison: Option<usize>,
}

fn segment_of(position: usize, of: usize) -> usize {
    usize::from(LOG[position - 1]) % of
}

impl Segments {
    fn read_actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (number, worker) in state.workers.iter().enumerate() {
            match &worker.page {
                Some(_) if worker.failed => actions.push(Action::PutAside(number)),
                Some(page) => {
                    actions.push(Action::Commit(number));
                    if page.events.len() == PAGE_SIZE && worker.ahead.is_none() {
                        actions.push(Action::ReadAhead(number));
                    }
                }
                None => {
                    let end = state.barrier.unwrap_or(LOG.len());
                    let segments = state.segments.iter().enumerate();
                    let behind = segments.filter(|(_, row)| row.position < end);
                    actions.extend(behind.map(|(segment, _)| Action::Read(number, segment)));
                }
            }
        }
        if state.have_arrived() {
            actions.push(Action::Replace);
        }
    }

    fn is_same(&self, seen: &Row, now: &Row) -> bool {
        match self.design {
            Split::PositionAlone => seen.position == now.position,
            Split::Versions | Split::BarrierApart | Split::AsideBehindTheBarrier => {
                seen.version == now.version
            }
        }
    }

    fn commit(&self, state: &mut State, number: usize) {
        let worker = std::mem::take(&mut state.workers[number]);
        let Some(page) = worker.page else {
            unreachable!("a worker commits what it has read");
        };
        if self
            .poison
            .is_some_and(|poison| page.events.contains(&poison))
        {
            // Its handler fails, and nothing has looked at the row since the page was read.
            state.workers[number] = Worker {
                page: Some(page),
                ahead: None,
                failed: true,
            };
            return;
        }
        let row = state.segments.get(page.segment);
        if !row.is_some_and(|row| self.is_same(&page.seen, row)) {
            state.overtaken |= state.segments.len() != page.of;
            return;
        }
        state.applied.extend(&page.events);
        let row = state.row(page.to);
        state.segments[page.segment] = row.clone();
        if let Some(ahead) = worker.ahead {
            state.workers[number].page = Some(Page { seen: row, ..ahead });
        }
    }

    /// By the number of the segment and where it stands: the row is locked meanwhile.
    fn put_aside(&self, state: &mut State, number: usize) {
        let Some(page) = std::mem::take(&mut state.workers[number]).page else {
            unreachable!("a worker puts aside what it has read");
        };
        let row = state.segments.get(page.segment);
        let stands = row.is_some_and(|row| row.position == page.seen.position);
        if !stands || state.segments.len() != page.of {
            return;
        }
        let is_behind = state.barrier.is_some_and(|end| page.to > end);
        if is_behind && self.design != Split::AsideBehindTheBarrier {
            state.held_back = true;
            return;
        }
        state.applied.extend(&page.events);
        state.segments[page.segment] = state.row(page.to);
    }

    fn change(&self, state: &mut State) {
        state.changes -= 1;
        state.wanted = 3 - state.wanted;
        let furthest = state.segments.iter().map(|row| row.position).max();
        state.barrier = furthest.filter(|_| state.wanted != state.segments.len());
        if self.design != Split::BarrierApart {
            let positions: Vec<_> = state.segments.iter().map(|row| row.position).collect();
            state.segments = positions.into_iter().map(|at| state.row(at)).collect();
        }
        if state.have_arrived() {
            state.replace();
        }
    }

    fn settles(&self, state: &State) -> bool {
        let state = settled(self, state, |state, actions| {
            self.read_actions(state, actions);
        });
        state.applied.len() == LOG.len() && state.segments.len() == state.wanted
    }
}

impl State {
    /// A row that was written now.
    fn row(&mut self, position: usize) -> Row {
        let version = self.next;
        self.next += 1;
        Row { position, version }
    }

    fn have_arrived(&self) -> bool {
        let mut rows = self.segments.iter();
        rows.all(|row| Some(row.position) == self.barrier)
    }

    fn replace(&mut self) {
        let position = self.segments[0].position;
        self.segments = (0..self.wanted).map(|_| self.row(position)).collect();
        self.barrier = None;
    }

    /// The page of a segment behind a position.
    fn page(&self, segment: usize, seen: Row, (of, upto): (usize, usize)) -> Page {
        let from = seen.position;
        let events: Vec<_> = (from + 1..=upto)
            .filter(|position| segment_of(*position, of) == segment)
            .take(PAGE_SIZE)
            .collect();
        let full = events.last().filter(|_| events.len() == PAGE_SIZE);
        let to = full.copied().unwrap_or(upto.max(from));
        Page {
            segment,
            seen,
            events,
            to,
            of,
            upto,
        }
    }

    fn nothing_is_skipped(&self) -> bool {
        let of = self.segments.len();
        self.segments.iter().enumerate().all(|(segment, row)| {
            (1..=row.position)
                .filter(|position| segment_of(*position, of) == segment)
                .all(|position| self.applied.contains(&position))
        })
    }
}

impl Model for Segments {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut state = State {
            segments: Vec::new(),
            wanted: self.begins_with,
            barrier: None,
            applied: Vec::new(),
            workers: vec![Worker::default(); 2],
            next: 1,
            changes: self.changes,
            crashes: self.crashes,
            overtaken: false,
            held_back: false,
        };
        state.segments = (0..self.begins_with).map(|_| state.row(0)).collect();
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.read_actions(state, actions);
        if state.changes > 0 {
            actions.push(Action::Change);
        }
        if state.crashes > 0 {
            actions.extend([0, 1].map(Action::Crash));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Read(number, segment) => {
                let (of, upto) = (state.segments.len(), state.barrier.unwrap_or(LOG.len()));
                let row = state.segments[segment].clone();
                state.workers[number].page = Some(state.page(segment, row, (of, upto)));
            }
            Action::ReadAhead(number) => {
                let page = last.workers[number].page.clone()?;
                let behind = Row {
                    position: page.to,
                    ..page.seen
                };
                let ahead = state.page(page.segment, behind, (page.of, page.upto));
                state.workers[number].ahead = (ahead.to > page.to).then_some(ahead);
            }
            Action::Commit(number) => self.commit(&mut state, number),
            Action::PutAside(number) => self.put_aside(&mut state, number),
            Action::Change => self.change(&mut state),
            Action::Replace => state.replace(),
            Action::Crash(number) => {
                state.crashes -= 1;
                state.workers[number] = Worker::default();
            }
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(TWICE, |_, state: &State| {
                let applied: BTreeSet<_> = state.applied.iter().collect();
                applied.len() == state.applied.len()
            }),
            Property::always(ORDER, |_, state: &State| {
                (0..2).all(|segment| {
                    let applied = state.applied.iter();
                    applied
                        .filter(|position| segment_of(**position, 2) == segment)
                        .is_sorted()
                })
            }),
            Property::always(SKIPPED, |_, state: &State| state.nothing_is_skipped()),
            Property::always(SETTLES, Self::settles),
        ];
        if self.design == Split::Versions {
            properties.extend([
                Property::<Self>::sometimes("everything is applied", |_, state: &State| {
                    state.applied.len() == LOG.len()
                }),
                Property::sometimes("a change overtakes a page", |_, state: &State| {
                    state.overtaken
                }),
                Property::sometimes("segments are waited for", |_, state: &State| {
                    state.barrier.is_some()
                }),
            ]);
        }
        if self.design == Split::Versions && self.poison.is_some() {
            properties.push(Property::sometimes(
                "what is behind the barrier is not put aside",
                |_, state: &State| state.held_back,
            ));
        }
        properties
    }
}
