//! Telling of commits: within the process at once, and the projectors of other processes soon.
//!
//! Nothing relies on it. Whoever misses a signal finds the events with its next poll.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use cqrs_core::Result;
use tokio::sync::watch;

use crate::backend::Backend;
use crate::connections::Connections;
use crate::projector::Wake;

/// How long others are told nothing more, after they were told.
const GAP: Duration = Duration::from_millis(1);
/// The same, while commits are so many that each of them would be told alone.
const GAP_UNDER_LOAD: Duration = Duration::from_millis(5);
/// How many commits within the shorter gap are a load; in the longer one it is one a millisecond.
const LOAD: u64 = 2;

/// Where a store says that it has committed events.
pub(crate) struct Commits<B: Backend> {
    here: Wake,
    elsewhere: Option<Arc<Notifier<B>>>,
}

impl<B: Backend> Commits<B> {
    /// With the connection by which other processes are told, where they are to be.
    pub(crate) fn new(connection: Option<Connections<B>>) -> Self {
        Self {
            here: Wake::default(),
            elsewhere: connection.map(|connection| Arc::new(Notifier::new(connection))),
        }
    }

    /// The store has committed events. Never within the transaction: telling others of it takes a
    /// lock of the whole server.
    pub(crate) fn signal(&self) {
        self.here.signal();
        if let Some(notifier) = &self.elsewhere {
            notifier.signal();
        }
    }

    /// Another process has; `teller` is the process of the server that said so.
    pub(crate) fn heard(&self, teller: Option<i32>) {
        let own = self
            .elsewhere
            .as_ref()
            .and_then(|notifier| notifier.teller());
        if teller.is_none() || teller != own {
            self.here.signal();
        }
    }

    /// Whether others are told, and listened to.
    pub(crate) fn reach_others(&self) -> bool {
        self.elsewhere.is_some()
    }

    /// Begins to listen.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.here.subscribe()
    }

    /// Tells nobody any more.
    pub(crate) fn close(&self) {
        if let Some(notifier) = &self.elsewhere {
            notifier.connection.close();
        }
    }
}

impl<B: Backend> fmt::Debug for Commits<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commits").finish_non_exhaustive()
    }
}

/// Tells other processes, at once and then after a gap, however many commits there were in it.
///
/// The task that does so lives only as long as there is something to tell.
struct Notifier<B: Backend> {
    connection: Connections<B>,
    /// How many commits were signalled.
    commits: AtomicU64,
    /// Whether the task runs.
    running: AtomicBool,
    /// The process of the server behind the connection; 0 while there is none.
    teller: AtomicI32,
}

impl<B: Backend> Notifier<B> {
    fn new(connection: Connections<B>) -> Self {
        Self {
            connection,
            commits: AtomicU64::new(0),
            running: AtomicBool::new(false),
            teller: AtomicI32::new(0),
        }
    }

    fn signal(self: &Arc<Self>) {
        self.commits.fetch_add(1, Ordering::SeqCst);
        if self.running.load(Ordering::SeqCst) {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        if let Some(running) = Running::begin(self) {
            runtime.spawn(running.run());
        }
    }

    fn teller(&self) -> Option<i32> {
        match self.teller.load(Ordering::Relaxed) {
            0 => None,
            process => Some(process),
        }
    }

    /// Tells the others; a connection that died unnoticed is replaced once.
    async fn tell(&self) -> Result<()> {
        let first = self.try_to_tell().await;
        match first {
            Err(error) if crate::reads::is_unavailable(&error) => self.try_to_tell().await,
            told => told,
        }
    }

    async fn try_to_tell(&self) -> Result<()> {
        let mut connection = self.connection.acquire().await?;
        self.teller
            .store(B::process(connection.get()).id, Ordering::Relaxed);
        match B::notify(connection.begin_work()).await {
            Ok(()) => {
                connection.end_work();
                Ok(())
            }
            Err(error) => {
                connection.discard();
                Err(error)
            }
        }
    }
}

/// The right to be the task. Given back when it is dropped, also with the runtime.
struct Running<B: Backend>(Arc<Notifier<B>>);

impl<B: Backend> Running<B> {
    fn begin(notifier: &Arc<Notifier<B>>) -> Option<Self> {
        let taken = notifier.running.swap(true, Ordering::SeqCst);
        (!taken).then(|| Self(Arc::clone(notifier)))
    }

    async fn run(self) {
        let mut running = self;
        loop {
            let told = running.tell_while_there_are_commits().await;
            let notifier = Arc::clone(&running.0);
            drop(running);
            // Who signalled since the last look and until now found the task running.
            if notifier.commits.load(Ordering::SeqCst) == told {
                return;
            }
            match Self::begin(&notifier) {
                Some(again) => running = again,
                None => return,
            }
        }
    }

    /// Returns the number of commits that others were told of.
    async fn tell_while_there_are_commits(&self) -> u64 {
        let mut told = None;
        let mut gap = GAP;
        loop {
            let commits = self.0.commits.load(Ordering::SeqCst);
            match told {
                Some(told) if told == commits => return told,
                Some(told) => gap = next_gap(gap, commits - told),
                None => {}
            }
            told = Some(commits);
            if let Err(error) = self.0.tell().await {
                tracing::debug!(%error, "other processes were not told of a commit");
            }
            tokio::time::sleep(gap).await;
        }
    }
}

/// The gap after one in which there were so many commits.
fn next_gap(gap: Duration, commits: u64) -> Duration {
    let load = u64::try_from(gap.as_millis()).map_or(LOAD, |millis| millis.max(LOAD));
    if commits > load { GAP_UNDER_LOAD } else { GAP }
}

impl<B: Backend> Drop for Running<B> {
    fn drop(&mut self) {
        self.0.running.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gap_follows_the_load() {
        assert_eq!(next_gap(GAP, 1), GAP);
        assert_eq!(next_gap(GAP, 3), GAP_UNDER_LOAD);
        assert_eq!(next_gap(GAP_UNDER_LOAD, 10), GAP_UNDER_LOAD);
        assert_eq!(next_gap(GAP_UNDER_LOAD, 5), GAP);
    }
}
