//! Pages: their ends, the events between them, and who applies them.

use std::time::Duration;

use cqrs_core::{Error, RequestContext, StoreErrorKind};
use cqrs_core::{Query, ReadModels, Store};
use cqrs_integration::database::{TestDatabase, TestFile};
use cqrs_integration::domain::{ParcelView, ParcelViews};
use cqrs_integration::each::Fresh;
use cqrs_integration::stores;
use cqrs_sqlx::{Backend, SqlStore, Sqlite};
use sqlx::{Connection as _, PgConnection};

use super::support::{
    Recorder, applied, commit, commit_truck, on_each_database, receipt, with_tables,
};

on_each_database!(
    every_page_size_delivers_everything_once,
    events_of_other_aggregates_are_passed_over,
    without_events_there_is_nothing_to_do,
    names_are_checked,
);

async fn every_page_size_delivers_everything_once<B: Backend>(store: SqlStore<B>) {
    const NAMES: [&str; 3] = ["by one", "by two", "by three"];
    let mut last = 0;
    for weighings in 0..7 {
        let before = last;
        last = commit(&store, weighings).await.0;
        for (name, size) in NAMES.into_iter().zip(1..) {
            let recorder = Recorder::new(name);
            let projector = store.projector().projection(recorder.clone());
            let events = projector.page_size(size).run_until_idle().await.unwrap();
            assert_eq!(events, last.abs_diff(before));
            let pages = recorder.pages();
            assert_eq!(pages.concat(), (before + 1..=last).collect::<Vec<_>>());
            assert!(pages.iter().all(|page| page.len() <= size as usize));
        }
    }
    let thrice: Vec<i64> = (1..=last).flat_map(|position| [position; 3]).collect();
    assert_eq!(applied(&store).await, thrice);
}

/// On SQLite a page is read under the lock of all writers: one that finds nothing in a part of the log
/// ends there, and the next goes on behind it.
#[tokio::test]
async fn a_page_looks_through_a_part_of_the_log() {
    let (fresh, store) = Fresh::<Sqlite>::with_store().await;
    let store = with_tables(store).await;
    assert_eq!(commit(&store, 0).await.0, 1);
    fresh
        .run("UPDATE cqrs_event SET position = 250000; UPDATE sqlite_sequence SET seq = 250000")
        .await;
    let failing = Recorder::new("failing").with_fault(|_| Err(Error::other("always")));
    let projector = store.projector().projection(failing).retry_delays([]);
    projector.run_until_idle().await.unwrap_err();
    // Two parts were passed and committed before the one that has the event.
    let status = &store.subscriptions().await.unwrap()[0];
    assert_eq!(status.position.0, 200_000);

    let projector = store.projector().projection(Recorder::new("recorder"));
    assert_eq!(projector.run_until_idle().await.unwrap(), 1);
    assert_eq!(applied(&store).await, [250_000]);
}

async fn events_of_other_aggregates_are_passed_over<B: Backend>(store: SqlStore<B>) {
    let projector = store.projector().rows(ParcelViews).page_size(1);
    for _ in 0..3 {
        commit_truck(&store).await;
    }
    assert_eq!(projector.run_until_idle().await.unwrap(), 0);
    let status = &store.subscriptions().await.unwrap()[0];
    assert_eq!((status.position.0, status.lag), (3, 0));

    commit(&store, 1).await;
    let truck = commit_truck(&store).await;
    assert_eq!(projector.run_until_idle().await.unwrap(), 2);
    let status = &store.subscriptions().await.unwrap()[0];
    assert_eq!(status.position, truck);
    let views = store
        .read_models(&RequestContext::system())
        .query::<ParcelView>(Query::all())
        .await
        .unwrap();
    assert_eq!(views.len(), 1);
    assert_eq!(views[0].events, 2);
}

async fn without_events_there_is_nothing_to_do<B: Backend>(store: SqlStore<B>) {
    let recorder = Recorder::new("recorder");
    let projector = store.projector().projection(recorder.clone());
    assert_eq!(projector.run_until_idle().await.unwrap(), 0);
    commit(&store, 0).await;
    assert_eq!(projector.run_until_idle().await.unwrap(), 1);
    assert_eq!(projector.run_until_idle().await.unwrap(), 0);
    assert_eq!(recorder.pages(), [[1]]);
    assert_eq!(store.projector().run_until_idle().await.unwrap(), 0);
}

