//! Coalesced commits: independent commits that are under way at the same moment go out as one
//! statement, and each caller gets an answer of its own.
//!
//! Commits meet in lanes, one for each table and operation. One that finds its lane empty goes out
//! alone, at once, as it would without all this. Any other waits for a flush: a task that takes what
//! waits in the lane, sends it, answers, and begins again until nothing waits. So nobody waits for
//! others to come, and only while a flush is under way does a next one gather.
//!
//! A flush decides nothing against a commit. What it could not write, because a version was stale, a
//! row locked or a constraint violated, goes back to its caller, who commits it alone and hears what
//! there is to hear.

mod flush;
mod lanes;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use cqrs_core::mapping::Value;
use cqrs_core::staging::StagedWrite;
use cqrs_core::{Changing, Error, Metadata};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use self::flush::Flush;
use self::lanes::{Entered, First, Lanes};
use crate::backend::{Backend, Process, Written};

pub(crate) use self::flush::Outlet;

/// How long those who wait for a flush are kept waiting by a connection that cannot be had, or by a
/// server that does not answer, before they commit alone. They may have to wait for a connection of
/// their own then, so it is a part of that time.
fn patience(acquire_timeout: Duration) -> Duration {
    (acquire_timeout / 4).min(Duration::from_secs(1))
}

/// How many bytes of texts, documents and payloads there are in a write.
pub(crate) fn size(write: &StagedWrite) -> usize {
    let payloads = write.events.iter().map(|event| event.payload.len());
    let values = write.row.iter().map(|value| match value {
        Value::Text(text) | Value::Json(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        _ => 0,
    });
    payloads.chain(values).sum()
}

/// A commit of one aggregate.
#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) write: StagedWrite,
    pub(crate) metadata: Metadata,
    /// Held for its drop: the tables count as changed when the commit is over, also where nobody
    /// waits for it any more.
    _changing: Changing,
}

impl Commit {
    pub(crate) fn new(write: StagedWrite, metadata: Metadata, changing: Changing) -> Self {
        Self {
            write,
            metadata,
            _changing: changing,
        }
    }
}

/// What became of a commit.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It is durable.
    Done(Written),
    /// It was not sent, or not written, and is to be committed alone. While the second value lives,
    /// others gather behind it.
    Alone(Box<Commit>, Option<First>),
    /// The connection broke before the answer came, and nobody could be asked what became of it.
    Unknown(Arc<Error>),
    /// It was sent to this process, and who waited for the answer was dropped.
    Lost(Box<Commit>, Process),
}

/// A commit, and who waits for it.
#[derive(Debug)]
struct Waiting {
    commit: Box<Commit>,
    caller: oneshot::Sender<Answer>,
}

impl Waiting {
    /// Answers; nobody may be there to hear it.
    fn answer(self, answer: impl FnOnce(Box<Commit>) -> Answer) {
        let _ = self.caller.send(answer(self.commit));
    }
}

/// Where commits become flushes.
pub(crate) struct Coalescer<B: Backend> {
    outlet: Arc<Outlet<B>>,
    lanes: Arc<Lanes>,
}

impl<B: Backend> Coalescer<B> {
    /// One that sends up to so many commits at once.
    pub(crate) fn new(outlet: Outlet<B>, most: usize) -> Self {
        Self {
            outlet: Arc::new(outlet),
            lanes: Arc::new(Lanes::new(most)),
        }
    }

    /// Has a commit go out with others, where there are any.
    ///
    /// # Cancel safety
    ///
    /// Where the future is dropped before a flush takes the commit, it does not happen; after that,
    /// it may.
    pub(crate) async fn commit(&self, commit: Box<Commit>) -> Answer {
        let Ok(runtime) = Handle::try_current() else {
            return Answer::Alone(commit, None);
        };
        let answer = match self.lanes.enter(commit) {
            Entered::Empty(commit, first) => return Answer::Alone(commit, Some(first)),
            Entered::Behind(answer) => answer,
            Entered::ToFlush(turn, answer) if self.outlet.rests() => {
                drop(turn);
                answer
            }
            Entered::ToFlush(turn, answer) => {
                let flush = Flush::new(Arc::clone(&self.outlet), turn);
                runtime.spawn(flush.run());
                answer
            }
        };
        answer
            .await
            .expect("every commit that waits is answered, also when its flush is dropped")
    }

    /// Sends nothing together any more.
    pub(crate) fn close(&self) {
        self.outlet.close();
    }
}
