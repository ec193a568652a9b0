//! Children: what is saved comes back, only differences are written, and the version of the
//! aggregate guards them.

use chrono::NaiveDate;

use super::Harness;
use super::fixtures::{Book, Place, Point, Shelf, Stop, StoredBook, StoredTicket, Ticket, Tour};
use super::random::Random;
use super::support::{
    Bench, assert_conflict, assert_refused, begin, err, north, ok, south, system, time,
};
use crate::error::Error;
use crate::id::Id;
use crate::maintenance::Maintain;
use crate::read_model::ReadModels;
use crate::repository::Repository;
use crate::specification::{PageRequest, Query, Specification};
use crate::store::Store;
use crate::unit_of_work::UnitOfWork;

async fn save_tour<H: Harness>(bench: &Bench<'_, H>, tour: &Tour) -> Tour {
    bench.save(&north(), tour.clone()).await;
    bench.load(&north(), tour.id).await
}

async fn stored_tickets<H: Harness>(bench: &Bench<'_, H>) -> Vec<(String, i32)> {
    let read_models = bench.store.read_models(&north());
    let query = Query::all().order_by(StoredTicket::fields().position.asc());
    let tickets = ok(read_models.query::<StoredTicket>(query).await);
    let entry = |ticket: StoredTicket| (ticket.number, ticket.position);
    tickets.into_iter().map(entry).collect()
}

async fn stored_books<H: Harness>(bench: &Bench<'_, H>) -> Vec<(i64, i64)> {
    let read_models = bench.store.read_models(&system());
    let books = ok(read_models.query::<StoredBook>(Query::all()).await);
    let entry = |book: StoredBook| (book.conformance_shelf_id, book.number);
    books.into_iter().map(entry).collect()
}

fn every_kind() -> Vec<Stop> {
    let full = Stop {
        city: "Graz \u{10ffff}'\"".to_owned(),
        minutes: Some(i32::MIN),
        weight: f64::MIN_POSITIVE,
        factor: Some(0.1),
        seal: Some(vec![0, 255]),
        at: Some(time(7)),
        day: NaiveDate::from_ymd_opt(1, 2, 3),
        place: Some(Place {
            name: None,
            entrance: Some(Point { x: 0.1, y: -0.0 }),
            zone: i16::MAX,
        }),
        tags: vec!["a".to_owned(), String::new()],
    };
    let mut partly = full.clone();
    partly.place = Some(Place {
        name: Some(String::new()),
        entrance: None,
        zone: 0,
    });
    partly.weight = 0.1 + 0.2;
    vec![Stop::at(""), full.clone(), partly, full]
}

/// Children come back with every value as it was, in their order, also where they are equal.
pub async fn children_come_back_as_they_were_saved<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut tour = Tour::plan("all", &[]);
    let none = save_tour(&bench, &tour).await;
    assert_eq!((none.stops.len(), none.tickets.len()), (0, 0));
    tour = Tour::plan("all", &[]);
    tour.stops = every_kind();
    tour.tickets = vec![Ticket::new("z"), Ticket::new("a")];
    let loaded = save_tour(&bench, &tour).await;
    assert_eq!(loaded.stops, tour.stops);
    assert_eq!(loaded.tickets, tour.tickets);
    assert_eq!(loaded.root.version(), 1);
}

/// Those with a key of their own keep the order of the `Vec` too; their rows say their place.
pub async fn children_with_keys_come_back_in_their_order<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut tour = Tour::plan("keys", &[]);
    tour.tickets = ["c", "a", "b"].map(Ticket::new).to_vec();
    let mut tour = save_tour(&bench, &tour).await;
    tour.tickets.swap(0, 2);
    tour.tickets.insert(1, Ticket::new("d"));
    let tour = save_tour(&bench, &tour).await;
    let expected = ["b", "d", "a", "c"].map(Ticket::new);
    assert_eq!(tour.tickets, expected);
    let places = [("b", 0), ("d", 1), ("a", 2), ("c", 3)];
    let stored = stored_tickets(&bench).await;
    assert_eq!(stored, places.map(|(number, at)| (number.to_owned(), at)));
}

