//! Projections that are folded when they are read, and inline ones that are built from the log.

use super::Harness;
use super::fixtures::{
    Counter, CounterTotals, LabelUse, LabelUses, Locker, LockerList, Parcel, ParcelList, Tallies,
    Tally,
};
use super::projections::{all, fold, history, sorted};
use super::support::{assert_usage, begin, err, north, ok, south, system};
use crate::error::Error;
use crate::read_model::ReadModels;
use crate::store::Store;
use crate::unit_of_work::UnitOfWork;

/// Folding on read gives what a projector keeps, without a table, at any moment.
pub async fn a_live_projection_is_the_fold_of_the_log<H: Harness>(h: &H) {
    let bench = begin(h).await;
    history(&bench).await;
    let everyone = system();
    let live = bench.store.live(&everyone);
    assert_eq!(
        sorted(ok(live.rows(&ParcelList).await)),
        sorted(fold(&bench, ParcelList).await)
    );
    assert_eq!(
        sorted(ok(live.rows(&CounterTotals).await)),
        sorted(fold(&bench, CounterTotals).await)
    );
    let total = ok(live.find(&CounterTotals, (4, "up".to_owned())).await);
    assert_eq!(
        total.map(|total| (total.sum, total.additions)),
        Some((5, 2))
    );
    let none = ok(live.find(&CounterTotals, (4, "sideways".to_owned())).await);
    assert_eq!(none, None);
    // At once after a commit.
    let mut counter: Counter = bench.load(&system(), 4).await;
    counter.add(10);
    bench.save(&system(), counter).await;
    let mut totals = ok(live.of_aggregate::<Counter, _>(&CounterTotals, &4).await);
    totals.sort_by(|a, b| a.direction.cmp(&b.direction));
    let sums: Vec<i64> = totals.iter().map(|total| total.sum).collect();
    assert_eq!(sums, [-4, 15]);
    let locker = "4".to_owned();
    let other = live
        .of_aggregate::<Locker, _>(&CounterTotals, &locker)
        .await;
    assert_usage(&err(other));
}

/// A live projection sees the events of its tenant scope, and those that belong to no tenant.
pub async fn live_projections_are_within_the_tenant<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let ours = bench.parcel(&north(), "shared").await;
    bench.parcel(&south(), "shared").await;
    bench.parcel(&south(), "theirs").await;
    bench.counter(1).await;
    let expected = [
        (north(), 1, 0, 1, 1),
        (south(), 1, 1, 2, 0),
        (system(), 1, 1, 3, 1),
    ];
    for (context, shared, theirs, rows, seen) in expected {
        let live = bench.store.live(&context);
        let uses = async |label: &str| {
            let found: Option<LabelUse> = ok(live.find(&LabelUses, label.to_owned()).await);
            found.map_or(0, |row| row.uses)
        };
        assert_eq!(
            (uses("shared").await, uses("theirs").await),
            (shared, theirs)
        );
        assert_eq!(ok(live.rows(&LabelUses).await).len(), rows);
        assert_eq!(ok(live.rows(&CounterTotals).await).len(), 1);
        let own = live.of_aggregate::<Parcel, _>(&ParcelList, &ours.id).await;
        assert_eq!(ok(own).len(), seen);
    }
}

/// An event that a live projection cannot read is an error that names it.
pub async fn a_live_projection_names_what_it_cannot_read<H: Harness>(h: &H) {
    let bench = begin(h).await;
    bench.locker(&north(), "before").await;
    let melted = super::fixtures::ForeignLocker::melted("melted");
    let melted = bench.saved(&north(), melted).await;
    let context = north();
    let live = bench.store.live(&context);
    match err(live.rows(&LockerList).await) {
        Error::Undecodable { position, .. } => assert_eq!(Some(position), melted.position()),
        other => panic!("expected an undecodable event, got {other:?}"),
    }
    let id = "before".to_owned();
    assert_eq!(
        ok(live.of_aggregate::<Locker, _>(&LockerList, &id).await).len(),
        1
    );
}

/// An inline projection that was registered late is built from the log, whatever its table held,
/// and goes on from there; building it again changes nothing.
pub async fn an_inline_projection_is_built_from_the_log<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut uow = bench.unit_of_work(&north());
    for label in ["a", "b", "a"] {
        ok(uow.save(Parcel::register(label)));
    }
    ok(uow.commit().await);
    bench.parcel(&south(), "a").await;
    bench.counter(1).await;
    ok(bench.store.inline_rows(Tallies));
    // Counts what it sees: one of two, and the one of a tenant that is right already.
    bench.parcel(&north(), "a").await;
    bench.parcel(&south(), "c").await;
    let read_models = bench.store.read_models(&north());
    let tally = ok(read_models.find::<Tally>("a".to_owned()).await);
    assert_eq!(tally.map(|tally| tally.uses), Some(1));
    for _ in 0..2 {
        assert_eq!(ok(bench.store.rebuild_inline(Tallies).await), 6);
        let tallies: Vec<Tally> = all(&bench, &system()).await;
        assert_eq!(sorted(tallies), sorted(fold(&bench, Tallies).await));
    }
    bench.parcel(&north(), "a").await;
    let tallies: Vec<Tally> = all(&bench, &system()).await;
    assert_eq!(tallies.len(), 4);
    assert_eq!(sorted(tallies), sorted(fold(&bench, Tallies).await));
}

/// Where it cannot be built, its table is as it was.
pub async fn an_inline_projection_that_cannot_be_built_stays<H: Harness>(h: &H) {
    let bench = begin(h).await;
    bench.parcel(&north(), Tallies::FORBIDDEN).await;
    ok(bench.store.inline_rows(Tallies));
    bench.parcel(&north(), "a").await;
    match err(bench.store.rebuild_inline(Tallies).await) {
        Error::Domain(_) => {}
        other => panic!("expected the projection's error, got {other:?}"),
    }
    let tallies: Vec<Tally> = all(&bench, &system()).await;
    assert_eq!(tallies.len(), 1);
    bench.parcel(&north(), "a").await;
    let tallies: Vec<Tally> = all(&bench, &system()).await;
    assert_eq!(tallies[0].uses, 2);
}
