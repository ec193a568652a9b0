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

use cqrs_core::staging::StagedWrite;
use cqrs_core::{Changing, Metadata};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use self::flush::{Flush, Outlet};
use self::lanes::{Entered, First, Lanes};
use crate::backend::{Backend, Process, Written};
use crate::connections::Connections;

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
    /// The connection to this process broke before the answer came.
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
    /// One that sends up to so many commits at once, on connections for nothing else.
    pub(crate) fn new(connections: Connections<B>, most: usize) -> Self {
        Self {
            outlet: Arc::new(Outlet::new(connections)),
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
