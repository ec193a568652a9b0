//! The history of changes: what is read of it, and what is removed.

use chrono::TimeDelta;
use serde_json::json;

use super::Harness;
use super::fixtures::{ChangedRack, GrownRack, OldRack, Rack, Stop, Ticket, Trip};
use super::history::{as_of, history, kinds, page, trips, try_as_of};
use super::support::{assert_refused, assert_usage, begin, err, north, ok, south, system, time};
use crate::error::Error;
use crate::history::{FieldChange, Revision, RevisionKind};
use crate::id::Id;
use crate::maintenance::Maintain;
use crate::repository::{EventHistory, Repository};
use crate::sourced::AsOf;
use crate::specification::{Page, PageRequest, Query, Specification};
use crate::unit_of_work::UnitOfWork;

/// A revision says what differs from the one before it, without what the framework keeps.
pub async fn a_revision_says_what_changed<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut trip = Trip::plan("a");
    trip.stops = vec![Stop::at("Graz"), Stop::at("Wels")];
    trip.tickets = vec![Ticket::new("1"), Ticket::new("2")];
    let id = trip.id;
    bench.save(&north(), trip).await;
    let mut trip: Trip = bench.load(&north(), id).await;
    trip.rank = Some(3);
    trip.stops[1].city = "Linz".to_owned();
    trip.tickets.remove(0);
    bench.save(&north().with_actor("cat"), trip).await;
    let mut trip: Trip = bench.load(&north(), id).await;
    trip.rename("b");
    bench.save(&north(), trip).await;

    let found = history::<H, Trip>(&bench, &north(), id).await;
    assert_eq!(found[0].changes(), []);
    let changes = found[1].changes();
    let told: Vec<_> = changes
        .iter()
        .map(|change| (change.path.as_str(), change.from.clone(), change.to.clone()))
        .collect();
    let ticket = json!({"trip": id.to_string(), "tenant_id": "north", "position": 0, "number": "1", "holder": null});
    let expected = [
        ("rank", Some(json!(null)), Some(json!(3))),
        (
            "conformance_trip_stop[1].city",
            Some(json!("Wels")),
            Some(json!("Linz")),
        ),
        ("conformance_trip_ticket[1]", Some(ticket), None),
        (
            "conformance_trip_ticket[2].position",
            Some(json!(1)),
            Some(json!(0)),
        ),
    ];
    assert_eq!(told, expected);
    let paths = |changes: &[FieldChange]| {
        let paths = changes.iter().map(|change| change.path.clone());
        paths.collect::<Vec<_>>()
    };
    assert_eq!(paths(found[2].changes()), ["name"]);
    let since = paths(&found[2].changes_since(&found[0]));
    assert_eq!((since.len(), since[0].as_str()), (5, "name"));
    // Also where the one before is on another page.
    let first = page::<H, Trip>(&bench, &north(), id, PageRequest::first(1)).await;
    assert_eq!(paths(first.items[0].changes()), ["name"]);
}

