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

/// What a writer has to do: the same for all sides.
#[derive(Debug)]
pub(super) struct Tasks {
    command: Command,
    /// Among how many writers the orders are divided.
    writers: usize,
    writer: usize,
    done: usize,
    orders: Arc<[Uuid]>,
}

impl Tasks {
    pub(super) fn of_all_writers(command: Command, orders: &[Uuid], writers: usize) -> Vec<Self> {
        let orders: Arc<[Uuid]> = orders.into();
        (0..writers)
            .map(|writer| Self {
                command,
                writers,
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
        match self.command {
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

    /// The index of the order that is changed with this task: one of the writer's own, each in
    /// turn, and far from the last one.
    fn order(&self, number: usize) -> usize {
        /// A prime that divides no likely number of orders.
        const STRIDE: usize = 7_919;
        let own = self.orders.len() / self.writers;
        (number * STRIDE % own) * self.writers + self.writer
    }
}

/// One command.
pub(super) enum Task {
    Place(Place),
    Change(Change),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_change_orders_of_their_own_each_in_turn() {
        let orders: Vec<Uuid> = (0..100).map(Uuid::from_u128).collect();
        let mut seen = std::collections::HashSet::new();
        for tasks in Tasks::of_all_writers(Command::Change, &orders, 8) {
            for number in 0..100 / 8 {
                assert!(seen.insert(tasks.order(number)), "changed by two writers");
            }
        }
        assert_eq!(seen.len(), 96);
        assert!(seen.iter().all(|order| *order < 100));
    }
}
