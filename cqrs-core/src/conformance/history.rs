//! The history of changes.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use uuid::Uuid;

use super::Harness;
use super::fixtures::{ChangedRack, GrownRack, OldRack, Rack, Stop, Ticket, Trip};
use super::random::Random;
use super::support::{
    Bench, assert_already_exists, assert_refused, assert_usage, begin, err, north, ok, south,
    system, time,
};
use crate::context::{RequestContext, TenantId};
use crate::error::{Error, Result};
use crate::history::{FieldChange, KeepsHistory, Revision, RevisionKind};
use crate::id::Id;
use crate::maintenance::{Maintain, Maintenance};
use crate::repository::{EventHistory, Repository};
use crate::sourced::AsOf;
use crate::specification::{Page, PageRequest, Query, Specification};
use crate::unit_of_work::UnitOfWork;

async fn page<H: Harness, A: KeepsHistory>(
    bench: &Bench<'_, H>,
    context: &RequestContext,
    id: A::Id,
    request: PageRequest,
) -> Page<Revision<A>> {
    let mut uow = bench.unit_of_work(context);
    ok(uow.repository::<A>().revisions(id, request).await)
}

/// All revisions of an aggregate, from the oldest on.
async fn history<H: Harness, A: KeepsHistory>(
    bench: &Bench<'_, H>,
    context: &RequestContext,
    id: A::Id,
) -> Vec<Revision<A>> {
    let mut found = page(bench, context, id, PageRequest::first(1_000))
        .await
        .items;
    found.reverse();
    found
}

/// Version and kind of all revisions.
async fn kinds<H: Harness, A: KeepsHistory>(
    bench: &Bench<'_, H>,
    id: A::Id,
) -> Vec<(u64, RevisionKind)> {
    let found = history::<H, A>(bench, &system(), id).await;
    let kind = |revision: &Revision<A>| (revision.version(), revision.kind());
    found.iter().map(kind).collect()
}

async fn try_as_of<H: Harness, A: KeepsHistory>(
    bench: &Bench<'_, H>,
    context: &RequestContext,
    id: A::Id,
    at: AsOf,
) -> Result<Option<A>> {
    let mut uow = bench.unit_of_work(context);
    uow.repository::<A>().find_as_of(id, at).await
}

async fn as_of<H: Harness, A: KeepsHistory>(
    bench: &Bench<'_, H>,
    context: &RequestContext,
    id: A::Id,
    at: AsOf,
) -> Option<A> {
    ok(try_as_of(bench, context, id, at).await)
}

fn trips<H: Harness>(bench: &Bench<'_, H>) -> Maintenance<H::Store, Trip> {
    bench.store.maintenance::<Trip>(&north())
}

/// Each commit that changes an aggregate leaves one revision, which says who, when and within which
/// request; a save that changes nothing leaves none.
pub async fn each_change_leaves_one_revision<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let correlation = Uuid::from_u128(7);
    bench.clock.set(time(1));
    let trip = Trip::plan("first");
    let id = trip.id;
    bench
        .save(&north().with_correlation_id(correlation), trip)
        .await;
    let change = async |second: i64, actor: &str, change: &dyn Fn(&mut Trip)| {
        bench.clock.set(time(second));
        let mut trip: Trip = bench.load(&north(), id).await;
        change(&mut trip);
        bench.save(&north().with_actor(actor), trip).await;
    };
    change(2, "cat", &|trip| {
        trip.rename("second");
        trip.rename("third");
    })
    .await;
    change(3, "dan", &|trip| trip.rank = Some(1)).await;
    change(4, "eve", &|_| {}).await;
    let nobody = RequestContext::system();
    let trip: Trip = bench.load(&north(), id).await;
    bench.clock.set(time(5));
    bench.remove(&nobody, trip).await;

    let found = history::<H, Trip>(&bench, &north(), id).await;
    let said: Vec<_> = found
        .iter()
        .map(|one| (one.version(), one.kind(), one.actor(), one.changed_at()))
        .collect();
    let expected = [
        (1, RevisionKind::Created, Some("ann"), time(1)),
        (3, RevisionKind::Changed, Some("cat"), time(2)),
        (4, RevisionKind::Changed, Some("dan"), time(3)),
        (5, RevisionKind::Removed, None, time(5)),
    ];
    assert_eq!(said, expected);
    assert_eq!(found[0].correlation_id(), correlation);
    assert_ne!(found[1].correlation_id(), correlation);
    assert_eq!(found[3].tenant().map(TenantId::as_str), Some("north"));
}

