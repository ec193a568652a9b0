//! Work in batches.

use std::fmt;

use crate::envelope::Position;
use crate::error::Error;
use crate::unit_of_work::CommitReceipt;

/// What [`execute_in_batches`](crate::Store::execute_in_batches), or the
/// [maintenance](crate::Maintenance) of aggregates, has committed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BatchReceipt {
    items: usize,
    commits: usize,
    position: Option<Position>,
}

impl BatchReceipt {
    pub(super) fn add(&mut self, items: usize, receipt: &CommitReceipt) {
        self.add_commit(items, receipt.position());
    }

    /// Counts a commit that ended at this position.
    pub(crate) fn add_commit(&mut self, items: usize, position: Option<Position>) {
        self.items += items;
        self.commits += 1;
        self.position = self.position.max(position);
    }

    /// How many items are committed: the first so many.
    #[must_use]
    pub fn items(&self) -> usize {
        self.items
    }

    /// How many commits it took.
    #[must_use]
    pub fn commits(&self) -> usize {
        self.commits
    }

    /// The receipt of all of it, to [wait for](crate::Store::wait_for). It names no events.
    #[must_use]
    pub fn receipt(&self) -> CommitReceipt {
        CommitReceipt::new(Vec::new(), self.position)
    }
}

/// Work in batches that failed: what was committed before stays.
#[derive(Debug)]
pub struct BatchError {
    committed: BatchReceipt,
    cause: Error,
}

impl BatchError {
    pub(crate) fn new(committed: BatchReceipt, cause: Error) -> Self {
        Self { committed, cause }
    }

    /// What was committed: go on after the [items](BatchReceipt::items) it counts.
    #[must_use]
    pub fn committed(&self) -> &BatchReceipt {
        &self.committed
    }

    /// Why the next batch failed.
    #[must_use]
    pub fn cause(&self) -> &Error {
        &self.cause
    }

    /// Why the next batch failed, owned.
    #[must_use]
    pub fn into_cause(self) -> Error {
        self.cause
    }
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the batch after {} committed items failed: {}",
            self.committed.items, self.cause
        )
    }
}

impl std::error::Error for BatchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // The message says what the cause says; what is behind that comes next.
        std::error::Error::source(&self.cause)
    }
}

/// Gives up how far it came.
impl From<BatchError> for Error {
    fn from(error: BatchError) -> Self {
        error.cause
    }
}
