//! Changes of many aggregates by condition.

use std::collections::HashMap;

use super::Harness;
use super::fixtures::{Counter, CounterEvent, Grams, Locker, Parcel, ParcelEvent, StoredParcel};
use super::support::{
    Bench, assert_already_exists, assert_conflict, assert_refused, assert_usage, begin, err, north,
    ok, south, system, tenant, time,
};
use crate::context::RequestContext;
use crate::envelope::Envelope;
use crate::error::{Error, Result};
use crate::maintenance::Maintain;
use crate::read_model::ReadModels;
use crate::specification::{Query, Specification};
use crate::staging::ChangeMarker;
use crate::store::{BatchError, BatchReceipt, Store};
use crate::unit_of_work::UnitOfWork;

#[track_caller]
fn done(result: Result<BatchReceipt, BatchError>) -> (usize, usize) {
    let done = ok(result);
    (done.items(), done.commits())
}

#[track_caller]
fn failed(result: Result<BatchReceipt, BatchError>) -> Error {
    err(result.map_err(Error::from))
}

async fn stored<H: Harness>(bench: &Bench<'_, H>, parcel: &Parcel) -> Option<StoredParcel> {
    let read_models = bench.store.read_models(&system());
    ok(read_models.find::<StoredParcel>(parcel.id).await)
}

/// A row that satisfies the condition and differs is changed, stamped, moved by one version, and
/// has one marker; one that has these values already is left alone.
pub async fn a_bulk_update_sets_what_differs<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let light = bench.parcel(&north(), "light").await;
    let mut heavy = Parcel::register("heavy");
    heavy.weigh(900);
    let heavy_id = heavy.id;
    bench.save(&north(), heavy).await;
    let mut set = Parcel::register("set already");
    set.priority = 9;
    set.weight = Grams(901);
    let set_id = set.id;
    bench.save(&north(), set).await;

    bench.clock.set(time(5));
    let context = north().with_actor("cat");
    let fields = Parcel::fields();
    let parcels = bench.store.maintenance::<Parcel>(&context);
    let changed = parcels
        .update(fields.weight.ge(Grams(900)), [fields.priority.set(9)])
        .await;
    let changed = ok(changed);
    assert_eq!((changed.items(), changed.commits()), (1, 1));
    let log = bench.log().await;
    let last = log.last().map(Envelope::position);
    assert_eq!(changed.receipt().position(), last);

    let heavy: Parcel = bench.load(&north(), heavy_id).await;
    assert_eq!((heavy.root.version(), heavy.priority), (3, 9));
    let stamps = heavy.root.stamps();
    assert_eq!(
        (stamps.created_at, stamps.updated_at),
        (Some(time(0)), Some(time(5)))
    );
    assert_eq!(stamps.created_by.as_deref(), Some("ann"));
    assert_eq!(stamps.updated_by.as_deref(), Some("cat"));
    let stream = bench.stream::<Parcel>(&heavy_id).await;
    assert_eq!(
        stream[2],
        (3, ChangeMarker::Changed.event_type().to_owned())
    );
    let event = &log[log.len() - 1];
    assert_eq!(event.metadata().actor.as_deref(), Some("cat"));
    assert_eq!(event.tenant(), Some(&tenant("north")));
    assert_eq!(event.occurred_at(), time(5));
    for id in [light.id, set_id] {
        let untouched: Parcel = bench.load(&north(), id).await;
        assert_eq!(untouched.root.version(), 1);
        assert_eq!(untouched.root.stamps().updated_by.as_deref(), Some("ann"));
    }
    let again = parcels
        .update(fields.weight.ge(Grams(900)), [fields.priority.set(9)])
        .await;
    assert_eq!(done(again), (0, 0));
    assert_eq!(bench.log().await.len(), log.len());
}

