//! Stores: where units of work and read models come from.

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::time::Duration;

use crate::context::RequestContext;
use crate::error::{Error, Result};
use crate::handler::{CommandHandler, QueryHandler};
use crate::read_model::ReadModels;
use crate::unit_of_work::{CommitReceipt, UnitOfWork};

/// A store of aggregates, events and read models.
///
/// Cheap to clone; every clone is the same store.
pub trait Store: Clone + Send + Sync + 'static {
    /// Its units of work.
    type UnitOfWork: UnitOfWork + 'static;
    /// Its read models.
    type ReadModels: ReadModels;

    /// Begins a unit of work. No I/O.
    fn unit_of_work(&self, context: &RequestContext) -> Self::UnitOfWork;

    /// The read models within the context's tenant scope. No I/O.
    fn read_models(&self, context: &RequestContext) -> Self::ReadModels;

    /// How [`execute`](Self::execute) retries.
    fn retry_policy(&self) -> RetryPolicy;

    /// Waits before a retry.
    fn pause(&self, delay: Duration) -> impl Future<Output = ()> + Send;

    /// Waits until a subscription has applied everything that the receipt's commit wrote: read
    /// your own write. Returns at once where the commit wrote nothing.
    ///
    /// # Errors
    ///
    /// A [`Usage`](crate::StoreErrorKind::Usage) error where there is no such subscription, one of
    /// kind [`TimedOut`](crate::StoreErrorKind::TimedOut) where it takes too long, and the error
    /// that halted the subscription where it is halted.
    fn wait_for<T: Sync>(
        &self,
        receipt: &CommitReceipt<T>,
        subscription: &str,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Begins a unit of work, runs `work` in it, commits, and starts over where the error
    /// [is retryable](Error::is_retryable), with a pause that doubles, as far as the
    /// [retry policy](Self::retry_policy) goes.
    ///
    /// ```
    /// # use cqrs_core::*;
    /// # async fn example<S: Store>(store: S, context: RequestContext) -> Result<()> {
    /// let receipt = store
    ///     .execute(&context, async |unit_of_work| {
    ///         assert_eq!(unit_of_work.context().scope(), context.scope());
    ///         Ok("done")
    ///     })
    ///     .await?;
    /// assert_eq!(receipt.into_output(), "done");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// `work` may run several times, so it uses what is around it without using it up. What it
    /// does outside of the unit of work is not undone.
    ///
    /// # Errors
    ///
    /// The error of `work` or of [`commit`](UnitOfWork::commit), of the last try.
    ///
    /// # Cancel safety
    ///
    /// As [`commit`](UnitOfWork::commit).
    fn execute<'s, T, F>(
        &'s self,
        context: &'s RequestContext,
        mut work: F,
    ) -> BoxFuture<'s, Result<CommitReceipt<T>>>
    where
        T: Send + 's,
        F: AsyncFnMut(&mut Self::UnitOfWork) -> Result<T>
            + for<'u> Work<'u, Self::UnitOfWork, T>
            + Send
            + 's,
    {
        Box::pin(async move {
            let policy = self.retry_policy();
            let mut attempt = 1;
            loop {
                let mut unit_of_work = self.unit_of_work(context);
                let result = match work.run(&mut unit_of_work).await {
                    Ok(output) => unit_of_work
                        .commit()
                        .await
                        .map(|receipt| receipt.with_output(output)),
                    Err(error) => {
                        unit_of_work.rollback().await;
                        Err(error)
                    }
                };
                match result {
                    Err(error) if error.is_retryable() && attempt < policy.attempts => {
                        tracing::debug!(attempt, %error, "retrying");
                        self.pause(policy.delay(attempt)).await;
                        attempt += 1;
                    }
                    result => return result,
                }
            }
        })
    }

    /// Runs a command handler as [`execute`](Self::execute) does, with a clone of the command for
    /// each try.
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute).
    fn dispatch<'s, H, C>(
        &'s self,
        context: &'s RequestContext,
        handler: &'s H,
        command: C,
    ) -> BoxFuture<'s, Result<CommitReceipt<H::Output>>>
    where
        H: CommandHandler<Self::UnitOfWork, C>,
        C: Clone + Send + Sync + 's,
    {
        Box::pin(async move {
            self.execute(context, async |unit_of_work| {
                handler.handle(unit_of_work, command.clone()).await
            })
            .await
        })
    }

    /// Runs a query handler on the read models of the context's tenant scope.
    ///
    /// # Errors
    ///
    /// The handler's.
    fn ask<H, Q>(
        &self,
        context: &RequestContext,
        handler: &H,
        query: Q,
    ) -> impl Future<Output = Result<H::Output>> + Send
    where
        H: QueryHandler<Self::ReadModels, Q>,
        Q: Send,
    {
        async move { handler.handle(&self.read_models(context), query).await }
    }
}

/// The future of [`Store::execute`]: boxed, so that the compiler can see that it is `Send`
/// whatever the work is.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What [`Store::execute`] runs: an async closure or function that takes a unit of work.
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

/// How often and after which pauses a command is run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How many times it is run in all; at least once.
    pub attempts: u32,
    /// The pause after the first try; it doubles with each further one.
    pub first_delay: Duration,
    /// The longest pause.
    pub max_delay: Duration,
}

impl Default for RetryPolicy {
    /// 30 tries; pauses from 2 ms to 250 ms, some five seconds in all.
    fn default() -> Self {
        Self {
            attempts: 30,
            first_delay: Duration::from_millis(2),
            max_delay: Duration::from_millis(250),
        }
    }
}

impl RetryPolicy {
    /// The pause after try number `attempt`, from 1: between half of the doubled delay and all of
    /// it, at random, so that those who collided do not meet again.
    #[must_use]
    pub fn delay(&self, attempt: u32) -> Duration {
        let doubled = self
            .first_delay
            .saturating_mul(1 << attempt.saturating_sub(1).min(20))
            .min(self.max_delay);
        // Each RandomState has other keys; that is all the randomness a pause needs.
        let random = RandomState::new().hash_one(attempt) % 512;
        doubled / 2 + doubled.mul_f64(f64::from(u32::try_from(random).unwrap_or(0)) / 1024.0)
    }
}

impl Error {
    /// The error for a subscription that no projector registered.
    #[must_use]
    pub fn unknown_subscription(name: &str) -> Self {
        Self::store(
            crate::error::StoreErrorKind::Usage,
            format!("there is no subscription named {name:?}"),
        )
    }
}
