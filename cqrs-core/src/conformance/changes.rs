//! What a store tells caches of the tables that it has changed.

use super::Harness;
use super::fixtures::{Counter, Locker, Parcel, ParcelEntry, ParcelList, Tallies, Tally};
use super::support::{Bench, begin, err, north, ok, system};
use crate::error::{Error, Result};
use crate::maintenance::Maintain;
use crate::mapping::Entity;
use crate::projection::RowProjection;
use crate::specification::{Query, Specification};
use crate::store::Store;
use crate::unit_of_work::UnitOfWork;

fn count<T: Entity, H: Harness>(bench: &Bench<'_, H>) -> u64 {
    bench.store.changes().count(T::table().name())
}

/// When a commit returns, its tables have been counted, also those that inline projections wrote;
/// others have not.
pub async fn a_commit_counts_its_tables<H: Harness>(h: &H) {
    let bench = begin(h).await;
    ok(bench.store.inline_rows(Tallies));
    let mut seen = (0, 0);
    let mut assert_counted = |bench: &Bench<'_, H>| {
        let now = (count::<Parcel, H>(bench), count::<Tally, H>(bench));
        assert!(now.0 > seen.0 && now.1 > seen.1, "{now:?} after {seen:?}");
        seen = now;
    };
    let mut parcel = bench.parcel(&north(), "a").await;
    assert_counted(&bench);
    parcel.relabel("b");
    bench.save(&north(), parcel).await;
    assert_counted(&bench);
    let mut uow = bench.unit_of_work(&north());
    ok(uow.save(Parcel::register("sent")));
    // Sends it.
    ok(uow.query::<Parcel>(Query::all()).await);
    ok(uow.commit().await);
    assert_counted(&bench);
    assert_eq!(count::<Counter, H>(&bench), 0);
    assert_eq!(count::<Locker, H>(&bench), 0);
    bench.counter(1).await;
    assert_eq!(count::<Counter, H>(&bench), 1);
}

/// Reading counts nothing.
pub async fn reading_counts_nothing<H: Harness>(h: &H) {
    let bench = begin(h).await;
    bench.counter(1).await;
    let before = bench.store.changes().counts();
    ok(bench.unit_of_work(&system()).commit().await);
    let context = system();
    let read = bench
        .store
        .read(&context, async |uow| uow.get::<Counter>(1).await);
    ok(read.await);
    let given_up: Result<()> = async {
        let mut uow = bench.unit_of_work(&system());
        uow.save(Counter::new(2))?;
        uow.rollback().await;
        Err(Error::other("given up"))
    }
    .await;
    err(given_up);
    // Rows of no subscription.
    assert_eq!(
        bench.store.changes().counts().get(Counter::table().name()),
        before.get(Counter::table().name())
    );
}

/// Who has waited for a projection finds its tables counted.
pub async fn a_projection_counts_its_tables<H: Harness>(h: &H) {
    let bench = begin(h).await;
    for _ in 0..3 {
        let before = count::<ParcelEntry, H>(&bench);
        let receipt = bench.saved(&north(), Parcel::register("a")).await;
        ok(bench.store.wait_for(&receipt, ParcelList::NAME).await);
        assert!(count::<ParcelEntry, H>(&bench) > before);
    }
}

/// Bulk work counts its table, with and without an inline projection that reads it.
pub async fn bulk_work_counts_its_table<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let parcels = bench.store.maintenance::<Parcel>(&north());
    for round in 0..2 {
        let before = (count::<Parcel, H>(&bench), count::<Tally, H>(&bench));
        ok(parcels.insert([Parcel::register("a")]).await);
        let inserted = (count::<Parcel, H>(&bench), count::<Tally, H>(&bench));
        assert!(inserted.0 > before.0);
        assert_eq!(inserted.1 > before.1, round == 1);
        let priority = Parcel::fields().priority.set(round + 7);
        ok(parcels.update(Specification::all(), [priority]).await);
        assert!(count::<Parcel, H>(&bench) > inserted.0);
        if round == 0 {
            ok(bench.store.inline_rows(Tallies));
        }
    }
}
