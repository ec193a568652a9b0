//! Bulk inserts and imports.

use chrono::{DateTime, NaiveDate};

use super::Harness;
use super::fixtures::{Class, Counter, Grams, Locker, Parcel, Point, Status};
use super::support::{
    assert_already_exists, assert_not_found, assert_refused, assert_usage, begin, err, north, ok,
    south, system, tenant, time,
};
use crate::aggregate::AggregateRoot;
use crate::envelope::Envelope;
use crate::error::{Error, Result};
use crate::maintenance::{Maintain, Source};
use crate::staging::ChangeMarker;
use crate::store::Store;

/// Rows, versions, events, positions, stamps and the receipt are those of as many saves.
pub async fn a_bulk_insert_is_as_many_saves<H: Harness>(h: &H) {
    let bench = begin(h).await;
    bench.clock.set(time(7));
    let mut busy = Parcel::register("busy");
    busy.relabel("busier");
    busy.open();
    let parcels = vec![busy, Parcel::silent("silent"), Parcel::register("plain")];
    let ids: Vec<_> = parcels.iter().map(|parcel| parcel.id).collect();
    let parcels_of_north = bench.store.maintenance::<Parcel>(&north());
    let done = ok(parcels_of_north.insert(parcels).await);
    assert_eq!((done.items(), done.commits()), (3, 1));

    let log = bench.log().await;
    let found: Vec<_> = log
        .iter()
        .map(|event| {
            let id = event.aggregate_id_str().to_owned();
            (id, event.aggregate_version(), event.event_type())
        })
        .collect();
    let of = |index: usize, version, event_type| (ids[index].to_string(), version, event_type);
    assert_eq!(
        found,
        [
            of(0, 1, "parcel.registered"),
            of(0, 2, "parcel.relabelled"),
            of(0, 3, "parcel.opened"),
            of(1, 1, ChangeMarker::Created.event_type()),
            of(2, 1, "parcel.registered"),
        ]
    );
    let metadata = log[0].metadata();
    assert_eq!(metadata.actor.as_deref(), Some("ann"));
    assert_eq!(log[0].occurred_at(), time(7));
    assert_eq!(log[0].tenant(), Some(&tenant("north")));
    assert_eq!(done.receipt().position(), Some(log[4].position()));
    assert!(
        log.windows(2)
            .all(|two| two[0].position() < two[1].position())
    );

    let mut busy: Parcel = bench.load(&north(), ids[0]).await;
    assert_eq!((busy.root.version(), busy.label.as_str()), (3, "busier"));
    assert_eq!(busy.root.stamps().created_at, Some(time(7)));
    assert_eq!(busy.root.stamps().updated_by.as_deref(), Some("ann"));
    busy.weigh(5);
    bench.save(&north(), busy).await;
    ok(bench
        .store
        .wait_for(&done.receipt(), "conformance_parcel_list")
        .await);

    let nothing = ok(parcels_of_north.insert(Vec::new()).await);
    assert_eq!((nothing.items(), nothing.commits()), (0, 0));
}

