//! Sending what waits.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cqrs_core::{Error, Result, StoreErrorKind};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::lanes::Turn;
use super::{Outgoing, patience};
use crate::backend::Backend;
use crate::connections::{Connection, Connections};
use crate::reads::is_unavailable;
use crate::statements::Statements;

/// How long at least the server may take to answer a flush.
const SHORTEST: Duration = Duration::from_secs(1);

/// How long no connection is opened after one could not be, or took its time.
const REST: Duration = Duration::from_secs(1);

/// Where flushes go out.
pub(crate) struct Outlet<B: Backend> {
    pub(super) backend: B,
    /// For nothing else: a flush waits for nobody's unit of work, and gives up on a lock that it does
    /// not get soon.
    connections: Connections<B>,
    /// Those that break together with the ones above.
    writers: Connections<B>,
    pub(super) statements: Statements,
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

    /// What the server answers, unless it takes too long.
    pub(super) async fn answered<T>(&self, answer: impl Future<Output = T>) -> Result<T> {
        let in_time = timeout(self.deadline, answer).await;
        in_time.map_err(|_| {
            Error::store(
                StoreErrorKind::Unavailable,
                format!("the database did not answer within {:?}", self.deadline),
            )
        })
    }

    /// Gives up a connection that broke, and the idle ones with it.
    pub(super) fn discard(&self, connection: Connection<B>) {
        connection.discard();
        self.connections.close_idle();
        self.writers.close_idle();
    }
}

/// A task that flushes a lane until nothing waits in it.
pub(super) struct Flush<B: Backend, W: Outgoing<B>> {
    outlet: Arc<Outlet<B>>,
    turn: Turn<W>,
}

impl<B: Backend, W: Outgoing<B>> Flush<B, W> {
    pub(super) fn new(outlet: Arc<Outlet<B>>, turn: Turn<W>) -> Self {
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
                    tracing::debug!(%error, "nothing is sent together");
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
            let mut sending = pin!(W::send(&outlet, connection, turn.take()));
            if timeout(outlet.patience, &mut sending).await.is_err() {
                // Nobody waits behind a connection that has gone silent.
                drop(turn);
                return sending.await;
            }
        }
    }
}
