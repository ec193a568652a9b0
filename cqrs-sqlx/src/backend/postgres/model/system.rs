//! Everything together: who may do what, and what must hold.

use stateright::{Model, Property};

use super::log::{Allowed, Fate, Log, Step};
use super::readers::{Look, Pass, Process, Subscription, page};
use crate::backend::postgres::horizon::Seen;

use super::{Design, ORDER, SETTLES, SKIPPED, TWICE, settled};

/// What is checked, and within which bounds.
#[derive(Debug, Clone)]
pub(super) struct System {
    design: Design,
    writers: usize,
    replicas: usize,
    crashes: u8,
    restarts: u8,
    poisoned: bool,
    aborts: bool,
    aggregates: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct State {
    log: Log,
    processes: Vec<Process>,
    subscription: Subscription,
    crashes: u8,
    restarts: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Action {
    /// A writer takes a step.
    Write(usize, Step),
    /// The horizon task of a process runs its first statement, or its second.
    Look(usize),
    /// A worker claims the checkpoint.
    Claim(usize),
    /// A worker's statement takes its snapshot, before it is executed.
    Snapshot(usize),
    /// A worker reads a page.
    Read(usize),
    /// A worker commits its rows, and the checkpoint with them.
    Commit(usize),
    /// A worker commits the second of two transactions.
    Finish(usize),
    /// An operator has removed the reason why an event could not be applied.
    Mend,
    /// A worker claims the checkpoint in order to replay what is parked.
    ClaimReplay(usize),
    /// A worker commits the replay.
    Replay(usize),
    /// A process is killed.
    Crash(usize),
    /// The server is; positions that were not flushed may be drawn again.
    Restart { draws_again: bool },
}

impl System {
    /// Three writers and two processes.
    pub(super) fn new(design: Design) -> Self {
        Self {
            design,
            writers: 3,
            replicas: 2,
            crashes: 1,
            restarts: 0,
            poisoned: false,
            aborts: true,
            aggregates: 2,
        }
    }

    pub(super) fn writers(self, writers: usize) -> Self {
        Self { writers, ..self }
    }

    pub(super) fn replicas(self, replicas: usize) -> Self {
        Self { replicas, ..self }
    }

    pub(super) fn crashes(self, crashes: u8) -> Self {
        Self { crashes, ..self }
    }

    pub(super) fn restarts(self, restarts: u8) -> Self {
        Self { restarts, ..self }
    }

    /// Every writer commits.
    pub(super) fn without_aborts(self) -> Self {
        Self {
            aborts: false,
            ..self
        }
    }

    /// All writers change the same aggregate.
    pub(super) fn one_aggregate(self) -> Self {
        Self {
            aggregates: 1,
            ..self
        }
    }

    /// The first event of an aggregate cannot be applied until it is mended.
    pub(super) fn poisoned(self) -> Self {
        Self {
            poisoned: true,
            ..self
        }
    }

    fn write_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let allowed = Allowed {
            ids: self.design == Design::TransactionId,
            prepare: self.restarts > 0,
            aborts: self.aborts,
        };
        for number in 0..state.log.writers.len() {
            let steps = state.log.steps(number, allowed);
            actions.extend(steps.into_iter().map(|step| Action::Write(number, step)));
        }
    }

    fn read_actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (number, process) in state.processes.iter().enumerate() {
            if self.has_horizon_task() {
                actions.push(Action::Look(number));
            }
            match &process.pass {
                Pass::Idle => self.begin_actions(state, number, actions),
                Pass::Claimed { snapshot, .. } => {
                    actions.push(match snapshot {
                        None if self.design == Design::OneStatement => Action::Snapshot(number),
                        _ => Action::Read(number),
                    });
                }
                Pass::Begun { .. } => actions.push(Action::Read(number)),
                Pass::Read { .. } => actions.push(Action::Commit(number)),
                Pass::Between { .. } => actions.push(Action::Finish(number)),
                Pass::Replaying => actions.push(Action::Replay(number)),
            }
        }
        if state.subscription.poisoned && !state.subscription.parked.is_empty() {
            actions.push(Action::Mend);
        }
    }

    fn begin_actions(&self, state: &State, number: usize, actions: &mut Vec<Action>) {
        let subscription = &state.subscription;
        if subscription.claimed.is_some() && self.design != Design::Horizon {
            return;
        }
        if self.design == Design::StatusColumn || self.upto(state, number) > subscription.position {
            actions.push(match self.design {
                Design::Horizon => Action::Snapshot(number),
                _ => Action::Claim(number),
            });
        }
        let free = subscription.claimed.is_none();
        if free && !subscription.poisoned && !subscription.parked.is_empty() {
            actions.push(Action::ClaimReplay(number));
        }
    }

