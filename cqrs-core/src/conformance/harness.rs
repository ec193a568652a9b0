//! What a backend provides to be put through the suite.

use std::future::Future;
use std::sync::Arc;

use crate::clock::ManualClock;
use crate::envelope::{Envelope, Position, RawPayload};
use crate::interceptor::Interceptors;
use crate::maintenance::BulkStore;
use crate::store::RetryPolicy;

/// A backend for the suite.
///
/// Methods panic where they fail: a rule cannot be checked then.
pub trait Harness: Sync {
    /// The store under test.
    type Store: BulkStore;

    /// A new, empty store of this setup, with the [tables of the suite](super::fixtures::tables)
    /// and with its projections subscribed: [`ParcelList`](super::fixtures::ParcelList),
    /// [`LabelUses`](super::fixtures::LabelUses),
    /// [`CounterTotals`](super::fixtures::CounterTotals) and
    /// [`LockerList`](super::fixtures::LockerList), each under its `NAME`, and such that an event
    /// that cannot be decoded halts its subscription.
    ///
    /// [`wait_for`](crate::Store::wait_for) works on it without a call of [`project`](Self::project).
    fn store(&self, setup: Setup) -> impl Future<Output = Self::Store> + Send;

    /// Runs all subscriptions of the store to the end of the log, or to where they halt.
    fn project(&self, store: &Self::Store) -> impl Future<Output = ()> + Send;

    /// The whole log, in order.
    fn log(&self, store: &Self::Store) -> impl Future<Output = Vec<Envelope<RawPayload>>> + Send;

    /// The position of the event that halted this subscription; `None` while it is active.
    fn halted_at(
        &self,
        store: &Self::Store,
        subscription: &str,
    ) -> impl Future<Output = Option<Position>> + Send;
}

/// The settings of a store under test.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Setup {
    /// The clock of the store.
    pub clock: Arc<ManualClock>,
    /// The retry policy of the store.
    pub retry_policy: RetryPolicy,
    /// The interceptors of the store.
    pub interceptors: Interceptors,
}

impl Setup {
    pub(super) fn new(clock: Arc<ManualClock>, retry_policy: RetryPolicy) -> Self {
        Self {
            clock,
            retry_policy,
            interceptors: Interceptors::default(),
        }
    }
}
