//! Nobody is given what is too old, or another tenant's.

use std::time::Duration;

use cqrs_core::cache::{CacheOptions, Cached};
use cqrs_core::conformance::fixtures::{LabelUse, LabelUses, Parcel, Tally};
use cqrs_core::{
    Error, PageRequest, Query, ReadModels, Repository, RequestContext, Result, RowProjection,
    Specification, Store, StoreErrorKind, UnitOfWork, repository,
};

use super::{Gated, register, store, tenant};

async fn uses(cached: &Cached<Gated>, context: &RequestContext, label: &str) -> Option<i64> {
    let read_models = cached.read_models(context);
    let found = read_models.find::<Tally>(label.to_owned()).await;
    found.unwrap().map(|tally| tally.uses)
}

#[tokio::test]
async fn an_answer_is_given_until_its_table_changes() {
    let store = store();
    let cached = Cached::new(store.clone(), CacheOptions::default());
    let north = tenant("north");
    assert_eq!(uses(&cached, &north, "a").await, None);
    assert_eq!(
        uses(&cached, &north, "a").await,
        None,
        "absence is an answer too"
    );
    assert_eq!(store.loads(), 1);
    register(&store, &north, "a").await;
    for _ in 0..3 {
        assert_eq!(uses(&cached, &north, "a").await, Some(1));
    }
    assert_eq!(store.loads(), 2);

    let read_models = cached.read_models(&north);
    let query = || Query::<Tally>::all();
    for round in 0..3 {
        assert_eq!(read_models.query(query()).await.unwrap().len(), 1);
        assert_eq!(
            read_models
                .count(Specification::<Tally>::all())
                .await
                .unwrap(),
            1
        );
        let page = read_models
            .page(query(), PageRequest::first(5).with_total())
            .await
            .unwrap();
        assert_eq!((page.items.len(), page.total), (1, Some(1)));
        let page = read_models
            .page(query(), PageRequest::first(5))
            .await
            .unwrap();
        assert_eq!(page.total, None);
        assert_eq!(store.loads(), 6, "round {round}");
    }
    register(&store, &north, "b").await;
    assert_eq!(read_models.query(query()).await.unwrap().len(), 2);
    assert_eq!(
        read_models
            .count(Specification::<Tally>::all())
            .await
            .unwrap(),
        2
    );
}

#[tokio::test]
async fn answers_do_not_cross_tenants() {
    let store = store();
    let cached = Cached::new(store.clone(), CacheOptions::default());
    let (north, south, system) = (tenant("north"), tenant("south"), RequestContext::system());
    // Names that would be one text if they were only joined.
    let tricky = tenant("system");
    register(&store, &north, "a").await;
    register(&store, &north, "a").await;
    register(&store, &south, "a").await;
    for _ in 0..2 {
        assert_eq!(uses(&cached, &north, "a").await, Some(2));
        assert_eq!(uses(&cached, &south, "a").await, Some(1));
        assert_eq!(uses(&cached, &tricky, "a").await, None);
        let mut counts = Vec::new();
        for context in [&north, &south, &tricky, &system] {
            let read_models = cached.read_models(context);
            counts.push(
                read_models
                    .query(Query::<Tally>::all())
                    .await
                    .unwrap()
                    .len(),
            );
            let mut parcels = cached.repository::<Parcel>(context);
            counts.push(parcels.query(Query::all()).await.unwrap().len());
        }
        assert_eq!(counts, [1, 2, 1, 1, 0, 0, 2, 3]);
    }
}

#[tokio::test]
async fn types_that_read_one_table_have_their_own_answers() {
    let store = store();
    let cached = Cached::new(store.clone(), CacheOptions::default());
    let north = tenant("north");
    register(&store, &north, "a").await;
    let mut parcels = cached.repository::<Parcel>(&north);
    let parcel = parcels.query(Query::all()).await.unwrap().remove(0);
    let rows = cached.read_models(&north);
    let rows = rows.query(Query::<cqrs_core::conformance::fixtures::StoredParcel>::all());
    assert_eq!(rows.await.unwrap()[0].id, parcel.id);
}

/// A load that began before a commit ends after it: its answer is the asker's, and nobody else's.
#[tokio::test]
async fn what_was_loaded_before_a_commit_is_not_kept_after_it() {
    let store = store();
    let cached = Cached::new(store.clone(), CacheOptions::default());
    let north = tenant("north");
    register(&store, &north, "a").await;

    store.close().await;
    let early = {
        let (cached, north) = (cached.clone(), north.clone());
        tokio::spawn(async move { uses(&cached, &north, "a").await })
    };
    store.gate.reached.notified().await;
    // It has read, and not returned.
    register(&store, &north, "a").await;
    store.open();
    assert_eq!(early.await.unwrap(), Some(1));
    assert_eq!(uses(&cached, &north, "a").await, Some(2));
    assert_eq!(store.loads(), 2);
}

/// The same with another who asks after the commit and before the early load has ended: they do
/// not share it.
#[tokio::test]
async fn who_asks_after_a_commit_does_not_wait_for_an_older_load() {
    let store = store();
    let cached = Cached::new(store.clone(), CacheOptions::default());
    let north = tenant("north");
    register(&store, &north, "a").await;
    let ask = || {
        let (cached, north) = (cached.clone(), north.clone());
        tokio::spawn(async move { uses(&cached, &north, "a").await })
    };
    store.close().await;
    let early = ask();
    store.gate.reached.notified().await;
    register(&store, &north, "a").await;
    let late = ask();
    store.gate.reached.notified().await;
    store.open();
    assert_eq!(
        (early.await.unwrap(), late.await.unwrap()),
        (Some(1), Some(2))
    );
    assert_eq!(uses(&cached, &north, "a").await, Some(2));
    assert_eq!(store.loads(), 2);
}

