//! The store in memory, put through the conformance suite.

use cqrs_core::conformance::fixtures::{CounterTotals, LabelUses, LockerList, ParcelList};
use cqrs_core::conformance::{Harness, Setup};
use cqrs_core::memory::{InMemoryTransaction, SubscriptionState};
use cqrs_core::{Envelope, InMemoryStore, Position, RawPayload, StartAt, Subscription};

struct Memory;

impl Harness for Memory {
    type Store = InMemoryStore;
    type Transaction = InMemoryTransaction;

    async fn store(&self, setup: Setup) -> InMemoryStore {
        let store = InMemoryStore::new()
            .with_clock(setup.clock)
            .with_retry_policy(setup.retry_policy)
            .with_interceptors(setup.interceptors);
        store.subscribe_rows(ParcelList).expect("the name is free");
        store.subscribe_rows(LabelUses).expect("the name is free");
        store
            .subscribe_rows(CounterTotals)
            .expect("the name is free");
        store.subscribe_rows(LockerList).expect("the name is free");
        store
    }

    async fn project(&self, store: &InMemoryStore) {
        // A subscription that halts is what some rules are about.
        let _ = store.project().await;
    }

    async fn log(&self, store: &InMemoryStore) -> Vec<Envelope<RawPayload>> {
        store.events()
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

    async fn resume(&self, store: &InMemoryStore, subscription: &str) {
        store.resume(subscription).expect("it is subscribed");
    }

    async fn pause(&self, store: &InMemoryStore, subscription: &str) {
        let paused = store.pause_subscription(subscription);
        paused.await.expect("it is subscribed");
    }

    async fn reset_subscription(
        &self,
        store: &InMemoryStore,
        make: &(dyn Fn() -> Subscription<InMemoryTransaction> + Sync),
        to: StartAt,
    ) -> cqrs_core::Result<()> {
        store.reset_subscription(make().name(), to).await
    }

    async fn dead_letters(&self, store: &InMemoryStore, subscription: &str) -> Vec<Position> {
        let letters = store.dead_letters(subscription);
        let letters = letters.expect("it is subscribed");
        letters
            .iter()
            .map(|letter| letter.event.position())
            .collect()
    }

    async fn replay_all(&self, store: &InMemoryStore, subscription: &str) {
        store.replay_all(subscription).expect("it is subscribed");
    }

    async fn discard_event(
        &self,
        store: &InMemoryStore,
        subscription: &str,
        position: Position,
    ) -> bool {
        store
            .discard_event(subscription, position)
            .expect("it is subscribed")
    }
}

mod conformance {
    use super::Memory;

    cqrs_core::conformance_suite!(
        #[tokio::test]
        Memory
    );
}

#[tokio::test]
async fn random_commands_end_alike_in_two_stores() {
    for seed in 0..20 {
        cqrs_core::conformance::differential::compare(&Memory, &Memory, seed, 120).await;
    }
}
