//! The log and its writers.

use std::collections::BTreeSet;

use crate::backend::postgres::horizon::Seen;

/// A transaction that appends one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Writer {
    /// It has not begun.
    Waiting,
    /// It has a transaction id, since it wrote something else.
    Begun,
    /// Its statement holds the row-exclusive lock on the log.
    Locked,
    /// It has drawn a position, and its row is written.
    Drawn,
    /// Prepared: it no longer belongs to a session.
    Prepared,
    /// New snapshots see its row; it still holds its locks.
    Visible,
    /// It has committed or aborted.
    Ended,
}

/// An event: the row at its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Event {
    pub(super) writer: u8,
    pub(super) aggregate: u8,
    pub(super) version: u8,
    /// The id of its transaction.
    pub(super) transaction: u8,
    pub(super) fate: Fate,
    /// Whether it is marked as sent, where there is a status column.
    pub(super) sent: bool,
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Fate {
    InFlight,
    Committed,
    Aborted,
}

/// What a writer does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Step {
    Begin,
    Lock,
    Draw,
    Prepare,
    Show,
    Release,
    Abort,
}

/// Which steps writers take at all: the fewer, the fewer states.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowed {
    pub(super) ids: bool,
    pub(super) prepare: bool,
    pub(super) aborts: bool,
}

/// The table, its sequence, and the transactions that append to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Log {
    pub(super) writers: Vec<Writer>,
    /// The transaction ids, 0 for none.
    transactions: Vec<u8>,
    next_transaction: u8,
    /// By position, the first at 1.
    pub(super) events: Vec<Event>,
    /// Prepared transactions that outlived a restart have other ids.
    restarted: bool,
    aggregates: u8,
}

impl Log {
    pub(super) fn new(writers: usize, aggregates: u8) -> Self {
        Self {
            writers: vec![Writer::Waiting; writers],
            transactions: vec![0; writers],
            next_transaction: 1,
            events: Vec::new(),
            restarted: false,
            aggregates,
        }
    }

    /// The log after its first writers have committed, one after the other.
    pub(super) fn with_committed(mut self, writers: usize) -> Self {
        for number in 0..writers {
            for step in [Step::Lock, Step::Draw, Step::Show, Step::Release] {
                self.take(number, step);
            }
        }
        self
    }

    /// The writer 1 changes another aggregate than the others, if there is another.
    fn aggregate_of(&self, writer: usize) -> u8 {
        u8::from(self.aggregates > 1 && writer == 1)
    }

    /// What a look finds, on a snapshot of now.
    pub(super) fn seen(&self) -> Seen {
        Seen {
            visible: self.visible().last().map_or(0, |last| *last as i64),
            drawn: self.events.len() as i64,
        }
    }

    /// The virtual transaction ids that hold the row-exclusive lock.
    pub(super) fn holders(&self) -> BTreeSet<String> {
        let mut holders = BTreeSet::new();
        for (number, writer) in self.writers.iter().enumerate() {
            match writer {
                Writer::Locked | Writer::Drawn | Writer::Visible => {
                    holders.insert(format!("{number}/1"));
                }
                Writer::Prepared if self.restarted => {
                    holders.insert(format!("-1/{number}"));
                }
                Writer::Prepared => {
                    holders.insert(format!("{number}/1"));
                }
                Writer::Waiting | Writer::Begun | Writer::Ended => {}
            }
        }
        holders
    }

    /// The oldest transaction id that is running, or the next.
    pub(super) fn oldest_running(&self) -> u8 {
        let running = self.writers.iter().zip(&self.transactions);
        running
            .filter(|(writer, id)| {
                **id > 0 && !matches!(writer, Writer::Waiting | Writer::Visible | Writer::Ended)
            })
            .map(|(_, id)| *id)
            .min()
            .unwrap_or(self.next_transaction)
    }

