//! Units of work within units of work, which are refused.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use super::BoxFuture;
use crate::error::{Error, Result, StoreErrorKind};

thread_local! {
    /// The stores whose work is being polled on this thread, the innermost last.
    static WORKING: RefCell<Vec<StoreId>> = const { RefCell::new(Vec::new()) };
}

/// Which store it is; clones of a store share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StoreId(u64);

impl StoreId {
    /// An id that no other store of this process has.
    #[must_use]
    pub fn unique() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Work of a store. While it is polled, no other work of the same store may begin: that would be
/// a second transaction, which is not undone with the first, and which may wait for a connection
/// or a lock that only the first can give back.
pub(super) struct Working<'a, T> {
    store: StoreId,
    work: BoxFuture<'a, T>,
}

impl<'a, T> Working<'a, T> {
    pub(super) fn new(store: StoreId, work: BoxFuture<'a, T>) -> Self {
        Self { store, work }
    }
}

impl<T> Future for Working<'_, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        /// Also where the work panics.
        struct Leave;
        impl Drop for Leave {
            fn drop(&mut self) {
                WORKING.with_borrow_mut(Vec::pop);
            }
        }
        WORKING.with_borrow_mut(|working| working.push(self.store));
        let _leave = Leave;
        self.work.as_mut().poll(context)
    }
}

/// Whether this runs within the work of a unit of work of this store.
pub(crate) fn is_working(store: StoreId) -> bool {
    WORKING.with_borrow(|working| working.contains(&store))
}

/// Refuses work that begins within work of the same store.
pub(crate) fn check(store: StoreId) -> Result<()> {
    if is_working(store) {
        return Err(Error::store(
            StoreErrorKind::Usage,
            "a unit of work was begun within the work of another one of the same store: use the \
             one that the work was given, or a savepoint of it",
        ));
    }
    Ok(())
}
