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
#[derive(Debug, Default)]
pub(crate) struct Progress {
    known: Mutex<HashMap<String, watch::Sender<Known>>>,
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

impl Progress {
    /// A subscription stands here.
    pub(crate) fn record(&self, name: &str, known: Known) {
        let mut all = lock(&self.known);
        match all.get(name) {
            Some(of) => set(of, known),
            None => {
                all.insert(name.to_owned(), watch::Sender::new(known));
            }
        }
    }

    /// As [`record`](Self::record), where this process runs the subscription.
    pub(crate) fn correct(&self, name: &str, known: Known) {
        if let Some(of) = lock(&self.known).get(name) {
            set(of, known);
        }
    }

    /// What was halted may not be any more; whoever runs it looks, and says so.
    pub(crate) fn forget_halts(&self) {
        for of in lock(&self.known).values() {
            of.send_if_modified(|known| std::mem::take(&mut known.halted));
        }
    }

    /// This process does not run the subscription any more. Who listens to it is woken.
    pub(crate) fn forget(&self, name: &str) {
        lock(&self.known).remove(name);
    }

    /// What is known of a subscription; `None` where this process does not run it.
    pub(crate) fn known(&self, name: &str) -> Option<Known> {
        lock(&self.known).get(name).map(|of| *of.borrow())
    }

    /// Begins to listen to where a subscription stands; `None` where this process does not run it.
    pub(crate) fn subscribe(&self, name: &str) -> Option<watch::Receiver<Known>> {
        lock(&self.known).get(name).map(watch::Sender::subscribe)
    }

    /// A subscription has applied events.
    pub(crate) fn applied(&self, name: &str) {
        if let Some(wake) = lock(&self.pages).get(name) {
            wake.signal();
        }
    }

    /// Begins to listen to the events that a subscription applies.
    pub(crate) fn follow(&self, name: &'static str) -> watch::Receiver<u64> {
        lock(&self.pages).entry(name).or_default().subscribe()
    }
}

fn set(of: &watch::Sender<Known>, known: Known) {
    of.send_if_modified(|old| std::mem::replace(old, known) != known);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(position: i64) -> Known {
        Known {
            position: Position(position),
            halted: false,
        }
    }

    #[test]
    fn who_listens_to_a_subscription_hears_of_no_other() {
        let progress = Progress::default();
        assert!(progress.subscribe("a").is_none());
        progress.record("a", at(1));
        progress.record("b", at(1));
        let mut of_a = progress.subscribe("a").unwrap();
        progress.record("b", at(2));
        progress.record("a", at(1));
        progress.forget_halts();
        assert!(!of_a.has_changed().unwrap());
        progress.correct("a", at(3));
        assert_eq!(*of_a.borrow_and_update(), at(3));
        progress.forget("a");
        assert!(of_a.has_changed().is_err());
        assert_eq!(progress.known("a"), None);
        progress.correct("a", at(4));
        assert_eq!(
            (progress.known("a"), progress.known("b")),
            (None, Some(at(2)))
        );
    }
}