    /// The positions that a snapshot of now sees.
    pub(super) fn visible(&self) -> Vec<usize> {
        (1..=self.events.len())
            .filter(|position| self.event(*position).fate == Fate::Committed)
            .collect()
    }

    pub(super) fn event(&self, position: usize) -> Event {
        self.events[position - 1]
    }

    /// Whether every writer has ended.
    pub(super) fn is_quiet(&self) -> bool {
        self.writers.iter().all(|writer| *writer == Writer::Ended)
    }

    /// The writer that holds the row of an aggregate: it has changed it and not let go.
    fn row_is_held(&self, aggregate: u8) -> bool {
        self.writers.iter().enumerate().any(|(number, writer)| {
            self.aggregate_of(number) == aggregate
                && matches!(writer, Writer::Drawn | Writer::Prepared | Writer::Visible)
        })
    }

    /// What a writer may do next.
    pub(super) fn steps(&self, number: usize, allowed: Allowed) -> Vec<Step> {
        let mut steps = match self.writers[number] {
            Writer::Waiting if allowed.ids => vec![Step::Begin],
            Writer::Waiting => vec![Step::Lock],
            Writer::Begun => vec![Step::Lock, Step::Abort],
            Writer::Locked if self.row_is_held(self.aggregate_of(number)) => vec![Step::Abort],
            Writer::Locked => vec![Step::Draw, Step::Abort],
            // One of them is enough, and keeps the number of states small.
            Writer::Drawn if allowed.prepare && number == 0 => {
                vec![Step::Show, Step::Prepare, Step::Abort]
            }
            Writer::Drawn => vec![Step::Show, Step::Abort],
            Writer::Prepared => vec![Step::Show],
            Writer::Visible => vec![Step::Release],
            Writer::Ended => Vec::new(),
        };
        steps.retain(|step| allowed.aborts || *step != Step::Abort);
        steps
    }

    pub(super) fn take(&mut self, number: usize, step: Step) {
        self.writers[number] = match step {
            Step::Begin => {
                self.take_id(number);
                Writer::Begun
            }
            Step::Lock => Writer::Locked,
            Step::Draw => {
                self.draw(number);
                Writer::Drawn
            }
            Step::Prepare => Writer::Prepared,
            Step::Show => {
                self.decide(number, Fate::Committed);
                Writer::Visible
            }
            Step::Release => Writer::Ended,
            Step::Abort => {
                self.decide(number, Fate::Aborted);
                Writer::Ended
            }
        };
    }

    /// Every session ends; prepared transactions live on under other ids. Positions that were drawn
    /// after the last that was flushed may be drawn again.
    pub(super) fn restart(&mut self, draws_again: bool) {
        self.restarted = true;
        for number in 0..self.writers.len() {
            match self.writers[number] {
                Writer::Begun | Writer::Locked | Writer::Drawn => self.take(number, Step::Abort),
                Writer::Visible => self.take(number, Step::Release),
                Writer::Waiting | Writer::Prepared | Writer::Ended => {}
            }
        }
        while draws_again && self.events.last().map(|last| last.fate) == Some(Fate::Aborted) {
            self.events.pop();
        }
    }

    fn take_id(&mut self, number: usize) {
        if self.transactions[number] == 0 {
            self.transactions[number] = self.next_transaction;
            self.next_transaction += 1;
        }
    }

    fn draw(&mut self, number: usize) {
        self.take_id(number);
        let aggregate = self.aggregate_of(number);
        let before = self
            .events
            .iter()
            .filter(|event| event.aggregate == aggregate && event.fate == Fate::Committed);
        let version = 1 + before.count() as u8;
        self.events.push(Event {
            writer: number as u8,
            aggregate,
            version,
            transaction: self.transactions[number],
            fate: Fate::InFlight,
            sent: false,
        });
    }

    fn decide(&mut self, number: usize, fate: Fate) {
        for event in &mut self.events {
            if usize::from(event.writer) == number {
                event.fate = fate;
            }
        }
    }
}