/// A revision is what the aggregate was when it was loaded after the change, in every column and
/// with its children: however it was changed, and however it is asked for.
pub async fn a_revision_is_what_was_saved<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut random = Random::new(11);
    let mut id = None;
    let mut expected = Vec::new();
    for round in 0..40 {
        bench.clock.set(time(round));
        let mut trip = match id {
            None => Trip::plan("random"),
            Some(id) => bench.load::<Trip>(&north(), id).await,
        };
        let before = trip.contents();
        for _ in 0..random.below(4) {
            change(&mut trip, &mut random);
        }
        id = Some(trip.id);
        let trip_id = trip.id;
        bench.save(&north(), trip).await;
        let trip: Trip = bench.load(&north(), trip_id).await;
        if trip.contents() != before {
            expected.push((trip.root.version(), time(round), trip.contents()));
        }
    }
    let id = id.unwrap_or_else(Id::new);
    let found = history::<H, Trip>(&bench, &north(), id).await;
    let kept: Vec<_> = found
        .iter()
        .map(|one| {
            (
                one.version(),
                one.changed_at(),
                ok(one.aggregate()).contents(),
            )
        })
        .collect();
    assert_eq!(kept, expected);
    for (version, at, contents) in expected {
        for at in [AsOf::Version(version), AsOf::Time(at)] {
            let found: Option<Trip> = as_of(&bench, &north(), id, at).await;
            assert_eq!(
                found.map(|trip| trip.contents()),
                Some(contents.clone()),
                "{at:?}"
            );
        }
    }
}

fn change(trip: &mut Trip, random: &mut Random) {
    let number = random.below(8).to_string();
    let stop = random.below(trip.stops.len());
    match random.below(15) {
        0 => trip.rename(&format!("a \"name\" {number}\n\u{1F600}")),
        1 => trip.open = !trip.open,
        2 => trip.small = [i16::MIN, i16::MAX, 0][random.below(3)],
        3 => trip.rank = [None, Some(i32::MIN), Some(i32::MAX)][random.below(3)],
        4 => trip.large = [i64::MIN, i64::MAX, 9_007_199_254_740_993][random.below(3)],
        5 => trip.share = [0.1, f32::MAX, f32::MIN_POSITIVE, -0.0][random.below(4)],
        6 => {
            let values = [
                None,
                Some(0.1),
                Some(f64::MAX),
                Some(5e-324),
                Some(f64::INFINITY),
            ];
            trip.ratio = values[random.below(5)];
        }
        7 => trip.seal = [None, Some(vec![]), Some(vec![0, 255])][random.below(3)].clone(),
        8 => trip.ticket = [None, Some(Uuid::from_u128(random.next().into()))][random.below(2)],
        9 => trip.at = [None, Some(time(0)), Some(far(0)), Some(far(9999))][random.below(4)],
        10 => trip.day = [None, Some(far(0).date_naive())][random.below(2)],
        11 => {
            let documents = [json!({"a": [1.5, null, "x"]}), json!(null), json!([])];
            trip.document = documents[random.below(3)].clone();
        }
        12 => trip
            .stops
            .insert(stop, Stop::at(["Graz", "Linz"][random.below(2)])),
        13 if !trip.stops.is_empty() => {
            trip.stops[stop].seal = Some(vec![1]);
            trip.stops[stop].at = Some(far(9999));
            trip.stops.rotate_left(stop);
        }
        _ if trip.tickets.iter().all(|ticket| ticket.number != number) => {
            trip.tickets.insert(0, Ticket::new(&number));
        }
        _ => drop(trip.tickets.pop()),
    }
}

/// The last day of February in a year.
fn far(year: i32) -> DateTime<Utc> {
    let day = if year == 0 { 29 } else { 28 };
    ok(format!("{year:04}-02-{day}T23:59:59.999999Z").parse())
}

