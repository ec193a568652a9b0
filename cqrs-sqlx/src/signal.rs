//! Telling that something happened: within the process at once, and other processes soon.
//!
//! Nothing relies on it. Whoever misses a signal finds what happened with its next poll.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

use crate::backend::{Backend, Message, Topic};
use crate::connections::Connections;
use crate::notifier::{News, Notifier};
use crate::projector::Wake;

/// Where a store says that something happened.
pub(crate) struct Signal<B: Backend> {
    here: Wake,
    elsewhere: Option<Arc<Notifier<B, Count>>>,
}

/// How often it happened. Nothing else is told: whoever hears of it looks at the database.
#[derive(Debug)]
struct Count {
    topic: Topic,
    times: AtomicU64,
}

impl News for Count {
    fn count(&self) -> u64 {
        self.times.load(Ordering::SeqCst)
    }

    fn take(&self) -> Vec<Message> {
        vec![Message {
            topic: self.topic,
            content: String::new(),
        }]
    }
}

impl<B: Backend> Signal<B> {
    /// With the connection by which other processes are told, where they are to be.
    pub(crate) fn new(topic: Topic, connection: Option<Connections<B>>) -> Self {
        let times = AtomicU64::new(0);
        let count = Count { topic, times };
        let elsewhere = connection.map(|connection| Notifier::new(connection, count));
        Self {
            here: Wake::default(),
            elsewhere: elsewhere.map(Arc::new),
        }
    }

    /// It happened. Never within the transaction: telling others of it takes a lock of the whole
    /// server.
    pub(crate) fn signal(&self) {
        self.here.signal();
        if let Some(notifier) = &self.elsewhere {
            notifier.news().times.fetch_add(1, Ordering::SeqCst);
            notifier.signal();
        }
    }

    /// As [`signal`](Self::signal), and the others were told when it returns: the process may be about
    /// to end.
    pub(crate) async fn tell(&self) {
        self.here.signal();
        if let Some(notifier) = &self.elsewhere {
            notifier.tell_now().await;
        }
    }

    /// Another process has; `teller` is the process of the server that said so.
    pub(crate) fn heard(&self, teller: Option<i32>) {
        if !self.is_own(teller) {
            self.here.signal();
        }
    }

    /// Whether this store has told it itself.
    pub(crate) fn is_own(&self, teller: Option<i32>) -> bool {
        let own = self
            .elsewhere
            .as_ref()
            .and_then(|notifier| notifier.teller());
        teller.is_some() && teller == own
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

impl<B: Backend> fmt::Debug for Signal<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signal").finish_non_exhaustive()
    }
}
