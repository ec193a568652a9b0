//! Sending what waits.

use std::sync::Arc;

use cqrs_core::Metadata;
use cqrs_core::staging::StagedWrite;

use super::lanes::Turn;
use super::{Answer, Waiting};
use crate::backend::{Backend, Committed, Process, Written};
use crate::connections::{Connection, Connections};
use crate::metrics;
use crate::reads::is_unavailable;
use crate::statements::Statements;

/// Where flushes go out.
pub(super) struct Outlet<B: Backend> {
    /// For nothing else: a flush waits for nobody's unit of work, and gives up on a lock that it does
    /// not get soon.
    connections: Connections<B>,
    statements: Statements,
}

impl<B: Backend> Outlet<B> {
    pub(super) fn new(connections: Connections<B>) -> Self {
        Self {
            connections,
            statements: Statements::default(),
        }
    }

    pub(super) fn close(&self) {
        self.connections.close();
    }

    /// Sends a batch. One that is dropped before its end answers all the same.
    async fn send(&self, mut connection: Connection<B>, mut batch: Batch) {
        if batch.waiting.is_empty() {
            return;
        }
        batch.sent_to = Some(B::process(connection.get()));
        let sent = batch.waiting.len();
        let committed = {
            let (connection, writes) = (connection.begin_work(), batch.writes());
            B::commit_together(connection, &self.statements, &writes).await
        };
        match committed {
            Committed::Done(written) => {
                connection.end_work();
                let done = written.iter().flatten().count();
                metrics::flushed(done, sent - done);
                batch.end(written);
            }
            Committed::Refused(error) => {
                if !is_unavailable(&error) {
                    connection.end_work();
                }
                metrics::flushed(0, sent);
                tracing::debug!(%error, "commits that were sent together are sent one by one");
                batch.sent_to = None;
            }
            Committed::Lost(cause) => {
                connection.discard();
                self.connections.close_idle();
                tracing::debug!(%cause, "the answer to commits that were sent together was lost");
            }
        }
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

    pub(super) async fn run(mut self) {
        while self.turn.goes_on() {
            // Given back after each flush, so that the lanes take turns on the connections.
            let connection = self.outlet.connections.acquire().await;
            // Who was just answered may come again at once, and others have come meanwhile.
            tokio::task::yield_now().await;
            let batch = Batch::of(self.turn.take());
            match connection {
                Ok(connection) => self.outlet.send(connection, batch).await,
                Err(error) => tracing::debug!(%error, "commits are not sent together"),
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