/// What was added, changed and removed is so in the store, in both tables.
pub async fn children_are_saved_by_difference<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut tour = Tour::plan("a", &["Graz", "Linz", "Wels"]);
    tour.tickets = ["1", "2", "3"].map(Ticket::new).to_vec();
    let mut tour = save_tour(&bench, &tour).await;
    tour.stops[1].minutes = Some(5);
    tour.extend("Enns");
    tour.tickets.remove(0);
    tour.tickets[1].holder = Some("ann".to_owned());
    let mut tour = save_tour(&bench, &tour).await;
    assert_eq!(tour.cities(), ["Graz", "Linz", "Wels", "Enns"]);
    assert_eq!(tour.stops[1].minutes, Some(5));
    assert_eq!(tour.tickets[0], Ticket::new("2"));
    assert_eq!(tour.tickets[1].holder.as_deref(), Some("ann"));
    tour.stops.remove(0);
    tour.stops.truncate(2);
    tour.tickets.clear();
    let mut tour = save_tour(&bench, &tour).await;
    assert_eq!(tour.cities(), ["Linz", "Wels"]);
    assert_eq!(tour.stops[0].minutes, Some(5));
    assert!(tour.tickets.is_empty());
    // A key that was used once can be used again.
    tour.tickets.push(Ticket::new("1"));
    let tour = save_tour(&bench, &tour).await;
    assert_eq!(tour.tickets, [Ticket::new("1")]);
}

/// An aggregate of which only a child changed has a new version, and a marker where it raised no
/// event.
pub async fn a_change_in_a_child_alone_is_a_change<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut tour = Tour::plan("a", &["Graz"]);
    tour.tickets.push(Ticket::new("1"));
    let mut tour = save_tour(&bench, &tour).await;
    let created = tour.root.stamps().updated_at;
    bench.clock.set(time(60));
    tour.stops[0].minutes = Some(1);
    let mut tour = save_tour(&bench, &tour).await;
    assert_eq!(tour.root.version(), 2);
    assert_ne!(tour.root.stamps().updated_at, created);
    tour.tickets.clear();
    let tour = save_tour(&bench, &tour).await;
    assert_eq!(tour.root.version(), 3);
    let stream = bench.stream::<Tour>(&tour.id).await;
    let types: Vec<&str> = stream.iter().map(|(_, kind)| kind.as_str()).collect();
    assert_eq!(types, ["tour.planned", "cqrs.changed", "cqrs.changed"]);
}

/// A save that raised no event and changed neither the aggregate nor a child writes nothing.
pub async fn unchanged_children_are_not_written<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut tour = Tour::plan("a", &[]);
    tour.stops = every_kind();
    tour.tickets.push(Ticket::new("1"));
    let mut tour = save_tour(&bench, &tour).await;
    let receipt = bench.saved(&north(), tour.clone()).await;
    assert_eq!(receipt.events().len(), 0);
    let stop = tour.stops.remove(1);
    tour.stops.insert(1, stop);
    let receipt = bench.saved(&north(), tour.clone()).await;
    assert_eq!(receipt.events().len(), 0);
    tour.extend("Graz");
    tour.stops.pop();
    // An event is a change, also where the children are as they were.
    let tour = save_tour(&bench, &tour).await;
    assert_eq!((tour.root.version(), tour.stops), (2, every_kind()));
}

