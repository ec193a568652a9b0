//! Caches in front of databases.

use cqrs_core::cache::{CacheOptions, Cached};
use cqrs_core::{Query, ReadModels, Repository, RowProjection, Store, UnitOfWork};
use cqrs_integration::domain::{self, Parcel, ParcelView, ParcelViews};
use cqrs_integration::stores;

use cqrs_integration::each::{Fresh, Kind, on_each};

on_each!(
    answers_are_kept_until_a_commit,
    a_projector_of_this_process_changes_its_table,
    a_commit_that_is_dropped_counts_as_a_change,
);

async fn weights<K: Kind>(cached: &Cached<cqrs_sqlx::SqlStore<K>>) -> Vec<i64> {
    let mut parcels = cached.repository::<Parcel>(&stores::tenant("north"));
    let found = parcels.query(Query::all()).await.unwrap();
    found.iter().map(Parcel::grams).collect()
}

async fn answers_are_kept_until_a_commit<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    let cached = Cached::new(store.clone(), CacheOptions::default());
    let north = stores::tenant("north");
    let parcel = Parcel::register("a");
    let id = domain::id(&parcel);
    let saved = store.execute(&north, async |uow| uow.save(parcel.clone()));
    saved.await.unwrap();
    assert_eq!(weights(&cached).await, [0]);
    // Past the framework: what is cached is given, until somebody says so.
    fresh.run("UPDATE parcel SET grams = 7").await;
    assert_eq!(weights(&cached).await, [0]);
    cached.invalidate::<Parcel>();
    assert_eq!(weights(&cached).await, [7]);
    let changed = store.execute(&north, async |uow| {
        let mut parcel = uow.get::<Parcel>(id).await?;
        parcel.weigh(5);
        uow.save(parcel)
    });
    changed.await.unwrap();
    assert_eq!(weights(&cached).await, [12]);
}

async fn a_projector_of_this_process_changes_its_table<K: Kind>() {
    let (_fresh, store) = Fresh::<K>::with_store().await;
    let projector = store.projector().rows(ParcelViews).start().await.unwrap();
    let cached = Cached::new(store.clone(), CacheOptions::default());
    let north = stores::tenant("north");
    let read_models = cached.read_models(&north);
    for number in 0..20 {
        let views = read_models.query(Query::<ParcelView>::all()).await.unwrap();
        assert_eq!(views.len(), number);
        let saved = store.execute(&north, async |uow| uow.save(Parcel::register("a")));
        let receipt = saved.await.unwrap();
        store.wait_for(&receipt, ParcelViews::NAME).await.unwrap();
    }
    drop(projector);
}

/// Nobody knows whether it will be carried out; what is cached is not relied on.
async fn a_commit_that_is_dropped_counts_as_a_change<K: Kind>() {
    let (_fresh, store) = Fresh::<K>::with_store().await;
    // The answer may be there at once; then there is nothing to drop.
    let (before, commit) = loop {
        let mut unit_of_work = store.unit_of_work(&stores::tenant("north"));
        unit_of_work.save(Parcel::register("a")).unwrap();
        let before = store.changes().count("parcel");
        let mut commit = Box::pin(unit_of_work.commit());
        if poll_once(&mut commit).await.is_none() {
            break (before, commit);
        }
    };
    let during = store.changes().count("parcel");
    assert!(during > before, "it may be visible already");
    drop(commit);
    let after = store.changes().count("parcel");
    assert!(after > during);
    assert_eq!(store.changes().count("parcel"), after);
}

/// Polls a future once.
async fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match std::pin::Pin::new(&mut *future).poll(context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}
