//! Units of work: reading what is staged, forgetting, committing.

use super::Harness;
use super::fixtures::{Counter, Locker, Parcel};
use super::support::{assert_conflict, assert_usage, begin, err, north, ok, system};
use crate::envelope::Envelope;
use crate::repository::Repository;
use crate::specification::{Query, Specification};
use crate::unit_of_work::UnitOfWork;

/// A read in the unit of work sees what was saved in it before, at its new version; others do not.
pub async fn reads_see_what_is_staged<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut uow = bench.unit_of_work(&north());
    let parcel = Parcel::register("staged");
    let id = parcel.id;
    ok(uow.save(parcel));
    let found: Parcel = ok(uow.get(id).await);
    assert_eq!((found.label.as_str(), found.root.version()), ("staged", 1));
    assert_eq!(found.root.tenant(), uow.context().scope().tenant());
    let count = uow.repository::<Parcel>().count(Specification::all()).await;
    assert_eq!(ok(count), 1);
    let label = Parcel::fields().label;
    assert!(ok(uow
        .repository::<Parcel>()
        .exists(label.eq("staged"))
        .await));
    let _ = ok(uow.commit().await);
    let loaded: Parcel = bench.load(&north(), id).await;
    assert_eq!(loaded.root.version(), 1);
    assert_eq!(bench.log().await.len(), 1);
}

/// A query is decided by the values that were staged, not by those in the table.
pub async fn a_staged_change_decides_what_a_query_finds<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut changed = bench.parcel(&north(), "a").await;
    bench.parcel(&north(), "b").await;
    let mut uow = bench.unit_of_work(&north());
    changed.relabel("c");
    ok(uow.save(changed));
    ok(uow.save(Parcel::register("d")));
    let label = Parcel::fields().label;
    let mut parcels = uow.repository::<Parcel>();
    let query = Query::all().order_by(label.desc()).limit(2);
    let found = ok(parcels.query(query).await);
    let labels: Vec<&str> = found.iter().map(|one| one.label.as_str()).collect();
    assert_eq!(labels, ["d", "c"]);
    assert!(ok(parcels.query(label.eq("a").into()).await).is_empty());
    assert_eq!(ok(parcels.count(label.ge("b")).await), 3);
}

/// What was removed in the unit of work is gone for it, with soft delete and without.
pub async fn a_staged_removal_is_gone<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let parcel = bench.parcel(&north(), "gone").await;
    let locker = bench.locker(&north(), "gone").await;
    let id = parcel.id;
    let mut uow = bench.unit_of_work(&north());
    ok(uow.remove(parcel));
    ok(uow.remove(locker));
    assert!(ok(uow.repository::<Parcel>().find(id).await).is_none());
    assert!(ok(uow.repository::<Parcel>().query(Query::all()).await).is_empty());
    assert!(ok(uow.repository::<Locker>().find("gone".into()).await).is_none());
    let lockers = uow.repository::<Locker>().count(Specification::all()).await;
    assert_eq!(ok(lockers), 0);
    let _ = ok(uow.commit().await);
    assert!(bench.find::<Parcel>(&north(), id).await.is_none());
    assert!(
        bench
            .find::<Locker>(&north(), "gone".into())
            .await
            .is_none()
    );
    assert_eq!(bench.log().await.len(), 4);
}

/// What was saved can be read, changed and saved again in the same unit of work; the commit writes
/// all versions.
pub async fn an_aggregate_can_be_saved_again_after_it_is_read<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut uow = bench.unit_of_work(&system());
    let mut counter = Counter::new(1);
    counter.add(1);
    ok(uow.save(counter));
    for by in 2..=4 {
        let mut counter: Counter = ok(uow.get(1).await);
        counter.add(by);
        ok(uow.save(counter));
    }
    let mut short_lived = Counter::new(2);
    short_lived.add(1);
    ok(uow.save(short_lived));
    let short_lived: Counter = ok(uow.get(2).await);
    ok(uow.remove(short_lived));
    let receipt = ok(uow.commit().await);

    let counter: Counter = bench.load(&system(), 1).await;
    assert_eq!((counter.value, counter.root.version()), (10, 4));
    assert!(bench.find::<Counter>(&system(), 2).await.is_none());
    let log = bench.log().await;
    let ids: Vec<_> = log.iter().map(Envelope::event_id).collect();
    assert_eq!(receipt.events(), ids);
    assert_eq!(receipt.position(), log.last().map(Envelope::position));
    let one: Vec<u64> = bench
        .stream::<Counter>(&1)
        .await
        .iter()
        .map(|(v, _)| *v)
        .collect();
    assert_eq!(one, [1, 2, 3, 4]);
    let two: Vec<u64> = bench
        .stream::<Counter>(&2)
        .await
        .iter()
        .map(|(v, _)| *v)
        .collect();
    assert_eq!(two, [1, 2]);
}

/// A unit of work that is dropped leaves nothing, also where reads have sent what was staged.
pub async fn what_is_dropped_leaves_nothing<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut kept = bench.parcel(&north(), "kept").await;
    let id = kept.id;
    let mut uow = bench.unit_of_work(&north());
    ok(uow.save(Parcel::register("forgotten")));
    drop(uow);

    let mut uow = bench.unit_of_work(&north());
    kept.relabel("forgotten");
    ok(uow.save(kept));
    ok(uow.save(Counter::new(1)));
    assert_eq!(
        ok(uow
            .repository::<Counter>()
            .count(Specification::all())
            .await),
        1
    );
    drop(uow);

    let kept: Parcel = bench.load(&north(), id).await;
    assert_eq!((kept.label.as_str(), kept.root.version()), ("kept", 1));
    assert!(bench.find::<Counter>(&system(), 1).await.is_none());
    assert_eq!(bench.log().await.len(), 1);
    // The id was not used.
    bench.counter(1).await;
}

