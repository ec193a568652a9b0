//! Rows that were built anew take the place of others while pages of these are applied without a
//! lock.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use cqrs_core::{Envelope, Result, RowProjection, Subscription};
use cqrs_integration::domain::{ParcelEvent, ParcelId, ParcelView, ParcelViews};
use cqrs_integration::each::Fresh;
use cqrs_integration::random::seed;
use cqrs_integration::wire::WireProxy;
use cqrs_integration::workload::Workload;
use cqrs_sqlx::{Backend, PgStore, Postgres, SqlStore, StoreOptions, SwitchOver};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::support::operations;
use super::views::{NAME, Version, commit, rows, run};

/// How an unlocked page is committed.
const UNLOCKED: &str = "UPDATE cqrs_segment AS u SET position";

/// Holds a page in the middle of its fold.
struct Gate {
    /// Whether the next page is held.
    armed: AtomicBool,
    arrived: Semaphore,
    open: (Mutex<bool>, Condvar),
}

impl Gate {
    fn armed() -> Arc<Self> {
        Arc::new(Self {
            armed: AtomicBool::new(true),
            arrived: Semaphore::new(0),
            open: (Mutex::new(false), Condvar::new()),
        })
    }

    fn open(&self) {
        *self.open.0.lock().unwrap() = true;
        self.open.1.notify_all();
    }
}

/// The first version, of which a page may be held.
struct Held(Arc<Gate>);

impl RowProjection for Held {
    type Event = ParcelEvent;
    type Row = ParcelView;

    const NAME: &'static str = NAME;
    const ROW_PER_AGGREGATE: bool = true;
    const VERSION: u32 = 1;

    fn key(&self, event: &Envelope<ParcelEvent>) -> Result<Option<ParcelId>> {
        ParcelViews.key(event)
    }

    fn apply(&self, row: &mut Option<ParcelView>, event: &Envelope<ParcelEvent>) -> Result<()> {
        let gate = &self.0;
        if gate.armed.swap(false, Ordering::SeqCst) {
            gate.arrived.add_permits(1);
            // The runtime goes on without this thread.
            tokio::task::block_in_place(|| {
                let open = gate.open.0.lock().unwrap();
                drop(gate.open.1.wait_while(open, |open| !*open).unwrap());
            });
        }
        ParcelViews.apply(row, event)
    }
}

async fn versions<B: Backend>(store: &SqlStore<B>) -> Vec<(String, u32)> {
    let statuses = store.subscriptions().await.unwrap();
    let version = |status: cqrs_sqlx::SubscriptionStatus| (status.name, status.version);
    statuses.into_iter().map(version).collect()
}

/// What a worker read before the rows were exchanged, and folds after, is in no table twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_page_that_is_overtaken_by_the_exchange_is_given_up() {
    let (fresh, store) = Fresh::<Postgres>::with_store().await;
    let other = fresh.open(StoreOptions::default()).await;
    commit(&store, 5).await;
    run(&store, Version::<1>).await.unwrap();
    commit(&store, 3).await;
    commit(&store, 2).await;
    let gate = Gate::armed();
    let holding = {
        let projector = store.projector().rows(Held(Arc::clone(&gate)));
        tokio::spawn(async move { projector.run_until_idle().await })
    };
    gate.arrived.acquire().await.unwrap().forget();
    // It has no lock, so nobody waits for it.
    rebuild(&other, Version::<2>).await;
    run(&other, Version::<2>).await.unwrap();
    assert_eq!(versions(&other).await, [(NAME.to_owned(), 2)]);
    Workload::check_views(&other).await;
    gate.open();
    assert_eq!(holding.await.unwrap().unwrap(), 0, "it was applied in vain");
    Workload::check_views(&other).await;
    commit(&store, 1).await;
    assert_eq!(run(&other, Version::<2>).await.unwrap(), 1);
    Workload::check_views(&other).await;
}

/// Writers and replicas of both versions are at work, which apply pages without locks, while rows
/// are exchanged again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_exchanged_beside_unlocked_pages() {
    let (fresh, store) = Fresh::<Postgres>::with_store().await;
    let proxy = WireProxy::start(&fresh.url).await;
    let options = || StoreOptions::default().notifications(false);
    let replicas: [PgStore; 2] = [
        cqrs_integration::stores::postgres_with(proxy.url(), options()).await,
        cqrs_integration::stores::postgres_with(proxy.url(), options()).await,
    ];
    let mut running = Vec::new();
    for (store, page_size) in replicas.iter().zip([2, 20]) {
        let start = async |subscription: Subscription<_>| {
            let projector = store.projector().page_size(page_size);
            let projector = projector.poll_interval(Duration::from_millis(2));
            projector.subscribe(subscription).start().await.unwrap()
        };
        running.push(start(rows(Version::<1>)).await);
        running.push(start(rows(Version::<2>)).await);
    }
    let workload = Workload::new(300, 5);
    let seed = seed();
    let mut writers = JoinSet::new();
    for number in 0..4 {
        let writer = workload.clone().write(store.clone(), seed + number);
        writers.spawn(async move { writer.await.unwrap() });
    }
    let mut made = workload.made();
    for round in 1..=4_u32 {
        let version = round % 2 + 1;
        made.wait_for(|made| *made > 40 * u64::from(round))
            .await
            .unwrap();
        let before = proxy.counts();
        let building = match version {
            1 => rebuild(&replicas[0], Version::<1>).await,
            _ => rebuild(&replicas[0], Version::<2>).await,
        };
        let mut watch = store
            .watch_progress(&building)
            .every(Duration::from_millis(2));
        while let Ok(Some(_)) = watch.next().await {}
        assert_eq!(versions(&store).await, [(NAME.to_owned(), version)]);
        let sent = proxy.statements_since(&before);
        let unlocked = sent.iter().filter(|sql| sql.contains(UNLOCKED)).count();
        assert!(unlocked > 0, "pages were locked");
    }
    while let Some(writer) = writers.join_next().await {
        writer.unwrap();
    }
    run(&store, Version::<1>).await.unwrap();
    for handle in running {
        handle.stop(Duration::from_secs(30)).await;
    }
    workload.check(&store).await;
}

async fn rebuild(store: &PgStore, projection: impl RowProjection) -> String {
    let (operations, views) = (operations(store), rows(projection));
    let rebuild = operations.rebuild(&views, SwitchOver::WhenReady);
    rebuild.await.unwrap()
}
