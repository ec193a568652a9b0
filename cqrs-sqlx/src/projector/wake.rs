//! Waking up within the process. A lost signal costs at most one poll: nothing relies on them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cqrs_core::Position;
use tokio::sync::watch;

/// A signal that any number of tasks can wait for.
#[derive(Debug)]
pub(crate) struct Wake(watch::Sender<u64>);

impl Default for Wake {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl Wake {
    /// Wakes everyone who waits. Those who come later do not see it.
    pub(crate) fn signal(&self) {
        self.0.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Begins to listen: `changed` returns for every signal from now on, several at once counting
    /// as one.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}

/// Where the subscriptions stand that this process runs, as far as it has heard.
///
/// It spares those who wait for a checkpoint from asking the database in vain. It is no proof: the
/// row in the database is.
#[derive(Debug)]
pub(crate) struct Progress {
    known: watch::Sender<HashMap<String, Known>>,
    /// Of those that somebody follows.
    pages: Mutex<HashMap<&'static str, Wake>>,
}

/// What is known of one subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    /// Its checkpoint.
    pub(crate) position: Position,
    /// Whether it was halted.
    pub(crate) halted: bool,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            known: watch::Sender::new(HashMap::new()),
            pages: Mutex::default(),
        }
    }
}

impl Progress {
    /// A subscription stands here.
    pub(crate) fn record(&self, name: &str, known: Known) {
        self.known.send_if_modified(|all| match all.get_mut(name) {
            Some(old) if *old == known => false,
            Some(old) => {
                *old = known;
                true
            }
            None => {
                all.insert(name.to_owned(), known);
                true
            }
        });
    }

    /// As [`record`](Self::record), where this process runs the subscription.
    pub(crate) fn correct(&self, name: &str, known: Known) {
        if self.known.borrow().contains_key(name) {
            self.record(name, known);
        }
    }

    /// What was halted may not be any more; whoever runs it looks, and says so.
    pub(crate) fn forget_halts(&self) {
        self.known.send_if_modified(|all| {
            let halted = all.values_mut().filter(|known| known.halted);
            halted.fold(false, |_, known| {
                known.halted = false;
                true
            })
        });
    }

    /// This process does not run the subscription any more.
    pub(crate) fn forget(&self, name: &str) {
        self.known.send_modify(|all| {
            all.remove(name);
        });
    }

    /// What is known of a subscription; `None` where this process does not run it.
    pub(crate) fn known(&self, name: &str) -> Option<Known> {
        self.known.borrow().get(name).copied()
    }

    /// A subscription has applied events.
    pub(crate) fn applied(&self, name: &str) {
        if let Some(wake) = self.pages().get(name) {
            wake.signal();
        }
    }

    /// Begins to listen to the events that a subscription applies.
    pub(crate) fn follow(&self, name: &'static str) -> watch::Receiver<u64> {
        self.pages().entry(name).or_default().subscribe()
    }

    fn pages(&self) -> MutexGuard<'_, HashMap<&'static str, Wake>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to listen.
    pub(crate) fn subscribe(&self) -> watch::Receiver<HashMap<String, Known>> {
        self.known.subscribe()
    }
}