/// A save or a removal at a stale version changes no child, whichever child it is about.
pub async fn a_stale_save_changes_no_child<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let stale = save_tour(&bench, &Tour::plan("a", &["Graz", "Linz"])).await;
    let mut fresh = stale.clone();
    fresh.stops[0].minutes = Some(1);
    bench.save(&north(), fresh).await;
    let mut changed = stale.clone();
    changed.stops[1].minutes = Some(2);
    let mut emptied = stale.clone();
    emptied.stops.clear();
    let mut extended = stale.clone();
    extended.extend("Wels");
    for tour in [changed, emptied, extended] {
        let error = err(bench.try_save(&north(), tour).await);
        assert_conflict::<Tour>(&error, &stale.id, 1, 2);
    }
    let error = err(bench.try_remove(&north(), stale.clone()).await);
    assert_conflict::<Tour>(&error, &stale.id, 1, 2);
    let tour: Tour = bench.load(&north(), stale.id).await;
    assert_eq!(tour.cities(), ["Graz", "Linz"]);
    let minutes: Vec<_> = tour.stops.iter().map(|stop| stop.minutes).collect();
    assert_eq!(minutes, [Some(1), None]);
}

/// A new aggregate has no stored children, also where it was made from one that has.
pub async fn a_copy_is_saved_with_all_children<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let first = save_tour(&bench, &Tour::plan("a", &["Graz", "Linz"])).await;
    let copy = Tour {
        stops: first.stops.clone(),
        ..Tour::plan("b", &[])
    };
    let copy = save_tour(&bench, &copy).await;
    assert_eq!(copy.cities(), ["Graz", "Linz"]);
    assert_eq!(
        bench.load::<Tour>(&north(), first.id).await.cities(),
        first.cities()
    );
}

/// A key is unique among the children of one aggregate, and not beyond.
pub async fn two_children_of_one_key_are_refused<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut tour = Tour::plan("a", &[]);
    tour.tickets = ["1", "2", "1"].map(Ticket::new).to_vec();
    let error = err(bench.try_save(&north(), tour.clone()).await);
    assert_refused(&error, "conformance_ticket", "number");
    tour.tickets.pop();
    save_tour(&bench, &tour).await;
    let mut other = Tour::plan("b", &[]);
    other.tickets = vec![Ticket::new("1")];
    let mut other = save_tour(&bench, &other).await;
    other.tickets.push(Ticket::new("1"));
    let error = err(bench.try_save(&north(), other).await);
    assert_refused(&error, "conformance_ticket", "number");
}

/// What no column can hold is refused by its table and column, before anything is sent.
pub async fn what_a_child_cannot_hold_is_refused<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut tour = Tour::plan("a", &["Graz", "Linz"]);
    tour.stops[1].weight = f64::NAN;
    let error = err(bench.try_save(&north(), tour).await);
    assert_refused(&error, "conformance_stop", "weight");
    let condition = Tour::fields()
        .stops
        .any_child(Stop::fields().weight.eq(f64::NAN));
    let mut uow = bench.unit_of_work(&north());
    let error = err(uow.repository::<Tour>().count(condition).await);
    assert_refused(&error, "conformance_stop", "weight");
    assert!(bench.log().await.is_empty());
}

/// The children of an aggregate that is removed for good are gone.
pub async fn children_are_removed_with_their_aggregate<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut uow = bench.unit_of_work(&system());
    for id in 1..=3 {
        ok(uow.save(Shelf::with(id, [10, 20])));
    }
    ok(uow.save(Shelf::with(4, [])));
    ok(uow.commit().await);
    let mut uow = bench.unit_of_work(&system());
    for id in [1, 3, 4] {
        let shelf: Shelf = ok(uow.get(id).await);
        ok(uow.remove(shelf));
    }
    ok(uow.commit().await);
    assert_eq!(stored_books(&bench).await, [(2, 10), (2, 20)]);
    let shelf: Shelf = bench.load(&system(), 2).await;
    bench.remove(&system(), shelf).await;
    assert_eq!(stored_books(&bench).await, []);
}

/// The children of an aggregate that is marked as deleted stay, and are found by nobody who looks
/// for aggregates.
pub async fn children_are_hidden_with_their_aggregate<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut tour = Tour::plan("a", &["Graz"]);
    tour.tickets.push(Ticket::new("1"));
    let mut tour = save_tour(&bench, &tour).await;
    // What a removal would change in the children is not kept, as the rest of the row is not.
    tour.stops.clear();
    let id = tour.id;
    bench.remove(&north(), tour).await;
    let in_graz = Tour::fields()
        .stops
        .any_child(Stop::fields().city.eq("Graz"));
    let mut uow = bench.unit_of_work(&north());
    assert_eq!(ok(uow.repository::<Tour>().count(in_graz).await), 0);
    assert!(bench.find::<Tour>(&north(), id).await.is_none());
    assert_eq!(stored_tickets(&bench).await, [("1".to_owned(), 0)]);
}