/// Each batch is a commit, and the rows are gone through once, in the order of their keys.
pub async fn a_bulk_update_goes_in_batches<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let ids = [5, -3, 0, 4, i64::MAX, -20, i64::MIN];
    let all = bench.store.maintenance::<Counter>(&system());
    ok(all.insert(ids.map(Counter::new)).await);
    let fields = Counter::fields();
    let in_twos = bench.store.maintenance::<Counter>(&system()).batch_size(2);
    let changed = in_twos
        .update(Specification::all(), [fields.value.set(1)])
        .await;
    assert_eq!(done(changed), (7, 4));
    // As many rows as two full batches, of which the condition is still true afterwards.
    let changed = in_twos.update(fields.id.ge(0), [fields.value.set(2)]).await;
    assert_eq!(done(changed), (4, 2));
    let log = bench.log().await;
    let changes: Vec<&str> = log[7..14].iter().map(Envelope::aggregate_id_str).collect();
    let mut sorted = ids;
    sorted.sort_unstable();
    assert_eq!(changes, sorted.map(|id| id.to_string()));

    // Keys of text, compared by their bytes.
    let ids = ["b", "B", "a", "\u{e9}", "z"];
    let lockers = bench.store.maintenance::<Locker>(&north()).batch_size(1);
    ok(lockers.insert(ids.map(Locker::new)).await);
    let held = Locker::fields().holder.set("ann");
    assert_eq!(
        done(lockers.update(Specification::all(), [held]).await),
        (5, 5)
    );
    let log = bench.log().await;
    let changes: Vec<&str> = log[log.len() - 5..]
        .iter()
        .map(Envelope::aggregate_id_str)
        .collect();
    assert_eq!(changes, ["B", "a", "b", "z", "\u{e9}"]);
}

/// NULL is a value like any other, and documents are compared as a save compares them.
pub async fn a_bulk_update_sets_null_and_documents<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let parcel = bench.parcel(&north(), "a").await;
    let parcels = bench.store.maintenance::<Parcel>(&north());
    let fields = Parcel::fields();
    let all = Specification::all;
    let changed = parcels.update(all(), [fields.note.set_null()]).await;
    assert_eq!(done(changed), (0, 0));
    let to = [
        fields.note.set(""),
        fields.rank.set(4),
        fields.details.set(serde_json::json!({"a": [1, null]})),
        fields
            .tags
            .set_document(&vec!["x".to_owned(), "y".to_owned()]),
        fields
            .marks
            .set_document(&HashMap::from([("m".to_owned(), 1)])),
        fields.status.set(super::fixtures::Status::Arrived),
        fields.depot.x.set(7.5),
        fields.seal.set(vec![9_u8]),
        fields.due.set(time(3)),
    ];
    assert_eq!(done(parcels.update(all(), to.clone()).await), (1, 1));
    assert_eq!(done(parcels.update(all(), to).await), (0, 0));
    let found: Parcel = bench.load(&north(), parcel.id).await;
    assert_eq!((found.note.as_deref(), found.rank), (Some(""), Some(4)));
    assert_eq!(found.details, serde_json::json!({"a": [1, null]}));
    assert_eq!((found.tags.len(), found.marks.get("m")), (2, Some(&1)));
    assert_eq!((found.depot.x, found.depot.y), (7.5, -1.0));
    assert_eq!((found.seal, found.due), (vec![9], time(3)));
    assert_eq!(found.status, super::fixtures::Status::Arrived);
    let changed = parcels.update(all(), [fields.note.set_null()]).await;
    assert_eq!(done(changed), (1, 1));
    let found: Parcel = bench.load(&north(), parcel.id).await;
    assert_eq!((found.note, found.root.version()), (None, 3));
}

