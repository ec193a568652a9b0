//! The conformance suite on both databases, and both against memory.

use std::sync::Mutex;
use std::time::Duration;

use cqrs_core::conformance::fixtures::{self, CounterTotals, LabelUses, LockerList, ParcelList};
use cqrs_core::conformance::{Harness, Setup};
use cqrs_core::memory::InMemoryTransaction;
use cqrs_core::{
    Envelope, InMemoryStore, Position, RawPayload, RequestContext, Result, StartAt, Subscription,
};
use cqrs_integration::database::{SecuredDatabase, TestDatabase, TestFile};
use cqrs_sqlx::{
    Backend, Operations, PgStore, ProjectorBuilder, ProjectorHandle, SqlStore, SqlTransaction,
    SqliteStore, StoreOptions, SubscriptionState,
};

/// The suite's projections, which halt at their first failure.
fn projector<B: Backend>(store: &SqlStore<B>) -> ProjectorBuilder<B> {
    store
        .projector()
        .retry_delays(Vec::<Duration>::new())
        .rows(ParcelList)
        .rows(LabelUses)
        .rows(CounterTotals)
        .rows(LockerList)
}

async fn prepare<B: Backend>(store: &SqlStore<B>) -> ProjectorHandle {
    store.migrate().await.unwrap();
    store.create_tables(&fixtures::tables()).await.unwrap();
    store.verify(&fixtures::tables()).await.unwrap();
    projector(store).start().await.unwrap()
}

async fn log<B: Backend>(store: &SqlStore<B>) -> Vec<Envelope<RawPayload>> {
    store
        .events(&RequestContext::system(), Position::START, u32::MAX)
        .await
        .unwrap()
}

async fn halted_at<B: Backend>(store: &SqlStore<B>, name: &str) -> Option<Position> {
    let statuses = store.subscriptions().await.unwrap();
    let status = statuses.into_iter().find(|status| status.name == name)?;
    match status.state {
        SubscriptionState::Halted(failure) => failure.position,
        _ => None,
    }
}

async fn run_subscription<B: Backend>(
    store: &SqlStore<B>,
    subscription: Subscription<SqlTransaction<B>>,
) {
    let projector = store.projector().subscribe(subscription);
    let projector = projector.retry_delays(Vec::<Duration>::new());
    projector.run_until_idle().await.ok();
}

fn operations<B: Backend>(store: &SqlStore<B>) -> Operations<B> {
    store.operations(&RequestContext::system()).unwrap()
}

async fn dead_letters<B: Backend>(store: &SqlStore<B>, name: &str) -> Vec<Position> {
    let operations = operations(store);
    let letters = operations.dead_letters(name, Position::START, u32::MAX);
    let letters = letters.await.unwrap();
    letters.iter().map(|letter| letter.position).collect()
}

fn options(setup: &Setup) -> StoreOptions {
    StoreOptions::default()
        .clock(setup.clock.clone())
        .retry_policy(setup.retry_policy)
        .interceptors(setup.interceptors.clone())
}

/// Each database lives as long as the harness of its test.
#[derive(Default)]
struct Postgres(Mutex<Vec<(ProjectorHandle, TestDatabase)>>);

impl Harness for Postgres {
    type Store = PgStore;
    type Transaction = SqlTransaction<cqrs_sqlx::Postgres>;

    async fn store(&self, setup: Setup) -> PgStore {
        let database = TestDatabase::create().await;
        let url = database.url().parse().unwrap();
        let store = PgStore::connect_with(url, options(&setup)).await.unwrap();
        let handle = prepare(&store).await;
        self.0.lock().unwrap().push((handle, database));
        store
    }

    async fn project(&self, store: &PgStore) {
        projector(store).run_until_idle().await.ok();
    }

    async fn log(&self, store: &PgStore) -> Vec<Envelope<RawPayload>> {
        log(store).await
    }

    async fn halted_at(&self, store: &PgStore, subscription: &str) -> Option<Position> {
        halted_at(store, subscription).await
    }

    async fn run_subscription(
        &self,
        store: &PgStore,
        make: &(dyn Fn() -> Subscription<Self::Transaction> + Sync),
    ) {
        run_subscription(store, make()).await;
    }

