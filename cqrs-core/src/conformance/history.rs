//! The history of changes: what changes leave in it.

use chrono::{DateTime, Utc};
use serde_json::json;
use uuid::Uuid;

use super::Harness;
use super::fixtures::{Rack, Stop, Ticket, Trip};
use super::random::Random;
use super::support::{Bench, assert_already_exists, begin, err, north, ok, system, time};
use crate::context::{RequestContext, TenantId};
use crate::error::Result;
use crate::history::{KeepsHistory, Revision, RevisionKind};
use crate::id::Id;
use crate::maintenance::{Maintain, Maintenance};
use crate::repository::EventHistory;
use crate::sourced::AsOf;
use crate::specification::{Page, PageRequest, Query};
use crate::unit_of_work::UnitOfWork;

pub(super) async fn page<H: Harness, A: KeepsHistory>(
    bench: &Bench<'_, H>,
    context: &RequestContext,
    id: A::Id,
    request: PageRequest,
) -> Page<Revision<A>> {
    let mut uow = bench.unit_of_work(context);
    ok(uow.repository::<A>().revisions(id, request).await)
}

/// All revisions of an aggregate, from the oldest on.
pub(super) async fn history<H: Harness, A: KeepsHistory>(
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
pub(super) async fn kinds<H: Harness, A: KeepsHistory>(
    bench: &Bench<'_, H>,
    id: A::Id,
) -> Vec<(u64, RevisionKind)> {
    let found = history::<H, A>(bench, &system(), id).await;
    let kind = |revision: &Revision<A>| (revision.version(), revision.kind());
    found.iter().map(kind).collect()
}

pub(super) async fn try_as_of<H: Harness, A: KeepsHistory>(
    bench: &Bench<'_, H>,
    context: &RequestContext,
    id: A::Id,
    at: AsOf,
) -> Result<Option<A>> {
    let mut uow = bench.unit_of_work(context);
    uow.repository::<A>().find_as_of(id, at).await
}

pub(super) async fn as_of<H: Harness, A: KeepsHistory>(
    bench: &Bench<'_, H>,
    context: &RequestContext,
    id: A::Id,
    at: AsOf,
) -> Option<A> {
    ok(try_as_of(bench, context, id, at).await)
}

pub(super) fn trips<H: Harness>(bench: &Bench<'_, H>) -> Maintenance<H::Store, Trip> {
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
