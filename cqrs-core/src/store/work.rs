//! What runs in a unit of work: async closures and functions.
//!
//! An `async |unit_of_work| { ... }` is an `AsyncFn`, and stable Rust cannot say that the future
//! of an `AsyncFn` is `Send`. These traits say it; every closure whose future is `Send` has them.

use std::future::Future;

use crate::error::Result;

/// What [`Store::execute`](crate::Store::execute) runs: an async closure or function that takes a
/// unit of work.
///
/// Every `async |unit_of_work| { ... }` whose future is `Send` is one. It may be run several
/// times, so it may use what is around it, but not use it up or change it.
#[diagnostic::on_unimplemented(
    message = "this is no work for a unit of work: its future is not `Send`, or it changes or consumes what it captures",
    note = "it may be run again after a conflict: clone what it consumes inside of it, and return what it finds out"
)]
pub trait Work<'u, U, T> {
    /// Its future.
    type Future: Future<Output = Result<T>> + Send;

    /// Runs it once.
    fn run(&mut self, unit_of_work: &'u mut U) -> Self::Future;
}

impl<'u, U, T, F, Fut> Work<'u, U, T> for F
where
    U: 'u,
    F: FnMut(&'u mut U) -> Fut,
    Fut: Future<Output = Result<T>> + Send,
{
    type Future = Fut;

    fn run(&mut self, unit_of_work: &'u mut U) -> Fut {
        self(unit_of_work)
    }
}

/// [`Work`] on one item of many, for [`Store::execute_in_batches`](crate::Store::execute_in_batches).
#[diagnostic::on_unimplemented(
    message = "this is no work on an item: its future is not `Send`, or it changes or consumes what it captures",
    note = "it may be run again after a conflict: clone what it consumes inside of it"
)]
pub trait ItemWork<'u, U, I> {
    /// Its future.
    type Future: Future<Output = Result<()>> + Send;

    /// Runs it on an item.
    fn run(&mut self, unit_of_work: &'u mut U, item: I) -> Self::Future;
}

impl<'u, U, I, F, Fut> ItemWork<'u, U, I> for F
where
    U: 'u,
    F: FnMut(&'u mut U, I) -> Fut,
    Fut: Future<Output = Result<()>> + Send,
{
    type Future = Fut;

    fn run(&mut self, unit_of_work: &'u mut U, item: I) -> Fut {
        self(unit_of_work, item)
    }
}

/// Work that runs at most once, so that it may use up what it captures: the inside of a
/// [savepoint](crate::UnitOfWork::savepoint), or a hook.
#[diagnostic::on_unimplemented(
    message = "this is no work for a unit of work: its future is not `Send`"
)]
pub trait WorkOnce<'u, U, T> {
    /// Its future.
    type Future: Future<Output = Result<T>> + Send;

    /// Runs it.
    fn run_once(self, unit_of_work: &'u mut U) -> Self::Future;
}

impl<'u, U, T, F, Fut> WorkOnce<'u, U, T> for F
where
    U: 'u,
    F: FnOnce(&'u mut U) -> Fut,
    Fut: Future<Output = Result<T>> + Send,
{
    type Future = Fut;

    fn run_once(self, unit_of_work: &'u mut U) -> Fut {
        self(unit_of_work)
    }
}