/// Whatever finds several aggregates has the children of each.
pub async fn queries_and_pages_have_children<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut uow = bench.unit_of_work(&north());
    for n in 0..7 {
        let cities: Vec<String> = (0..n % 4).map(|stop| format!("{n}.{stop}")).collect();
        let cities: Vec<&str> = cities.iter().map(String::as_str).collect();
        let mut tour = Tour::plan(&n.to_string(), &cities);
        tour.rank = (n % 3 > 0).then_some(n % 3);
        tour.tickets = (0..n % 2).map(|_| Ticket::new("1")).collect();
        ok(uow.save(tour));
    }
    ok(uow.commit().await);
    let check = |tour: &Tour| {
        let n: usize = tour.name.parse().unwrap_or(usize::MAX);
        let cities: Vec<String> = (0..n % 4).map(|stop| format!("{n}.{stop}")).collect();
        assert_eq!(tour.cities(), cities);
        assert_eq!(tour.tickets.len(), n % 2);
    };
    let f = Tour::fields();
    let query = || Query::all().order_by(f.rank.desc()).order_by(f.name.desc());
    let expected = ["6", "3", "0", "5", "2", "4", "1"];
    let mut uow = bench.unit_of_work(&north());
    let tours = ok(uow.query(query()).await);
    tours.iter().for_each(check);
    let names = |tours: &[Tour]| {
        tours
            .iter()
            .map(|tour| tour.name.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&tours), expected);
    let tours = ok(uow.query(query().limit(2)).await);
    assert_eq!(names(&tours), expected[..2]);
    let mut found = Vec::new();
    let mut request = PageRequest::first(3).with_total();
    loop {
        let page = ok(uow.repository::<Tour>().page(query(), request).await);
        assert_eq!(page.total, Some(7));
        page.items.iter().for_each(check);
        found.extend(names(&page.items));
        let Some(next) = page.next else { break };
        request = PageRequest::after(next, 3).with_total();
    }
    assert_eq!(found, expected);
    let page = ok(uow
        .repository::<Tour>()
        .page(query(), PageRequest::skip(6, 5))
        .await);
    assert_eq!(names(&page.items), ["1"]);
    let none = query().limit(0);
    assert!(ok(uow.query(none).await).is_empty());
}

async fn names<H: Harness>(bench: &Bench<'_, H>, condition: Specification<Tour>) -> Vec<String> {
    let mut uow = bench.unit_of_work(&north());
    let query = Query::filter(condition).order_by(Tour::fields().name.asc());
    let tours = ok(uow.query(query).await);
    tours.into_iter().map(|tour| tour.name).collect()
}