/// Every type of column comes back, with and without its values.
pub async fn every_column_comes_back_from_a_bulk_insert<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut full = Parcel::register("full: \"quoted\", \\ and \u{1f4e6}\n\t");
    full.status = Status::Arrived;
    full.class = Class::Bulky;
    full.note = Some(String::new());
    full.shelf = i16::MIN;
    full.priority = i32::MAX;
    full.amount = i64::MIN;
    full.lane = u16::MAX;
    full.pieces = u32::MAX;
    full.total = i64::MAX as u64;
    full.weight = Grams(u32::MAX);
    full.ratio = f64::MIN_POSITIVE;
    full.factor = f32::MAX;
    full.fragile = true;
    full.due = DateTime::from_timestamp_micros(-1).unwrap_or_default();
    full.seen = DateTime::from_timestamp_micros(1_700_000_000_000_001);
    full.day = NaiveDate::from_ymd_opt(1969, 12, 31).unwrap_or_default();
    full.seal = (0..=255).collect();
    full.rank = Some(-1);
    full.marks = [("a".to_owned(), 1), ("b".to_owned(), -2)].into();
    full.details = serde_json::json!({"deep": [{"er": "\u{e9}\""}]});
    full.sender = Some(Point { x: -0.5, y: 1e300 });
    let parcels = [full, Parcel::register("bare")];
    ok(bench
        .store
        .maintenance::<Parcel>(&north())
        .insert(parcels.clone())
        .await);
    for parcel in parcels {
        let found: Parcel = bench.load(&north(), parcel.id).await;
        assert!(
            found.contents() == parcel.contents(),
            "{:?} came back as {:?}",
            parcel.contents(),
            found.contents()
        );
    }
    // Keys of the other types.
    let counters = [Counter::new(i64::MIN), Counter::new(0)];
    ok(bench
        .store
        .maintenance::<Counter>(&system())
        .insert(counters)
        .await);
    assert_eq!(bench.load::<Counter>(&system(), i64::MIN).await.value, 0);
    ok(bench
        .store
        .maintenance::<Locker>(&north())
        .insert([Locker::new("a'b\"c")])
        .await);
    let locker: Locker = bench.load(&north(), "a'b\"c".to_owned()).await;
    assert_eq!(locker.root.version(), 1);
}

/// Nothing is written where one cannot be: in the middle, or at the end.
pub async fn a_bulk_insert_is_all_or_nothing<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let taken = bench.counter(7).await.id;
    let before = bench.log().await.len();
    let counters = bench.store.maintenance::<Counter>(&system());
    for ids in [[1, taken, 2], [1, 2, taken], [taken, 1, 2]] {
        let error = err(counters.insert(ids.map(Counter::new)).await);
        assert_already_exists::<Counter>(&error, &taken);
    }
    let mut parcels = [Parcel::register("a"), Parcel::register("b")];
    parcels[1].total = u64::MAX;
    let parcels_of_north = bench.store.maintenance::<Parcel>(&north());
    let error = err(parcels_of_north.insert(parcels).await);
    assert_refused(&error, "conformance_parcel", "total");
    assert_eq!(bench.log().await.len(), before);
    assert!(bench.find::<Counter>(&system(), 1).await.is_none());
    let done = ok(counters.insert([Counter::new(1)]).await);
    assert_eq!(done.items(), 1);
}

/// An id that was used once, or twice in the same call, is taken.
pub async fn an_id_is_used_once_by_bulk_inserts<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let counters = bench.store.maintenance::<Counter>(&system());
    let error = err(counters.insert([1, 2, 1].map(Counter::new)).await);
    assert_already_exists::<Counter>(&error, &1);
    let counter = bench.counter(3).await;
    bench.remove(&system(), counter).await;
    let error = err(counters.insert([4, 3].map(Counter::new)).await);
    let named = if H::NAMES_USED_ID { 3 } else { 4 };
    assert_already_exists::<Counter>(&error, &named);

    let parcel = bench.parcel(&north(), "gone").await;
    let mut again = Parcel::register("again");
    again.id = parcel.id;
    bench.remove(&north(), parcel).await;
    let parcels = bench.store.maintenance::<Parcel>(&south());
    let error = err(parcels.insert([again.clone()]).await);
    assert_already_exists::<Parcel>(&error, &again.id);
}

/// What was loaded is not new.
pub async fn a_bulk_insert_takes_new_aggregates<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let loaded = bench.counter(1).await;
    let counters = bench.store.maintenance::<Counter>(&system());
    assert_usage(&err(counters.insert([Counter::new(2), loaded]).await));
    assert_eq!(bench.log().await.len(), 1);
}

/// Rows go to the tenant of the scope; the system names one for each.
pub async fn a_bulk_insert_is_within_its_tenant<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let foreign = Parcel::register_for(tenant("south"), "foreign");
    let parcels = bench.store.maintenance::<Parcel>(&north());
    let error = err(parcels
        .insert([Parcel::register("own"), foreign.clone()])
        .await);
    assert_not_found::<Parcel>(&error, &foreign.id);
    let everywhere = bench.store.maintenance::<Parcel>(&system());
    let error = err(everywhere.insert([Parcel::register("nobody's")]).await);
    assert!(matches!(error, Error::TenantRequired { .. }), "{error:?}");
    assert!(bench.log().await.is_empty());

    let own = Parcel::register_for(tenant("north"), "own");
    let ids = (own.id, foreign.id);
    ok(everywhere.insert([own, foreign]).await);
    assert!(bench.find::<Parcel>(&north(), ids.0).await.is_some());
    assert!(bench.find::<Parcel>(&north(), ids.1).await.is_none());
    assert!(bench.find::<Parcel>(&south(), ids.1).await.is_some());
}