    async fn pause(&self, store: &PgStore, subscription: &str) {
        operations(store).pause(subscription).await.unwrap();
    }

    async fn reset_subscription(
        &self,
        store: &PgStore,
        make: &(dyn Fn() -> Subscription<Self::Transaction> + Sync),
        to: StartAt,
    ) -> Result<()> {
        operations(store).reset(&make(), to).await
    }

    async fn resume(&self, store: &PgStore, subscription: &str) {
        operations(store).resume(subscription).await.unwrap();
    }

    async fn dead_letters(&self, store: &PgStore, subscription: &str) -> Vec<Position> {
        dead_letters(store, subscription).await
    }

    async fn replay_all(&self, store: &PgStore, subscription: &str) {
        operations(store).replay_all(subscription).await.unwrap();
    }

    async fn discard_event(&self, store: &PgStore, subscription: &str, at: Position) -> bool {
        let discarded = operations(store).discard_event(subscription, at).await;
        discarded.unwrap()
    }
}

/// Under row-level security, as a role that it holds for.
#[derive(Default)]
struct Secured(Mutex<Vec<(ProjectorHandle, SecuredDatabase)>>);

impl Harness for Secured {
    type Store = PgStore;

    const NAMES_USED_ID: bool = false;
    type Transaction = SqlTransaction<cqrs_sqlx::Postgres>;

    async fn store(&self, setup: Setup) -> PgStore {
        let database = SecuredDatabase::create(&fixtures::tables()).await;
        let url = database.url().parse().unwrap();
        let options = options(&setup).row_level_security();
        let store = PgStore::connect_with(url, options).await.unwrap();
        store.verify(&fixtures::tables()).await.unwrap();
        let handle = projector(&store).start().await.unwrap();
        self.0.lock().unwrap().push((handle, database));
        store
    }

    async fn project(&self, store: &PgStore) {
        projector(store).run_until_idle().await.ok();
    }

    async fn log(&self, store: &PgStore) -> Vec<Envelope<RawPayload>> {
        log(store).await
    }

    async fn halted_at(&self, store: &PgStore, subscription: &str) -> Option<Position> {
        halted_at(store, subscription).await
    }

    async fn run_subscription(
        &self,
        store: &PgStore,
        make: &(dyn Fn() -> Subscription<Self::Transaction> + Sync),
    ) {
        run_subscription(store, make()).await;
    }

    async fn pause(&self, store: &PgStore, subscription: &str) {
        operations(store).pause(subscription).await.unwrap();
    }

    async fn reset_subscription(
        &self,
        store: &PgStore,
        make: &(dyn Fn() -> Subscription<Self::Transaction> + Sync),
        to: StartAt,
    ) -> Result<()> {
        operations(store).reset(&make(), to).await
    }

    async fn resume(&self, store: &PgStore, subscription: &str) {
        operations(store).resume(subscription).await.unwrap();
    }

    async fn dead_letters(&self, store: &PgStore, subscription: &str) -> Vec<Position> {
        dead_letters(store, subscription).await
    }

    async fn replay_all(&self, store: &PgStore, subscription: &str) {
        operations(store).replay_all(subscription).await.unwrap();
    }

    async fn discard_event(&self, store: &PgStore, subscription: &str, at: Position) -> bool {
        let discarded = operations(store).discard_event(subscription, at).await;
        discarded.unwrap()
    }
}

/// Each file lives as long as the harness of its test.
#[derive(Default)]
struct Sqlite(Mutex<Vec<(ProjectorHandle, TestFile)>>);

impl Harness for Sqlite {
    type Store = SqliteStore;
    type Transaction = SqlTransaction<cqrs_sqlx::Sqlite>;

    async fn store(&self, setup: Setup) -> SqliteStore {
        let file = TestFile::create();
        let url = file.url().parse().unwrap();
        let store = SqliteStore::connect_with(url, options(&setup))
            .await
            .unwrap();
        let handle = prepare(&store).await;
        self.0.lock().unwrap().push((handle, file));
        store
    }