    fn has_horizon_task(&self) -> bool {
        !matches!(
            self.design,
            Design::NoHorizon | Design::OneStatement | Design::TransactionId | Design::StatusColumn
        )
    }

    /// How far a worker reads, as far as it knows when it claims.
    fn upto(&self, state: &State, number: usize) -> i64 {
        match self.design {
            Design::NoHorizon | Design::OneStatement => {
                state.log.visible().last().map_or(0, |last| *last as i64)
            }
            // The checkpoint is a transaction id.
            Design::TransactionId => i64::from(state.log.oldest_running()) - 1,
            _ => state.processes[number].horizon,
        }
    }

    fn look(&self, state: &mut State, number: usize) {
        let (log, process) = (&state.log, &mut state.processes[number]);
        let (mut seen, holders) = match std::mem::take(&mut process.look) {
            Look::Idle if self.design == Design::HoldersFirst => {
                process.look = Look::Holders(log.holders());
                return;
            }
            Look::Idle => {
                process.look = Look::Log(log.seen());
                return;
            }
            Look::Log(seen) => (seen, log.holders()),
            Look::Holders(holders) => (log.seen(), holders),
        };
        if self.design == Design::LastDrawn {
            seen.visible = seen.drawn;
        }
        process.horizon = process.known.observe(seen, holders).position.0;
    }

    fn claim(&self, state: &mut State, number: usize) {
        let upto = self.upto(state, number);
        // With a status column nothing is claimed but the rows that are read.
        if self.design != Design::StatusColumn {
            state.subscription.claimed = Some(number);
        }
        state.processes[number].pass = Pass::Claimed {
            from: state.subscription.position,
            upto,
            snapshot: None,
        };
    }

    fn read(&self, state: &mut State, number: usize) {
        let pass = std::mem::take(&mut state.processes[number].pass);
        let (from, mut upto, snapshot) = match pass {
            Pass::Claimed {
                from,
                upto,
                snapshot,
            } => (from, upto, snapshot),
            Pass::Begun { upto, snapshot } => {
                if state.subscription.claimed.is_some() {
                    // It skips what others have locked, and finds nothing.
                    return;
                }
                state.subscription.claimed = Some(number);
                // The newest checkpoint, whatever the snapshot says.
                let from = state.subscription.position;
                (from, upto.max(from), Some(snapshot))
            }
            _ => unreachable!("a worker reads what it has claimed"),
        };
        let visible = snapshot.unwrap_or_else(|| state.log.visible());
        let (page, to) = match self.design {
            Design::OneStatement => {
                let seen = Seen {
                    visible: visible.last().map_or(0, |last| *last as i64),
                    ..state.log.seen()
                };
                let known = &mut state.processes[number].known;
                upto = known.observe(seen, state.log.holders()).position.0;
                page(&visible, from, upto.max(from))
            }
            Design::TransactionId => {
                let mut page = visible;
                let id = |position: &usize| i64::from(state.log.event(*position).transaction);
                page.retain(|position| (from + 1..=upto).contains(&id(position)));
                page.sort_by_key(id);
                (page, upto)
            }
            Design::StatusColumn => {
                let free = |position: &usize| {
                    !state.log.event(*position).sent && !is_locked(state, *position)
                };
                let page = visible.into_iter().filter(free).take(1).collect();
                (page, 0)
            }
            _ => page(&visible, from, upto),
        };
        state.processes[number].pass = Pass::Read { page, to };
    }

    fn commit(&self, state: &mut State, number: usize) {
        let pass = std::mem::take(&mut state.processes[number].pass);
        let Pass::Read { page, to } = pass else {
            unreachable!("a worker commits what it has read");
        };
        match self.design {
            Design::CheckpointAfterwards => {
                state.subscription.apply(&state.log, &page);
                state.processes[number].pass = Pass::Between { page, to };
            }
            Design::CheckpointBefore => {
                state.subscription.position = to;
                state.processes[number].pass = Pass::Between { page, to };
            }
            _ => {
                state.subscription.apply(&state.log, &page);
                state.subscription.position = to;
                if self.design == Design::StatusColumn {
                    page.iter()
                        .for_each(|position| state.log.events[position - 1].sent = true);
                }
                state.release(number);
            }
        }
    }

    fn finish(&self, state: &mut State, number: usize) {
        let pass = std::mem::take(&mut state.processes[number].pass);
        let Pass::Between { page, to } = pass else {
            unreachable!("a worker finishes what it has begun");
        };
        if self.design == Design::CheckpointBefore {
            state.subscription.apply(&state.log, &page);
        } else {
            state.subscription.position = to;
        }
        state.release(number);
    }