/// An event of the domain stands in the place of the marker, and projections see it.
pub async fn a_bulk_update_raises_an_event<H: Harness>(h: &H) {
    let bench = begin(h).await;
    for id in 1..=3 {
        bench.counter(id).await;
    }
    let fields = Counter::fields();
    let counters = bench.store.maintenance::<Counter>(&system());
    let event = CounterEvent::Cleared {
        direction: "up".to_owned(),
    };
    let counters = counters.raising(event);
    let changed = counters
        .update(fields.id.ge(2), [fields.value.set(0)])
        .await;
    assert_eq!(done(changed), (2, 1));
    let log = bench.log().await;
    let mut ids = Vec::new();
    for raw in &log[3..] {
        assert_eq!(raw.event_type(), "counter.cleared");
        assert_eq!(raw.payload().as_str(), r#"{"direction":"up"}"#);
        ids.push((
            raw.aggregate_id_str(),
            raw.aggregate_version(),
            raw.event_id(),
        ));
    }
    assert_eq!((ids[0].0, ids[0].1), ("2", 2));
    assert_eq!((ids[1].0, ids[1].1), ("3", 2));
    assert_ne!(ids[0].2, ids[1].2);
    let parcel = bench.parcel(&north(), "a").await;
    let parcels = bench.store.maintenance::<Parcel>(&north());
    let parcels = parcels.raising(ParcelEvent::Relabelled("b".to_owned()));
    let label = Parcel::fields().label;
    let changed = ok(parcels.update(label.eq("a"), [label.set("b")]).await);
    ok(bench
        .store
        .wait_for(&changed.receipt(), "conformance_parcel_list")
        .await);
    let read_models = bench.store.read_models(&north());
    let entry = ok(read_models
        .find::<super::fixtures::ParcelEntry>(parcel.id)
        .await);
    assert_eq!(
        entry.map(|entry| (entry.label, entry.version)),
        Some(("b".to_owned(), 2))
    );
}

/// The version that a save is based on is not the current one any more.
pub async fn a_save_behind_a_bulk_update_is_a_conflict<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut loaded = bench.counter(1).await;
    let counters = bench.store.maintenance::<Counter>(&system());
    let set = [Counter::fields().note.set("bulk")];
    assert_eq!(
        done(counters.update(Specification::all(), set).await),
        (1, 1)
    );
    loaded.add(5);
    let error = err(bench.try_save(&system(), loaded.clone()).await);
    assert_conflict::<Counter>(&error, &1, 1, 2);
    let error = err(bench.try_remove(&system(), loaded).await);
    assert_conflict::<Counter>(&error, &1, 1, 2);
    let counter: Counter = bench.load(&system(), 1).await;
    assert_eq!((counter.value, counter.note.as_deref()), (1, Some("bulk")));
}

/// The key, what the framework keeps, NULL where there is none, and what no column can hold.
pub async fn what_cannot_be_set_is_refused<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let parcel = bench.parcel(&north(), "a").await;
    let fields = Parcel::fields();
    let parcels = bench.store.maintenance::<Parcel>(&north());
    let all = Specification::all;
    for assignment in [
        fields.id.set(crate::Id::new()),
        fields.created_at.set(time(1)),
        fields.updated_by.set("nobody"),
        fields.deleted_at.set_null(),
    ] {
        assert_usage(&failed(parcels.update(all(), [assignment]).await));
    }
    let twice = [fields.rank.set(1), fields.rank.set(2)];
    assert_usage(&failed(parcels.update(all(), twice).await));
    assert_usage(&failed(parcels.update(all(), []).await));
    let error = failed(parcels.update(all(), [fields.label.set_null()]).await);
    assert_refused(&error, "conformance_parcel", "label");
    let error = failed(parcels.update(all(), [fields.total.set(u64::MAX)]).await);
    assert_refused(&error, "conformance_parcel", "total");
    let bad = fields.label.eq("a\0");
    assert!(matches!(
        failed(parcels.update(bad, [fields.rank.set(1)]).await),
        Error::Mapping(_)
    ));
    let found: Parcel = bench.load(&north(), parcel.id).await;
    assert_eq!(found.root.version(), 1);
    assert_eq!(bench.log().await.len(), 1);
}

