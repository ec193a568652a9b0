//! Which tables this process has changed.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// Counts how often each table was changed through a store by this process.
///
/// What is read while a count stands is good as long as it does: a cache keeps it under the count
/// that it saw *before* it began to read. The store counts after a commit is visible and before it
/// returns, for the tables of its aggregates and of the rows that projections wrote; also after one
/// that failed, or whose future was dropped. What SQL of your own changes, you
/// [count](Self::changed) yourself.
#[derive(Default)]
pub struct TableChanges(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    tables: HashMap<&'static str, u64>,
    total: u64,
    waiting: Vec<Waker>,
}

/// Tables that are being changed; they count as changed when this is dropped.
#[derive(Debug)]
pub struct Changing {
    changes: Arc<TableChanges>,
    tables: BTreeSet<&'static str>,
}

impl TableChanges {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often the table of this name was changed.
    #[must_use]
    pub fn count(&self, table: &'static str) -> u64 {
        self.lock().tables.get(table).copied().unwrap_or(0)
    }

    /// The count of each table that was changed.
    #[must_use]
    pub fn counts(&self) -> HashMap<&'static str, u64> {
        self.lock().tables.clone()
    }

    /// Counts a change of tables that is visible now.
    pub fn changed(&self, tables: impl IntoIterator<Item = &'static str>) {
        let mut counts = self.lock();
        for table in tables {
            *counts.tables.entry(table).or_default() += 1;
            counts.total += 1;
        }
        let waiting = std::mem::take(&mut counts.waiting);
        drop(counts);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Waits until more changes were counted than `seen`, and returns how many there are. Begin
    /// with 0.
    pub async fn after(&self, seen: u64) -> u64 {
        poll_fn(|context| {
            let mut counts = self.lock();
            if counts.total > seen {
                return Poll::Ready(counts.total);
            }
            counts.waiting.push(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Begins a change, for authors of backends.
    #[must_use]
    pub fn changing(self: &Arc<Self>) -> Changing {
        Changing {
            changes: Arc::clone(self),
            tables: BTreeSet::new(),
        }
    }
}

impl Changing {
    /// This table too.
    pub fn add(&mut self, table: &'static str) {
        self.tables.insert(table);
    }
}

impl Drop for Changing {
    fn drop(&mut self) {
        if !self.tables.is_empty() {
            self.changes.changed(std::mem::take(&mut self.tables));
        }
    }
}

impl fmt::Debug for TableChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TableChanges")
            .field(&self.lock().tables)
            .finish()
    }
}