/// One child must fit the whole condition, whatever the others are.
pub async fn any_child_asks_for_one_that_fits<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut long = Tour::plan("long in Graz", &["Linz", "Graz"]);
    long.stops[1].minutes = Some(60);
    let mut apart = Tour::plan("long, and Graz", &["Linz", "Graz"]);
    apart.stops[0].minutes = Some(60);
    apart.tickets.push(Ticket::new("1"));
    let none = Tour::plan("nowhere", &[]);
    for tour in [long, apart, none] {
        bench.save(&north(), tour).await;
    }
    let (f, stop, ticket) = (Tour::fields(), Stop::fields(), Ticket::fields());
    let graz = || f.stops.any_child(stop.city.eq("Graz"));
    let long = || f.stops.any_child(stop.minutes.ge(60));
    let long_in_graz = || {
        f.stops
            .any_child(stop.city.eq("Graz") & stop.minutes.ge(60))
    };
    let both = ["long in Graz", "long, and Graz"];
    assert_eq!(names(&bench, graz()).await, both);
    assert_eq!(names(&bench, graz() & long()).await, both);
    assert_eq!(names(&bench, long_in_graz()).await, ["long in Graz"]);
    assert_eq!(
        names(&bench, graz() & !long_in_graz()).await,
        ["long, and Graz"]
    );
    assert_eq!(names(&bench, !graz()).await, ["nowhere"]);
    let stops = f.stops.any_child(Specification::all());
    assert_eq!(names(&bench, !stops).await, ["nowhere"]);
    let tickets = f.tickets.any_child(ticket.number.in_(["0", "1"]));
    assert_eq!(names(&bench, tickets.clone()).await, ["long, and Graz"]);
    assert_eq!(names(&bench, tickets | f.name.eq("nowhere")).await.len(), 2);
    let zone = stop.place.entrance.x.gt(0.0);
    assert_eq!(names(&bench, f.stops.any_child(zone)).await.len(), 0);
    for condition in [
        f.stops.any_child(Specification::none()),
        graz() & f.rank.gt(0),
    ] {
        assert_eq!(names(&bench, condition).await.len(), 0);
    }
    // Not unknown, so its opposite is true.
    assert_eq!(
        names(&bench, !f.stops.any_child(Specification::none()))
            .await
            .len(),
        3
    );
}

/// A condition that is unknown for a child is not true for it; the whole is false then.
pub async fn any_child_is_never_unknown<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let unknown = Tour::plan("unknown", &["Graz"]);
    let mut known = Tour::plan("known", &["Graz", "Linz"]);
    known.stops[1].minutes = Some(1);
    bench.save(&north(), unknown).await;
    bench.save(&north(), known).await;
    let (f, stop) = (Tour::fields(), Stop::fields());
    let one = || f.stops.any_child(stop.minutes.eq(1));
    assert_eq!(names(&bench, one()).await, ["known"]);
    assert_eq!(names(&bench, !one()).await, ["unknown"]);
    let not_one = || f.stops.any_child(!stop.minutes.eq(1));
    assert_eq!(names(&bench, not_one()).await.len(), 0);
    assert_eq!(names(&bench, !not_one()).await, ["known", "unknown"]);
    let null = f.stops.any_child(stop.minutes.is_null());
    assert_eq!(names(&bench, null).await, ["known", "unknown"]);
}

/// Only the children of the aggregate itself count, in every scope.
pub async fn any_child_stays_within_its_aggregate<H: Harness>(h: &H) {
    let bench = begin(h).await;
    bench.save(&north(), Tour::plan("north", &["Graz"])).await;
    bench.save(&south(), Tour::plan("south", &["Linz"])).await;
    let in_linz = || {
        Tour::fields()
            .stops
            .any_child(Stop::fields().city.eq("Linz"))
    };
    for (context, expected) in [(north(), 0), (south(), 1), (system(), 1)] {
        let mut uow = bench.unit_of_work(&context);
        assert_eq!(
            ok(uow.repository::<Tour>().count(in_linz()).await),
            expected
        );
        let tours = ok(uow.query(Query::filter(in_linz())).await);
        assert_eq!(tours.len() as u64, expected);
    }
}

/// A read sees children that were staged before it.
pub async fn reads_see_staged_children<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let tour = save_tour(&bench, &Tour::plan("a", &["Graz"])).await;
    let mut uow = bench.unit_of_work(&north());
    let mut changed = tour.clone();
    changed.extend("Linz");
    ok(uow.save(changed));
    let in_linz = Tour::fields()
        .stops
        .any_child(Stop::fields().city.eq("Linz"));
    let mut found = ok(uow.query(Query::filter(in_linz)).await);
    assert_eq!(found[0].cities(), ["Graz", "Linz"]);
    // What is saved now is the difference to what was staged before.
    let mut again = found.remove(0);
    again.stops.remove(0);
    ok(uow.save(again));
    assert_eq!(ok(uow.commit().await).events().len(), 2);
    let tour: Tour = bench.load(&north(), tour.id).await;
    assert_eq!((tour.cities(), tour.root.version()), (vec!["Linz"], 3));
}