/// Marked where there is soft delete, else deleted; each with its marker.
pub async fn a_bulk_removal_is_as_many_removals<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let gone = bench.parcel(&north(), "gone").await;
    let kept = bench.parcel(&north(), "kept").await;
    bench.clock.set(time(4));
    let parcels = bench.store.maintenance::<Parcel>(&north());
    let label = Parcel::fields().label;
    assert_eq!(done(parcels.remove(label.eq("gone")).await), (1, 1));
    assert!(bench.find::<Parcel>(&north(), gone.id).await.is_none());
    assert!(bench.find::<Parcel>(&north(), kept.id).await.is_some());
    let row = stored(&bench, &gone).await.expect("the row is there");
    assert_eq!((row.version, row.label.as_str()), (2, "gone"));
    assert_eq!(
        (row.deleted_at, row.deleted_by.as_deref()),
        (Some(time(4)), Some("ann"))
    );
    assert_eq!(row.updated_at, time(4));
    let marker = ChangeMarker::Removed.event_type().to_owned();
    assert_eq!(
        bench.stream::<Parcel>(&gone.id).await[1],
        (2, marker.clone())
    );
    // It is not removed twice, also where it is seen.
    let seen = bench
        .store
        .maintenance::<Parcel>(&north())
        .include_deleted();
    assert_eq!(done(seen.remove(label.eq("gone")).await), (0, 0));

    bench.counter(1).await;
    bench.counter(2).await;
    let counters = bench.store.maintenance::<Counter>(&system());
    assert_eq!(
        done(counters.remove(Counter::fields().id.eq(1)).await),
        (1, 1)
    );
    assert!(bench.find::<Counter>(&system(), 1).await.is_none());
    assert!(bench.find::<Counter>(&system(), 2).await.is_some());
    assert_eq!(bench.stream::<Counter>(&1).await[1], (2, marker));
    let error = err(bench.try_save(&system(), Counter::new(1)).await);
    assert_already_exists::<Counter>(&error, &1);
}

/// It is back with its data, one version on, and can be changed as before.
pub async fn what_was_soft_deleted_is_restored<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let parcel = bench.parcel(&north(), "back").await;
    let living = bench.parcel(&north(), "living").await;
    bench.remove(&north(), parcel.clone()).await;
    bench.clock.set(time(6));
    let parcels = bench.store.maintenance::<Parcel>(&north());
    assert_eq!(done(parcels.restore(Specification::all()).await), (1, 1));
    let mut back: Parcel = bench.load(&north(), parcel.id).await;
    assert!(back.contents() == parcel.contents());
    assert_eq!(back.root.version(), 3);
    let stamps = back.root.stamps();
    assert_eq!(
        (stamps.deleted_at, stamps.deleted_by.as_deref()),
        (None, None)
    );
    assert_eq!(stamps.updated_at, Some(time(6)));
    let marker = ChangeMarker::Restored.event_type();
    assert!(ChangeMarker::is_marker(marker));
    let stream = bench.stream::<Parcel>(&parcel.id).await;
    assert_eq!(stream[2], (3, marker.to_owned()));
    assert_eq!(
        bench
            .load::<Parcel>(&north(), living.id)
            .await
            .root
            .version(),
        1
    );
    back.relabel("changed");
    bench.save(&north(), back).await;
    assert_eq!(done(parcels.restore(Specification::all()).await), (0, 0));

    let counters = bench.store.maintenance::<Counter>(&system());
    assert_usage(&failed(counters.restore(Specification::all()).await));
}

