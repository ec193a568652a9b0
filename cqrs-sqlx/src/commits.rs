//! Telling of commits: within the process at once, and the projectors of other processes soon.
//!
//! Nothing relies on it. Whoever misses a signal finds the events with its next poll.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

use crate::backend::{Backend, Message, Topic};
use crate::connections::Connections;
use crate::notifier::{News, Notifier};
use crate::projector::Wake;

/// Where a store says that it has committed events.
pub(crate) struct Commits<B: Backend> {
    here: Wake,
    elsewhere: Option<Arc<Notifier<B, Count>>>,
}

/// How many commits there were. Nothing else is told of them: whoever hears of one looks for the
/// horizon.
#[derive(Debug, Default)]
struct Count(AtomicU64);

impl News for Count {
    fn count(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn take(&self) -> Vec<Message> {
        vec![Message {
            topic: Topic::Committed,
            content: String::new(),
        }]
    }
}

impl<B: Backend> Commits<B> {
    /// With the connection by which other processes are told, where they are to be.
    pub(crate) fn new(connection: Option<Connections<B>>) -> Self {
        let elsewhere = connection.map(|connection| Notifier::new(connection, Count::default()));
        Self {
            here: Wake::default(),
            elsewhere: elsewhere.map(Arc::new),
        }
    }

    /// The store has committed events. Never within the transaction: telling others of it takes a
    /// lock of the whole server.
    pub(crate) fn signal(&self) {
        self.here.signal();
        if let Some(notifier) = &self.elsewhere {
            notifier.news().0.fetch_add(1, Ordering::SeqCst);
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
            notifier.close();
        }
    }
}

impl<B: Backend> fmt::Debug for Commits<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commits").finish_non_exhaustive()
    }
}
