//! Subscriptions that are paused, resumed and reset while they run in several processes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use cqrs_core::{
    Envelope, EventBus, Position, Query, RawPayload, ReadModels, RequestContext, Result,
    RowProjection, StartAt, Store, Subscription,
};
use cqrs_integration::database::{TestDatabase, TestFile};
use cqrs_integration::domain::{ParcelView, ParcelViews};
use cqrs_integration::stores;
use cqrs_integration::workload::Workload;
use cqrs_sqlx::{Backend, SqlStore, SqlTransaction, SubscriptionState};
use tokio::task::JoinSet;

use super::support::{Gate, Recorder, applied, commit, on_each_database, state};

on_each_database!(
    a_pause_waits_for_the_page_under_way,
    operations_are_recorded,
);

/// The page under way is applied as a whole, and none after it.
async fn a_pause_waits_for_the_page_under_way<B: Backend>(store: SqlStore<B>) {
    let (recorder, gate) = Recorder::new("recorder").with_gate();
    let projector = store
        .projector()
        .subscribe(Subscription::new(recorder))
        .page_size(1)
        .start()
        .await
        .unwrap();
    let last = commit(&store, 2).await.0;
    let Gate { arrived, open } = &*gate;
    arrived.acquire().await.unwrap().forget();
    let operations = store.operations(&RequestContext::system()).unwrap();
    let pausing = tokio::spawn({
        let operations = store.operations(&RequestContext::system()).unwrap();
        async move { operations.pause("recorder").await }
    });
    open.add_permits(3);
    pausing.await.unwrap().unwrap();
    let before = applied(&store).await;
    assert!(!before.is_empty(), "the page that was under way");
    assert_eq!(state(&store).await, SubscriptionState::Paused);
    let later = commit(&store, 0).await.0;
    open.add_permits(100);
    assert_eq!(applied(&store).await, before);

    operations.resume("recorder").await.unwrap();
    let receipt = super::support::receipt(&store, 0).await;
    store.wait_for(&receipt, "recorder").await.unwrap();
    assert_eq!(
        applied(&store).await,
        (1..=later + 1).collect::<Vec<_>>(),
        "{last}"
    );
    drop(projector);
}

async fn operations_are_recorded<B: Backend>(store: SqlStore<B>) {
    let make = || Subscription::new(Recorder::new("recorder"));
    let projector = store.projector().rows(ParcelViews).subscribe(make());
    commit(&store, 1).await;
    projector.run_until_idle().await.unwrap();
    let operations = store.operations(&RequestContext::system()).unwrap();
    operations.pause(ParcelViews::NAME).await.unwrap();
    // Its rows cannot be cleared: nothing is done, and nothing recorded.
    operations
        .reset(&make(), StartAt::Beginning)
        .await
        .unwrap_err();
    let views = Subscription::named(ParcelViews::NAME).rows(ParcelViews);
    operations.reset(&views, StartAt::Beginning).await.unwrap();
    operations.resume(ParcelViews::NAME).await.unwrap();
    let records = operations.records(10).await.unwrap();
    let records: Vec<_> = records
        .iter()
        .map(|record| (record.operation.as_str(), record.detail.as_str()))
        .collect();
    assert_eq!(records, [("resume", ""), ("reset", "to 0"), ("pause", "")]);
}

/// How often each event was published.
#[derive(Clone, Default)]
struct Bus(Arc<Mutex<BTreeMap<i64, u32>>>);

impl EventBus for Bus {
    async fn publish(&self, page: &[Envelope<RawPayload>]) -> Result<()> {
        let mut published = self.0.lock().unwrap();
        for event in page {
            *published.entry(event.position().0).or_default() += 1;
        }
        Ok(())
    }
}

async fn views<B: Backend>(store: &SqlStore<B>) -> Vec<ParcelView> {
    let read_models = store.read_models(&RequestContext::system());
    let mut views = read_models.query(Query::all()).await.unwrap();
    views.sort_by_key(|view: &ParcelView| view.id.to_string());
    views
}

fn subscription<B: Backend>(bus: &Bus) -> Subscription<SqlTransaction<B>> {
    Subscription::named("views")
        .rows(ParcelViews)
        .relay(bus.clone())
        .segments(2)
}

/// Two replicas run a subscription while writers commit, and an operator pauses, resumes and
/// resets it. In the end the rows are the fold of the log, and each event was published once.
async fn under_work<B: Backend>(one: SqlStore<B>, other: SqlStore<B>) {
    let bus = Bus::default();
    let mut projectors = Vec::new();
    for store in [&one, &other] {
        let projector = store.projector().subscribe(subscription(&bus)).page_size(3);
        projectors.push(projector.start().await.unwrap());
    }
    let mut writers = JoinSet::new();
    for _ in 0..2 {
        let store = one.clone();
        writers.spawn(async move {
            for weighings in 0..12 {
                commit(&store, weighings % 3).await;
            }
        });
    }
    let operations = other.operations(&RequestContext::system()).unwrap();
    for round in 0..4 {
        operations.pause("views").await.unwrap();
        let paused = views(&one).await;
        commit(&one, 1).await;
        assert_eq!(views(&one).await, paused, "nothing is applied");
        if round % 2 == 1 {
            operations
                .reset(&subscription(&bus), StartAt::Beginning)
                .await
                .unwrap();
            assert_eq!(views(&one).await, [], "nothing is left");
        }
        operations.resume("views").await.unwrap();
        if round == 2 {
            operations
                .reset(&subscription(&bus), StartAt::Beginning)
                .await
                .unwrap();
        }
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    let receipt = super::support::receipt(&one, 0).await;
    one.wait_for(&receipt, "views").await.unwrap();
    Workload::check_views(&one).await;
    let log = one
        .events(&RequestContext::system(), Position::START, u32::MAX)
        .await
        .unwrap();
    let published: Vec<_> = bus.0.lock().unwrap().clone().into_iter().collect();
    let expected: Vec<_> = log.iter().map(|event| (event.position().0, 1)).collect();
    assert_eq!(published, expected);
    drop(projectors);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn paused_and_reset_under_work_on_postgres() {
    let database = TestDatabase::create().await;
    let one = stores::postgres(database.url()).await;
    let other = stores::postgres(database.url()).await;
    under_work(one, other).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn paused_and_reset_under_work_on_sqlite() {
    let file = TestFile::create();
    let one = stores::sqlite(&file.url()).await;
    let other = stores::sqlite(&file.url()).await;
    under_work(one, other).await;
}
