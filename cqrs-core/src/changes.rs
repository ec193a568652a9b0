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
/// that failed, or whose future was dropped. While a commit is under way nobody can tell whether it
/// is visible, so whoever asks then gets a count that nobody else has seen. What SQL of your own
/// changes, you [count](Self::changed) yourself.
#[derive(Default)]
pub struct TableChanges(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    tables: HashMap<&'static str, Count>,
    /// Of changes that are visible.
    total: u64,
    waiting: Vec<Waker>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    changed: u64,
    /// How many are changing it now.
    changing: usize,
}

impl Count {
    /// One that holds until the next change becomes visible.
    fn ask(&mut self) -> u64 {
        self.changed += u64::from(self.changing > 0);
        self.changed
    }
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
        self.lock().tables.get_mut(table).map_or(0, Count::ask)
    }

    /// The count of each table that was changed.
    #[must_use]
    pub fn counts(&self) -> HashMap<&'static str, u64> {
        let mut counts = self.lock();
        let tables = counts.tables.iter_mut();
        tables.map(|(table, count)| (*table, count.ask())).collect()
    }

    /// Counts a change of tables that is visible now.
    pub fn changed(&self, tables: impl IntoIterator<Item = &'static str>) {
        self.end(tables, 0);
    }

    /// Counts a change of tables, and that this many fewer are changing each.
    fn end(&self, tables: impl IntoIterator<Item = &'static str>, ended: usize) {
        let mut counts = self.lock();
        for table in tables {
            let count = counts.tables.entry(table).or_default();
            count.changed += 1;
            count.changing -= ended;
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
    /// This table too, before its change can be visible.
    pub fn add(&mut self, table: &'static str) {
        if self.tables.insert(table) {
            self.changes
                .lock()
                .tables
                .entry(table)
                .or_default()
                .changing += 1;
        }
    }
}

impl Drop for Changing {
    fn drop(&mut self) {
        if !self.tables.is_empty() {
            self.changes.end(std::mem::take(&mut self.tables), 1);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_stand_between_changes_only() {
        let changes = Arc::new(TableChanges::default());
        changes.changed(["parcel"]);
        assert_eq!(changes.count("parcel"), changes.count("parcel"));

        let (mut one, mut other) = (changes.changing(), changes.changing());
        one.add("parcel");
        one.add("parcel");
        other.add("parcel");
        drop(one);
        // The other may be visible already, or not.
        let seen = [
            changes.count("parcel"),
            changes.count("parcel"),
            changes.counts()["parcel"],
        ];
        assert!(seen[0] < seen[1] && seen[1] < seen[2]);

        drop(other);
        assert!(changes.count("parcel") > seen[2]);
        assert_eq!(changes.count("parcel"), changes.count("parcel"));
        assert_eq!(changes.count("carrier"), 0);
    }
}
