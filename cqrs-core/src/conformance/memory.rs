//! The store in memory under the suite.

use super::fixtures::{CounterTotals, LabelUses, LockerList, ParcelList};
use super::support::ok;
use super::{Harness, Setup};
use crate::envelope::{Envelope, Position, RawPayload};
use crate::error::Result;
use crate::integrity::{LogCheck, LogCheckReport};
use crate::memory::{InMemoryStore, InMemoryTransaction, SubscriptionState};
use crate::process::ProcessManager;
use crate::subscription::{StartAt, Subscription};

/// The suite's harness of the store in memory: for that store, and to compare others with.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory;

impl Harness for Memory {
    type Store = InMemoryStore;
    type Transaction = InMemoryTransaction;

    async fn store(&self, setup: Setup) -> InMemoryStore {
        let store = InMemoryStore::new()
            .with_clock(setup.clock)
            .with_retry_policy(setup.retry_policy)
            .with_interceptors(setup.interceptors)
            .with_schema_ids(setup.schema_ids);
        ok(store.subscribe_rows(ParcelList));
        ok(store.subscribe_rows(LabelUses));
        ok(store.subscribe_rows(CounterTotals));
        ok(store.subscribe_rows(LockerList));
        store
    }

    async fn project(&self, store: &InMemoryStore) {
        // A subscription that halts is what some rules are about.
        let _ = store.project().await;
    }

    async fn log(&self, store: &InMemoryStore) -> Vec<Envelope<RawPayload>> {
        store.events()
    }

    async fn check_log(&self, store: &InMemoryStore, check: &LogCheck) -> LogCheckReport {
        store.check_log(check)
    }

    async fn halted_at(&self, store: &InMemoryStore, subscription: &str) -> Option<Position> {
        match store.subscription_status(subscription)?.state {
            SubscriptionState::Halted { position, .. } => Some(position),
            _ => None,
        }
    }

    async fn run_subscription(
        &self,
        store: &InMemoryStore,
        make: &(dyn Fn() -> Subscription<InMemoryTransaction> + Sync),
    ) {
        // One that is there already is refused.
        let _ = store.subscribe_with(make());
        let _ = store.project().await;
    }

    async fn run_process<P: ProcessManager + Clone>(&self, store: &InMemoryStore, manager: P) {
        // One that is there already is refused.
        let _ = store.subscribe_process(manager);
        let _ = store.project().await;
    }

    async fn resume(&self, store: &InMemoryStore, subscription: &str) {
        ok(store.resume(subscription));
    }

    async fn pause(&self, store: &InMemoryStore, subscription: &str) {
        ok(store.pause_subscription(subscription).await);
    }

    async fn reset_subscription(
        &self,
        store: &InMemoryStore,
        make: &(dyn Fn() -> Subscription<InMemoryTransaction> + Sync),
        to: StartAt,
    ) -> Result<()> {
        store.reset_subscription(make().name(), to).await
    }

    async fn dead_letters(&self, store: &InMemoryStore, subscription: &str) -> Vec<Position> {
        let letters = ok(store.dead_letters(subscription));
        let positions = letters.iter().map(|letter| letter.event.position());
        positions.collect()
    }

    async fn replay_all(&self, store: &InMemoryStore, subscription: &str) {
        ok(store.replay_all(subscription));
    }

    async fn discard_event(
        &self,
        store: &InMemoryStore,
        subscription: &str,
        position: Position,
    ) -> bool {
        ok(store.discard_event(subscription, position))
    }
}
