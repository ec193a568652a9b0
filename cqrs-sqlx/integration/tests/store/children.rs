//! Children in the databases: which of their rows are written, and that nobody sees some of one
//! version and some of another.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cqrs_core::conformance::fixtures::{
    Shelf, ShelfEvent, Stop, StoredBook, StoredTicket, Ticket, Tour,
};
use cqrs_core::{
    Aggregate, Child, Entity, Id, Maintain, Query, RequestContext, RetryPolicy, Root,
    Specification, Store, StoreErrorKind, UnitOfWork,
};
use cqrs_integration::database::generic_plan;
use cqrs_integration::stores;
use cqrs_sqlx::{Postgres, SqlStore, StoreOptions};
use sqlx::{Connection, PgConnection};
use tokio::sync::Barrier;

use cqrs_integration::each::{Fresh, Kind, kind, on_each};

on_each!(
    only_rows_that_differ_are_written,
    rows_that_others_numbered_keep_their_places,
    a_child_changed_past_its_version_is_noticed,
    a_child_added_past_its_version_is_noticed,
    any_plain_name_is_that_of_a_table_of_children,
    no_change_of_a_child_is_lost,
    nobody_sees_half_of_a_change,
    a_query_that_locks_has_children,
    a_child_of_another_tenant_is_nobodys,
);

fn north() -> RequestContext {
    stores::tenant("north")
}

async fn prepared<K: Kind>(options: StoreOptions) -> (Fresh<K>, SqlStore<K>) {
    let (fresh, store) = Fresh::<K>::with(options).await;
    let tables = [Tour::table(), Shelf::table()];
    store.create_tables(&tables).await.unwrap();
    // Read models over the tables of children have keys of their own.
    let read = [StoredTicket::table(), StoredBook::table()];
    store.verify(&[tables, read].concat()).await.unwrap();
    (fresh, store)
}

async fn save<K: Kind>(store: &SqlStore<K>, tour: Tour) -> cqrs_core::Result<usize> {
    let mut uow = store.unit_of_work(&north());
    uow.save(tour)?;
    Ok(uow.commit().await?.events().len())
}

async fn load<K: Kind>(store: &SqlStore<K>, id: Id<Tour>) -> Tour {
    let mut uow = store.unit_of_work(&north());
    uow.get::<Tour>(id).await.unwrap()
}

/// A table that says what was done to which stop.
async fn watch<K: Kind>(fresh: &Fresh<K>) {
    fresh.run("CREATE TABLE done (what text)").await;
    for (action, row) in [("INSERT", "NEW"), ("UPDATE", "NEW"), ("DELETE", "OLD")] {
        let note = format!("INSERT INTO done VALUES ('{action} ' || {row}.city)");
        let trigger = format!("CREATE TRIGGER on_{action} AFTER {action} ON conformance_stop");
        fresh
            .run(K::either(
                format!(
                    "CREATE FUNCTION note_{action}() RETURNS trigger LANGUAGE plpgsql AS
                     $$ BEGIN {note}; RETURN NULL; END $$;
                     {trigger} FOR EACH ROW EXECUTE FUNCTION note_{action}()"
                ),
                format!("{trigger} BEGIN {note}; END"),
            ))
            .await;
    }
}

async fn done<K: Kind>(fresh: &Fresh<K>) -> Vec<String> {
    let done = K::texts(&fresh.url, "SELECT what FROM done ORDER BY what".to_owned()).await;
    fresh.run("DELETE FROM done").await;
    done
}

async fn only_rows_that_differ_are_written<K: Kind>() {
    let (fresh, store) = prepared::<K>(StoreOptions::default()).await;
    let tour = Tour::plan("a", &["Graz", "Linz", "Wels", "Enns"]);
    let id = tour.id;
    save(&store, tour).await.unwrap();
    watch(&fresh).await;

    let mut tour = load(&store, id).await;
    tour.stops[1].minutes = Some(1);
    tour.stops.push(Stop::at("Melk"));
    assert_eq!(save(&store, tour).await.unwrap(), 1);
    assert_eq!(done(&fresh).await, ["INSERT Melk", "UPDATE Linz"]);

    let mut tour = load(&store, id).await;
    tour.stops.truncate(3);
    tour.name = "b".to_owned();
    assert_eq!(save(&store, tour).await.unwrap(), 1);
    assert_eq!(done(&fresh).await, ["DELETE Enns", "DELETE Melk"]);

    // The rows of an aggregate that changes itself alone are left, and so are those of one that
    // does not change at all.
    let mut tour = load(&store, id).await;
    tour.name = "c".to_owned();
    assert_eq!(save(&store, tour).await.unwrap(), 1);
    let tour = load(&store, id).await;
    assert_eq!(save(&store, tour).await.unwrap(), 0);
    assert_eq!(done(&fresh).await, [""; 0]);
}