    /// Whether the readers bring everything about, without crashes, one step after the other.
    fn settles(&self, state: &State) -> bool {
        let state = settled(self, state, |state, actions| {
            self.read_actions(state, actions);
        });
        state.subscription.parked.is_empty()
            && state.subscription.applied.len() == state.log.visible().len()
    }
}

/// Whether a worker has read an event and not committed yet, so that others skip it.
fn is_locked(state: &State, position: usize) -> bool {
    let mut processes = state.processes.iter();
    processes
        .any(|process| matches!(&process.pass, Pass::Read { page, .. } if page.contains(&position)))
}

impl State {
    /// The transaction of a worker has ended.
    fn release(&mut self, number: usize) {
        if self.subscription.claimed == Some(number) {
            self.subscription.claimed = None;
        }
    }
}

impl Model for System {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            log: Log::new(self.writers, self.aggregates),
            processes: vec![Process::default(); self.replicas],
            subscription: Subscription {
                poisoned: self.poisoned,
                ..Subscription::default()
            },
            crashes: self.crashes,
            restarts: self.restarts,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.write_actions(state, actions);
        self.read_actions(state, actions);
        if state.crashes > 0 {
            let idle = |process: &Process| *process == Process::default();
            let processes = state.processes.iter().enumerate();
            actions.extend(
                processes
                    .filter(|(_, process)| !idle(process))
                    .map(|(number, _)| Action::Crash(number)),
            );
        }
        if state.restarts > 0 {
            actions.extend([true, false].map(|draws_again| Action::Restart { draws_again }));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Write(number, step) => state.log.take(number, step),
            Action::Look(number) => self.look(&mut state, number),
            Action::Claim(number) => self.claim(&mut state, number),
            Action::Snapshot(number) => {
                let visible = state.log.visible();
                if self.design == Design::Horizon {
                    let upto = self.upto(&state, number);
                    let pass = &mut state.processes[number].pass;
                    *pass = Pass::Begun {
                        upto,
                        snapshot: visible,
                    };
                } else if let Pass::Claimed { snapshot, .. } = &mut state.processes[number].pass {
                    *snapshot = Some(visible);
                }
            }
            Action::Read(number) => self.read(&mut state, number),
            Action::Commit(number) => self.commit(&mut state, number),
            Action::Finish(number) => self.finish(&mut state, number),
            Action::Mend => state.subscription.poisoned = false,
            Action::ClaimReplay(number) => {
                state.subscription.claimed = Some(number);
                state.processes[number].pass = Pass::Replaying;
            }
            Action::Replay(number) => {
                state.subscription.replay(&state.log);
                state.processes[number].pass = Pass::Idle;
                state.release(number);
            }
            Action::Crash(number) => {
                state.crashes -= 1;
                state.release(number);
                state.processes[number] = Process::default();
            }
            Action::Restart { draws_again } => {
                state.restarts -= 1;
                state.log.restart(draws_again);
                for number in 0..state.processes.len() {
                    state.release(number);
                    let process = &mut state.processes[number];
                    process.pass = Pass::Idle;
                    process.look = Look::Idle;
                }
            }
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        // A checkpoint that is no position says nothing about positions.
        let has_positions =
            |system: &Self| !matches!(system.design, Design::TransactionId | Design::StatusColumn);
        let mut properties = vec![
            Property::always(TWICE, |_, state: &State| {
                state.subscription.nothing_is_applied_twice()
            }),
            Property::always(ORDER, |_, state: &State| {
                state.subscription.aggregates_are_in_order()
            }),
            Property::sometimes("everything is applied", |system: &Self, state: &State| {
                state.subscription.applied.len() == system.writers
            }),
        ];
        if self.aggregates > 1 {
            let seen = |_: &Self, state: &State| {
                let events = state.log.events.iter();
                events
                    .skip_while(|event| event.fate != Fate::InFlight)
                    .any(|event| event.fate == Fate::Committed)
            };
            properties.push(Property::sometimes(
                "a later position is visible first",
                seen,
            ));
        }
        if has_positions(self) {
            properties.push(Property::always(SKIPPED, |_, state: &State| {
                state.subscription.nothing_is_skipped(&state.log)
            }));
        }
        if matches!(self.design, Design::Horizon | Design::TwoStatements) {
            // Writers wait for nobody but each other, so from every state there is a way to one in
            // which they have ended.
            properties.push(Property::always(SETTLES, |system: &Self, state: &State| {
                !state.log.is_quiet() || system.settles(state)
            }));
        }
        if self.poisoned {
            properties.push(Property::sometimes("two are parked", |_, state: &State| {
                state.subscription.parked.len() == 2
            }));
        }
        properties
    }
}
