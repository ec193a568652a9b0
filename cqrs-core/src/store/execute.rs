//! Running work until it is committed.

use std::future::Future;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::nesting;
use super::work::{ItemWork, Work};
use super::{BoxFuture, Store};
use crate::context::RequestContext;
use crate::error::{Error, Result, StoreError, StoreErrorKind};
use crate::idempotency::IdempotencyKey;
use crate::unit_of_work::{CommitReceipt, UnitOfWork};

/// How a try of the work ends that did not fail.
pub(crate) enum Outcome<T> {
    /// It is to be committed.
    Commit(T),
    /// There is nothing to commit.
    Done(CommitReceipt<T>),
}

/// Work that can be tried in one unit of work after the other.
pub(crate) trait Attempt<U>: Send {
    type Output: Send;

    fn attempt(
        &mut self,
        unit_of_work: &mut U,
    ) -> impl Future<Output = Result<Outcome<Self::Output>>> + Send;

    /// Whether this try that failed is to be followed by another, as far as the policy goes.
    fn is_retried(&self, error: &Error, _attempt: u32) -> bool {
        error.is_retryable()
    }
}

/// Tries the work in new units of work until one is committed, as far as the retry policy goes.
pub(crate) fn run<'s, S: Store, A: Attempt<S::UnitOfWork> + 's>(
    store: &'s S,
    begin: fn(&S, &RequestContext) -> S::UnitOfWork,
    context: &'s RequestContext,
    mut work: A,
) -> BoxFuture<'s, Result<CommitReceipt<A::Output>>> {
    let running = Box::pin(async move {
        let policy = store.retry_policy();
        let mut attempt = 1;
        loop {
            let mut unit_of_work = begin(store, context);
            let result = match work.attempt(&mut unit_of_work).await {
                Ok(Outcome::Commit(output)) => unit_of_work
                    .commit()
                    .await
                    .map(|receipt| receipt.with_output(output)),
                Ok(Outcome::Done(receipt)) => {
                    unit_of_work.rollback().await;
                    Ok(receipt)
                }
                Err(error) => {
                    unit_of_work.rollback().await;
                    Err(error)
                }
            };
            match result {
                Err(error) if attempt < policy.attempts && work.is_retried(&error, attempt) => {
                    tracing::debug!(attempt, %error, "retrying");
                    store.retrying(&error);
                    store.pause(policy.delay(attempt)).await;
                    attempt += 1;
                }
                result => return result,
            }
        }
    });
    Box::pin(async move {
        nesting::check(store.id())?;
        nesting::Working::new(store.id(), running).await
    })
}

/// Work that is committed.
pub(super) struct Command<F, T> {
    work: F,
    output: PhantomData<fn() -> T>,
}

impl<F, T> Command<F, T> {
    pub(super) fn new(work: F) -> Self {
        Self {
            work,
            output: PhantomData,
        }
    }
}

impl<F, T> Command<F, T> {
    pub(super) fn run<'u, U>(&mut self, unit_of_work: &'u mut U) -> F::Future
    where
        F: Work<'u, U, T>,
    {
        self.work.run(unit_of_work)
    }
}

impl<U, F, T> Attempt<U> for Command<F, T>
where
    U: UnitOfWork,
    F: for<'u> Work<'u, U, T> + Send,
    T: Send,
{
    type Output = T;

    async fn attempt(&mut self, unit_of_work: &mut U) -> Result<Outcome<T>> {
        self.work.run(unit_of_work).await.map(Outcome::Commit)
    }
}

/// Work that only reads.
pub(super) struct Reading<F, T>(pub(super) Command<F, T>);

impl<U, F, T> Attempt<U> for Reading<F, T>
where
    U: UnitOfWork,
    F: for<'u> Work<'u, U, T> + Send,
    T: Send,
{
    type Output = T;

    async fn attempt(&mut self, unit_of_work: &mut U) -> Result<Outcome<T>> {
        let output = self.0.work.run(unit_of_work).await?;
        let nothing = CommitReceipt::new(Vec::new(), None);
        Ok(Outcome::Done(nothing.with_output(output)))
    }
}

/// Work that is committed once for a key.
pub(super) struct Once<'k, F, T> {
    pub(super) key: &'k IdempotencyKey,
    pub(super) command: Command<F, T>,
}

impl<U, F, T> Attempt<U> for Once<'_, F, T>
where
    U: UnitOfWork,
    F: for<'u> Work<'u, U, T> + Send,
    T: Serialize + DeserializeOwned + Send,
{
    type Output = T;

    async fn attempt(&mut self, unit_of_work: &mut U) -> Result<Outcome<T>> {
        if let Some(first) = unit_of_work.recorded(self.key).await? {
            return first.into_receipt(self.key).map(Outcome::Done);
        }
        let output = self.command.work.run(unit_of_work).await?;
        let text = serde_json::to_string(&output).map_err(unreadable)?;
        // NaN is written as null, for one: better no commit than one that can never be answered.
        serde_json::from_str::<T>(&text).map_err(unreadable)?;
        unit_of_work.record(self.key, text)?;
        Ok(Outcome::Commit(output))
    }
}

fn unreadable(cause: serde_json::Error) -> Error {
    let message = "the output of a command with an idempotency key does not come back from JSON";
    StoreError::new(StoreErrorKind::Usage, message)
        .with_source(cause)
        .into()
}

/// Work on some items, which are committed together.
pub(super) struct Batch<'b, F, I> {
    pub(super) work: &'b mut F,
    pub(super) items: &'b [I],
}

impl<U, F, I> Attempt<U> for Batch<'_, F, I>
where
    U: UnitOfWork,
    F: for<'u> ItemWork<'u, U, I> + Send,
    I: Clone + Send + Sync,
{
    type Output = ();

    async fn attempt(&mut self, unit_of_work: &mut U) -> Result<Outcome<()>> {
        for item in self.items {
            self.work.run(unit_of_work, item.clone()).await?;
        }
        Ok(Outcome::Commit(()))
    }
}