/// At a time an aggregate is what the last change up to then has made of it, by the clock that was
/// there; before the first it did not exist.
pub async fn an_aggregate_is_found_as_it_was<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let id = Id::new();
    for (second, name) in [(10, "a"), (20, "b"), (15, "c")] {
        bench.clock.set(time(second));
        let trip = match second {
            10 => Trip {
                id,
                ..Trip::plan(name)
            },
            _ => {
                let mut trip: Trip = bench.load(&north(), id).await;
                trip.rename(name);
                trip
            }
        };
        bench.save(&north(), trip).await;
    }
    let name = async |at: AsOf| {
        let found: Option<Trip> = as_of(&bench, &north(), id, at).await;
        found.map(|trip| trip.name)
    };
    let just_before = time(10) - TimeDelta::microseconds(1);
    assert_eq!(name(AsOf::Time(just_before)).await, None);
    assert_eq!(name(AsOf::Time(time(10))).await.as_deref(), Some("a"));
    assert_eq!(name(AsOf::Time(time(14))).await.as_deref(), Some("a"));
    // A clock that went back: the last change up to then counts.
    assert_eq!(name(AsOf::Time(time(20))).await.as_deref(), Some("c"));
    assert_eq!(name(AsOf::Version(0)).await, None);
    assert_eq!(name(AsOf::Version(2)).await.as_deref(), Some("b"));
    assert_eq!(name(AsOf::Version(u64::MAX)).await.as_deref(), Some("c"));
    let nobody: Option<Trip> = as_of(&bench, &north(), Id::new(), AsOf::Version(1)).await;
    assert!(nobody.is_none());

    let mut old: Trip = ok(as_of(&bench, &north(), id, AsOf::Version(1))
        .await
        .ok_or("none"));
    old.rename("d");
    assert!(err(bench.try_save(&north(), old).await).is_conflict());
}

/// Revisions come in pages, the youngest first.
pub async fn revisions_come_in_pages<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let trip = Trip::plan("0");
    let id = trip.id;
    bench.save(&north(), trip).await;
    for name in 1..7 {
        let mut trip: Trip = bench.load(&north(), id).await;
        trip.rename(&name.to_string());
        bench.save(&north(), trip).await;
    }
    let versions = |page: &Page<Revision<Trip>>| -> Vec<u64> {
        page.items.iter().map(Revision::version).collect()
    };
    let first = page(&bench, &north(), id, PageRequest::first(3).with_total()).await;
    assert_eq!((versions(&first), first.total), (vec![7, 6, 5], Some(7)));
    let next = first.next.unwrap_or_else(|| panic!("there is more"));
    let text = next.to_string();
    let next = PageRequest::after(ok(text.parse()), 3);
    let second = page(&bench, &north(), id, next).await;
    assert_eq!((versions(&second), second.total), (vec![4, 3, 2], None));
    let next = second.next.unwrap_or_else(|| panic!("there is more"));
    let third = page(&bench, &north(), id, PageRequest::after(next, 3)).await;
    assert_eq!((versions(&third), third.next), (vec![1], None));
    let skipped = page(&bench, &north(), id, PageRequest::skip(5, 9)).await;
    assert_eq!(versions(&skipped), [2, 1]);

    bench.save(&north(), Trip::plan("another")).await;
    let mut uow = bench.unit_of_work(&north());
    let mut trips = uow.repository::<Trip>();
    let empty = trips.revisions(id, PageRequest::first(0)).await;
    assert_usage(&err(empty));
    let other = ok(trips.page(Query::all(), PageRequest::first(1)).await);
    let other = other.next.unwrap_or_else(|| panic!("there is more"));
    let foreign = trips.revisions(id, PageRequest::after(other, 1)).await;
    assert_usage(&err(foreign));
}

/// Other tenants see no revisions, and remove none; the system sees all.
pub async fn revisions_belong_to_their_tenant<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let trip = Trip::plan("own");
    let id = trip.id;
    bench.save(&north(), trip).await;
    let mut trip: Trip = bench.load(&north(), id).await;
    trip.rename("changed");
    bench.save(&system(), trip).await;
    assert_eq!(history::<H, Trip>(&bench, &south(), id).await.len(), 0);
    let total = PageRequest::first(9).with_total();
    assert_eq!(
        page::<H, Trip>(&bench, &south(), id, total).await.total,
        Some(0)
    );
    for at in [AsOf::Version(2), AsOf::Version(0), AsOf::Time(time(9))] {
        let found: Option<Trip> = as_of(&bench, &south(), id, at).await;
        assert!(found.is_none());
    }
    let theirs = bench.store.maintenance::<Trip>(&south());
    assert_eq!(ok(theirs.remove_history(time(9)).await).items(), 0);
    for context in [north(), system()] {
        assert_eq!(history::<H, Trip>(&bench, &context, id).await.len(), 2);
    }
    // What has no tenant is everyone's.
    bench.save(&north(), Rack::with(1, "a", [])).await;
    assert_eq!(history::<H, Rack>(&bench, &south(), 1).await.len(), 1);
}

