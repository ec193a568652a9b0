//! The conformance suite: what every [`Store`](crate::Store) does alike, as functions that any
//! store can be put through.
//!
//! A backend implements [`Harness`] and invokes
//! [`conformance_suite!`](crate::conformance_suite), which makes one test of each rule. The rules
//! are the functions of the modules here; each states its rule and panics where it is broken.
//!
//! A rule uses a store of its own, never two units of work at once that both have sent something:
//! a database with one writer can be put through all of them.
//!
//! [`differential`] drives two stores with the same random commands and compares all that can be
//! seen of them; [`Memory`] is the harness of the store in memory, to compare with.
//!
//! # Example
//!
//! ```
//! use cqrs_core::conformance::fixtures::{CounterTotals, LabelUses, LockerList, ParcelList};
//! use cqrs_core::conformance::{Harness, Setup};
//! use cqrs_core::integrity::{LogCheck, LogCheckReport};
//! use cqrs_core::memory::{InMemoryTransaction, SubscriptionState};
//! use cqrs_core::process::ProcessManager;
//! use cqrs_core::{Envelope, InMemoryStore, Position, RawPayload, StartAt, Subscription};
//!
//! struct Memory;
//!
//! impl Harness for Memory {
//!     type Store = InMemoryStore;
//!     type Transaction = InMemoryTransaction;
//!
//!     async fn store(&self, setup: Setup) -> InMemoryStore {
//!         let store = InMemoryStore::new()
//!             .with_clock(setup.clock)
//!             .with_retry_policy(setup.retry_policy)
//!             .with_interceptors(setup.interceptors)
//!             .with_schema_ids(setup.schema_ids);
//!         store.subscribe_rows(ParcelList).unwrap();
//!         store.subscribe_rows(LabelUses).unwrap();
//!         store.subscribe_rows(CounterTotals).unwrap();
//!         store.subscribe_rows(LockerList).unwrap();
//!         store
//!     }
//!
//!     async fn project(&self, store: &InMemoryStore) {
//!         // A subscription that halts is what some rules are about.
//!         let _ = store.project().await;
//!     }
//!
//!     async fn log(&self, store: &InMemoryStore) -> Vec<Envelope<RawPayload>> {
//!         store.events()
//!     }
//!
//!     async fn check_log(&self, store: &InMemoryStore, check: &LogCheck) -> LogCheckReport {
//!         store.check_log(check)
//!     }
//!
//!     async fn halted_at(&self, store: &InMemoryStore, subscription: &str) -> Option<Position> {
//!         match store.subscription_status(subscription)?.state {
//!             SubscriptionState::Halted { position, .. } => Some(position),
//!             _ => None,
//!         }
//!     }
//!
//!     async fn run_subscription(
//!         &self,
//!         store: &InMemoryStore,
//!         make: &(dyn Fn() -> Subscription<InMemoryTransaction> + Sync),
//!     ) {
//!         // One that is there already is refused.
//!         let _ = store.subscribe_with(make());
//!         let _ = store.project().await;
//!     }
//!
//!     async fn run_process<P: ProcessManager + Clone>(&self, store: &InMemoryStore, manager: P) {
//!         let _ = store.subscribe_process(manager);
//!         let _ = store.project().await;
//!     }
//!
//!     async fn resume(&self, store: &InMemoryStore, subscription: &str) {
//!         store.resume(subscription).unwrap();
//!     }
//!
//!     async fn pause(&self, store: &InMemoryStore, subscription: &str) {
//!         store.pause_subscription(subscription).await.unwrap();
//!     }
//!
//!     async fn reset_subscription(
//!         &self,
//!         store: &InMemoryStore,
//!         make: &(dyn Fn() -> Subscription<InMemoryTransaction> + Sync),
//!         to: StartAt,
//!     ) -> cqrs_core::Result<()> {
//!         store.reset_subscription(make().name(), to).await
//!     }
//!
//!     async fn dead_letters(&self, store: &InMemoryStore, subscription: &str) -> Vec<Position> {
//!         let letters = store.dead_letters(subscription).unwrap();
//!         letters.iter().map(|letter| letter.event.position()).collect()
//!     }
//!
//!     async fn replay_all(&self, store: &InMemoryStore, subscription: &str) {
//!         store.replay_all(subscription).unwrap();
//!     }
//!
//!     async fn discard_event(
//!         &self,
//!         store: &InMemoryStore,
//!         subscription: &str,
//!         position: Position,
//!     ) -> bool {
//!         store.discard_event(subscription, position).unwrap()
//!     }
//! }
//!
//! cqrs_core::conformance_suite!(#[tokio::test] Memory);
//! ```

pub mod agreement;
pub mod audit;
pub mod batches;
pub mod bulk_changes;
pub mod bulk_inserts;
pub mod chains;
pub mod changes;
pub mod children;
pub mod columns;
pub mod conflicts;
pub mod consistency;
pub mod decisions;
pub mod differential;
pub mod event_sets;
pub mod execute;
pub mod exports;
pub mod finders;
pub mod fixtures;
pub mod forgetting;
mod harness;
pub mod history;
pub mod idempotency;
pub mod identity;
pub mod inbox;
pub mod inline;
pub mod interceptors;
pub mod life_cycle;
pub mod live;
pub mod log;
mod memory;
pub mod pages;
pub mod processes;
pub mod projections;
mod random;
pub mod reading;
pub mod repositories;
pub mod revisions;
pub mod savepoints;
pub mod schemas;
pub mod sourced;
pub mod streams;
pub mod subscriptions;
mod suite;
mod support;
pub mod tenants;
mod trace;
pub mod twins;
pub mod unit_of_work;
pub mod upcasts;

pub use harness::{Harness, Setup};
pub use memory::Memory;
pub use random::seed;
