//! What a unit of work does around its commit.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use crate::error::Result;
use crate::store::BoxFuture;
use crate::unit_of_work::CommitReceipt;

type BeforeCommit<U> = Box<dyn for<'u> FnOnce(&'u mut U) -> BoxFuture<'u, Result<()>> + Send>;
type AfterCommit = Box<dyn FnOnce(&CommitReceipt) + Send>;

/// The hooks of a unit of work. For authors of backends: users call
/// [`before_commit`](crate::UnitOfWork::before_commit) and
/// [`after_commit`](crate::UnitOfWork::after_commit).
pub struct Hooks<U> {
    /// A unit of work may be looked at from several threads; a hook may not. The lock is never
    /// waited for.
    lists: Mutex<Lists<U>>,
}

struct Lists<U> {
    before: Vec<Option<BeforeCommit<U>>>,
    after: Vec<AfterCommit>,
}

/// How many hooks there were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HooksMark {
    before: usize,
    after: usize,
}

impl<U> Default for Hooks<U> {
    fn default() -> Self {
        Self {
            lists: Mutex::new(Lists {
                before: Vec::new(),
                after: Vec::new(),
            }),
        }
    }
}

impl<U> Hooks<U> {
    fn lists(&mut self) -> &mut Lists<U> {
        self.lists.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add_before(&mut self, hook: BeforeCommit<U>) {
        self.lists().before.push(Some(hook));
    }

    pub(crate) fn add_after(&mut self, hook: AfterCommit) {
        self.lists().after.push(hook);
    }

    /// The number of hooks now, to go back to when a savepoint is rolled back.
    pub fn mark(&mut self) -> HooksMark {
        let lists = self.lists();
        HooksMark {
            before: lists.before.len(),
            after: lists.after.len(),
        }
    }

    /// Forgets the hooks that came after a mark.
    pub fn forget_after(&mut self, mark: HooksMark) {
        let lists = self.lists();
        lists.before.truncate(mark.before);
        lists.after.truncate(mark.after);
    }

    /// Runs the hooks before the commit, also those that they add, in the order in which they
    /// were added.
    ///
    /// # Errors
    ///
    /// That of the first hook that fails; the others are not run.
    pub async fn run_before(unit_of_work: &mut U, hooks: fn(&mut U) -> &mut Self) -> Result<()> {
        let mut next = 0;
        loop {
            let hook = hooks(unit_of_work).lists().before.get_mut(next);
            let Some(hook) = hook else { return Ok(()) };
            if let Some(hook) = hook.take() {
                hook(unit_of_work).await?;
            }
            next += 1;
        }
    }

    /// Runs the hooks after the commit, in the order in which they were added.
    pub fn run_after(mut self, receipt: &CommitReceipt) {
        for hook in std::mem::take(&mut self.lists().after) {
            hook(receipt);
        }
    }
}

impl<U> fmt::Debug for Hooks<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks").finish_non_exhaustive()
    }
}