/// Of a commit that is refused no revision is left.
pub async fn a_refused_commit_leaves_no_revision<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let trip = Trip::plan("first");
    let id = trip.id;
    bench.save(&north(), trip).await;
    bench.save(&system(), Rack::with(1, "a", [10])).await;
    let mut stale: Trip = bench.load(&north(), id).await;
    stale.stops.push(Stop::at("Graz"));
    let stale_rack: Rack = bench.load(&system(), 1).await;
    let mut trip: Trip = bench.load(&north(), id).await;
    trip.rename("second");
    bench.save(&north(), trip).await;
    let mut rack: Rack = bench.load(&system(), 1).await;
    rack.books.clear();
    bench.save(&system(), rack).await;

    let again = Trip {
        id,
        ..Trip::plan("again")
    };
    assert!(err(bench.try_save(&north(), again).await).is_conflict());
    assert!(err(bench.try_save(&north(), stale.clone()).await).is_conflict());
    assert!(err(bench.try_remove(&north(), stale.clone()).await).is_conflict());
    assert!(err(bench.try_remove(&system(), stale_rack.clone()).await).is_conflict());
    let fresh = Trip::plan("fresh");
    let fresh_id = fresh.id;
    let mut uow = bench.unit_of_work(&system());
    ok(uow.save(Trip {
        root: crate::Root::for_tenant(super::support::tenant("north")),
        ..fresh
    }));
    ok(uow.save(Rack::with(2, "b", [20])));
    ok(uow.remove(stale_rack));
    assert!(err(uow.commit().await).is_conflict());

    let created = (1, RevisionKind::Created);
    let changed = (2, RevisionKind::Changed);
    assert_eq!(kinds::<H, Trip>(&bench, id).await, [created, changed]);
    assert_eq!(kinds::<H, Rack>(&bench, 1).await, [created, changed]);
    assert_eq!(kinds::<H, Trip>(&bench, fresh_id).await, []);
    assert_eq!(kinds::<H, Rack>(&bench, 2).await, []);
}

/// Many aggregates and all kinds of changes in one commit leave a revision each.
pub async fn many_aggregates_leave_a_revision_each<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut uow = bench.unit_of_work(&system());
    for id in 0..20 {
        ok(uow.save(Rack::with(id, "a", 0..id % 4)));
    }
    ok(uow.commit().await);
    let mut uow = bench.unit_of_work(&system());
    for mut rack in ok(uow.query::<Rack>(Query::all()).await) {
        match rack.id % 5 {
            0 => {}
            1 => rack.room = "b".to_owned(),
            2 => rack.books.push(super::fixtures::Book { number: 100 }),
            3 => {
                rack.room = "dropped".to_owned();
                ok(uow.remove(rack));
                continue;
            }
            _ => rack.root.raise(super::fixtures::RackEvent::Built),
        }
        ok(uow.save(rack));
    }
    ok(uow.save(Rack::with(20, "new", [1, 2])));
    ok(uow.commit().await);
    for id in 0..=20 {
        let found = history::<H, Rack>(&bench, &system(), id).await;
        let last = found.last().unwrap_or_else(|| panic!("rack {id}"));
        let (length, kind) = match id % 5 {
            _ if id == 20 => (1, RevisionKind::Created),
            0 => (1, RevisionKind::Created),
            3 => (2, RevisionKind::Removed),
            _ => (2, RevisionKind::Changed),
        };
        assert_eq!((found.len(), last.kind()), (length, kind), "rack {id}");
        assert_eq!(last.version(), length as u64, "rack {id}");
        let rack = ok(last.aggregate());
        let mut numbers: Vec<i64> = (0..id % 4).collect();
        numbers.extend((id % 5 == 2).then_some(100));
        let (room, numbers) = match id {
            20 => ("new", vec![1, 2]),
            id if id % 5 == 1 => ("b", numbers),
            _ => ("a", numbers),
        };
        assert_eq!(
            (rack.room.as_str(), rack.numbers()),
            (room, numbers),
            "rack {id}"
        );
    }
}