    async fn project(&self, store: &SqliteStore) {
        projector(store).run_until_idle().await.ok();
    }

    async fn log(&self, store: &SqliteStore) -> Vec<Envelope<RawPayload>> {
        log(store).await
    }

    async fn halted_at(&self, store: &SqliteStore, subscription: &str) -> Option<Position> {
        halted_at(store, subscription).await
    }

    async fn run_subscription(
        &self,
        store: &SqliteStore,
        make: &(dyn Fn() -> Subscription<Self::Transaction> + Sync),
    ) {
        run_subscription(store, make()).await;
    }

    async fn pause(&self, store: &SqliteStore, subscription: &str) {
        operations(store).pause(subscription).await.unwrap();
    }

    async fn reset_subscription(
        &self,
        store: &SqliteStore,
        make: &(dyn Fn() -> Subscription<Self::Transaction> + Sync),
        to: StartAt,
    ) -> Result<()> {
        operations(store).reset(&make(), to).await
    }

    async fn resume(&self, store: &SqliteStore, subscription: &str) {
        operations(store).resume(subscription).await.unwrap();
    }

    async fn dead_letters(&self, store: &SqliteStore, subscription: &str) -> Vec<Position> {
        dead_letters(store, subscription).await
    }

    async fn replay_all(&self, store: &SqliteStore, subscription: &str) {
        operations(store).replay_all(subscription).await.unwrap();
    }

    async fn discard_event(&self, store: &SqliteStore, subscription: &str, at: Position) -> bool {
        let discarded = operations(store).discard_event(subscription, at).await;
        discarded.unwrap()
    }
}

struct Memory;

impl Harness for Memory {
    type Store = InMemoryStore;
    type Transaction = InMemoryTransaction;

    async fn store(&self, setup: Setup) -> InMemoryStore {
        let store = InMemoryStore::new()
            .with_clock(setup.clock)
            .with_retry_policy(setup.retry_policy)
            .with_interceptors(setup.interceptors);
        store.subscribe_rows(ParcelList).unwrap();
        store.subscribe_rows(LabelUses).unwrap();
        store.subscribe_rows(CounterTotals).unwrap();
        store.subscribe_rows(LockerList).unwrap();
        store
    }

    async fn project(&self, store: &InMemoryStore) {
        store.project().await.ok();
    }

    async fn log(&self, store: &InMemoryStore) -> Vec<Envelope<RawPayload>> {
        store.events()
    }

    async fn halted_at(&self, _: &InMemoryStore, _: &str) -> Option<Position> {
        None
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

    async fn pause(&self, store: &InMemoryStore, subscription: &str) {
        store.pause_subscription(subscription).await.unwrap();
    }

    async fn reset_subscription(
        &self,
        store: &InMemoryStore,
        make: &(dyn Fn() -> Subscription<Self::Transaction> + Sync),
        to: StartAt,
    ) -> Result<()> {
        store.reset_subscription(make().name(), to).await
    }

    async fn resume(&self, store: &InMemoryStore, subscription: &str) {
        store.resume(subscription).expect("it is subscribed");
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

mod differential {
    use std::time::{SystemTime, UNIX_EPOCH};

    use cqrs_core::conformance::differential::compare;

    use super::{Memory, Postgres, Sqlite};

    /// Another seed for each run; `compare` names the one that failed.
    fn seeds() -> impl Iterator<Item = u64> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        (0..20).map(move |step| now.as_nanos() as u64 + step)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn random_commands_end_alike_in_memory_and_postgres() {
        for seed in seeds() {
            compare(&Memory, &Postgres::default(), seed, 100).await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn random_commands_end_alike_in_memory_and_sqlite() {
        for seed in seeds() {
            compare(&Memory, &Sqlite::default(), seed, 100).await;
        }
    }
}

mod postgres {
    cqrs_core::conformance_suite!(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        super::Postgres::default()
    );
}

mod secured {
    cqrs_core::conformance_suite!(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        super::Secured::default()
    );
}

mod sqlite {
    cqrs_core::conformance_suite!(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        super::Sqlite::default()
    );
}
