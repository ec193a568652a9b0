//! Ids: used once, and found or not.

use super::Harness;
use super::fixtures::{Counter, Locker, Parcel};
use super::support::{
    assert_already_exists, assert_not_found, begin, err, north, ok, south, system,
};
use crate::repository::Repository;
use crate::specification::Query;
use crate::unit_of_work::UnitOfWork;

/// A new aggregate with the id of another is refused, and changes nothing.
pub async fn an_id_is_used_once<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let first = bench.parcel(&north(), "first").await;
    let mut second = Parcel::register("second");
    second.id = first.id;
    let error = err(bench.try_save(&north(), second).await);
    assert_already_exists::<Parcel>(&error, &first.id);
    assert_eq!(
        bench.load::<Parcel>(&north(), first.id).await.label,
        "first"
    );

    bench.counter(1).await;
    let error = err(bench.try_save(&system(), Counter::new(1)).await);
    assert_already_exists::<Counter>(&error, &1);
    assert_eq!(bench.log().await.len(), 2);
}

/// Two new aggregates with one id in one commit are refused, both.
pub async fn an_id_is_used_once_within_a_commit<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut uow = bench.unit_of_work(&system());
    ok(uow.save(Counter::new(1)));
    ok(uow.save(Counter::new(2)));
    ok(uow.save(Counter::new(1)));
    assert_already_exists::<Counter>(&err(uow.commit().await), &1);
    let mut uow = bench.unit_of_work(&system());
    let all = ok(uow.repository::<Counter>().query(Query::all()).await);
    assert!(all.is_empty());
    assert!(bench.log().await.is_empty());
}

/// An id that another tenant uses is taken, though what it stands for cannot be seen.
pub async fn an_id_is_used_once_over_all_tenants<H: Harness>(h: &H) {
    let bench = begin(h).await;
    bench.locker(&north(), "shared").await;
    let mut other = Locker::new("shared");
    other.assign("ben");
    let error = err(bench.try_save(&south(), other).await);
    assert_already_exists::<Locker>(&error, &"shared".to_owned());
    assert!(
        bench
            .find::<Locker>(&south(), "shared".into())
            .await
            .is_none()
    );
    let locker: Locker = bench.load(&north(), "shared".into()).await;
    assert_eq!(locker.holder.as_deref(), Some("ann"));
    assert_eq!(bench.log().await.len(), 1);
}

/// The id of a soft-deleted aggregate is not used again, by no tenant.
pub async fn an_id_is_not_used_again_after_soft_delete<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let parcel = bench.parcel(&north(), "gone").await;
    let id = parcel.id;
    bench.remove(&north(), parcel).await;
    for context in [north(), south()] {
        let mut again = Parcel::register("again");
        again.id = id;
        let error = err(bench.try_save(&context, again).await);
        assert_already_exists::<Parcel>(&error, &id);
    }
    assert!(bench.find::<Parcel>(&north(), id).await.is_none());
    assert_eq!(bench.log().await.len(), 2);
}

/// The id of an aggregate that was removed for good is not used again: its events are still
/// there, and there would be two of each version.
pub async fn an_id_is_not_used_again_after_removal<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let counter = bench.counter(1).await;
    bench.remove(&system(), counter).await;
    let error = err(bench.try_save(&system(), Counter::new(1)).await);
    assert_already_exists::<Counter>(&error, &1);

    let locker = bench.locker(&north(), "gone").await;
    bench.remove(&north(), locker).await;
    for context in [north(), south()] {
        let error = err(bench.try_save(&context, Locker::new("gone")).await);
        assert_already_exists::<Locker>(&error, &"gone".to_owned());
    }
    assert!(bench.find::<Counter>(&system(), 1).await.is_none());
    assert!(
        bench
            .find::<Locker>(&north(), "gone".into())
            .await
            .is_none()
    );
    assert_eq!(bench.log().await.len(), 4);
}

/// The same within one unit of work: created, removed, and created again.
pub async fn an_id_is_not_used_again_after_removal_within_a_commit<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut uow = bench.unit_of_work(&system());
    ok(uow.save(Counter::new(1)));
    let short_lived: Counter = ok(uow.get(1).await);
    ok(uow.remove(short_lived));
    assert!(ok(uow.repository::<Counter>().find(1).await).is_none());
    ok(uow.save(Counter::new(1)));
    assert_already_exists::<Counter>(&err(uow.commit().await), &1);
    assert!(bench.log().await.is_empty());
}

/// Aggregates of two types may have ids of the same text.
pub async fn two_types_may_share_an_id<H: Harness>(h: &H) {
    let bench = begin(h).await;
    bench.counter(1).await;
    let locker = bench.locker(&north(), "1").await;
    bench.remove(&north(), locker).await;
    let mut counter: Counter = bench.load(&system(), 1).await;
    counter.add(1);
    bench.save(&system(), counter).await;
    let versions = |stream: Vec<(u64, String)>| -> Vec<u64> {
        stream.into_iter().map(|(version, _)| version).collect()
    };
    assert_eq!(versions(bench.stream::<Counter>(&1).await), [1, 2]);
    assert_eq!(versions(bench.stream::<Locker>(&"1".into()).await), [1, 2]);
}

/// What never was is `None` to `find` and an error to `get`.
pub async fn what_does_not_exist_is_not_found<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut uow = bench.unit_of_work(&north());
    let id = crate::Id::new();
    assert!(ok(uow.repository::<Parcel>().find(id).await).is_none());
    assert_not_found::<Parcel>(&err(uow.get::<Parcel>(id).await), &id);
    assert_not_found::<Counter>(&err(uow.get::<Counter>(404).await), &404);
    let id = "nobody's".to_owned();
    assert_not_found::<Locker>(&err(uow.get::<Locker>(id.clone()).await), &id);
}

/// What was removed is found no more, and can be neither saved nor removed again.
pub async fn what_was_removed_is_not_found<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let parcel = bench.parcel(&north(), "gone").await;
    let id = parcel.id;
    bench.remove(&north(), parcel.clone()).await;
    let mut uow = bench.unit_of_work(&north());
    assert_not_found::<Parcel>(&err(uow.get::<Parcel>(id).await), &id);
    drop(uow);
    let mut changed = parcel.clone();
    changed.relabel("back");
    for error in [
        err(bench.try_save(&north(), changed).await),
        err(bench.try_save(&north(), parcel.clone()).await),
        err(bench.try_remove(&north(), parcel).await),
    ] {
        assert_not_found::<Parcel>(&error, &id);
    }

    let counter = bench.counter(1).await;
    bench.remove(&system(), counter.clone()).await;
    let mut changed = counter.clone();
    changed.add(1);
    for error in [
        err(bench.try_save(&system(), changed).await),
        err(bench.try_save(&system(), counter.clone()).await),
        err(bench.try_remove(&system(), counter).await),
    ] {
        assert_not_found::<Counter>(&error, &1);
    }
    assert_eq!(bench.log().await.len(), 4);
}

/// What was never saved cannot be removed.
pub async fn what_was_never_saved_cannot_be_removed<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let error = err(bench.try_remove(&system(), Counter::new(1)).await);
    assert_not_found::<Counter>(&error, &1);
    let parcel = Parcel::register("never saved");
    let id = parcel.id;
    let error = err(bench.try_remove(&north(), parcel).await);
    assert_not_found::<Parcel>(&error, &id);
    assert!(bench.log().await.is_empty());
}
