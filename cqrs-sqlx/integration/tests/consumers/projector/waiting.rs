//! Waiting for a subscription.

use std::time::Duration;

use cqrs_core::{CommitReceipt, Error, Store, StoreErrorKind};
use cqrs_integration::database::{TestDatabase, TestFile};
use cqrs_integration::stores;
use cqrs_sqlx::{Backend, SqlStore, SqliteStore, StoreOptions};

use super::support::{Recorder, commit, on_each_database, receipt, with_tables};

on_each_database!(
    what_is_applied_is_not_waited_for,
    nothing_written_is_nothing_to_wait_for,
    an_unknown_subscription_is_an_error,
    many_wait_at_once,
);

async fn what_is_applied_is_not_waited_for<B: Backend>(store: SqlStore<B>) {
    let first = receipt(&store, 1).await;
    let projector = store.projector().projection(Recorder::new("recorder"));
    projector.run_until_idle().await.unwrap();
    // Nothing runs any more that could make it come true.
    store.wait_for(&first, "recorder").await.unwrap();
}

async fn nothing_written_is_nothing_to_wait_for<B: Backend>(store: SqlStore<B>) {
    let nothing = CommitReceipt::new(Vec::new(), None);
    store.wait_for(&nothing, "no such").await.unwrap();
}

async fn an_unknown_subscription_is_an_error<B: Backend>(store: SqlStore<B>) {
    let first = receipt(&store, 0).await;
    let error = store.wait_for(&first, "no such").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no subscription named \"no such\""
    );
}

async fn many_wait_at_once<B: Backend>(store: SqlStore<B>) {
    let projector = store.projector().projection(Recorder::new("recorder"));
    let handle = projector.start().await.unwrap();
    let waiting: Vec<_> = (0..20)
        .map(|weighings| {
            let store = store.clone();
            tokio::spawn(async move {
                let receipt = receipt(&store, weighings % 3).await;
                store.wait_for(&receipt, "recorder").await
            })
        })
        .collect();
    for waiting in waiting {
        waiting.await.unwrap().unwrap();
    }
    drop(handle);
}

/// A store whose patience is short.
async fn the_deadline_names_the_lag<B: Backend>(store: SqlStore<B>) {
    commit(&store, 0).await;
    let projector = store.projector().projection(Recorder::new("recorder"));
    projector.run_until_idle().await.unwrap();
    let later = receipt(&store, 2).await;
    let error = store.wait_for(&later, "recorder").await.unwrap_err();
    let Error::Store(error) = error else {
        panic!("{error:?}");
    };
    assert_eq!(*error.kind(), StoreErrorKind::TimedOut);
    assert_eq!(
        error.to_string(),
        "subscription \"recorder\" did not reach position 4 within 1s: it stands at 1, \
         3 positions behind"
    );
}

fn impatient() -> StoreOptions {
    StoreOptions::default().wait_timeout(Duration::from_secs(1))
}

#[tokio::test]
async fn the_deadline_names_the_lag_on_postgres() {
    let database = TestDatabase::create().await;
    with_tables(stores::postgres(database.url()).await)
        .await
        .close();
    let store = stores::postgres_with(database.url(), impatient()).await;
    the_deadline_names_the_lag(store).await;
}

#[tokio::test]
async fn the_deadline_names_the_lag_on_sqlite() {
    let file = TestFile::create();
    with_tables(stores::sqlite(&file.url()).await).await.close();
    let store = SqliteStore::connect_with(file.url().parse().unwrap(), impatient())
        .await
        .unwrap();
    the_deadline_names_the_lag(store).await;
}