/// Every so many rows are a commit, after which the import tells how far it has come.
pub async fn an_import_commits_in_batches<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let counters = bench.store.maintenance::<Counter>(&system()).batch_size(3);
    let mut told = Vec::new();
    let source = (1..=7).map(Counter::new);
    let done = counters
        .import(source, |progress| told.push(progress.rows()))
        .await;
    let done = ok(done);
    assert_eq!((done.items(), done.commits()), (7, 3));
    assert_eq!(told, [3, 6, 7]);
    let log = bench.log().await;
    assert_eq!(done.receipt().position(), Some(log[6].position()));
    let ids: Vec<&str> = log.iter().map(Envelope::aggregate_id_str).collect();
    assert_eq!(ids, ["1", "2", "3", "4", "5", "6", "7"]);
}

/// A failure undoes its batch alone, and tells where to go on.
pub async fn a_failed_import_says_what_was_committed<H: Harness>(h: &H) {
    /// Breaks once.
    struct Breaking(std::ops::RangeInclusive<i64>, Option<i64>);
    impl Source<Counter> for Breaking {
        async fn read_next(&mut self) -> Result<Option<Counter>> {
            match self.0.next() {
                Some(id) if Some(id) == self.1 => Err(Error::other("the file is torn")),
                id => Ok(id.map(Counter::new)),
            }
        }
    }
    let bench = begin(h).await;
    let counter = bench.counter(6).await;
    let counters = bench.store.maintenance::<Counter>(&system()).batch_size(2);
    let failed = counters.import((1..=9).map(Counter::new), |_| {}).await;
    let failed = failed.expect_err("6 is taken");
    assert_eq!(failed.committed().items(), 4);
    assert_already_exists::<Counter>(failed.cause(), &6);

    let rest = Breaking(counter.id + 1..=9, Some(9));
    let failed = counters.import(rest, |_| {}).await;
    let failed = failed.expect_err("the source breaks");
    assert_eq!(failed.committed().items(), 2);
    assert!(matches!(failed.cause(), Error::Other(_)), "{failed:?}");
    ok(counters.import(Breaking(9..=9, None), |_| {}).await);
    let log = bench.log().await;
    let ids: Vec<&str> = log.iter().map(Envelope::aggregate_id_str).collect();
    assert_eq!(ids, ["6", "1", "2", "3", "4", "7", "8", "9"]);
}

/// What was exported from one store becomes new in another, in its own tenant.
pub async fn what_is_imported_is_new<H: Harness>(h: &H) {
    let (from, to) = (begin(h).await, begin(h).await);
    let mut parcel = from.parcel(&north(), "moves").await;
    parcel.weigh(3);
    let id = parcel.id;
    from.save(&north(), parcel).await;
    let other = from.parcel(&south(), "moves too").await.id;

    to.clock.set(time(9));
    let export = from.store.maintenance::<Parcel>(&system());
    let export = export.export(crate::Query::all());
    let import = to.store.maintenance::<Parcel>(&system());
    assert_eq!(ok(import.import(export, |_| {}).await).items(), 2);
    let moved: Parcel = to.load(&north(), id).await;
    assert_eq!((moved.root().version(), moved.weight), (1, Grams(3)));
    assert_eq!(moved.root().stamps().created_at, Some(time(9)));
    let marker = ChangeMarker::Created.event_type().to_owned();
    assert_eq!(to.stream::<Parcel>(&id).await, [(1, marker)]);
    assert!(to.find::<Parcel>(&south(), other).await.is_some());
    assert!(to.find::<Parcel>(&north(), other).await.is_none());
}