/// A unit of work sees the revisions of what it has staged; what is undone leaves none.
pub async fn revisions_of_what_is_staged_are_seen<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let trip = Trip::plan("a");
    let id = trip.id;
    bench.save(&north(), trip).await;
    let mut uow = bench.unit_of_work(&north());
    let mut trip: Trip = ok(uow.get(id).await);
    trip.rename("b");
    ok(uow.save(trip));
    let request = || PageRequest::first(9);
    let seen = ok(uow.repository::<Trip>().revisions(id, request()).await);
    assert_eq!(seen.items.len(), 2);
    assert_eq!(
        (seen.items[0].version(), seen.items[0].actor()),
        (2, Some("ann"))
    );
    let undone = uow
        .savepoint(async |uow| {
            let mut trip: Trip = uow.get(id).await?;
            trip.rename("c");
            uow.save(trip)?;
            let now = uow
                .repository::<Trip>()
                .find_as_of(id, AsOf::Version(3))
                .await?;
            assert_eq!(now.map(|trip| trip.name).as_deref(), Some("c"));
            Err::<(), _>(Error::other("undone"))
        })
        .await;
    assert!(undone.is_err());
    let seen = ok(uow.repository::<Trip>().revisions(id, request()).await);
    assert_eq!(seen.items.len(), 2);
    ok(uow.commit().await);
    let names = history::<H, Trip>(&bench, &north(), id).await;
    let names: Vec<String> = names.iter().map(|one| ok(one.aggregate()).name).collect();
    assert_eq!(names, ["a", "b"]);
}

/// Where the history was begun after the aggregate, what was before is not known, and not taken for
/// nothing.
pub async fn what_was_before_the_history_is_not_known<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let old = Rack::with(1, "a", [10]);
    let old = OldRack {
        id: old.id,
        root: old.root,
        room: old.room,
        books: old.books,
    };
    bench.save(&system(), old).await;
    let before = async || {
        let mut uow = bench.unit_of_work(&system());
        let found = uow
            .repository::<Rack>()
            .find_as_of(1, AsOf::Version(1))
            .await;
        found.map(|rack| rack.is_some())
    };
    let unknown = |error: Error| {
        matches!(
            error,
            Error::NotInHistory {
                aggregate: "rack",
                ..
            }
        )
    };
    assert!(unknown(err(before().await)));
    let mut rack: Rack = bench.load(&system(), 1).await;
    rack.room = "b".to_owned();
    bench.save(&system(), rack).await;
    assert!(unknown(err(before().await)));
    let now: Option<Rack> = as_of(&bench, &system(), 1, AsOf::Version(2)).await;
    assert_eq!(now.map(|rack| rack.numbers()), Some(vec![10]));
}

/// A revision that does not fit the type as it is now is an error that names version and column; it
/// can be looked at all the same.
pub async fn a_revision_of_another_shape_is_named<H: Harness>(h: &H) {
    let bench = begin(h).await;
    bench.save(&system(), Rack::with(1, "a", [10])).await;
    let grown: Option<GrownRack> = as_of(&bench, &system(), 1, AsOf::Version(1)).await;
    let grown = grown.unwrap_or_else(|| panic!("it is there"));
    assert_eq!((grown.room.as_str(), grown.note), ("a", None));
    let found = try_as_of::<H, ChangedRack>(&bench, &system(), 1, AsOf::Version(1)).await;
    let error = err(found);
    assert_refused(&error, "conformance_rack", "floor");
    assert!(error.to_string().contains("at version 1"), "{error}");
    let found = history::<H, ChangedRack>(&bench, &system(), 1).await;
    assert_refused(&err(found[0].aggregate()), "conformance_rack", "floor");
    assert!(found[0].image().state.contains("room"));
}

