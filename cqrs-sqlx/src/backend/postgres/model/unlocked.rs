//! Pages that are applied without a lock, and crashes of the server that take committed pages.
//!
//! One step of a worker reads the row of the checkpoint and the page behind it, on one snapshot;
//! one loads the rows, if the row of the checkpoint is still of the version that was read; one
//! writes them and moves the checkpoint, if it still is. In between the next page may be read. Each
//! step may be in another session, as behind a pooler, so a worker need not notice a crash.
//!
//! What a page commits is not flushed. A crash of the server leaves what was flushed, in the order
//! of the commits; the numbers of the transactions that it took may be given again.
//!
//! How a horizon is found is not looked at again: all processes have one, and a look is one step.

use std::fmt::Debug;

use stateright::{Model, Property};

use super::log::{Allowed, Fate, Log, Step};
use super::readers::{Subscription, page_of};
use super::{ORDER, SETTLES, SKIPPED, TWICE, settled};

/// So that nearly every page is full, and another is read ahead.
const PAGE_SIZE: usize = 1;

/// How a worker recognises the row of the checkpoint, and what it does of a page when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unlocked {
    /// What the crate does: by the transaction that wrote the row, and the time of that. A page
    /// that was read ahead counts if the row is of the version that the page before it left.
    Versions,
    /// By the position, when the rows are written.
    PositionAlone,
    /// By the number of the transaction.
    NumberAlone,
    /// By the time.
    TimeAlone,
    /// Writes the rows in one transaction, and moves the checkpoint in the next.
    TwoTransactions,
    /// Takes a page that was read ahead for the next, whatever the row says.
    AheadWhoeverCommitted,
    /// Reads ahead everything that is visible.
    AheadOfTheHorizon,
    /// Loads the rows whatever the row of the checkpoint says, since it is looked at again when they
    /// are written.
    LoadedUnseen,
}

/// The version of the checkpoint's row. The clock stands still, and strikes when the server crashes:
/// no clock of a server tells less.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Version {
    position: i64,
    number: u8,
    time: u8,
}

/// What the database keeps of the subscription: the rows, and the checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Kept {
    version: Version,
    applied: Vec<(u8, u8)>,
}

/// A page: its events, and between which positions it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Page {
    events: Vec<usize>,
    to: i64,
}