/// The row is gone, also of what was soft-deleted; its events stay, and its id is taken for ever.
pub async fn what_is_purged_is_gone_for_good<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let living = bench.parcel(&north(), "living").await;
    let deleted = bench.parcel(&north(), "deleted").await;
    bench.remove(&north(), deleted.clone()).await;
    let fields = Parcel::fields();
    let parcels = bench.store.maintenance::<Parcel>(&north());
    assert_eq!(
        done(parcels.purge(fields.label.eq("deleted")).await),
        (0, 0)
    );
    let seen = bench
        .store
        .maintenance::<Parcel>(&north())
        .include_deleted();
    assert_eq!(
        done(seen.purge(fields.deleted_at.le(time(0))).await),
        (1, 1)
    );
    assert_eq!(stored(&bench, &deleted).await, None);
    let marker = ChangeMarker::Purged.event_type();
    let stream = bench.stream::<Parcel>(&deleted.id).await;
    let types: Vec<(u64, &str)> = stream
        .iter()
        .map(|(at, name)| (*at, name.as_str()))
        .collect();
    let removed = ChangeMarker::Removed.event_type();
    assert_eq!(types, [(1, "parcel.registered"), (2, removed), (3, marker)]);
    assert_eq!(done(seen.restore(Specification::all()).await), (0, 0));

    assert_eq!(done(parcels.purge(Specification::all()).await), (1, 1));
    assert_eq!(stored(&bench, &living).await, None);
    for id in [living.id, deleted.id] {
        let mut again = Parcel::register("again");
        again.id = id;
        let error = err(bench.try_save(&north(), again.clone()).await);
        assert_already_exists::<Parcel>(&error, &id);
        assert_already_exists::<Parcel>(&err(parcels.insert([again]).await), &id);
    }
    assert_eq!(ok(seen.count(Specification::all()).await), 0);
}

/// What belongs to another tenant does not exist, in no state; the system reaches all.
pub async fn bulk_changes_are_within_their_tenant<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let own = bench.parcel(&north(), "own").await;
    let foreign = bench.parcel(&south(), "foreign").await;
    let deleted = bench.parcel(&south(), "deleted").await;
    bench.remove(&south(), deleted.clone()).await;
    let before = (
        stored(&bench, &foreign).await,
        stored(&bench, &deleted).await,
    );
    let of =
        |context: &RequestContext| bench.store.maintenance::<Parcel>(context).include_deleted();
    let fields = Parcel::fields();
    let wide = || fields.label.eq("own") | fields.label.ne("own");
    assert_eq!(
        done(of(&north()).update(wide(), [fields.rank.set(1)]).await),
        (1, 1)
    );
    assert_eq!(done(of(&north()).remove(wide()).await), (1, 1));
    assert_eq!(done(of(&north()).restore(wide()).await), (1, 1));
    assert_eq!(
        done(of(&north()).purge(fields.label.ne("own")).await),
        (0, 0)
    );
    let after = (
        stored(&bench, &foreign).await,
        stored(&bench, &deleted).await,
    );
    assert_eq!(after, before);
    assert_eq!(
        bench.load::<Parcel>(&north(), own.id).await.root.version(),
        4
    );

    assert_eq!(
        done(of(&system()).update(wide(), [fields.rank.set(2)]).await),
        (3, 1)
    );
    let log = bench.log().await;
    let owners: Vec<_> = log[log.len() - 3..]
        .iter()
        .map(|event| event.tenant().cloned())
        .collect();
    assert_eq!(owners.iter().flatten().count(), 3);
    assert_eq!(
        owners
            .iter()
            .filter(|owner| **owner == Some(tenant("south")))
            .count(),
        2
    );
    assert_eq!(done(of(&system()).restore(wide()).await), (1, 1));
    assert!(bench.find::<Parcel>(&south(), deleted.id).await.is_some());
    assert!(bench.find::<Parcel>(&north(), deleted.id).await.is_none());
    assert_eq!(done(of(&north()).purge(wide()).await), (1, 1));
    assert_eq!(done(of(&system()).purge(wide()).await), (2, 1));
}

/// Maintenance begins no transaction of its own within the work of another.
pub async fn maintenance_within_work_is_refused<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let store = &bench.store;
    let receipt = store
        .execute(&system(), async |uow| {
            let counters = store.maintenance::<Counter>(&system());
            assert_usage(&err(counters.insert([Counter::new(2)]).await));
            let everything = Specification::all;
            let set = [Counter::fields().value.set(1)];
            assert_usage(&failed(counters.update(everything(), set).await));
            assert_usage(&failed(counters.purge(everything()).await));
            assert_usage(&err(counters.count(everything()).await));
            let mut export = counters.export(Query::all());
            assert_usage(&err(export.next().await));
            uow.save(Counter::new(1))
        })
        .await;
    assert_eq!(ok(receipt).events().len(), 1);
    assert_eq!(bench.log().await.len(), 1);
}
