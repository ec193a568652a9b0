//! The conformance suite on both databases, and both against memory.

use std::future::Future;
use std::sync::Mutex;
use std::time::Duration;

use cqrs_core::conformance::fixtures::{self, CounterTotals, LabelUses, LockerList, ParcelList};
use cqrs_core::conformance::{Harness, Setup};
use cqrs_core::integrity::{LogCheck, LogCheckReport};
use cqrs_core::process::ProcessManager;
use cqrs_core::{Envelope, Position, RawPayload, RequestContext, Result, StartAt, Subscription};
use cqrs_integration::database::{SecuredDatabase, TestDatabase, TestFile};
use cqrs_integration::wire::Pooler;
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

async fn with_tables<B: Backend>(store: SqlStore<B>) -> SqlStore<B> {
    store.migrate().await.unwrap();
    store.create_tables(&fixtures::tables()).await.unwrap();
    store
}

fn operations<B: Backend>(store: &SqlStore<B>) -> Operations<B> {
    store.operations(&RequestContext::system()).unwrap()
}

fn options(setup: &Setup) -> StoreOptions {
    StoreOptions::default()
        .clock(setup.clock.clone())
        .retry_policy(setup.retry_policy)
        .interceptors(setup.interceptors.clone())
        .schema_ids(setup.schema_ids.clone())
}

/// Where the stores of a harness are.
trait Place: Send + Sync + 'static {
    type Backend: Backend;
    /// What has to live as long as the harness of its test.
    type Database: Send;

    const NAMES_USED_ID: bool = true;

    /// An empty store, with all tables.
    fn open(
        setup: &Setup,
    ) -> impl Future<Output = (SqlStore<Self::Backend>, Self::Database)> + Send;
}

/// Each database lives as long as the harness of its test.
struct On<P: Place>(Mutex<Vec<(ProjectorHandle, P::Database)>>);

impl<P: Place> Default for On<P> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<P: Place> Harness for On<P> {
    type Store = SqlStore<P::Backend>;
    type Transaction = SqlTransaction<P::Backend>;

    const NAMES_USED_ID: bool = P::NAMES_USED_ID;

    async fn store(&self, setup: Setup) -> Self::Store {
        let (store, database) = P::open(&setup).await;
        store.verify(&fixtures::tables()).await.unwrap();
        let handle = projector(&store).start().await.unwrap();
        self.0.lock().unwrap().push((handle, database));
        store
    }

    async fn project(&self, store: &Self::Store) {
        projector(store).run_until_idle().await.ok();
    }

    async fn log(&self, store: &Self::Store) -> Vec<Envelope<RawPayload>> {
        store
            .events(&RequestContext::system(), Position::START, u32::MAX)
            .await
            .unwrap()
    }

    async fn check_log(&self, store: &Self::Store, check: &LogCheck) -> LogCheckReport {
        let checked = store.check_log(&RequestContext::system(), check).await;
        checked.unwrap()
    }

    async fn halted_at(&self, store: &Self::Store, name: &str) -> Option<Position> {
        let statuses = store.subscriptions().await.unwrap();
        let status = statuses.into_iter().find(|status| status.name == name)?;
        match status.state {
            SubscriptionState::Halted(failure) => failure.position,
            _ => None,
        }
    }

    async fn run_subscription(
        &self,
        store: &Self::Store,
        make: &(dyn Fn() -> Subscription<Self::Transaction> + Sync),
    ) {
        let projector = store.projector().subscribe(make());
        let projector = projector.retry_delays(Vec::<Duration>::new());
        projector.run_until_idle().await.ok();
    }

    async fn run_process<M: ProcessManager + Clone>(&self, store: &Self::Store, manager: M) {
        let projector = store.projector().process(manager);
        let projector = projector.retry_delays(Vec::<Duration>::new());
        projector.run_until_idle().await.ok();
    }

    async fn pause(&self, store: &Self::Store, subscription: &str) {
        operations(store).pause(subscription).await.unwrap();
    }

    async fn reset_subscription(
        &self,
        store: &Self::Store,
        make: &(dyn Fn() -> Subscription<Self::Transaction> + Sync),
        to: StartAt,
    ) -> Result<()> {
        operations(store).reset(&make(), to).await
    }

