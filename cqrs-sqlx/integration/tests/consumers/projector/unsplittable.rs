//! A release that does not say that its handlers may be split, beside one that does.

use std::time::Duration;

use cqrs_core::Store as _;
use cqrs_integration::each::{Fresh, Kind, on_each};
use cqrs_sqlx::SqlStore;

use super::segments::{Splittable, segments};
use super::support::{Recorder, applied, commit, operations, receipt, with_tables};
use crate::warnings;

on_each!(
    who_is_not_splittable_stands_aside_when_there_are_several,
    who_is_not_splittable_stands_aside_without_locks,
    who_is_not_splittable_does_not_begin_before_a_change,
);

async fn store<K: Kind>() -> (Fresh<K>, SqlStore<K>) {
    let (fresh, store) = Fresh::<K>::with_store().await;
    let store = with_tables(store).await;
    (fresh, store)
}

async fn who_is_not_splittable_stands_aside_when_there_are_several<K: Kind>() {
    let name = K::either("aside_on_postgres", "aside_on_sqlite");
    stands_aside::<K>(Recorder::new(name), Recorder::new(name), name).await;
}

async fn who_is_not_splittable_stands_aside_without_locks<K: Kind>() {
    let name = K::either("unlocked_aside_on_postgres", "unlocked_aside_on_sqlite");
    let recorder = || Recorder::new(name).rows_alone();
    stands_aside::<K>(recorder(), recorder(), name).await;
}

/// The first release runs while the second brings the segments.
async fn stands_aside<K: Kind>(first: Recorder, second: Recorder, name: &str) {
    warnings::remember();
    let (_fresh, store) = store::<K>().await;
    let begun = receipt(&store, 0).await;
    let projector = store.projector().projection(first.clone()).page_size(1);
    let handle = projector.start().await.unwrap();
    store.wait_for(&begun, name).await.unwrap();
    let splits = || store.projector().projection(Splittable(second.clone()));
    splits().run_until_idle().await.unwrap();
    operations(&store).set_segments(name, 4).await.unwrap();
    let mut last = 1;
    for _ in 0..20 {
        last = commit(&store, 0).await.0;
    }
    let words = [name, "cannot have several segments"];
    let told = tokio::time::timeout(Duration::from_secs(60), warnings::until(&words)).await;
    told.expect("it says why it stands aside");
    splits().run_until_idle().await.unwrap();
    handle.stop(Duration::from_secs(60)).await;
    assert_eq!(first.pages(), [[1]]);
    assert_eq!(applied(&store).await, (1..=last).collect::<Vec<_>>());
}

async fn who_is_not_splittable_does_not_begin_before_a_change<K: Kind>() {
    let (_fresh, store) = store::<K>().await;
    commit(&store, 0).await;
    let recorder = Recorder::new("recorder");
    let splits = || store.projector().projection(Splittable(recorder.clone()));
    splits().run_until_idle().await.unwrap();
    let operations = operations(&store);
    // A paused segment does not arrive at the barrier.
    operations.pause("recorder").await.unwrap();
    operations.set_segments("recorder", 4).await.unwrap();
    assert_eq!(segments(&store).await.len(), 1);

    let projector = store.projector().projection(recorder.clone());
    let error = projector.run_until_idle().await.unwrap_err();
    assert!(
        error.to_string().contains("cannot have several segments"),
        "{error}"
    );
    operations.resume("recorder").await.unwrap();
    let last = commit(&store, 0).await.0;
    splits().run_until_idle().await.unwrap();
    assert_eq!(segments(&store).await.len(), 4);
    assert_eq!(applied(&store).await, (1..=last).collect::<Vec<_>>());
}
