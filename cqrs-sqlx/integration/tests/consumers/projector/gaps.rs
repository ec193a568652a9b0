//! Who goes back in the log while retention removes events: one waits for the other, and nothing
//! is missing from what is folded.

use std::time::Duration;

use cqrs_core::{RequestContext, Result, StartAt, StoreErrorKind};
use cqrs_integration::each::{Fresh, Kind, kind, on_each};
use cqrs_integration::workload::Workload;
use cqrs_sqlx::{Postgres, Removed, Retention, SqlStore, SwitchOver};
use sqlx::{Connection as _, PgConnection};

use super::support::operations;
use super::views::{NAME, Version, commit, rows, run};

on_each!(whoever_comes_second_finds_what_the_first_did);

/// A store with views of four parcels with four events each, all of them old.
async fn with_old_events<K: Kind>() -> (Fresh<K>, SqlStore<K>, Vec<String>) {
    let (fresh, store) = Fresh::<K>::with_store().await;
    for _ in 0..4 {
        commit(&store, 4).await;
    }
    run(&store, Version::<1>).await.unwrap();
    fresh.age().await;
    let views = fresh.dump(NAME).await;
    assert_eq!(views.len(), 4);
    (fresh, store, views)
}

async fn remove<K: Kind>(store: &SqlStore<K>) -> Result<Removed> {
    let hour = Retention::older_than(Duration::from_secs(3600));
    Ok(store
        .remove_events(&RequestContext::system(), &hour)
        .await?)
}

async fn reset<K: Kind>(store: &SqlStore<K>) -> Result<()> {
    let operations = operations(store);
    operations
        .reset(&rows(Version::<1>), StartAt::Beginning)
        .await
}

async fn rebuild<K: Kind>(store: &SqlStore<K>) -> Result<()> {
    let (operations, views) = (operations(store), rows(Version::<1>));
    let rebuild = operations.rebuild(&views, SwitchOver::WhenReady);
    rebuild.await.map(drop)
}

/// Checks that it was refused because events are missing.
fn assert_gap(result: Result<()>) {
    let error = result.unwrap_err();
    assert_eq!(*kind(&error), StoreErrorKind::Usage);
    assert!(error.to_string().contains("have left the log"), "{error}");
}

async fn whoever_comes_second_finds_what_the_first_did<K: Kind>() {
    for round in 0..6 {
        let (fresh, store, views) = with_old_events::<K>().await;
        let (removed, gone_back) = if round % 2 == 0 {
            tokio::join!(remove(&store), reset(&store))
        } else {
            tokio::join!(remove(&store), rebuild(&store))
        };
        let removed = removed.unwrap().events;
        if removed > 0 {
            assert_eq!(removed, 12);
            assert_gap(gone_back);
        } else {
            gone_back.unwrap();
        }
        run(&store, Version::<1>).await.unwrap();
        assert_eq!(fresh.dump(NAME).await, views, "round {round}");
        if removed == 0 {
            Workload::check_views(&store).await;
        }
    }
}

/// Waits until so many sessions wait for what another does, with this in their statement.
async fn until_blocked(observer: &mut PgConnection, statement: &str) {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
               AND pid <> pg_backend_pid() AND wait_event_type = 'Lock' \
               AND query LIKE '%' || $1 || '%'";
    loop {
        let blocked: i64 = sqlx::query_scalar(sql)
            .bind(statement)
            .fetch_one(&mut *observer)
            .await
            .unwrap();
        if blocked > 0 {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// A session that holds what some SQL locks.
async fn holding(fresh: &Fresh<Postgres>, sql: &'static str) -> PgConnection {
    let mut session = PgConnection::connect(&fresh.url).await.unwrap();
    sqlx::raw_sql("BEGIN").execute(&mut session).await.unwrap();
    sqlx::raw_sql(sql).execute(&mut session).await.unwrap();
    session
}

const HELD: &str = "pg_advisory_xact_lock";

/// Retention is in the middle of a batch when somebody goes back.
async fn it_waits_for_the_batch<F>(go_back: impl FnOnce(SqlStore<Postgres>) -> F)
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let (fresh, store, views) = with_old_events::<Postgres>().await;
    let lock = "SELECT * FROM cqrs_event WHERE aggregate_version = 3 FOR UPDATE";
    let mut holds = holding(&fresh, lock).await;
    let mut observer = PgConnection::connect(&fresh.url).await.unwrap();
    let removing = {
        let store = store.clone();
        tokio::spawn(async move { remove(&store).await })
    };
    until_blocked(&mut observer, "DELETE FROM cqrs_event").await;
    let going_back = tokio::spawn(go_back(store.clone()));
    until_blocked(&mut observer, HELD).await;
    assert!(!going_back.is_finished());
    sqlx::raw_sql("ROLLBACK").execute(&mut holds).await.unwrap();
    assert_eq!(removing.await.unwrap().unwrap().events, 12);
    assert_gap(going_back.await.unwrap());
    run(&store, Version::<1>).await.unwrap();
    assert_eq!(fresh.dump(NAME).await, views);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_waits_for_the_batch_of_retention() {
    it_waits_for_the_batch(|store| async move { reset(&store).await }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_waits_for_the_batch_of_retention() {
    it_waits_for_the_batch(|store| async move { rebuild(&store).await }).await;
}

/// Retention comes when a reset has looked for gaps, and not gone back yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_waits_for_a_reset() {
    let (fresh, store, views) = with_old_events::<Postgres>().await;
    let lock = "SELECT * FROM parcel_view FOR UPDATE";
    let mut holds = holding(&fresh, lock).await;
    let mut observer = PgConnection::connect(&fresh.url).await.unwrap();
    let resetting = {
        let store = store.clone();
        tokio::spawn(async move { reset(&store).await })
    };
    until_blocked(&mut observer, "parcel_view").await;
    let removing = {
        let store = store.clone();
        tokio::spawn(async move { remove(&store).await })
    };
    until_blocked(&mut observer, HELD).await;
    assert!(!removing.is_finished());
    sqlx::raw_sql("ROLLBACK").execute(&mut holds).await.unwrap();
    resetting.await.unwrap().unwrap();
    assert_eq!(removing.await.unwrap().unwrap().events, 0);
    assert_eq!(run(&store, Version::<1>).await.unwrap(), 16);
    assert_eq!(fresh.dump(NAME).await, views);
    Workload::check_views(&store).await;
}