#[tokio::test]
async fn a_projection_that_moves_changes_its_table() {
    let store = store();
    store.below.subscribe_rows(LabelUses).unwrap();
    let cached = Cached::new(store.clone(), CacheOptions::default());
    let north = tenant("north");
    let uses = async || {
        let read_models = cached.read_models(&north);
        let found = read_models.find::<LabelUse>("a".to_owned()).await;
        found.unwrap().map(|row| row.uses)
    };
    for round in 1..4 {
        let saved = store.execute(&north, async |uow| uow.save(Parcel::register("a")));
        let receipt = saved.await.unwrap();
        store.wait_for(&receipt, LabelUses::NAME).await.unwrap();
        assert_eq!(uses().await, Some(round));
    }
}

#[repository]
trait Parcels: Repository<Parcel> {
    #[find(label == name)]
    async fn find_labelled(&mut self, name: &str) -> Result<Vec<Parcel>>;
}

#[tokio::test]
async fn aggregates_are_read_and_not_written() {
    let store = store();
    let cached = Cached::new(store.clone(), CacheOptions::default());
    let north = tenant("north");
    register(&store, &north, "a").await;
    let mut parcels = cached.repository::<Parcel>(&north);
    let before = store.loads();
    for _ in 0..3 {
        let found = parcels.find_labelled("a").await.unwrap();
        let parcel = parcels.get(found[0].id).await.unwrap();
        assert_eq!(parcel.label, "a");
        assert_eq!(parcels.count(Specification::all()).await.unwrap(), 1);
        assert!(parcels.exists(Specification::all()).await.unwrap());
        assert_eq!(store.loads(), before + 4);
    }
    let mut parcel = parcels.find_labelled("a").await.unwrap().remove(0);
    parcel.relabel("b");
    assert!(matches!(parcels.save(parcel.clone()), Err(Error::Store(_))));
    assert!(matches!(
        parcels.remove(parcel.clone()),
        Err(Error::Store(_))
    ));
    // In a unit of work it is as good as its version.
    let saved = store.execute(&north, async |uow| uow.save(parcel.clone()));
    saved.await.unwrap();
    assert!(parcels.find_labelled("a").await.unwrap().is_empty());
    let locking = parcels.query(Query::all().lock()).await.unwrap_err();
    assert!(matches!(locking, Error::Store(error) if error.kind() == &StoreErrorKind::Usage));
    let stale = store.execute(&north, async |uow| uow.save(parcel.clone()));
    assert!(stale.await.unwrap_err().is_conflict());
}

#[tokio::test]
async fn nothing_is_read_from_a_cache_within_a_unit_of_work() {
    let store = store();
    let cached = Cached::new(store.clone(), CacheOptions::default());
    let north = tenant("north");
    register(&store, &north, "a").await;
    assert_eq!(uses(&cached, &north, "a").await, Some(1));
    let refused = |error: Error| match error {
        Error::Store(error) => assert_eq!(error.kind(), &StoreErrorKind::Usage),
        other => panic!("expected a usage error, got {other:?}"),
    };
    let (inner, context) = (cached.clone(), north.clone());
    let work = async |uow: &mut <Gated as Store>::UnitOfWork| {
        let _ = uow.context();
        let read_models = inner.read_models(&context);
        let found = read_models.find::<Tally>("a".to_owned()).await;
        refused(found.unwrap_err());
        let mut parcels = inner.repository::<Parcel>(&context);
        refused(parcels.query(Query::all()).await.unwrap_err());
        Ok(())
    };
    store.execute(&north, work).await.unwrap();
    store.read(&north, work).await.unwrap();
    // Another store's cache is another matter.
    let other = super::store();
    let work = async |_: &mut <Gated as Store>::UnitOfWork| Ok(uses(&inner, &context, "a").await);
    let read = other.execute(&north, work).await.unwrap();
    assert_eq!(read.into_output(), Some(1));
}

#[tokio::test]
async fn an_answer_is_not_older_than_its_time_to_live() {
    let store = store();
    let options = CacheOptions::default().time_to_live(Duration::ZERO);
    let cached = Cached::new(store.clone(), options);
    let elsewhere = store.elsewhere();
    let north = tenant("north");
    register(&elsewhere, &north, "a").await;
    assert_eq!(uses(&cached, &north, "a").await, Some(1));
    register(&elsewhere, &north, "a").await;
    assert_eq!(uses(&cached, &north, "a").await, Some(2));
}

#[tokio::test]
async fn what_the_framework_does_not_see_is_invalidated_by_hand() {
    let below = store();
    let elsewhere = below.elsewhere();
    let cached = Cached::new(elsewhere, CacheOptions::default());
    let north = tenant("north");
    assert_eq!(uses(&cached, &north, "a").await, None);
    register(&below, &north, "a").await;
    assert_eq!(uses(&cached, &north, "a").await, None, "nobody said so");
    cached.invalidate::<Tally>();
    assert_eq!(uses(&cached, &north, "a").await, Some(1));
}
