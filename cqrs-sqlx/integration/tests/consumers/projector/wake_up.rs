//! Waking the projectors of other processes. Two stores in one process know nothing of each other,
//! so they stand for two processes.

use std::time::Duration;

use cqrs_core::{CommitReceipt, Store};
use cqrs_integration::database::{TestDatabase, TestFile};
use cqrs_integration::stores;
use cqrs_integration::wire::{Counts, WireProxy};
use cqrs_sqlx::{Backend, PgStore, ProjectorHandle, SqlStore, SqliteStore, StoreOptions};
use sqlx::{Connection as _, PgConnection};

use super::support::{Recorder, applied, receipt, with_tables};

/// Longer than any test runs.
const NEVER: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_millis(10);

fn options() -> StoreOptions {
    StoreOptions::default().max_connections(4)
}

/// A database with its tables.
async fn database() -> TestDatabase {
    let database = TestDatabase::create().await;
    with_tables(stores::postgres(database.url()).await)
        .await
        .close();
    database
}

async fn telling(url: &str) -> PgStore {
    stores::postgres_that_tells(url, options()).await
}

async fn project<B: Backend>(
    store: &SqlStore<B>,
    name: &'static str,
    poll: Duration,
) -> ProjectorHandle {
    let projector = store.projector().projection(Recorder::new(name));
    projector.poll_interval(poll).start().await.unwrap()
}

/// Commits in one process and waits in another.
async fn passes(from: &PgStore, to: &PgStore) -> CommitReceipt {
    let receipt = receipt(from, 0).await;
    to.wait_for(&receipt, "recorder").await.unwrap();
    receipt
}

/// Ends the sessions whose last statement has this in it, and returns how many there were.
async fn terminate(observer: &mut PgConnection, statement: &str) -> i64 {
    sqlx::query_scalar(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()
           AND query LIKE '%' || $1 || '%'",
    )
    .bind(statement)
    .fetch_one(observer)
    .await
    .unwrap()
}

/// How many sessions listen.
async fn listeners(observer: &mut PgConnection) -> i64 {
    sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND query LIKE 'LISTEN%'",
    )
    .fetch_one(observer)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_of_another_process_is_told() {
    let database = database().await;
    let (one, other) = (telling(database.url()).await, telling(database.url()).await);
    let _projector = project(&other, "recorder", NEVER).await;
    for _ in 0..20 {
        passes(&one, &other).await;
    }
    assert_eq!(applied(&other).await.len(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_listen_or_tell_may_be_killed() {
    let database = database().await;
    let (one, other) = (telling(database.url()).await, telling(database.url()).await);
    let mut observer = PgConnection::connect(database.url()).await.unwrap();
    let _projector = project(&other, "recorder", NEVER).await;
    passes(&one, &other).await;
    for _ in 0..5 {
        assert_eq!(terminate(&mut observer, "LISTEN").await, 1);
        passes(&one, &other).await;
        assert_eq!(terminate(&mut observer, "pg_notify").await, 1);
        passes(&one, &other).await;
        // It is there before the next round kills it.
        while listeners(&mut observer).await == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(applied(&other).await.len(), 11);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_swallows_notifications_costs_latency_alone() {
    let database = database().await;
    let proxy = WireProxy::start(database.url()).await;
    proxy.swallow_notifications();
    let (one, other) = (telling(database.url()).await, telling(proxy.url()).await);
    let _projector = project(&other, "recorder", SOON).await;
    while proxy.swallowed() < 3 {
        passes(&one, &other).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_refuses_to_listen_costs_latency_alone() {
    let database = database().await;
    let proxy = WireProxy::start(database.url()).await;
    proxy.refuse("LISTEN");
    let (one, other) = (telling(database.url()).await, telling(proxy.url()).await);
    let mut observer = PgConnection::connect(database.url()).await.unwrap();
    let _projector = project(&other, "recorder", SOON).await;
    for _ in 0..5 {
        passes(&one, &other).await;
    }
    assert_eq!(listeners(&mut observer).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_notifications_there_is_polling() {
    let database = database().await;
    let proxy = WireProxy::start(database.url()).await;
    let silent = || stores::postgres_with(proxy.url(), options());
    let (one, other) = (silent().await, silent().await);
    let _projector = project(&other, "recorder", SOON).await;
    for _ in 0..5 {
        passes(&one, &other).await;
    }
    let sent = proxy.statements_since(&Counts::default());
    let about_others = |sql: &&String| sql.contains("NOTIFY") || sql.contains("pg_notify");
    assert_eq!(sent.iter().find(about_others), None);
    assert!(!sent.iter().any(|sql| sql.contains("LISTEN")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_commits_are_told_of_together() {
    let database = database().await;
    let proxy = WireProxy::start(database.url()).await;
    let store = telling(proxy.url()).await;
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                for _ in 0..100 {
                    receipt(&store, 0).await;
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let sent = proxy.statements_since(&Counts::default());
    let told = sent.iter().filter(|sql| sql.contains("pg_notify")).count();
    assert!((1..=200).contains(&told), "{told} for 400 commits");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_projectors_of_a_store_listen_together_until_the_last_has_gone() {
    let database = database().await;
    let store = telling(database.url()).await;
    let mut observer = PgConnection::connect(database.url()).await.unwrap();
    let first = project(&store, "first", NEVER).await;
    let second = project(&store, "second", NEVER).await;
    let seen = receipt(&store, 0).await;
    for name in ["first", "second"] {
        store.wait_for(&seen, name).await.unwrap();
    }
    while listeners(&mut observer).await == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(listeners(&mut observer).await, 1);

    first.stop(NEVER).await;
    let seen = receipt(&store, 0).await;
    store.wait_for(&seen, "second").await.unwrap();
    assert_eq!(listeners(&mut observer).await, 1);

    second.stop(NEVER).await;
    while listeners(&mut observer).await > 0 {
        tokio::task::yield_now().await;
    }
    let again = project(&store, "first", NEVER).await;
    store.wait_for(&seen, "first").await.unwrap();
    assert_eq!(again.stop(NEVER).await, cqrs_sqlx::Stopped::Drained);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_most_impatient_projector_decides_how_often_to_look() {
    let database = database().await;
    let silent = || stores::postgres_with(database.url(), options());
    let (one, other) = (silent().await, silent().await);
    let _patient = project(&other, "patient", NEVER).await;
    let _impatient = project(&other, "impatient", SOON).await;
    let seen = receipt(&one, 0).await;
    for name in ["patient", "impatient"] {
        other.wait_for(&seen, name).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_on_one_file_find_each_others_commits() {
    let file = TestFile::create();
    let one = with_tables(stores::sqlite(&file.url()).await).await;
    let other = SqliteStore::connect(&file.url()).await.unwrap();
    let projector = other.projector().projection(Recorder::new("recorder"));
    let _projector = projector.start().await.unwrap();
    for _ in 0..20 {
        let receipt = receipt(&one, 0).await;
        other.wait_for(&receipt, "recorder").await.unwrap();
    }
}