async fn rows_that_others_numbered_keep_their_places<K: Kind>() {
    let (fresh, store) = prepared::<K>(StoreOptions::default()).await;
    let tour = Tour::plan("a", &["Graz", "Linz"]);
    let id = tour.id;
    save(&store, tour).await.unwrap();
    fresh
        .run("UPDATE conformance_stop SET seq = 10 * seq + 7")
        .await;
    let tour = load(&store, id).await;
    assert_eq!(tour.cities(), ["Graz", "Linz"]);
    assert_eq!(save(&store, tour).await.unwrap(), 0);
    let mut tour = load(&store, id).await;
    tour.stops.insert(0, Stop::at("Wels"));
    save(&store, tour).await.unwrap();
    assert_eq!(load(&store, id).await.cities(), ["Wels", "Graz", "Linz"]);
    let places = "SELECT CAST(seq AS text) FROM conformance_stop AS s ORDER BY s.seq";
    let places = K::texts(&fresh.url, places.to_owned()).await;
    assert_eq!(places, ["7", "17", "18"]);
}

/// Nothing is written then, and the command is run again.
async fn a_child_changed_past_its_version_is_noticed<K: Kind>() {
    let (fresh, store) = prepared::<K>(StoreOptions::default()).await;
    let tour = Tour::plan("a", &["Graz", "Linz"]);
    let id = tour.id;
    save(&store, tour).await.unwrap();
    for removes in [false, true] {
        let mut tour = load(&store, id).await;
        fresh
            .run("DELETE FROM conformance_stop WHERE seq = 1")
            .await;
        if removes {
            tour.stops.truncate(1);
        } else {
            tour.stops[1].minutes = Some(1);
        }
        tour.name = "b".to_owned();
        let version = tour.root.version();
        let error = save(&store, tour).await.unwrap_err();
        assert_eq!(*kind(&error), StoreErrorKind::Contention);
        assert!(error.to_string().contains("conformance_stop"), "{error}");
        let tour = load(&store, id).await;
        assert_eq!((tour.root.version(), tour.name.as_str()), (version, "a"));
        let mut tour = tour;
        tour.stops.push(Stop::at("Linz"));
        save(&store, tour).await.unwrap();
        let mut tour = load(&store, id).await;
        tour.name = "a".to_owned();
        save(&store, tour).await.unwrap();
    }
}

/// Where somebody has put a row to which the save adds one.
async fn a_child_added_past_its_version_is_noticed<K: Kind>() {
    let (fresh, store) = prepared::<K>(StoreOptions::default()).await;
    let tour = Tour::plan("a", &["Graz"]);
    let id = tour.id;
    save(&store, tour).await.unwrap();
    let runs = AtomicUsize::new(0);
    store
        .execute(&north(), async |uow| {
            let mut tour: Tour = uow.get(id).await?;
            if runs.fetch_add(1, Ordering::SeqCst) == 0 {
                fresh
                    .run(
                        "INSERT INTO conformance_stop
                             (conformance_tour_id, tenant_id, seq, city, weight, tags)
                         SELECT conformance_tour_id, tenant_id, 1, 'Wels', weight, tags
                         FROM conformance_stop",
                    )
                    .await;
            }
            tour.stops.push(Stop::at("Linz"));
            uow.save(tour)
        })
        .await
        .unwrap();
    assert_eq!(runs.load(Ordering::SeqCst), 2);
    let mut tour = load(&store, id).await;
    assert_eq!(tour.cities(), ["Graz", "Wels", "Linz"]);
    assert_eq!(tour.root.version(), 2);

    fresh
        .run(
            "INSERT INTO conformance_ticket (tour, tenant_id, position, number)
             SELECT id, tenant_id, 0, '1' FROM conformance_tour",
        )
        .await;
    tour.tickets.push(Ticket::new("1"));
    let error = save(&store, tour).await.unwrap_err();
    assert_eq!(*kind(&error), StoreErrorKind::Contention);
    assert!(error.to_string().contains("conformance_ticket"), "{error}");
}

/// Tables of children that are named as parts of the statements are.
#[derive(Debug, Clone, Child)]
struct Part {
    g: i64,
}

