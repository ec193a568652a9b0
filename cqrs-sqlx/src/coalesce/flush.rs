//! Sending what waits.

use std::pin::pin;
use std::slice;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cqrs_core::staging::StagedWrite;
use cqrs_core::{Error, Metadata, Result, StoreErrorKind};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::lanes::Turn;
use super::{Answer, Waiting, patience};
use crate::backend::{Backend, Committed, Process, Proof, Written};
use crate::connections::{Connection, Connections};
use crate::metrics;
use crate::reads::is_unavailable;
use crate::statements::Statements;

/// How long at least the server may take to answer a flush.
const SHORTEST: Duration = Duration::from_secs(1);

/// How long no connection is opened after one could not be, or took its time.
const REST: Duration = Duration::from_secs(1);

/// How many commits go out alone, each by itself, where one of them was refused.
const FEW: usize = 4;

/// Where flushes go out.
pub(crate) struct Outlet<B: Backend> {
    backend: B,
    /// For nothing else: a flush waits for nobody's unit of work, and gives up on a lock that it does
    /// not get soon.
    connections: Connections<B>,
    /// Those that break together with the ones above.
    writers: Connections<B>,
    statements: Statements,
    /// How long who waits behind a flush waits for it.
    patience: Duration,
    /// How long who is in a flush waits for it.
    deadline: Duration,
    rests_until: Mutex<Option<Instant>>,
    /// Held while a connection is awaited that was not there in time: one, for those who come later.
    late: Semaphore,
}

impl<B: Backend> Outlet<B> {
    pub(crate) fn new(
        backend: B,
        connections: Connections<B>,
        writers: Connections<B>,
        acquire_timeout: Duration,
    ) -> Self {
        Self {
            backend,
            connections,
            writers,
            statements: Statements::default(),
            patience: patience(acquire_timeout),
            deadline: acquire_timeout.max(SHORTEST),
            rests_until: Mutex::default(),
            late: Semaphore::new(1),
        }
    }

    pub(super) fn close(&self) {
        self.connections.close();
    }

    /// Whether a connection would have to be opened, and could not be a moment ago.
    pub(super) fn rests(&self) -> bool {
        let until = *self.rests_until();
        until.is_some_and(|until| Instant::now() < until) && !self.connections.has_idle()
    }

    fn rest(&self) {
        *self.rests_until() = Some(Instant::now() + REST);
    }

    fn rests_until(&self) -> MutexGuard<'_, Option<Instant>> {
        let until = self.rests_until.lock();
        until.unwrap_or_else(PoisonError::into_inner)
    }

    async fn acquire(&self) -> Result<Connection<B>> {
        let acquired = self.connections.acquire().await;
        if acquired.as_ref().is_err_and(is_unavailable) {
            self.rest();
        }
        acquired
    }

    /// Sends a batch, in parts where one of them is refused for the sake of others. One that is
    /// dropped before its end answers all the same.
    async fn send(&self, mut connection: Connection<B>, batch: Batch) {
        let mut parts = vec![batch];
        while let Some(mut part) = parts.pop() {
            if part.waiting.is_empty() {
                continue;
            }
            let process = B::process(connection.get());
            part.sent_to = Some(process.clone());
            let sent = part.waiting.len();
            match self.send_part(&mut connection, &part).await {
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
                    connection.discard();
                    self.connections.close_idle();
                    self.writers.close_idle();
                    return self.resolve(process, part).await;
                }
            }
        }
    }

    async fn send_part(
        &self,
        connection: &mut Connection<B>,
        part: &Batch,
    ) -> Committed<Vec<Option<Written>>> {
        let writes = part.writes();
        let committed = B::commit_together(connection.begin_work(), &self.statements, &writes);
        let in_time = timeout(self.deadline, committed).await;
        in_time.unwrap_or_else(|_| {
            Committed::Lost(Error::store(
                StoreErrorKind::Unavailable,
                format!("the database did not answer within {:?}", self.deadline),
            ))
        })
    }

    /// Finds out what became of commits, once for all of them.
    async fn resolve(&self, process: Process, lost: Batch) {
        let found = {
            let writes = lost.waiting.iter().map(|one| &one.commit.write);
            let proofs: Vec<_> = writes
                .map(|write| Proof::Events(slice::from_ref(write)))
                .collect();
            self.backend.resolve(process, &proofs).await
        };
        match found {
            Ok(written) => lost.end(written),
            Err(cause) => lost.end_unknown(cause),
        }
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

/// A task that flushes a lane until nothing waits in it.
pub(super) struct Flush<B: Backend> {
    outlet: Arc<Outlet<B>>,
    turn: Turn,
}

impl<B: Backend> Flush<B> {
    pub(super) fn new(outlet: Arc<Outlet<B>>, turn: Turn) -> Self {
        Self { outlet, turn }
    }

    pub(super) async fn run(self) {
        let Self { outlet, mut turn } = self;
        while turn.goes_on() {
            // Given back after each flush, so that the lanes take turns on the connections.
            let mut acquiring = pin!(outlet.acquire());
            let connection = match timeout(outlet.patience, &mut acquiring).await {
                Ok(Ok(connection)) => connection,
                Ok(Err(error)) => {
                    tracing::debug!(%error, "commits are not sent together");
                    return;
                }
                Err(_) => {
                    outlet.rest();
                    drop(turn);
                    if let Ok(_late) = outlet.late.try_acquire() {
                        let _ = acquiring.await;
                    }
                    return;
                }
            };
            // Who was just answered may come again at once, and others have come meanwhile.
            tokio::task::yield_now().await;
            let batch = Batch::of(turn.take());
            let mut sending = pin!(outlet.send(connection, batch));
            if timeout(outlet.patience, &mut sending).await.is_err() {
                // Nobody waits behind a connection that has gone silent.
                drop(turn);
                return sending.await;
            }
        }
    }
}

/// Commits that are sent together.
pub(super) struct Batch {
    waiting: Vec<Waiting>,
    /// The process that may have committed them.
    pub(super) sent_to: Option<Process>,
}

impl Batch {
    /// In the order of their ids: statements that meet on unique keys must not do so crosswise.
    pub(super) fn of(mut waiting: Vec<Waiting>) -> Self {
        waiting.retain(|waiting| !waiting.caller.is_closed());
        waiting.sort_by(|a, b| {
            let (a, b) = (&a.commit.write, &b.commit.write);
            a.aggregate_id.cmp(&b.aggregate_id)
        });
        Self {
            waiting,
            sent_to: None,
        }
    }

    pub(super) fn writes(&self) -> Vec<(&StagedWrite, &Metadata)> {
        let commits = self.waiting.iter().map(|waiting| &waiting.commit);
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
