//! One load for all who miss at once; one that fails or is given up leaves nothing behind.

use std::sync::atomic::Ordering;
use std::time::Duration;

use cqrs_core::cache::{CacheOptions, Cached};
use cqrs_core::conformance::fixtures::Tally;
use cqrs_core::{Error, ReadModels, RequestContext, Result, StoreErrorKind};
use tokio::task::JoinHandle;

use super::{Gated, register, store, tenant};

fn ask(cached: &Cached<Gated>, context: &RequestContext) -> JoinHandle<Result<Option<i64>>> {
    let read_models = cached.read_models(context);
    tokio::spawn(async move {
        let found = read_models.find::<Tally>("a".to_owned()).await?;
        Ok(found.map(|tally| tally.uses))
    })
}

/// A cache whose reads are held, and so many who ask, of whom one has begun to load.
async fn held(askers: usize) -> (Gated, Cached<Gated>, Vec<JoinHandle<Result<Option<i64>>>>) {
    let store = store();
    let north = tenant("north");
    register(&store, &north, "a").await;
    let cached = Cached::new(store.clone(), CacheOptions::default());
    store.close().await;
    let mut tasks = vec![ask(&cached, &north)];
    store.gate.reached.notified().await;
    tasks.extend((1..askers).map(|_| ask(&cached, &north)));
    // On one thread, each of them comes as far as it can.
    for _ in 0..askers {
        tokio::task::yield_now().await;
    }
    (store, cached, tasks)
}

#[tokio::test]
async fn those_who_miss_at_once_load_once() {
    let (store, _cached, tasks) = held(50).await;
    store.open();
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap(), Some(1));
    }
    assert_eq!(store.loads(), 1);
}

#[tokio::test]
async fn a_load_that_fails_is_everyones_and_is_not_kept() {
    let (store, cached, tasks) = held(5).await;
    store.gate.fails.store(true, Ordering::SeqCst);
    store.open();
    for task in tasks {
        match task.await.unwrap().unwrap_err() {
            Error::Store(error) => assert_eq!(error.kind(), &StoreErrorKind::Unavailable),
            other => panic!("expected the error of the store, got {other:?}"),
        }
    }
    assert_eq!(store.loads(), 1);
    store.gate.fails.store(false, Ordering::SeqCst);
    let again = ask(&cached, &tenant("north"));
    assert_eq!(again.await.unwrap().unwrap(), Some(1));
    assert_eq!(store.loads(), 2);
}

#[tokio::test]
async fn a_load_that_is_given_up_is_taken_over() {
    let (store, _cached, mut tasks) = held(5).await;
    let first = tasks.remove(0);
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    // Another of them begins.
    store.gate.reached.notified().await;
    store.open();
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap(), Some(1));
    }
    assert_eq!(store.loads(), 2);
}

#[tokio::test]
async fn a_load_that_panics_is_taken_over() {
    let (store, _cached, mut tasks) = held(5).await;
    store.gate.panics.store(true, Ordering::SeqCst);
    store.open();
    let first = tasks.remove(0);
    assert!(first.await.unwrap_err().is_panic());
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap(), Some(1));
    }
    assert_eq!(store.loads(), 2);
}

#[tokio::test]
async fn a_time_to_live_can_be_as_long_as_any() {
    let store = store();
    let north = tenant("north");
    let options = CacheOptions::default().time_to_live(Duration::MAX);
    let cached = Cached::new(store.clone(), options);
    let read_models = cached.read_models(&north);
    for _ in 0..2 {
        let found = read_models.find::<Tally>("a".to_owned());
        assert_eq!(found.await.unwrap(), None);
    }
    assert_eq!(store.loads(), 1);
}

#[tokio::test]
async fn there_is_a_bound() {
    let store = store();
    let cached = Cached::new(store.clone(), CacheOptions::default().max_rows(10));
    let read_models = cached.read_models(&tenant("north"));
    for _ in 0..2 {
        for label in 0..1_000 {
            let found = read_models.find::<Tally>(label.to_string());
            assert_eq!(found.await.unwrap(), None);
        }
    }
    // Evictions are made up for now and then, so there may be a few more than ten.
    assert!(store.loads() > 1_500, "{}", store.loads());
}