/// A savepoint that is rolled back takes the changes of children along.
pub async fn savepoints_undo_children<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let id = save_tour(&bench, &Tour::plan("a", &["Graz"])).await.id;
    let mut uow = bench.unit_of_work(&north());
    let error = uow
        .savepoint(async |uow| {
            let mut tour: Tour = uow.get(id).await?;
            tour.extend("Linz");
            tour.tickets.push(Ticket::new("1"));
            uow.save(tour)?;
            let _: Tour = uow.get(id).await?;
            Err::<(), _>(Error::other("refused"))
        })
        .await;
    assert!(error.is_err());
    let mut tour: Tour = ok(uow.get(id).await);
    assert_eq!((tour.cities(), tour.tickets.len()), (vec!["Graz"], 0));
    tour.extend("Wels");
    ok(uow.save(tour));
    ok(uow.commit().await);
    let tour: Tour = bench.load(&north(), id).await;
    assert_eq!(
        (tour.cities(), tour.root.version()),
        (vec!["Graz", "Wels"], 2)
    );
}

/// The children of other tenants are neither seen nor changed.
pub async fn other_tenants_see_no_children<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut tour = Tour::plan("a", &["Graz"]);
    tour.tickets.push(Ticket::new("1"));
    let mut tour = save_tour(&bench, &tour).await;
    assert!(bench.find::<Tour>(&south(), tour.id).await.is_none());
    let read_models = bench.store.read_models(&south());
    assert!(ok(read_models.query::<StoredTicket>(Query::all()).await).is_empty());
    tour.stops.clear();
    assert!(err(bench.try_save(&south(), tour.clone()).await).is_not_found());
    tour = bench.load(&north(), tour.id).await;
    assert_eq!(tour.cities(), ["Graz"]);
    // The system sees all, and keeps the tenant.
    let mut tour: Tour = bench.load(&system(), tour.id).await;
    tour.tickets.push(Ticket::new("2"));
    bench.save(&system(), tour).await;
    assert_eq!(stored_tickets(&bench).await.len(), 2);
}

/// Many aggregates change their children in one commit, in every way.
pub async fn many_aggregates_with_children_commit_at_once<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut uow = bench.unit_of_work(&system());
    for id in 0..30 {
        ok(uow.save(Shelf::with(id, 0..id % 5)));
    }
    ok(uow.commit().await);
    let mut uow = bench.unit_of_work(&system());
    for mut shelf in ok(uow.query::<Shelf>(Query::all()).await) {
        match shelf.id % 3 {
            0 => shelf.books.reverse(),
            1 => shelf.books.insert(0, Book { number: 100 }),
            _ => shelf.books.truncate(1),
        }
        ok(uow.save(shelf));
    }
    ok(uow.commit().await);
    let mut uow = bench.unit_of_work(&system());
    let shelves = ok(uow.query::<Shelf>(Query::all()).await);
    assert_eq!(shelves.len(), 30);
    for shelf in shelves {
        let mut expected: Vec<i64> = (0..shelf.id % 5).collect();
        match shelf.id % 3 {
            0 => expected.reverse(),
            1 => expected.insert(0, 100),
            _ => expected.truncate(1),
        }
        let found: Vec<i64> = shelf.books.iter().map(|book| book.number).collect();
        assert_eq!(found, expected, "shelf {}", shelf.id);
    }
}