/// What is deleted is kept as it last was, with its children; it does not exist any more from then
/// on, and did before.
pub async fn what_is_removed_is_kept_as_it_was<H: Harness>(h: &H) {
    let bench = begin(h).await;
    bench.save(&system(), Rack::with(1, "a", [10, 20])).await;
    let mut rack: Rack = bench.load(&system(), 1).await;
    rack.room = "not written".to_owned();
    rack.books.pop();
    bench.remove(&system(), rack).await;
    let found = history::<H, Rack>(&bench, &system(), 1).await;
    assert_eq!(
        (found[1].version(), found[1].kind()),
        (2, RevisionKind::Removed)
    );
    let rack = ok(found[1].aggregate());
    assert_eq!((rack.room.as_str(), rack.numbers()), ("a", vec![10, 20]));
    let version =
        async |version| as_of::<H, Rack>(&bench, &system(), 1, AsOf::Version(version)).await;
    assert!(version(2).await.is_none());
    assert_eq!(
        version(1).await.map(|rack| rack.numbers()),
        Some(vec![10, 20])
    );
    assert!(version(0).await.is_none());

    // Its id stays taken, however it is added again.
    for books in [vec![], vec![30]] {
        let again = || Rack::with(1, "b", books.clone());
        let error = err(bench.try_save(&system(), again()).await);
        assert_already_exists::<Rack>(&error, &1);
        let mut uow = bench.unit_of_work(&system());
        ok(uow.save(Rack::with(2, "b", [20])));
        ok(uow.save(again()));
        assert_already_exists::<Rack>(&err(uow.commit().await), &1);
        let racks = bench.store.maintenance::<Rack>(&system());
        assert_already_exists::<Rack>(&err(racks.insert([again()]).await), &1);
    }
    assert_eq!(kinds::<H, Rack>(&bench, 1).await.len(), 2);
    assert_eq!(kinds::<H, Rack>(&bench, 2).await, []);

    let trip = Trip::plan("kept");
    let id = trip.id;
    bench.save(&north(), trip).await;
    let mut trip: Trip = bench.load(&north(), id).await;
    trip.name = "not written".to_owned();
    bench.clock.set(time(1));
    bench.remove(&north().with_actor("cat"), trip).await;
    let found = history::<H, Trip>(&bench, &north(), id).await;
    let trip = ok(found[1].aggregate());
    assert_eq!(trip.name, "kept");
    assert_eq!(trip.root.stamps().deleted_by.as_deref(), Some("cat"));
    assert!(
        as_of::<H, Trip>(&bench, &north(), id, AsOf::Time(time(1)))
            .await
            .is_none()
    );
    assert!(
        as_of::<H, Trip>(&bench, &north(), id, AsOf::Time(time(0)))
            .await
            .is_some()
    );
}

/// Bulk work leaves the revisions that units of work leave.
pub async fn bulk_work_leaves_revisions<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let planned = |name: &str| {
        let mut trip = Trip::plan(name);
        trip.stops = vec![Stop::at("Graz"), Stop::at("Wels")];
        trip
    };
    let (one, two) = (planned("one"), planned("two"));
    let (id, other) = (one.id, two.id);
    ok(trips(&bench).insert([one]).await);
    ok(trips(&bench).import([two].into_iter(), |_| {}).await);
    let f = Trip::fields();
    let is_one = || f.name.eq("one");
    bench.clock.set(time(1));
    ok(trips(&bench).update(is_one(), [f.rank.set(7)]).await);
    ok(trips(&bench).update(is_one(), [f.rank.set(7)]).await);
    ok(trips(&bench).remove(is_one()).await);
    ok(trips(&bench).restore(is_one()).await);
    ok(trips(&bench).purge(is_one()).await);
    let found = history::<H, Trip>(&bench, &north(), id).await;
    let said: Vec<_> = found
        .iter()
        .map(|one| (one.version(), one.kind()))
        .collect();
    let expected = [
        (1, RevisionKind::Created),
        (2, RevisionKind::Changed),
        (3, RevisionKind::Removed),
        (4, RevisionKind::Restored),
        (5, RevisionKind::Purged),
    ];
    assert_eq!(said, expected);
    for (index, revision) in found.iter().enumerate() {
        let trip = ok(revision.aggregate());
        assert_eq!(trip.stops, [Stop::at("Graz"), Stop::at("Wels")]);
        assert_eq!(trip.rank, (index > 0).then_some(7));
        let stamps = trip.root.stamps();
        assert_eq!(stamps.deleted_at.is_some(), index == 2, "{stamps:?}");
        assert_eq!(revision.actor(), Some("ann"));
        assert_eq!(revision.changed_at(), time(i64::from(index > 0)));
    }
    assert_eq!(
        kinds::<H, Trip>(&bench, other).await,
        [(1, RevisionKind::Created)]
    );

    let racks = bench.store.maintenance::<Rack>(&system()).batch_size(3);
    let many = (0..10).map(|id| Rack::with(id, "a", [id]));
    ok(racks.insert(many).await);
    let few = Rack::fields().id.lt(7);
    assert_eq!(ok(racks.remove(few).await).commits(), 3);
    for id in 0..10 {
        let removed = (2, RevisionKind::Removed);
        let expected = [(1, RevisionKind::Created), removed];
        let length = if id < 7 { 2 } else { 1 };
        let found = history::<H, Rack>(&bench, &system(), id).await;
        assert_eq!(kinds::<H, Rack>(&bench, id).await, expected[..length]);
        assert!(
            found
                .iter()
                .all(|one| ok(one.aggregate()).numbers() == [id])
        );
    }
}

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