#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "g", event = ShelfEvent)]
struct Crate {
    #[aggregate(id)]
    id: i64,
    #[aggregate(root)]
    root: Root<ShelfEvent>,
    #[mapper(children(table = "changed", order = "t", parent = "r"))]
    changed: Vec<Part>,
    #[mapper(children(table = "logged"))]
    logged: Vec<Part>,
}

async fn any_plain_name_is_that_of_a_table_of_children<K: Kind>() {
    let (_fresh, store) = Fresh::<K>::with(StoreOptions::default()).await;
    store.create_tables(&[Crate::table()]).await.unwrap();
    let context = RequestContext::system();
    let crates = store.maintenance::<Crate>(&context);
    let new = |id| Crate {
        id,
        root: Root::new(),
        changed: vec![Part { g: id }, Part { g: 0 }],
        logged: vec![Part { g: id }],
    };
    crates.insert([new(1), new(2)]).await.unwrap();
    let f = Crate::fields();
    let first = || f.changed.any_child(Part::fields().g.eq(1));
    assert_eq!(crates.purge(first()).await.unwrap().items(), 1);
    let mut uow = store.unit_of_work(&context);
    let found = uow.query::<Crate>(Query::filter(!first()).lock()).await;
    let mut found = found.unwrap();
    assert_eq!(found.len(), 1);
    let mut last = found.pop().unwrap();
    assert_eq!((last.changed.len(), last.logged.len()), (2, 1));
    last.changed[0].g = 3;
    last.changed.pop();
    last.logged.push(Part { g: 4 });
    uow.save(last).unwrap();
    uow.commit().await.unwrap();
    let mut uow = store.unit_of_work(&context);
    let last: Crate = uow.get(2).await.unwrap();
    let numbers = |parts: &[Part]| parts.iter().map(|part| part.g).collect::<Vec<_>>();
    assert_eq!(numbers(&last.changed), [3]);
    assert_eq!(numbers(&last.logged), [2, 4]);
}

/// Also in a commit that removes the children of another aggregate with it.
#[tokio::test]
async fn a_child_changed_past_its_version_is_noticed_beside_a_removal() {
    let (fresh, store) = prepared::<Postgres>(StoreOptions::default()).await;
    let mut uow = store.unit_of_work(&north());
    for id in [1, 2] {
        uow.save(Shelf::with(id, [10, 20])).unwrap();
    }
    uow.commit().await.unwrap();
    // What is left of the children is for the commit to remove then.
    fresh
        .run("ALTER TABLE conformance_book DROP CONSTRAINT conformance_book_conformance_shelf_id_fkey")
        .await;
    let mut uow = store.unit_of_work(&north());
    let removed: Shelf = uow.get(1).await.unwrap();
    let mut changed: Shelf = uow.get(2).await.unwrap();
    fresh
        .run("DELETE FROM conformance_book WHERE conformance_shelf_id = 2 AND number = 20")
        .await;
    changed.books.truncate(1);
    uow.remove(removed).unwrap();
    uow.save(changed).unwrap();
    let error = uow.commit().await.unwrap_err();
    assert_eq!(*kind(&error), StoreErrorKind::Contention);
    let mut uow = store.unit_of_work(&north());
    assert_eq!(uow.get::<Shelf>(1).await.unwrap().books.len(), 2);
    let removed: Shelf = uow.get(1).await.unwrap();
    uow.remove(removed).unwrap();
    uow.commit().await.unwrap();
    let left = "SELECT conformance_shelf_id || '/' || number FROM conformance_book";
    assert_eq!(Postgres::texts(&fresh.url, left.to_owned()).await, ["2/10"]);
}

/// Patient enough that only what is never retried can fail.
fn patient() -> StoreOptions {
    StoreOptions::default().retry_policy(RetryPolicy {
        attempts: 100_000,
        first_delay: Duration::from_micros(200),
        max_delay: Duration::from_millis(5),
    })
}

