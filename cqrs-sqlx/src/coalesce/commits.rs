//! Commits that go out together.
//!
//! A flush decides nothing against a commit. What it could not write, because a version was stale, a
//! row locked or a constraint violated, goes back to its caller, who commits it alone and hears what
//! there is to hear.

use std::slice;
use std::sync::Arc;

use cqrs_core::staging::{Operation, StagedWrite};
use cqrs_core::{Changing, Error, Metadata, StoreErrorKind};

use super::flush::Outlet;
use super::lanes::{First, Waiting};
use super::{Outgoing, Work};
use crate::backend::{self, Backend, Committed, Process, Proof, Written};
use crate::connections::Connection;
use crate::metrics;
use crate::reads::is_unavailable;

/// How many commits go out alone, each by itself, where one of them was refused.
const FEW: usize = 4;

/// How many bytes of texts, documents and payloads there are in a write.
pub(crate) fn size(write: &StagedWrite) -> usize {
    let payloads = write.events.iter().map(|event| event.payload.len());
    let values = write.row.iter().map(backend::size);
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

/// A table, by its address, and an operation.
type LaneId = (usize, Operation);

/// What became of a commit.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It is durable.
    Done(Written),
    /// It was not sent, or not written, and is to be committed alone. While the second value lives,
    /// others gather behind it.
    Alone(Box<Commit>, Option<First<LaneId>>),
    /// The connection broke before the answer came, and nobody could be asked what became of it.
    Unknown(Arc<Error>),
    /// It was sent to this process, and who waited for the answer was dropped.
    Lost(Box<Commit>, Process),
}

impl Work for Box<Commit> {
    type Lane = LaneId;
    type Answer = Answer;

    const ALONE: usize = 1;

    fn lane(&self) -> Self::Lane {
        let write = &self.write;
        (std::ptr::from_ref(write.table) as usize, write.operation)
    }

    fn size(&self) -> usize {
        size(&self.write)
    }

    fn alone(self, first: Option<First<LaneId>>) -> Answer {
        Answer::Alone(self, first)
    }
}

impl<B: Backend> Outgoing<B> for Box<Commit> {
    /// Sends a batch, in parts where one of them is refused for the sake of others. One that is
    /// dropped before its end answers all the same.
    async fn send(outlet: &Outlet<B>, mut connection: Connection<B>, waiting: Vec<Waiting<Self>>) {
        let mut parts = vec![Batch::of(waiting)];
        while let Some(mut part) = parts.pop() {
            if part.waiting.is_empty() {
                continue;
            }
            let process = B::process(connection.get());
            part.sent_to = Some(process.clone());
            let sent = part.waiting.len();
            match send_part(outlet, &mut connection, &part).await {
                Committed::Done(written) => {
                    connection.end_work();
                    let done = written.iter().flatten().count();
                    metrics::flushed(done, sent - done);
                    part.end(written);
                }
                Committed::Refused(error) => {
                    tracing::debug!(%error, sent, "commits that were sent together were refused");
                    part.sent_to = None;
                    if is_of_one(&error) && sent > FEW {
                        metrics::flushed(0, 0);
                        parts.extend(part.halves());
                    } else {
                        metrics::flushed(0, sent);
                    }
                    if is_unavailable(&error) {
                        return;
                    }
                    connection.end_work();
                }
                Committed::Lost(cause) => {
                    tracing::debug!(%cause, "the answer to commits that were sent together was lost");
                    metrics::flush_lost(sent);
                    drop(parts);
                    outlet.discard(connection);
                    return resolve(outlet, process, part).await;
                }
            }
        }
    }
}

async fn send_part<B: Backend>(
    outlet: &Outlet<B>,
    connection: &mut Connection<B>,
    part: &Batch,
) -> Committed<Vec<Option<Written>>> {
    let writes = part.writes();
    let committed = B::commit_together(connection.begin_work(), &outlet.statements, &writes);
    let answered = outlet.answered(committed).await;
    answered.unwrap_or_else(Committed::Lost)
}

/// Finds out what became of commits, once for all of them.
async fn resolve<B: Backend>(outlet: &Outlet<B>, process: Process, lost: Batch) {
    let found = {
        let writes = lost.waiting.iter().map(|one| &one.work.write);
        let proofs: Vec<_> = writes
            .map(|write| Proof::Events(slice::from_ref(write)))
            .collect();
        outlet.backend.resolve(process, &proofs).await
    };
    match found {
        Ok(written) => lost.end(written),
        Err(cause) => lost.end_unknown(cause),
    }
}

/// Whether something is wrong with one of the commits, or some, and not with where they go.
fn is_of_one(error: &Error) -> bool {
    match error {
        Error::AlreadyExists { .. } => true,
        Error::Store(error) => matches!(error.kind(), StoreErrorKind::Constraint { .. }),
        _ => false,
    }
}

/// Commits that are sent together.
pub(super) struct Batch {
    waiting: Vec<Waiting<Box<Commit>>>,
    /// The process that may have committed them.
    pub(super) sent_to: Option<Process>,
}

impl Batch {
    /// In the order of their ids: statements that meet on unique keys must not do so crosswise.
    pub(super) fn of(mut waiting: Vec<Waiting<Box<Commit>>>) -> Self {
        waiting.retain(|waiting| !waiting.caller.is_closed());
        waiting.sort_by(|a, b| {
            let (a, b) = (&a.work.write, &b.work.write);
            a.aggregate_id.cmp(&b.aggregate_id)
        });
        Self {
            waiting,
            sent_to: None,
        }
    }

    pub(super) fn writes(&self) -> Vec<(&StagedWrite, &Metadata)> {
        let commits = self.waiting.iter().map(|waiting| &waiting.work);
        commits
            .map(|commit| (&commit.write, &commit.metadata))
            .collect()
    }

    /// Both halves, the first one last.
    pub(super) fn halves(mut self) -> [Self; 2] {
        let waiting = self.waiting.split_off(self.waiting.len() / 2);
        let other = Self {
            waiting,
            sent_to: None,
        };
        [other, self]
    }

    /// Answers that nobody knows what became of them.
    pub(super) fn end_unknown(mut self, cause: Error) {
        let cause = Arc::new(cause);
        for waiting in self.waiting.drain(..) {
            waiting.answer(|_| Answer::Unknown(Arc::clone(&cause)));
        }
    }

    /// Answers with what each has written.
    pub(super) fn end(mut self, written: Vec<Option<Written>>) {
        for (waiting, written) in self.waiting.drain(..).zip(written) {
            match written {
                Some(written) => waiting.answer(|_| Answer::Done(written)),
                None => waiting.answer(|commit| Answer::Alone(commit, None)),
            }
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        for waiting in self.waiting.drain(..) {
            match &self.sent_to {
                None => waiting.answer(|commit| Answer::Alone(commit, None)),
                Some(process) => {
                    waiting.answer(|commit| Answer::Lost(commit, process.clone()));
                }
            }
        }
    }
}