async fn names_are_checked<B: Backend>(store: SqlStore<B>) {
    let usage = |error: Error| match error {
        Error::Store(error) if *error.kind() == StoreErrorKind::Usage => error.to_string(),
        other => panic!("{other:?}"),
    };
    let twice = || {
        let projector = store.projector().projection(Recorder::new("same"));
        projector
            .rows(ParcelViews)
            .projection(Recorder::new("same"))
    };
    let message = usage(twice().start().await.unwrap_err());
    assert_eq!(message, "two subscriptions are named \"same\"");
    usage(twice().run_until_idle().await.unwrap_err());
    for name in ["", "a\0b"] {
        let projector = store.projector().projection(Recorder::new(name));
        let message = usage(projector.start().await.unwrap_err());
        assert!(message.contains("1 to 255 bytes"), "{message}");
    }
    assert_eq!(store.subscriptions().await.unwrap(), []);
}

/// Two stores, as of two processes, each with a projector for the same subscriptions.
async fn two_projectors_share_the_work<B: Backend>(one: SqlStore<B>, two: SqlStore<B>) {
    const NAMES: [&str; 2] = ["first", "second"];
    let start = async |store: &SqlStore<B>| {
        let projector = store
            .projector()
            .page_size(3)
            .poll_interval(Duration::from_millis(5))
            .rows(ParcelViews);
        let projector = NAMES.into_iter().fold(projector, |projector, name| {
            projector.projection(Recorder::new(name))
        });
        projector.start().await.unwrap()
    };
    let handles = (start(&one).await, start(&two).await);
    let write = async |store: &SqlStore<B>| {
        for weighings in 0..20 {
            commit(store, weighings % 5).await;
        }
    };
    tokio::join!(write(&one), write(&two));
    let last = receipt(&one, 0).await;
    for name in NAMES.into_iter().chain(["parcel_view"]) {
        two.wait_for(&last, name).await.unwrap();
    }
    drop(handles);

    let positions = applied(&one).await;
    let last = last.position().unwrap().0;
    assert!(positions.len() > 100 && positions.len() % 2 == 0);
    assert_eq!(positions.last(), Some(&last));
    for pair in positions.chunks(2) {
        assert_eq!(pair[0], pair[1], "once by each subscription");
    }
    assert!(positions.chunks(2).is_sorted_by(|a, b| a[0] < b[0]));
    let views = one
        .read_models(&RequestContext::system())
        .query::<ParcelView>(Query::all())
        .await
        .unwrap();
    assert_eq!(views.len(), 41);
    assert!(views.iter().all(|view| view.events == view.version));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_projectors_share_the_work_on_postgres() {
    let database = TestDatabase::create().await;
    let one = with_tables(stores::postgres(database.url()).await).await;
    let two = stores::postgres_with(database.url(), cqrs_sqlx::StoreOptions::default()).await;
    two_projectors_share_the_work(one, two).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_projectors_share_the_work_on_sqlite() {
    let file = TestFile::create();
    let one = with_tables(stores::sqlite(&file.url()).await).await;
    let two = stores::sqlite(&file.url()).await;
    two_projectors_share_the_work(one, two).await;
}

/// A worker keeps no transaction while it waits for events, also where its last page was full.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_keeps_no_transaction() {
    let database = TestDatabase::create().await;
    let store = with_tables(stores::postgres(database.url()).await).await;
    let projector = store.projector().projection(Recorder::new("recorder"));
    let projector = projector
        .page_size(1)
        .poll_interval(Duration::from_secs(3600));
    let _handle = projector.start().await.unwrap();
    let mut observer = PgConnection::connect(database.url()).await.unwrap();
    // The second comes to a worker that knows where it stands.
    for _ in 0..2 {
        let receipt = receipt(&store, 0).await;
        store.wait_for(&receipt, "recorder").await.unwrap();
        let ended = async {
            while in_transactions(&mut observer).await > 0 {
                tokio::task::yield_now().await;
            }
        };
        // It would ask whether that is so after ten.
        let ended = tokio::time::timeout(Duration::from_secs(5), ended).await;
        ended.expect("nothing is open");
    }
}

/// How many sessions wait in the middle of a transaction.
async fn in_transactions(observer: &mut PgConnection) -> i64 {
    sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND state = 'idle in transaction'",
    )
    .fetch_one(observer)
    .await
    .unwrap()
}
