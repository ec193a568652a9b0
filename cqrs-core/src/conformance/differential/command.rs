//! Random commands.

use super::super::random::Random;

/// What one unit of work does, or a run of the projections.
#[derive(Debug, Clone)]
pub struct Command {
    pub(super) caller: Caller,
    pub(super) steps: Vec<Step>,
    pub(super) end: End,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Caller {
    North,
    South,
    System,
}

/// How the unit of work ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    Commit,
    Drop,
    /// And the projections run afterwards.
    CommitAndProject,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub(super) kind: Kind,
    pub(super) action: Action,
    /// Which aggregate of its kind.
    pub(super) slot: usize,
    /// Decides values, events and conditions.
    pub(super) how: u64,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Parcel,
    Counter,
    Locker,
    /// Event-sourced.
    Ledger,
}

/// What is loaded is kept for later commands, now and then.
#[derive(Debug, Clone, Copy)]
pub(super) enum Action {
    /// Saves a new aggregate.
    Create,
    /// Saves a new aggregate whose id is taken, as a rule.
    CreateAgain,
    /// Loads, changes and saves.
    Change,
    /// Loads several, then changes and saves them all.
    ChangeMany,
    /// Loads and saves as it is.
    SaveUnchanged,
    /// Loads and guards.
    Guard,
    /// Loads and removes.
    Remove,
    /// Saves what an earlier command loaded, changed or not: stale, as a rule.
    SaveKept,
    /// Removes what an earlier command loaded.
    RemoveKept,
    /// Guards what an earlier command loaded.
    GuardKept,
    /// Saves with a value that no column can hold.
    SaveRefused,
    /// Loads.
    Find,
    /// Finds rows; of an event-sourced aggregate, a page of its events.
    Query,
    /// Counts rows; an event-sourced aggregate is loaded as it was.
    Count,
}

/// How many neighbours of a slot [`Action::ChangeMany`] looks at.
pub(super) const NEIGHBOURS: usize = 4;

/// Commands for [`compare`](super::compare): the same for the same seed.
///
/// At most one write or guard of a command can fail, so that it does not matter which of several
/// failures a store reports.
#[must_use]
pub fn random_commands(seed: u64, n: usize) -> Vec<Command> {
    let mut generator = Generator {
        random: Random::new(seed),
        created: [const { Vec::new() }; 4],
    };
    (0..n).map(|_| generator.command()).collect()
}

struct Generator {
    random: Random,
    /// Who created each slot, by kind; as far as its commit succeeded.
    created: [Vec<Caller>; 4],
}

impl Generator {
    fn command(&mut self) -> Command {
        let caller = match self.random.below(10) {
            0 => Caller::System,
            1 | 2 => Caller::South,
            _ => Caller::North,
        };
        let mut steps: Vec<Step> = (0..self.random.below(4))
            .map(|_| self.safe_step(caller))
            .collect();
        if self.random.once_in(2) {
            let at = self.random.below(steps.len() + 1);
            steps.insert(at, self.risky_step(caller));
        }
        let end = match self.random.below(10) {
            0 => End::Drop,
            1 | 2 => End::CommitAndProject,
            _ => End::Commit,
        };
        Command { caller, steps, end }
    }

    fn safe_step(&mut self, caller: Caller) -> Step {
        use Action::{
            Change, ChangeMany, Count, Create, Find, Guard, Query, Remove, SaveUnchanged,
        };
        let action = *self.random.pick(&[
            Create,
            Create,
            Create,
            Change,
            Change,
            Change,
            ChangeMany,
            ChangeMany,
            SaveUnchanged,
            Guard,
            Remove,
            Find,
            Query,
            Count,
        ]);
        self.step(action, caller)
    }

    fn risky_step(&mut self, caller: Caller) -> Step {
        use Action::{CreateAgain, GuardKept, RemoveKept, SaveKept, SaveRefused};
        let action = *self.random.pick(&[
            SaveKept,
            SaveKept,
            SaveKept,
            SaveKept,
            SaveKept,
            SaveKept,
            RemoveKept,
            RemoveKept,
            GuardKept,
            GuardKept,
            GuardKept,
            CreateAgain,
            SaveRefused,
        ]);
        self.step(action, caller)
    }

    fn step(&mut self, action: Action, caller: Caller) -> Step {
        let kind = *self.random.pick(&[
            Kind::Parcel,
            Kind::Parcel,
            Kind::Counter,
            Kind::Locker,
            Kind::Ledger,
            Kind::Ledger,
        ]);
        let slot = match action {
            Action::Create => {
                let created = &mut self.created[kind as usize];
                created.push(caller);
                created.len() - 1
            }
            _ => self.known_slot(kind, caller),
        };
        Step {
            kind,
            action,
            slot,
            how: self.random.next(),
        }
    }

    /// One of the last slots, as a rule of this caller.
    fn known_slot(&mut self, kind: Kind, caller: Caller) -> usize {
        let created = &self.created[kind as usize];
        let is_open = self.random.once_in(6) || caller == Caller::System;
        let recent: Vec<usize> = (0..created.len())
            .rev()
            .filter(|slot| is_open || matches!(kind, Kind::Counter) || created[*slot] == caller)
            .take(5)
            .collect();
        if recent.is_empty() {
            return 0;
        }
        *self.random.pick(&recent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_commands() {
        let text = |seed| format!("{:?}", random_commands(seed, 50));
        assert_eq!(text(7), text(7));
        assert_ne!(text(7), text(8));
    }
}
