//! What the writers do.

use std::sync::Arc;

use clap::ValueEnum;
use cqrs_core::Id;
use uuid::Uuid;

use crate::domain::{Change, Place};

/// What a writer does, again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Command {
    /// Places an order.
    Create,
    /// Loads an order and changes it.
    Change,
}

impl Command {
    /// Its name in the results.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Change => "change",
        }
    }
}

/// What is done in a case.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work {
    pub(super) command: Command,
    /// How many do it at a time; the orders that are changed are divided among them.
    pub(super) writers: usize,
    /// How many of a thousand orders are placed for a customer who has one.
    pub(super) taken: usize,
}

impl Work {
    /// Its name in the results.
    pub(super) fn name(self) -> String {
        match self.taken {
            0 => self.command.name().to_owned(),
            taken => format!("{}, {taken} of 1000 refused", self.command.name()),
        }
    }
}

/// What a writer has to do: the same for all sides.
#[derive(Debug)]
pub(super) struct Tasks {
    work: Work,
    writer: usize,
    done: usize,
    orders: Arc<[Uuid]>,
}

impl Tasks {
    pub(super) fn of_all_writers(work: Work, orders: &[Uuid]) -> Vec<Self> {
        let orders: Arc<[Uuid]> = orders.into();
        (0..work.writers)
            .map(|writer| Self {
                work,
                writer,
                done: 0,
                orders: Arc::clone(&orders),
            })
            .collect()
    }

    pub(super) fn next(&mut self) -> Task {
        let number = self.done;
        self.done += 1;
        let writer = self.writer;
        let small = i64::try_from(number % 7).unwrap_or_default() + 1;
        match self.work.command {
            Command::Create if self.is_taken(number) => Task::Refused(Place {
                customer: "customer 1".to_owned(),
                note: "Once more, please.".to_owned(),
                quantity: small,
            }),
            Command::Create => Task::Place(Place {
                customer: format!("customer {writer}/{number}"),
                note: "Ring twice, and leave it with the neighbours if nobody is in.".to_owned(),
                quantity: small,
            }),
            Command::Change => Task::Change(Change {
                id: Id::from_uuid(self.orders[self.order(number)]),
                by: small,
                note: format!("Changed on the phone, call {writer}/{number}."),
            }),
        }
    }

    /// Whether the order is for a customer who has one: so many of any thousand of all writers.
    fn is_taken(&self, number: usize) -> bool {
        /// A prime that does not divide a thousand.
        const STRIDE: usize = 7_919;
        (number * self.work.writers + self.writer) * STRIDE % 1000 < self.work.taken
    }

    /// The index of the order that is changed with this task: one of the writer's own, each in
    /// turn, and far from the last one.
    fn order(&self, number: usize) -> usize {
        /// A prime that divides no likely number of orders.
        const STRIDE: usize = 7_919;
        let own = self.orders.len() / self.work.writers;
        (number * STRIDE % own) * self.work.writers + self.writer
    }
}

/// One command.
pub(super) enum Task {
    Place(Place),
    /// An order that a unique key refuses.
    Refused(Place),
    Change(Change),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_change_orders_of_their_own_each_in_turn() {
        let orders: Vec<Uuid> = (0..100).map(Uuid::from_u128).collect();
        let mut seen = std::collections::HashSet::new();
        let work = Work {
            command: Command::Change,
            writers: 8,
            taken: 0,
        };
        for tasks in Tasks::of_all_writers(work, &orders) {
            for number in 0..100 / 8 {
                assert!(seen.insert(tasks.order(number)), "changed by two writers");
            }
        }
        assert_eq!(seen.len(), 96);
        assert!(seen.iter().all(|order| *order < 100));
    }

    #[test]
    fn as_many_of_a_thousand_are_refused_as_was_told() {
        for taken in [0, 1, 100, 1000] {
            let work = Work {
                command: Command::Create,
                writers: 8,
                taken,
            };
            let mut all = Tasks::of_all_writers(work, &[]);
            let tasks =
                (0..1000 / 8).flat_map(|_| all.iter_mut().map(Tasks::next).collect::<Vec<_>>());
            let refused = tasks.filter(|task| matches!(task, Task::Refused(_)));
            assert_eq!(refused.count(), taken);
        }
    }
}
