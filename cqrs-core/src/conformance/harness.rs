//! What a backend provides to be put through the suite.

use std::future::Future;
use std::sync::Arc;

use crate::clock::ManualClock;
use crate::envelope::{Envelope, Position, RawPayload};
use crate::error::Result;
use crate::integrity::{LogCheck, LogCheckReport};
use crate::interceptor::Interceptors;
use crate::maintenance::BulkStore;
use crate::process::ProcessManager;
use crate::projection::ProjectionTransaction;
use crate::schema::SchemaIds;
use crate::sealed::Sealing;
use crate::store::RetryPolicy;
use crate::subscription::{StartAt, Subscription};

/// A backend for the suite.
///
/// Methods panic where they fail: a rule cannot be checked then.
pub trait Harness: Sync {
    /// The store under test.
    type Store: BulkStore + Sealing;

    /// Whether the error of several inserts names the one whose id was used before. A database that
    /// hides rows by policies may not tell which it was.
    const NAMES_USED_ID: bool = true;
    /// The transaction of its projections.
    type Transaction: ProjectionTransaction;

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

    /// Checks the whole log.
    fn check_log(
        &self,
        store: &Self::Store,
        check: &LogCheck,
    ) -> impl Future<Output = LogCheckReport> + Send;

    /// The position of the event that halted this subscription; `None` while it is active.
    fn halted_at(
        &self,
        store: &Self::Store,
        subscription: &str,
    ) -> impl Future<Output = Option<Position>> + Send;

    /// Runs a subscription that a rule makes, which is registered when it is first run, to the end
    /// of the log or to where it halts. Replays what is due. No time passes between tries.
    fn run_subscription(
        &self,
        store: &Self::Store,
        make: &(dyn Fn() -> Subscription<Self::Transaction> + Sync),
    ) -> impl Future<Output = ()> + Send;

    /// Runs a process manager, which is registered when it is first run, until there is nothing to
    /// do or it halts. No time passes between tries.
    fn run_process<P: ProcessManager + Clone>(
        &self,
        store: &Self::Store,
        manager: P,
    ) -> impl Future<Output = ()> + Send;

    /// Pauses a subscription.
    fn pause(&self, store: &Self::Store, subscription: &str) -> impl Future<Output = ()> + Send;

    /// Resets a subscription that a rule makes.
    fn reset_subscription(
        &self,
        store: &Self::Store,
        make: &(dyn Fn() -> Subscription<Self::Transaction> + Sync),
        to: StartAt,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Lets a halted or paused subscription go on.
    fn resume(&self, store: &Self::Store, subscription: &str) -> impl Future<Output = ()> + Send;

    /// The positions of the dead letters of a subscription, in order.
    fn dead_letters(
        &self,
        store: &Self::Store,
        subscription: &str,
    ) -> impl Future<Output = Vec<Position>> + Send;

    /// Has all parked events of a subscription replayed when it is run next.
    fn replay_all(
        &self,
        store: &Self::Store,
        subscription: &str,
    ) -> impl Future<Output = ()> + Send;

    /// Gives up a dead letter; whether there was one.
    fn discard_event(
        &self,
        store: &Self::Store,
        subscription: &str,
        position: Position,
    ) -> impl Future<Output = bool> + Send;
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
    /// The ids of the schemas of events.
    pub schema_ids: SchemaIds,
}

impl Setup {
    pub(super) fn new(clock: Arc<ManualClock>, retry_policy: RetryPolicy) -> Self {
        Self {
            clock,
            retry_policy,
            interceptors: Interceptors::default(),
            schema_ids: SchemaIds::default(),
        }
    }
}