/// Bulk work takes children along: it inserts and exports them, finds aggregates by them, brings
/// them back, and deletes them for good.
pub async fn bulk_work_takes_children_along<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let tours = || bench.store.maintenance::<Tour>(&north());
    let plan = |name: &str, city: &str| {
        let mut tour = Tour::plan(name, &[city, "Wels"]);
        tour.tickets = vec![Ticket::new(name)];
        tour
    };
    let inserted = [plan("a", "Graz"), plan("b", "Linz"), Tour::plan("c", &[])];
    let counted = || bench.store.changes().count("conformance_ticket");
    let before = counted();
    assert_eq!(ok(tours().insert(inserted).await).items(), 3);
    assert!(counted() > before, "a cache of the children is stale");
    let f = Tour::fields();
    let by_name = || Query::all().order_by(f.name.asc());
    let mut export = tours().export(by_name());
    let mut exported = Vec::new();
    while let Some(tour) = ok(export.next().await) {
        exported.push(tour);
    }
    let cities: Vec<_> = exported.iter().map(Tour::cities).collect();
    assert_eq!(cities, [vec!["Graz", "Wels"], vec!["Linz", "Wels"], vec![]]);
    assert_eq!(exported[1].tickets, [Ticket::new("b")]);

    let in_graz = || f.stops.any_child(Stop::fields().city.eq("Graz"));
    let updated = tours().update(in_graz(), [f.rank.set(7)]).await;
    assert_eq!(ok(updated).items(), 1);
    assert_eq!(ok(tours().remove(in_graz()).await).items(), 1);
    assert_eq!(ok(tours().count(in_graz()).await), 0);
    assert_eq!(ok(tours().restore(in_graz()).await).items(), 1);
    let found = ok(tours().query(Query::filter(in_graz())).await);
    assert_eq!(found[0].cities(), ["Graz", "Wels"]);
    assert_eq!((found[0].rank, found[0].root.version()), (Some(7), 4));

    let before = counted();
    let receipt = ok(tours().purge(!in_graz()).await);
    assert_eq!(receipt.items(), 2);
    assert!(counted() > before, "a cache of the children is stale");
    assert_eq!(stored_tickets(&bench).await, [("a".to_owned(), 0)]);
    let shelves = bench.store.maintenance::<Shelf>(&system());
    let shelf = |id| Shelf::with(id, [10, 20]);
    assert_eq!(ok(shelves.insert([shelf(1), shelf(2)]).await).items(), 2);
    let first = Shelf::fields().id.eq(1);
    assert_eq!(ok(shelves.remove(first).await).items(), 1);
    assert_eq!(stored_books(&bench).await, [(2, 10), (2, 20)]);
}

/// Whatever is done to the children, what is loaded is what was saved.
pub async fn random_changes_of_children_are_saved<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut random = Random::new(7);
    let tour = Tour::plan("random", &[]);
    let id: Id<Tour> = tour.id;
    bench.save(&north(), tour).await;
    for round in 0..40 {
        let mut tour: Tour = bench.load(&north(), id).await;
        for _ in 0..=random.below(4) {
            change(&mut tour, &mut random);
        }
        let (stops, tickets) = (tour.stops.clone(), tour.tickets.clone());
        bench.save(&north(), tour).await;
        let tour: Tour = bench.load(&north(), id).await;
        assert_eq!(
            (tour.stops, tour.tickets),
            (stops, tickets),
            "round {round}"
        );
    }
}

fn change(tour: &mut Tour, random: &mut Random) {
    let number = random.below(8).to_string();
    let (stops, tickets) = (&mut tour.stops, &mut tour.tickets);
    let (stop, ticket) = (random.below(stops.len()), random.below(tickets.len()));
    match random.below(8) {
        0 | 1 => stops.insert(stop, Stop::at(["Graz", "Linz"][random.below(2)])),
        2 if !stops.is_empty() => drop(stops.remove(stop)),
        3 if !stops.is_empty() => stops[stop].minutes = Some(0),
        4 if !stops.is_empty() => stops.rotate_left(stop),
        5 if !tickets.is_empty() => drop(tickets.remove(ticket)),
        6 if !tickets.is_empty() => {
            tickets.rotate_left(ticket);
            tickets[0].holder = random.once_in(2).then_some(number);
        }
        _ if tickets.iter().all(|ticket| ticket.number != number) => {
            tickets.insert(ticket, Ticket::new(&number));
        }
        _ => {}
    }
}