/// Old revisions are removed in batches, except those that say what the aggregates were from then
/// on; of what is deleted nothing stays.
pub async fn old_revisions_are_removed<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let trip = Trip::plan("0");
        ids.push(trip.id);
        bench.clock.set(time(0));
        bench.save(&north(), trip).await;
        for second in 1..5 {
            bench.clock.set(time(second * 10));
            let mut trip: Trip = bench
                .load(&north(), *ids.last().unwrap_or(&Id::new()))
                .await;
            trip.rename(&second.to_string());
            bench.save(&north(), trip).await;
        }
    }
    let gone: Trip = bench.load(&north(), ids[2]).await;
    bench.remove(&north(), gone).await;
    bench.clock.set(time(25));
    let done = ok(trips(&bench).batch_size(2).remove_history(time(25)).await);
    assert_eq!(done.items(), 6);
    assert!(done.commits() >= 3 || done.commits() == 1, "{done:?}");
    for id in &ids[..2] {
        let found = history::<H, Trip>(&bench, &north(), *id).await;
        let versions: Vec<u64> = found.iter().map(Revision::version).collect();
        assert_eq!(versions, [3, 4, 5]);
        let then: Option<Trip> = as_of(&bench, &north(), *id, AsOf::Time(time(25))).await;
        assert_eq!(then.map(|trip| trip.name).as_deref(), Some("2"));
        let before = try_as_of::<H, Trip>(&bench, &north(), *id, AsOf::Time(time(15))).await;
        assert!(matches!(err(before), Error::NotInHistory { .. }));
    }
    assert_eq!(ok(trips(&bench).remove_history(time(25)).await).items(), 0);

    // Marked as deleted it can be brought back; deleted for good it cannot.
    let later = time(1_000);
    assert_eq!(
        ok(trips(&bench).remove_history(later).await).items(),
        2 + 2 + 3
    );
    assert_eq!(
        kinds::<H, Trip>(&bench, ids[2]).await,
        [(6, RevisionKind::Removed)]
    );
    let all = trips(&bench).include_deleted();
    ok(all.purge(Specification::all()).await);
    assert_eq!(ok(trips(&bench).remove_history(later).await).items(), 6);
    for id in ids {
        assert_eq!(kinds::<H, Trip>(&bench, id).await, []);
        // As if it had never been.
        let then: Option<Trip> = as_of(&bench, &north(), id, AsOf::Version(3)).await;
        assert!(then.is_none());
    }
}

/// By clocks that differ, what is deleted may be older than what was before it. It stays deleted, and
/// in the end nothing stays of it.
pub async fn the_end_of_a_history_is_removed_last<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let racks = bench.store.maintenance::<Rack>(&system());
    bench.clock.set(time(10));
    bench.save(&system(), Rack::with(1, "a", [10])).await;
    bench.clock.set(time(30));
    let mut rack: Rack = bench.load(&system(), 1).await;
    rack.room = "b".to_owned();
    bench.save(&system(), rack).await;
    bench.clock.set(time(20));
    let rack: Rack = bench.load(&system(), 1).await;
    bench.remove(&system(), rack).await;

    assert_eq!(ok(racks.remove_history(time(25)).await).items(), 1);
    let (changed, removed) = (RevisionKind::Changed, RevisionKind::Removed);
    assert_eq!(
        kinds::<H, Rack>(&bench, 1).await,
        [(2, changed), (3, removed)]
    );
    let now = as_of::<H, Rack>(&bench, &system(), 1, AsOf::Time(time(99))).await;
    assert!(now.is_none());
    assert_eq!(ok(racks.remove_history(time(31)).await).items(), 2);
    assert_eq!(kinds::<H, Rack>(&bench, 1).await, []);
}
