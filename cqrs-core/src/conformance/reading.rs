//! Units of work that only read.

use super::Harness;
use super::fixtures::{Counter, Parcel};
use super::support::{assert_usage, begin, err, north, ok, south, system};
use crate::repository::Repository;
use crate::specification::Query;
use crate::store::Store;
use crate::unit_of_work::UnitOfWork;

/// All reads see the moment of the first, whatever is committed meanwhile.
pub async fn reads_are_of_one_moment<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut counter = bench.counter(1).await;
    let mut reading = bench.store.read_only(&system());
    let before: Counter = ok(reading.get(1).await);
    counter.add(10);
    bench.save(&system(), counter).await;
    bench.counter(2).await;
    let again: Counter = ok(reading.get(1).await);
    assert_eq!((again.value, again.root.version()), (before.value, 1));
    let counters = reading.query::<Counter>(Query::all()).await;
    assert_eq!(ok(counters).len(), 1);
    reading.rollback().await;
    assert_eq!(bench.load::<Counter>(&system(), 1).await.value, 11);
}

/// Neither save nor removal is staged, and there is nothing to commit.
pub async fn a_read_only_unit_of_work_writes_nothing<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let counter = bench.counter(1).await;
    let mut reading = bench.store.read_only(&system());
    assert_usage(&err(reading.save(Counter::new(2))));
    assert_usage(&err(reading.remove(counter)));
    let _: Counter = ok(reading.get(1).await);
    assert_usage(&err(reading.commit().await));
    assert_usage(&err(bench.store.read_only(&system()).commit().await));
    assert_eq!(bench.log().await.len(), 1);
    // What it has used is in good order again.
    bench.counter(2).await;
}

/// `read` returns what its work returns, within the tenant scope.
pub async fn read_returns_the_output<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let parcel = bench.parcel(&north(), "here").await;
    let store = &bench.store;
    let label = store
        .read(&north(), async |uow| {
            Ok(uow.get::<Parcel>(parcel.id).await?.label)
        })
        .await;
    assert_eq!(ok(label), "here");
    let elsewhere = store
        .read(&south(), async |uow| {
            uow.repository::<Parcel>().find(parcel.id).await
        })
        .await;
    assert!(ok(elsewhere).is_none());
    let refused = store
        .read(&north(), async |uow| uow.save(Parcel::register("no")))
        .await;
    assert_usage(&err(refused));
    assert_eq!(bench.log().await.len(), 1);
}
