//! What the benchmarks and the program of the rivals say to each other, a line of JSON each way,
//! and what both write.
//!
//! Both programs compile this file, so that they cannot understand it differently.

use serde::{Deserialize, Serialize};

/// What the program of the rivals is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Command {
    /// The name of the side.
    pub(crate) rival: String,
    /// The URL of the database that the side has for itself.
    pub(crate) url: String,
    /// What to do there.
    #[serde(flatten)]
    pub(crate) work: Work,
}

/// What there is to do.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(tag = "work", rename_all = "snake_case")]
pub(crate) enum Work {
    /// Creates the schema.
    Setup,
    /// Replaces all orders by so many, each with so many events, and empties the read table.
    Fill {
        /// How many orders.
        orders: usize,
        /// How many events each of them has.
        events: usize,
    },
    /// Places or changes orders for one slice.
    Append(Append),
    /// Loads orders for one slice, one after the other.
    Load {
        /// How long it is done before it is measured.
        ramp_ms: u64,
        /// How long it is measured.
        measured_ms: u64,
    },
    /// Brings all events into the read table.
    Replay {
        /// Whether what is written waits for the disk.
        waits: bool,
    },
    /// Says what the tables hold.
    Check,
}

/// A slice of writing.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Append {
    /// What is done.
    pub(crate) command: Appending,
    /// How many writers do it at a time, with as many connections.
    pub(crate) writers: usize,
    /// How long it is done before it is measured.
    pub(crate) ramp_ms: u64,
    /// How long it is measured.
    pub(crate) measured_ms: u64,
}

/// What a writer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Appending {
    /// A new order with its first event.
    Create,
    /// Loads an order, and appends an event.
    Change,
}

/// What the program of the rivals answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub(crate) enum Answer {
    /// It is done.
    Done,
    /// It was measured.
    Measured(Measured),
    /// What the tables hold.
    Holds(Holds),
    /// It failed.
    Failed {
        /// Why.
        error: String,
    },
}

/// What was measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// Units of work per second.
    pub(crate) per_s: f64,
    /// How long each unit took, in nanoseconds.
    pub(crate) latencies_ns: Vec<u64>,
    /// How much was done, together with what was done before the measurement began.
    pub(crate) done: Done,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Done {
    /// Orders placed, changed or loaded, or events replayed.
    pub(crate) units: u64,
    /// The sum of the pieces that these commands added.
    pub(crate) quantity: i64,
    /// How often a command was repeated because the database refused it.
    pub(crate) retries: u64,
}

impl Done {
    /// Adds what another writer did.
    pub(crate) fn add(&mut self, other: Self) {
        self.units += other.units;
        self.quantity += other.quantity;
        self.retries += other.retries;
    }
}

/// What the tables of a side hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Holds {
    /// Orders that have events.
    pub(crate) orders: i64,
    /// Events.
    pub(crate) events: i64,
    /// The sum of the pieces in the events.
    pub(crate) quantity: i64,
    /// Rows of the read table.
    pub(crate) rows: i64,
    /// The sum of the pieces in the read table.
    pub(crate) total: i64,
}

/// The content of an event with which an order is placed.
#[derive(Debug, Clone)]
pub(crate) struct Placed {
    /// By whom.
    pub(crate) customer: String,
    /// What the customer asks for.
    pub(crate) note: String,
    /// How many pieces.
    pub(crate) quantity: i64,
}

/// The content of an event with which an order changes.
#[derive(Debug, Clone)]
pub(crate) struct Changed {
    /// By how many pieces.
    pub(crate) by: i64,
    /// Why.
    pub(crate) note: String,
}

/// One of several writers, and what it writes next: the same for all sides.
#[derive(Debug, Clone)]
pub(crate) struct Turn {
    writer: usize,
    writers: usize,
    done: usize,
}

impl Turn {
    /// The first turn of each of so many writers.
    pub(crate) fn of_all_writers(writers: usize) -> impl Iterator<Item = Self> {
        (0..writers).map(move |writer| Self {
            writer,
            writers,
            done: 0,
        })
    }

    /// Ends this turn.
    pub(crate) fn next(&mut self) {
        self.done += 1;
    }

    /// The index of an order, of so many: one of the writer's own, each in turn, and far from the
    /// last one.
    pub(crate) fn order(&self, orders: usize) -> usize {
        /// A prime that divides no likely number of orders.
        const STRIDE: usize = 7_919;
        let own = (orders / self.writers).max(1);
        (self.done * STRIDE % own) * self.writers + self.writer
    }

    /// The order that is placed.
    pub(crate) fn placed(&self) -> Placed {
        Placed {
            customer: format!("customer {}/{}", self.writer, self.done),
            note: "Ring twice, and leave it with the neighbours if nobody is in.".to_owned(),
            quantity: self.small(),
        }
    }

    /// The change of an order.
    pub(crate) fn changed(&self) -> Changed {
        Changed {
            by: self.small(),
            note: format!("Changed on the phone, call {}/{}.", self.writer, self.done),
        }
    }

    fn small(&self) -> i64 {
        i64::try_from(self.done % 7).unwrap_or_default() + 1
    }
}