/// A receipt has the ids of the events in the order of staging, and the last position.
pub async fn a_receipt_tells_what_was_written<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let unchanged = bench.parcel(&north(), "unchanged").await;
    let mut counter = Counter::new(1);
    counter.add(1);
    counter.add(2);
    let mut uow = bench.unit_of_work(&north());
    ok(uow.save(unchanged));
    ok(uow.save(counter));
    ok(uow.save(Parcel::silent("new")));
    let receipt = ok(uow.commit().await);
    assert_eq!(receipt.events().len(), 3);
    let log = bench.log().await;
    let written: Vec<_> = log[1..].iter().map(Envelope::event_id).collect();
    assert_eq!(receipt.events(), written);
    assert_eq!(receipt.position(), Some(log[3].position()));
    assert_eq!(receipt.output(), &());

    let next = bench.saved(&north(), Parcel::register("later")).await;
    assert!(next.position() > receipt.position());
}

/// A commit of nothing writes nothing, and says so.
pub async fn an_empty_commit_writes_nothing<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let receipt = ok(bench.unit_of_work(&north()).commit().await);
    assert!(receipt.events().is_empty());
    assert_eq!(receipt.position(), None);
    let mut uow = bench.unit_of_work(&north());
    assert!(ok(uow.repository::<Parcel>().query(Query::all()).await).is_empty());
    let receipt = ok(uow.commit().await);
    assert_eq!((receipt.events().len(), receipt.position()), (0, None));
    assert!(bench.log().await.is_empty());
}

/// A read after a save that cannot be written says so; the unit of work is spent then, and its
/// commit is a usage error.
pub async fn a_read_tells_what_cannot_be_written<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut fresh = bench.counter(1).await;
    let mut stale = fresh.clone();
    fresh.add(1);
    bench.save(&system(), fresh).await;
    stale.add(5);
    let mut uow = bench.unit_of_work(&system());
    ok(uow.save(Counter::new(2)));
    ok(uow.save(stale));
    let found = uow.repository::<Counter>().query(Query::all()).await;
    assert_conflict::<Counter>(&err(found), &1, 1, 2);
    assert_usage(&err(uow.commit().await));
    assert_eq!(bench.load::<Counter>(&system(), 1).await.value, 2);
    assert!(bench.find::<Counter>(&system(), 2).await.is_none());
    assert_eq!(bench.log().await.len(), 2);
}

/// Hundreds of aggregates of three types commit at once, created, changed and removed.
pub async fn many_aggregates_commit_at_once<H: Harness>(h: &H) {
    const MANY: i64 = 150;
    let bench = begin(h).await;
    let mut uow = bench.unit_of_work(&north());
    for index in 0..MANY {
        let mut counter = Counter::new(index);
        counter.add(index);
        ok(uow.save(counter));
        ok(uow.save(Parcel::register(&format!("{index}"))));
        ok(uow.save(Locker::new(&format!("{index}"))));
    }
    assert_eq!(ok(uow.commit().await).events().len(), 450);

    let mut uow = bench.unit_of_work(&north());
    let found = ok(uow.repository::<Counter>().query(Query::all()).await);
    for mut counter in found {
        counter.add(1);
        counter.add(1);
        ok(uow.save(counter));
    }
    let found = ok(uow.repository::<Parcel>().query(Query::all()).await);
    for mut parcel in found {
        parcel.note = Some("changed".to_owned());
        ok(uow.save(parcel));
    }
    let found = ok(uow.repository::<Locker>().query(Query::all()).await);
    for locker in found {
        ok(uow.remove(locker));
    }
    assert_eq!(ok(uow.commit().await).events().len(), 600);

    let mut uow = bench.unit_of_work(&north());
    let counters = ok(uow.repository::<Counter>().query(Query::all()).await);
    assert_eq!(counters.len(), 150);
    for (counter, index) in counters.iter().zip(0..) {
        assert_eq!((counter.id, counter.value), (index, index + 2));
        assert_eq!(counter.root.version(), 3);
    }
    let changed = Parcel::fields().note.eq("changed");
    assert_eq!(ok(uow.repository::<Parcel>().count(changed).await), 150);
    let lockers = uow.repository::<Locker>().count(Specification::all()).await;
    assert_eq!(ok(lockers), 0);
    assert_eq!(bench.log().await.len(), 1050);
}

/// A unit of work that has staged nothing sees what others commit meanwhile.
pub async fn commits_of_others_are_seen<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut uow = bench.unit_of_work(&system());
    assert!(ok(uow.repository::<Counter>().find(1).await).is_none());
    let mut counter = bench.counter(1).await;
    assert_eq!(ok(uow.get::<Counter>(1).await).root.version(), 1);
    counter.add(1);
    bench.save(&system(), counter).await;
    let mut counter: Counter = ok(uow.get(1).await);
    assert_eq!(counter.root.version(), 2);
    counter.add(1);
    ok(uow.save(counter));
    let _ = ok(uow.commit().await);
    assert_eq!(bench.load::<Counter>(&system(), 1).await.value, 3);
}
