//! Command and query handlers, for teams that give each use case a type.

use std::future::Future;

use crate::error::Result;
use crate::read_model::ReadModels;
use crate::unit_of_work::UnitOfWork;

/// Handles commands of type `C` in units of work of type `U`.
///
/// Write it for every `U: UnitOfWork`, and it runs on every store. Run it with
/// [`Store::dispatch`](crate::Store::dispatch). It may be run several times, each time in a new
/// unit of work; what it changes outside of that is not undone.
pub trait CommandHandler<U: UnitOfWork, C>: Send + Sync {
    /// What the caller gets in the receipt.
    type Output: Send;

    /// Handles a command; the caller commits.
    ///
    /// # Errors
    ///
    /// Any error means that nothing is committed.
    fn handle(
        &self,
        unit_of_work: &mut U,
        command: C,
    ) -> impl Future<Output = Result<Self::Output>> + Send;
}

/// Handles queries of type `Q` on read models of type `M`.
///
/// Write it for every `M: ReadModels`, and it runs on every store. Run it with
/// [`Store::ask`](crate::Store::ask).
pub trait QueryHandler<M: ReadModels, Q>: Send + Sync {
    /// The answer.
    type Output: Send;

    /// Answers a query.
    ///
    /// # Errors
    ///
    /// The handler's own.
    fn handle(
        &self,
        read_models: &M,
        query: Q,
    ) -> impl Future<Output = Result<Self::Output>> + Send;
}
