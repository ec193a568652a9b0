//! What commits do, one after the other.

use std::collections::{BTreeMap, HashSet};

/// Which aggregate: a type, and a number within the case.
pub(super) type Key = (Kind, u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    /// Of a tenant, and removed softly.
    Carton,
    /// Of no tenant, and deleted.
    Pallet,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Create,
    /// A change that says so, with so many events.
    Change,
    /// A change that does not.
    Relabel,
    /// A save without a change.
    Touch,
    Remove,
}

/// What a commit is to do.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Command {
    pub(super) key: Key,
    pub(super) step: Step,
    /// The version it was made on.
    pub(super) expected: u64,
    pub(super) label: String,
    pub(super) grams: i64,
    /// How many events it raises.
    pub(super) events: u64,
    /// Who asks for it.
    pub(super) tenant: u64,
}

/// What a caller got.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    /// So many events were written.
    Done(u64),
    Conflict {
        found: u64,
    },
    NotFound,
    AlreadyExists,
    /// A constraint of this name was violated.
    Constraint(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Row {
    pub(super) version: u64,
    pub(super) label: String,
    pub(super) grams: i64,
    pub(super) deleted: bool,
}

/// The rows, and the versions of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Model {
    pub(super) rows: BTreeMap<Key, Row>,
    pub(super) logged: BTreeMap<Key, u64>,
}

impl Kind {
    pub(super) fn table(self) -> &'static str {
        match self {
            Self::Carton => "carton",
            Self::Pallet => "pallet",
        }
    }
}

impl Model {
    /// What a command comes to now, and the model after it.
    pub(super) fn after(&self, command: &Command) -> (Outcome, Self) {
        let outcome = self.outcome(command);
        let mut next = self.clone();
        if let Outcome::Done(events) = outcome {
            next.write(command, events);
        }
        (outcome, next)
    }

    fn outcome(&self, command: &Command) -> Outcome {
        if command.step == Step::Create {
            return self.creation(command);
        }
        let Some(row) = self.rows.get(&command.key).filter(|row| !row.deleted) else {
            return Outcome::NotFound;
        };
        if row.version != command.expected {
            return Outcome::Conflict { found: row.version };
        }
        match command.step {
            // Behind them is the marker.
            Step::Remove => Outcome::Done(command.events + 1),
            Step::Touch | Step::Relabel
                if (&row.label, row.grams) == (&command.label, command.grams) =>
            {
                Outcome::Done(0)
            }
            _ => self
                .violated(command)
                .unwrap_or(Outcome::Done(command.events)),
        }
    }

    fn creation(&self, command: &Command) -> Outcome {
        let table = command.key.0.table();
        if command.grams < 0 {
            return Outcome::Constraint(format!("{table}_grams"));
        }
        if self.rows.contains_key(&command.key) {
            return Outcome::AlreadyExists;
        }
        if let Some(violated) = self.violated(command) {
            return violated;
        }
        if self.logged.contains_key(&command.key) {
            return Outcome::AlreadyExists;
        }
        Outcome::Done(command.events)
    }

    fn violated(&self, command: &Command) -> Option<Outcome> {
        let table = command.key.0.table();
        if command.grams < 0 {
            return Some(Outcome::Constraint(format!("{table}_grams")));
        }
        let taken = self.rows.iter().any(|(key, row)| {
            key.0 == command.key.0 && *key != command.key && row.label == command.label
        });
        taken.then(|| Outcome::Constraint(format!("{table}_label")))
    }

    fn write(&mut self, command: &Command, events: u64) {
        let key = command.key;
        let version = command.expected + events;
        *self.logged.entry(key).or_default() += events;
        match (command.step, key.0) {
            (Step::Remove, Kind::Pallet) => {
                self.rows.remove(&key);
            }
            (Step::Remove, Kind::Carton) => {
                let row = self.rows.get_mut(&key).expect("it was there");
                row.deleted = true;
                row.version = version;
            }
            _ => {
                let row = Row {
                    version,
                    label: command.label.clone(),
                    grams: command.grams,
                    deleted: false,
                };
                self.rows.insert(key, row);
            }
        }
    }
}

/// The search for an order of commits.
pub(super) struct Orders<'a> {
    commands: &'a [(Command, Option<Outcome>)],
    end: &'a Model,
    /// The commands that were placed, and what they left, where that led nowhere.
    seen: HashSet<(Vec<bool>, Model)>,
}

impl<'a> Orders<'a> {
    /// Whether there is an order in which each command comes to its outcome, and which leaves `end`.
    /// A command whose outcome is not known comes to its end, or does not happen.
    pub(super) fn lead(
        from: &Model,
        commands: &'a [(Command, Option<Outcome>)],
        end: &'a Model,
    ) -> bool {
        let mut orders = Self {
            commands,
            end,
            seen: HashSet::new(),
        };
        orders.go_on(from, &vec![false; commands.len()])
    }

    fn go_on(&mut self, model: &Model, placed: &[bool]) -> bool {
        if placed.iter().all(|placed| *placed) {
            return model == self.end;
        }
        if !self.seen.insert((placed.to_vec(), model.clone())) {
            return false;
        }
        let commands = self.commands;
        let left = commands.iter().enumerate().filter(|(at, _)| !placed[*at]);
        for (at, (command, known)) in left {
            let (outcome, next) = model.after(command);
            let mut placed = placed.to_vec();
            placed[at] = true;
            let leads = match known {
                Some(known) => *known == outcome && self.go_on(&next, &placed),
                None => self.go_on(&next, &placed) || self.go_on(model, &placed),
            };
            if leads {
                return true;
            }
        }
        false
    }
}
