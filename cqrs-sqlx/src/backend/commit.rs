//! What a commit wrote, and by what it is recognised where nobody heard the answer.

use cqrs_core::staging::StagedWrite;
use cqrs_core::{Envelope, Error, Position, RawPayload};
use uuid::Uuid;

/// What became of a commit.
#[derive(Debug)]
pub(crate) enum Committed<T = Written> {
    /// It is durable.
    Done(T),
    /// It was refused; nothing was written.
    Refused(Error),
    /// The connection broke before the answer came.
    Lost(Error),
}

/// What was written to the log.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Written {
    /// The ids of the events, in the order in which they were staged. Those of saves that turned
    /// out to change nothing are not among them.
    pub(crate) events: Vec<Uuid>,
    /// The highest position; `None` where nothing was written.
    pub(crate) position: Option<Position>,
    /// The events as the log holds them, where [`Returned::Events`] was asked for.
    pub(crate) envelopes: Vec<Envelope<RawPayload>>,
}

/// What a write to the log brings back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Returned {
    /// The position of each event.
    Positions,
    /// Each event as the log holds it.
    Events,
}

/// By what a commit is recognised after its connection broke.
#[cfg_attr(
    not(feature = "postgres"),
    expect(dead_code, reason = "in process no answer is lost")
)]
#[derive(Debug)]
pub(crate) enum Proof<'a> {
    /// The events of these writes: at least one is in the log, or none is.
    Events(&'a [StagedWrite]),
    /// The id that the database gave the transaction.
    Transaction(String),
    /// There was no commit; only its locks must be gone before the work is done again.
    Nothing,
}

/// By what the process of the database's server is known that works for a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Process {
    /// The same for as long as the connection lives: which one, and since when, as ids are used
    /// again.
    Own { id: i32, started: String },
    /// Behind a pooler each transaction may have another, which holds this lock until the transaction
    /// has ended.
    #[cfg_attr(
        not(feature = "postgres"),
        expect(dead_code, reason = "SQLite has no server")
    )]
    Holding(i64),
}

impl Process {
    /// Its id, where it is known for longer than a transaction.
    pub(crate) fn id(&self) -> Option<i32> {
        match self {
            Self::Own { id, .. } => Some(*id),
            Self::Holding(_) => None,
        }
    }
}