    async fn resume(&self, store: &Self::Store, subscription: &str) {
        operations(store).resume(subscription).await.unwrap();
    }

    async fn dead_letters(&self, store: &Self::Store, subscription: &str) -> Vec<Position> {
        let operations = operations(store);
        let letters = operations.dead_letters(subscription, Position::START, u32::MAX);
        let letters = letters.await.unwrap();
        letters.iter().map(|letter| letter.position).collect()
    }

    async fn replay_all(&self, store: &Self::Store, subscription: &str) {
        operations(store).replay_all(subscription).await.unwrap();
    }

    async fn discard_event(&self, store: &Self::Store, subscription: &str, at: Position) -> bool {
        let discarded = operations(store).discard_event(subscription, at).await;
        discarded.unwrap()
    }
}

struct OnPostgres;

impl Place for OnPostgres {
    type Backend = cqrs_sqlx::Postgres;
    type Database = TestDatabase;

    async fn open(setup: &Setup) -> (PgStore, TestDatabase) {
        open_with(options(setup)).await
    }
}

/// With commits that are sent together where they meet.
struct OnCoalescing;

impl Place for OnCoalescing {
    type Backend = cqrs_sqlx::Postgres;
    type Database = TestDatabase;

    async fn open(setup: &Setup) -> (PgStore, TestDatabase) {
        open_with(options(setup).coalesce(128)).await
    }
}

async fn open_with(options: StoreOptions) -> (PgStore, TestDatabase) {
    let database = TestDatabase::create().await;
    let url = database.url().parse().unwrap();
    let store = PgStore::connect_with(url, options).await.unwrap();
    (with_tables(store).await, database)
}

/// Under row-level security, as a role that it holds for.
struct OnSecured;

impl Place for OnSecured {
    type Backend = cqrs_sqlx::Postgres;
    type Database = SecuredDatabase;

    const NAMES_USED_ID: bool = false;

    async fn open(setup: &Setup) -> (PgStore, SecuredDatabase) {
        let database = SecuredDatabase::create(&fixtures::tables()).await;
        let url = database.url().parse().unwrap();
        let options = options(setup).row_level_security();
        let store = PgStore::connect_with(url, options).await.unwrap();
        (store, database)
    }
}

/// Behind a pooler that gives each transaction another process of the server. With few of them: a test
/// has a database, and many run at a time.
struct OnPooled;

impl Place for OnPooled {
    type Backend = cqrs_sqlx::Postgres;
    type Database = (Pooler, TestDatabase);

    async fn open(setup: &Setup) -> (PgStore, Self::Database) {
        let database = TestDatabase::create().await;
        let pooler = Pooler::start(database.url(), 4).await;
        let url = pooler.url().parse().unwrap();
        let store = PgStore::connect_with(url, options(setup)).await.unwrap();
        (with_tables(store).await, (pooler, database))
    }
}

struct OnSqlite;

impl Place for OnSqlite {
    type Backend = cqrs_sqlx::Sqlite;
    type Database = TestFile;

    async fn open(setup: &Setup) -> (SqliteStore, TestFile) {
        let file = TestFile::create();
        let url = file.url().parse().unwrap();
        let store = SqliteStore::connect_with(url, options(setup)).await;
        (with_tables(store.unwrap()).await, file)
    }
}

type Postgres = On<OnPostgres>;
type Coalescing = On<OnCoalescing>;
type Secured = On<OnSecured>;
type Pooled = On<OnPooled>;
type Sqlite = On<OnSqlite>;

mod differential {
    use cqrs_core::conformance::differential::compare;
    use cqrs_core::conformance::{Memory, seed};

    use super::{Postgres, Sqlite};

    /// `compare` names the one that failed.
    fn seeds() -> impl Iterator<Item = u64> {
        (seed()..).take(20)
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

mod coalescing {
    cqrs_core::conformance_suite!(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        super::Coalescing::default()
    );
}

mod secured {
    cqrs_core::conformance_suite!(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        super::Secured::default()
    );
}

mod pooled {
    cqrs_core::conformance_suite!(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        super::Pooled::default()
    );
}

mod sqlite {
    cqrs_core::conformance_suite!(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        super::Sqlite::default()
    );
}