/// Where a worker is with its page.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
enum Stage {
    #[default]
    Idle,
    /// It has read the page, behind a checkpoint of this version.
    Read(Page, Version),
    /// It has loaded the rows.
    Loaded(Page, Version, Vec<(u8, u8)>),
    /// It has written the rows, in a design with two transactions.
    Written(Page, Version),
    /// It has locked the checkpoint and read the page.
    Claimed(Page),
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Worker {
    stage: Stage,
    /// The page that was read ahead.
    ahead: Option<Page>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct State {
    log: Log,
    /// What the horizon task has told.
    horizon: i64,
    workers: Vec<Worker>,
    kept: Kept,
    /// What a crash of the server leaves.
    flushed: Kept,
    /// The number of the next transaction.
    next: u8,
    claimed: Option<usize>,
    crashes: u8,
    server_crashes: u8,
    resets: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Action {
    /// A writer draws a position, or commits.
    Write(usize, Step),
    /// The horizon task looks.
    Look,
    /// A worker reads checkpoint and page.
    Read(usize),
    /// It reads the page behind that.
    ReadAhead(usize),
    Load(usize),
    /// It writes the rows and moves the checkpoint.
    Commit(usize),
    /// It commits the second of two transactions.
    Finish(usize),
    /// A worker locks the checkpoint, and reads its page.
    Claim(usize),
    CommitClaimed(usize),
    /// An operator resets the subscription.
    Reset,
    /// The server writes its log to the disk.
    Flush,
    /// A process is killed.
    Crash(usize),
    /// The server is, and the next transaction gets this number.
    CrashServer(u8),
}

/// Two workers, and three writers of whom the first has committed.
#[derive(Debug, Clone)]
pub(super) struct Workers {
    design: Unlocked,
    committed: usize,
    one_claims: bool,
    crashes: u8,
    server_crashes: u8,
    resets: u8,
}

const WRITERS: usize = 3;

impl Workers {
    pub(super) fn new(design: Unlocked) -> Self {
        Self {
            design,
            committed: 1,
            one_claims: false,
            crashes: 0,
            server_crashes: 0,
            resets: 0,
        }
    }

    /// Every writer has committed.
    pub(super) fn quiet(self) -> Self {
        Self {
            committed: WRITERS,
            ..self
        }
    }

    /// The second worker claims its pages.
    pub(super) fn one_claims(self) -> Self {
        Self {
            one_claims: true,
            ..self
        }
    }

    pub(super) fn crashes(self, crashes: u8) -> Self {
        Self { crashes, ..self }
    }

    pub(super) fn server_crashes(self, server_crashes: u8) -> Self {
        Self {
            server_crashes,
            ..self
        }
    }

    pub(super) fn resets(self, resets: u8) -> Self {
        Self { resets, ..self }
    }

    fn read_actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.push(Action::Look);
        let behind = state.horizon > state.kept.version.position;
        for (number, worker) in state.workers.iter().enumerate() {
            match &worker.stage {
                Stage::Idle if self.one_claims && number == 1 => {
                    if behind && state.claimed.is_none() {
                        actions.push(Action::Claim(number));
                    }
                }
                Stage::Idle if behind => actions.push(Action::Read(number)),
                Stage::Idle => {}
                Stage::Read(page, _) => {
                    actions.push(Action::Load(number));
                    if page.events.len() == PAGE_SIZE && worker.ahead.is_none() {
                        actions.push(Action::ReadAhead(number));
                    }
                }
                Stage::Loaded(..) => actions.push(Action::Commit(number)),
                Stage::Written(..) => actions.push(Action::Finish(number)),
                Stage::Claimed(_) => actions.push(Action::CommitClaimed(number)),
            }
        }
    }

    fn is_same(&self, seen: Version, now: Version) -> bool {
        match self.design {
            Unlocked::PositionAlone => seen.position == now.position,
            Unlocked::NumberAlone => seen.number == now.number,
            Unlocked::TimeAlone => seen.time == now.time,
            Unlocked::AheadWhoeverCommitted
            | Unlocked::AheadOfTheHorizon
            | Unlocked::LoadedUnseen
            | Unlocked::TwoTransactions
            | Unlocked::Versions => (seen.number, seen.time) == (now.number, now.time),
        }
    }

    fn read_ahead(&self, state: &mut State, number: usize) {
        let worker = &state.workers[number];
        let Stage::Read(page, _) = &worker.stage else {
            unreachable!("it is read behind a page");
        };
        let visible = state.log.visible();
        let upto = match self.design {
            Unlocked::AheadOfTheHorizon => visible.last().map_or(0, |last| *last as i64),
            _ => state.horizon,
        };
        let (events, to) = page_of(PAGE_SIZE, &visible, page.to, upto.max(page.to));
        state.workers[number].ahead = (to > page.to).then_some(Page { events, to });
    }

    fn commit(&self, state: &mut State, number: usize) {
        let now = state.kept.version;
        let worker = &mut state.workers[number];
        let ahead = worker.ahead.take();
        let Stage::Loaded(page, seen, rows) = std::mem::take(&mut worker.stage) else {
            unreachable!("a worker commits what it has loaded rows for");
        };
        // Whoever has claimed the row has it locked, and nobody waits for that.
        if state.claimed.is_some() || !self.is_same(seen, now) {
            return;
        }
        state.kept.applied = rows;
        state.kept.apply(&state.log, &page);
        if self.design == Unlocked::TwoTransactions {
            state.workers[number].stage = Stage::Written(page, seen);
            return;
        }
        state.move_checkpoint(page.to, self.time(state));
        if let Some(ahead) = ahead {
            state.workers[number].stage = Stage::Read(ahead, state.kept.version);
        }
    }

    fn finish(&self, state: &mut State, number: usize) {
        let stage = std::mem::take(&mut state.workers[number].stage);
        let Stage::Written(page, seen) = stage else {
            unreachable!("a worker finishes what it has begun");
        };
        if self.is_same(seen, state.kept.version) {
            state.move_checkpoint(page.to, self.time(state));
        }
    }

    fn time(&self, state: &State) -> u8 {
        self.server_crashes - state.server_crashes
    }

    fn load(&self, state: &mut State, number: usize) {
        let now = state.kept.version;
        let worker = &mut state.workers[number];
        let Stage::Read(page, mut seen) = std::mem::take(&mut worker.stage) else {
            unreachable!("rows are loaded for a page");
        };
        if self.design == Unlocked::AheadWhoeverCommitted {
            seen = now;
        }
        let unseen = [Unlocked::LoadedUnseen, Unlocked::PositionAlone];
        if !unseen.contains(&self.design) && !self.is_same(seen, now) {
            worker.ahead = None;
            return;
        }
        worker.stage = Stage::Loaded(page, seen, state.kept.applied.clone());
    }

    /// Transactions end. Workers live on, with what they have read.
    fn crash_server(state: &mut State, next: u8) {
        state.server_crashes -= 1;
        state.kept = state.flushed.clone();
        state.next = next;
        state.claimed = None;
        state.log.restart(true);
        for worker in &mut state.workers {
            if matches!(worker.stage, Stage::Claimed(_)) {
                *worker = Worker::default();
            }
        }
    }

    fn settles(&self, state: &State) -> bool {
        let state = settled(self, state, |state, actions| {
            self.read_actions(state, actions);
        });
        state.kept.applied.len() == state.log.visible().len()
    }
}

impl Kept {
    fn apply(&mut self, log: &Log, page: &Page) {
        self.applied.extend(page.events.iter().map(|position| {
            let event = log.event(*position);
            (event.aggregate, event.version)
        }));
    }

    /// For what is said of a subscription.
    fn subscription(&self) -> Subscription {
        Subscription {
            position: self.version.position,
            applied: self.applied.clone(),
            ..Subscription::default()
        }
    }
}

impl State {
    /// Gives the checkpoint another version.
    fn move_checkpoint(&mut self, position: i64, time: u8) {
        self.kept.version = Version {
            position,
            number: self.next,
            time,
        };
        self.next += 1;
    }

    /// The page behind the checkpoint, on a snapshot of now.
    fn page(&self) -> Page {
        let from = self.kept.version.position;
        let upto = self.horizon.max(from);
        let (events, to) = page_of(PAGE_SIZE, &self.log.visible(), from, upto);
        Page { events, to }
    }

    /// Nothing up to it can appear any more.
    fn look(&mut self) {
        let is_settled = |position: &usize| self.log.event(*position).fate != Fate::InFlight;
        let mut settled = (1..=self.log.events.len()).take_while(is_settled);
        let is_visible = |position: &usize| self.log.event(*position).fate == Fate::Committed;
        let last = settled.by_ref().filter(is_visible).last();
        self.horizon = self.horizon.max(last.map_or(0, |last| last as i64));
    }
}

impl Model for Workers {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            log: Log::new(WRITERS, 2).with_committed(self.committed),
            horizon: 0,
            workers: vec![Worker::default(); 2],
            kept: Kept::default(),
            flushed: Kept::default(),
            next: 1,
            claimed: None,
            crashes: self.crashes,
            server_crashes: self.server_crashes,
            resets: self.resets,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let allowed = Allowed {
            ids: false,
            prepare: false,
            aborts: false,
        };
        for number in 0..WRITERS {
            let steps = state.log.steps(number, allowed);
            actions.extend(steps.into_iter().map(|step| Action::Write(number, step)));
        }
        self.read_actions(state, actions);
        if state.resets > 0 && state.claimed.is_none() && state.kept.version.position > 0 {
            actions.push(Action::Reset);
        }
        if state.crashes > 0 {
            actions.extend([0, 1].map(Action::Crash));
        }
        if state.server_crashes > 0 {
            actions.push(Action::Flush);
            let numbers = state.flushed.version.number + 1..=state.next;
            actions.extend(numbers.map(Action::CrashServer));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Write(number, step) => {
                state.log.take(number, step);
                if step == Step::Lock {
                    state.log.take(number, Step::Draw);
                } else {
                    state.log.take(number, Step::Release);
                    // A commit that waits for the disk has everything before it flushed.
                    state.flushed = state.kept.clone();
                }
            }
            Action::Look => state.look(),
            Action::Read(number) => {
                let (page, version) = (state.page(), state.kept.version);
                state.workers[number].stage = Stage::Read(page, version);
            }
            Action::ReadAhead(number) => self.read_ahead(&mut state, number),
            Action::Load(number) => self.load(&mut state, number),
            Action::Commit(number) => self.commit(&mut state, number),
            Action::Finish(number) => self.finish(&mut state, number),
            Action::Claim(number) => {
                state.claimed = Some(number);
                state.workers[number].stage = Stage::Claimed(state.page());
            }
            Action::CommitClaimed(number) => {
                let stage = std::mem::take(&mut state.workers[number].stage);
                let Stage::Claimed(page) = stage else {
                    unreachable!("a worker commits what it has claimed");
                };
                state.kept.apply(&state.log, &page);
                state.move_checkpoint(page.to, self.time(&state));
                state.flushed = state.kept.clone();
                state.claimed = None;
            }
            Action::Reset => {
                state.resets -= 1;
                state.kept.applied.clear();
                state.move_checkpoint(0, self.time(&state));
                state.flushed = state.kept.clone();
            }
            Action::Flush => state.flushed = state.kept.clone(),
            Action::Crash(number) => {
                state.crashes -= 1;
                state.workers[number] = Worker::default();
                state.claimed = state.claimed.filter(|claimed| *claimed != number);
            }
            Action::CrashServer(next) => Self::crash_server(&mut state, next),
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(TWICE, |_, state: &State| {
                state.kept.subscription().nothing_is_applied_twice()
            }),
            Property::always(ORDER, |_, state: &State| {
                state.kept.subscription().aggregates_are_in_order()
            }),
            Property::always(SKIPPED, |_, state: &State| {
                let subscription = state.kept.subscription();
                subscription.nothing_is_skipped(&state.log)
            }),
            Property::sometimes("everything is applied", |_, state: &State| {
                state.kept.applied.len() == WRITERS
            }),
            Property::sometimes("a page that was read ahead is taken", |_, state: &State| {
                let is_next = |worker: &Worker| matches!(&worker.stage, Stage::Read(_, seen) if seen.position > 0);
                state.workers.iter().any(is_next)
            }),
        ];
        if self.design == Unlocked::Versions {
            properties.push(Property::always(SETTLES, |system: &Self, state: &State| {
                !state.log.is_quiet() || system.settles(state)
            }));
        }
        if self.server_crashes > 0 {
            properties.push(Property::sometimes(
                "a page is lost",
                |system: &Self, state: &State| {
                    let crashed = state.server_crashes < system.server_crashes;
                    let mut workers = state.workers.iter();
                    crashed
                        && workers.any(|worker| {
                            matches!(&worker.stage, Stage::Read(_, seen)
                                 if seen.position > state.kept.version.position)
                        })
                },
            ));
        }
        properties
    }
}