async fn no_change_of_a_child_is_lost<K: Kind>() {
    const TASKS: usize = 6;
    const CHANGES: usize = 15;
    let (_fresh, store) = prepared::<K>(patient()).await;
    let tour = Tour::plan("a", &[]);
    let id = tour.id;
    save(&store, tour).await.unwrap();
    let barrier = Arc::new(Barrier::new(TASKS));
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (store, barrier) = (store.clone(), Arc::clone(&barrier));
            tokio::spawn(async move {
                barrier.wait().await;
                for change in 0..CHANGES {
                    store
                        .execute(&north(), async |uow| {
                            let mut tour: Tour = uow.get(id).await?;
                            tour.stops.push(Stop::at(&format!("{task}.{change}")));
                            tour.tickets
                                .insert(0, Ticket::new(&format!("{task}.{change}")));
                            uow.save(tour)
                        })
                        .await
                        .unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let tour = load(&store, id).await;
    assert_eq!(tour.root.version(), 1 + (TASKS * CHANGES) as u64);
    let numbers: Vec<&str> = tour.tickets.iter().map(|t| t.number.as_str()).collect();
    let mut cities = tour.cities();
    cities.reverse();
    assert_eq!(cities, numbers);
    assert_eq!(cities.len(), TASKS * CHANGES);
    for task in 0..TASKS {
        let of_task = |city: &&&str| city.starts_with(&format!("{task}."));
        let changes: Vec<_> = cities.iter().rev().filter(of_task).collect();
        let expected: Vec<_> = (0..CHANGES).map(|n| format!("{task}.{n}")).collect();
        assert_eq!(changes, expected.iter().collect::<Vec<_>>());
    }
}

/// A tour whose name, stops and tickets say the same number.
fn set(tour: &mut Tour, number: usize) {
    tour.name = number.to_string();
    tour.stops = (0..number % 5)
        .map(|_| Stop::at(&number.to_string()))
        .collect();
    tour.tickets = (0..number % 3)
        .map(|n| Ticket::new(&n.to_string()))
        .collect();
    for ticket in &mut tour.tickets {
        ticket.holder = Some(number.to_string());
    }
}

fn check(tour: &Tour) {
    let number: usize = tour.name.parse().unwrap();
    let mut expected = tour.clone();
    set(&mut expected, number);
    assert_eq!(tour.stops, expected.stops);
    assert_eq!(tour.tickets, expected.tickets);
    assert_eq!(tour.root.version(), number as u64 + 1);
}

async fn nobody_sees_half_of_a_change<K: Kind>() {
    const CHANGES: usize = 60;
    let (_fresh, store) = prepared::<K>(patient()).await;
    let mut tour = Tour::plan("0", &[]);
    set(&mut tour, 0);
    let id = tour.id;
    save(&store, tour).await.unwrap();
    let written = Arc::new(AtomicUsize::new(0));
    let readers: Vec<_> = (0..3)
        .map(|reader| {
            let (store, written) = (store.clone(), Arc::clone(&written));
            tokio::spawn(async move {
                let mut reads = 0;
                while written.load(Ordering::SeqCst) < CHANGES || reads < 20 {
                    let mut uow = store.unit_of_work(&north());
                    match reader {
                        0 => check(&uow.get::<Tour>(id).await.unwrap()),
                        1 => uow
                            .query::<Tour>(Query::all())
                            .await
                            .unwrap()
                            .iter()
                            .for_each(check),
                        _ => {
                            // Within the transaction of a unit of work that has sent something.
                            uow.save(Tour::plan("0", &[])).unwrap();
                            check(&uow.get::<Tour>(id).await.unwrap());
                            uow.rollback().await;
                        }
                    }
                    reads += 1;
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for number in 1..=CHANGES {
        store
            .execute(&north(), async |uow| {
                let mut tour: Tour = uow.get(id).await?;
                set(&mut tour, number);
                uow.save(tour)
            })
            .await
            .unwrap();
        written.store(number, Ordering::SeqCst);
    }
    for reader in readers {
        reader.await.unwrap();
    }
}

/// A writer has changed an aggregate and its children and holds the table of the children. A
/// reader that had read the aggregate in a statement before that of the children would have the
/// old one with the new children.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aggregate_and_its_children_are_of_one_moment() {
    let (fresh, store) = prepared::<Postgres>(StoreOptions::default()).await;
    let mut tour = Tour::plan("0", &[]);
    set(&mut tour, 0);
    tour.stops = vec![Stop::at("0")];
    let id = tour.id;
    save(&store, tour).await.unwrap();
    let mut writer = PgConnection::connect(&fresh.url).await.unwrap();
    let mut change = writer.begin().await.unwrap();
    for sql in [
        "UPDATE conformance_tour SET version = 2, name = '1'",
        "LOCK TABLE conformance_stop IN ACCESS EXCLUSIVE MODE",
        "UPDATE conformance_stop SET city = '1'",
    ] {
        sqlx::query(sql).execute(&mut *change).await.unwrap();
    }
    let reader = tokio::spawn({
        let store = store.clone();
        async move { load(&store, id).await }
    });
    let mut looker = PgConnection::connect(&fresh.url).await.unwrap();
    loop {
        let waiting: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_locks
             WHERE NOT granted AND relation = 'conformance_stop'::regclass",
        )
        .fetch_one(&mut looker)
        .await
        .unwrap();
        if waiting > 0 {
            break;
        }
        tokio::task::yield_now().await;
    }
    change.commit().await.unwrap();
    let tour = reader.await.unwrap();
    let seen = (tour.root.version(), tour.name.as_str(), tour.cities());
    assert_eq!(seen, (2, "1", vec!["1"]));
}

/// Until a transaction waits for the end of another.
async fn somebody_waits(fresh: &Fresh<Postgres>) {
    let waiting = "SELECT CAST(count(*) AS text) FROM pg_locks
         WHERE NOT granted AND locktype = 'transactionid'";
    while Postgres::texts(&fresh.url, waiting.to_owned()).await == ["0"] {
        tokio::task::yield_now().await;
    }
}

fn in_graz() -> Specification<Tour> {
    let city = Stop::fields().city;
    Tour::fields().stops.any_child(city.eq("Graz"))
}

/// Runs `work` while a unit of work holds the first of two tours that stop in Graz, and has taken
/// it out of there; it commits as soon as the work waits for it.
async fn while_one_leaves_graz<T: Send + 'static, F>(
    work: impl FnOnce(SqlStore<Postgres>) -> F,
) -> (Fresh<Postgres>, SqlStore<Postgres>, [Id<Tour>; 2], T)
where
    F: Future<Output = T> + Send + 'static,
{
    let (fresh, store) = prepared::<Postgres>(StoreOptions::default()).await;
    let mut ids = [Id::new(), Id::new()];
    ids.sort();
    for (id, name) in ids.into_iter().zip(["a", "b"]) {
        let tour = Tour {
            id,
            ..Tour::plan(name, &["Graz"])
        };
        save(&store, tour).await.unwrap();
    }
    let mut writer = store.unit_of_work(&north());
    let mut tour: Tour = writer.get(ids[0]).await.unwrap();
    tour.stops[0].city = "Linz".to_owned();
    writer.save(tour).unwrap();
    // Sends it.
    let _: Tour = writer.get(ids[0]).await.unwrap();
    let work = tokio::spawn(work(store.clone()));
    somebody_waits(&fresh).await;
    let _ = writer.commit().await.unwrap();
    let result = work.await.unwrap();
    (fresh, store, ids, result)
}

/// Who waits for an aggregate is asked again whether its children are what is looked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aggregate_that_was_waited_for_is_found_by_its_own_children() {
    let (_fresh, _, ids, found) = while_one_leaves_graz(async |store| {
        let mut uow = store.unit_of_work(&north());
        let query = Query::filter(in_graz()).lock();
        uow.query::<Tour>(query).await.unwrap()
    })
    .await;
    let found: Vec<_> = found.iter().map(|tour| (tour.id, tour.cities())).collect();
    assert_eq!(found, [(ids[1], vec!["Graz"])]);
}

/// A bulk change reaches what satisfies its condition when it is locked, and goes on behind what
/// does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bulk_change_that_waited_reaches_what_satisfies_it_still() {
    let (_fresh, store, ids, done) = while_one_leaves_graz(async |store| {
        let tours = store.maintenance::<Tour>(&north()).batch_size(1);
        let rank = Tour::fields().rank;
        tours.update(in_graz(), [rank.set(7)]).await.unwrap()
    })
    .await;
    assert_eq!((done.items(), done.commits()), (1, 1));
    let [left, reached] = ids;
    let left = load(&store, left).await;
    assert_eq!((left.rank, left.root.version()), (None, 2));
    let reached = load(&store, reached).await;
    assert_eq!((reached.rank, reached.root.version()), (Some(7), 2));
    let (_fresh, store, ids, done) = while_one_leaves_graz(async |store| {
        let tours = store.maintenance::<Tour>(&north());
        tours.purge(in_graz()).await.unwrap()
    })
    .await;
    assert_eq!(done.items(), 1);
    assert_eq!(load(&store, ids[0]).await.cities(), ["Linz"]);
}

/// Who waits for the lock of an aggregate sees it as it is then, and so are its children.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aggregate_that_was_waited_for_has_its_own_children() {
    let (fresh, store) = prepared::<Postgres>(StoreOptions::default()).await;
    let id = Id::new();
    for (name, city) in [("b", "2"), ("a", "1")] {
        let id = if name == "a" { id } else { Id::new() };
        let tour = Tour {
            id,
            ..Tour::plan(name, &[city])
        };
        save(&store, tour).await.unwrap();
    }
    let mut writer = store.unit_of_work(&north());
    let mut tour: Tour = writer.get(id).await.unwrap();
    tour.name = "c".to_owned();
    tour.stops[0].city = "3".to_owned();
    tour.stops.push(Stop::at("4"));
    writer.save(tour).unwrap();
    // Sends it.
    let _: Tour = writer.get(id).await.unwrap();
    let reader = tokio::spawn({
        let store = store.clone();
        async move {
            let mut uow = store.unit_of_work(&north());
            let query = Query::all().order_by(Tour::fields().name.asc()).lock();
            uow.query::<Tour>(query).await.unwrap()
        }
    });
    somebody_waits(&fresh).await;
    let _ = writer.commit().await.unwrap();
    let tours = reader.await.unwrap();
    let seen: Vec<_> = tours
        .iter()
        .map(|tour| (tour.name.as_str(), tour.cities(), tour.root.version()))
        .collect();
    assert_eq!(seen, [("b", vec!["2"], 1), ("c", vec!["3", "4"], 2)]);
}

/// A lock takes the aggregates of a limit alone, and leaves out those of others.
async fn a_query_that_locks_has_children<K: Kind>() {
    let (_fresh, store) = prepared::<K>(StoreOptions::default()).await;
    for name in ["c", "a", "b"] {
        save(&store, Tour::plan(name, &[name, "x"])).await.unwrap();
    }
    let query = || Query::all().order_by(Tour::fields().name.asc()).limit(2);
    let mut uow = store.unit_of_work(&north());
    let tours = uow.query::<Tour>(query().lock()).await.unwrap();
    let cities: Vec<_> = tours.iter().map(Tour::cities).collect();
    assert_eq!(cities, [["a", "x"], ["b", "x"]]);
    if K::either(true, false) {
        let mut other = store.unit_of_work(&north());
        let tours = other.query::<Tour>(query().skip_locked()).await.unwrap();
        let cities: Vec<_> = tours.iter().map(Tour::cities).collect();
        assert_eq!(cities, [["c", "x"]]);
        other.rollback().await;
    }
    for mut tour in tours {
        tour.stops.clear();
        uow.save(tour).unwrap();
    }
    assert_eq!(uow.commit().await.unwrap().events().len(), 2);
}

/// Also for whoever sees all tenants: it is of the aggregate with its key and its tenant.
async fn a_child_of_another_tenant_is_nobodys<K: Kind>() {
    let (fresh, store) = prepared::<K>(StoreOptions::default()).await;
    save(&store, Tour::plan("0", &["own", "stray"]))
        .await
        .unwrap();
    fresh
        .run("UPDATE conformance_stop SET tenant_id = 'south' WHERE city = 'stray'")
        .await;
    for context in [north(), RequestContext::system()] {
        let mut uow = store.unit_of_work(&context);
        let tours = uow.query::<Tour>(Query::all()).await.unwrap();
        let cities: Vec<_> = tours.iter().map(Tour::cities).collect();
        assert_eq!(cities, [["own"]], "{context:?}");
    }
}

/// Of a few aggregates: a plan that reads the whole table takes as long as the table is large.
#[tokio::test]
async fn children_are_found_by_their_index() {
    let (fresh, store) = prepared::<Postgres>(StoreOptions::default()).await;
    let tours = (0..1_000).map(|_| Tour::plan("0", &["a", "b", "c", "d", "e"]));
    let tours: Vec<Tour> = tours.collect();
    let maintenance = store.maintenance::<Tour>(&north());
    maintenance.insert(tours).await.unwrap();
    fresh.run("ANALYZE").await;
    let mut uow = store.unit_of_work(&north());
    // From now on all is asked on this connection.
    uow.connection().await.unwrap();
    let found = uow.query::<Tour>(Query::all().limit(50)).await.unwrap();
    assert_eq!(found.len(), 50);
    let connection = uow.connection().await.unwrap();
    let plan = generic_plan(connection, "WITH cqrs_root%", "'north', 50").await;
    assert!(!plan.contains("Seq Scan on conformance_stop"), "{plan}");
}
