//! The history of changes: what it costs, that writers at the same time leave all of it, and that it
//! is of what is stored.

use cqrs_core::conformance::fixtures::{Book, Rack, RackEvent, Stop, Trip};
use cqrs_core::mapping::Entity;
use cqrs_core::{
    Aggregate, AsOf, DomainEvent, Error, EventHistory, Id, Maintain, PageRequest, Repository,
    RequestContext, Revision, RevisionKind, Root, Specification, Store, UnitOfWork,
};
use cqrs_integration::database::TestDatabase;
use cqrs_integration::each::{Fresh, Kind};
use cqrs_integration::stores;
use cqrs_integration::wire::WireProxy;
use cqrs_sqlx::{Backend, PgStore, Postgres, SqlStore, Sqlite, StoreOptions};
use serde::{Deserialize, Serialize};

async fn counted() -> (TestDatabase, WireProxy, PgStore) {
    let database = TestDatabase::create().await;
    stores::postgres(database.url()).await.close();
    let proxy = WireProxy::start(database.url()).await;
    let store = stores::postgres_with(proxy.url(), StoreOptions::default()).await;
    let tables = [Trip::table(), Rack::table()];
    store.create_tables(&tables).await.unwrap();
    (database, proxy, store)
}

/// All revisions, from the oldest on.
async fn revisions<B: Backend, A: cqrs_core::KeepsHistory>(
    store: &SqlStore<B>,
    id: A::Id,
) -> Vec<Revision<A>> {
    let mut uow = store.unit_of_work(&RequestContext::system());
    let request = PageRequest::first(10_000);
    let page = uow.repository::<A>().revisions(id, request).await.unwrap();
    page.items.into_iter().rev().collect()
}

fn kinds<A: cqrs_core::AggregateRoot>(revisions: &[Revision<A>]) -> Vec<(u64, RevisionKind)> {
    let kind = |one: &Revision<A>| (one.version(), one.kind());
    revisions.iter().map(kind).collect()
}

#[tokio::test]
async fn a_commit_with_a_history_is_one_statement() {
    let (_database, proxy, store) = counted().await;
    let context = stores::tenant("north");
    let trip = Trip::plan("a");
    let id = trip.id;
    type Step = fn(&mut Trip);
    let steps: [(&str, Step); 4] = [
        ("an event", |trip| trip.rename("b")),
        ("events", |trip| {
            trip.rename("c");
            trip.rename("d");
        }),
        ("no event", |trip| trip.rank = Some(7)),
        ("nothing", |_| {}),
    ];
    let before = proxy.counts();
    let create = store.execute(&context, async |uow| uow.save(trip.clone()));
    let _ = create.await.unwrap();
    assert_eq!(proxy.counts().since(&before).statements, 1);
    for (what, step) in steps {
        let mut uow = store.unit_of_work(&context);
        let mut trip: Trip = uow.get(id).await.unwrap();
        step(&mut trip);
        uow.save(trip).unwrap();
        let before = proxy.counts();
        let _ = uow.commit().await.unwrap();
        let sent = proxy.statements_since(&before);
        // A second one asks whether nothing changed, or somebody else changed it.
        let cost = if what == "nothing" { 2 } else { 1 };
        assert_eq!(
            proxy.counts().since(&before).statements,
            cost,
            "{what}: {sent:#?}"
        );
    }
    let mut uow = store.unit_of_work(&context);
    let trip: Trip = uow.get(id).await.unwrap();
    uow.remove(trip).unwrap();
    let before = proxy.counts();
    let _ = uow.commit().await.unwrap();
    assert_eq!(proxy.counts().since(&before).statements, 1);
    let kept = revisions::<_, Trip>(&store, id).await;
    let versions: Vec<u64> = kept.iter().map(Revision::version).collect();
    assert_eq!(versions, [1, 2, 4, 5, 6]);
}

#[tokio::test]
async fn children_and_several_aggregates_cost_a_statement_for_each_table_and_operation() {
    let (_database, proxy, store) = counted().await;
    let context = stores::tenant("north");
    let before = proxy.counts();
    let insert = store.execute(&context, async |uow| {
        (0..50).try_for_each(|id| uow.save(Rack::with(id, "a", [1, 2])))
    });
    let _ = insert.await.unwrap();
    let sent = proxy.statements_since(&before);
    let cost = proxy.counts().since(&before).statements;
    assert_eq!(
        cost, 6,
        "begin, racks, books, history, events, commit: {sent:#?}"
    );
    let mut uow = store.unit_of_work(&context);
    let mut rack: Rack = uow.get(1).await.unwrap();
    rack.books.push(Book { number: 3 });
    uow.save(rack).unwrap();
    let before = proxy.counts();
    let _ = uow.commit().await.unwrap();
    let sent = proxy.statements_since(&before);
    let cost = proxy.counts().since(&before).statements;
    assert_eq!(
        cost, 6,
        "begin, rack, books, history, events, commit: {sent:#?}"
    );
}

#[tokio::test]
async fn many_writers_leave_a_revision_each() {
    const WRITERS: usize = 4;
    const CHANGES: usize = 5;
    let database = TestDatabase::create().await;
    let store = stores::postgres(database.url()).await;
    store.create_tables(&[Trip::table()]).await.unwrap();
    let context = stores::tenant("north");
    let trip = Trip::plan("shared");
    let id = trip.id;
    let create = store.execute(&context, async |uow| uow.save(trip.clone()));
    let _ = create.await.unwrap();
    let writers = (0..WRITERS).map(|writer| {
        let (store, context) = (store.clone(), context.clone());
        let context = context.with_actor(format!("writer {writer}"));
        tokio::spawn(async move {
            for change in 0..CHANGES {
                loop {
                    let changed = store.execute(&context, async |uow| {
                        let mut trip: Trip = uow.get(id).await?;
                        trip.large += 1;
                        if change % 2 == writer % 2 {
                            trip.stops.push(Stop::at("Graz"));
                        }
                        trip.rename("changed");
                        uow.save(trip)
                    });
                    match changed.await {
                        Ok(_) => break,
                        Err(error) => assert!(error.is_retryable(), "{error}"),
                    }
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let kept = revisions::<_, Trip>(&store, id).await;
    assert_eq!(kept.len(), 1 + WRITERS * CHANGES);
    let mut stops = 0;
    for (index, revision) in kept.iter().enumerate() {
        let trip = revision.aggregate().unwrap();
        assert_eq!(revision.version(), index as u64 + 1);
        assert_eq!(trip.root.version(), revision.version());
        assert_eq!(trip.large, i64::try_from(index).unwrap());
        assert!(trip.stops.len() == stops || trip.stops.len() == stops + 1);
        stops = trip.stops.len();
    }
    let mut uow = store.unit_of_work(&context);
    assert_eq!(uow.get::<Trip>(id).await.unwrap().stops.len(), stops);
}

/// Who deletes and who changes the same rows at once, with others in the same commit: one of them is
/// refused, and of him nothing is kept.
#[tokio::test]
async fn a_removal_and_a_change_at_once_leave_what_was_done() {
    let database = TestDatabase::create().await;
    let store = stores::postgres(database.url()).await;
    store.create_tables(&[Rack::table()]).await.unwrap();
    let system = RequestContext::system();
    for round in 0..10 {
        let (one, other) = (round * 10, round * 10 + 1);
        let insert = store.execute(&system, async |uow| {
            uow.save(Rack::with(one, "a", [1]))?;
            uow.save(Rack::with(other, "a", [2]))
        });
        let _ = insert.await.unwrap();
        let (store, system) = (&store, &system);
        let load = async || {
            let mut uow = store.unit_of_work(system);
            let racks: [Rack; 2] = [uow.get(one).await.unwrap(), uow.get(other).await.unwrap()];
            (uow, racks)
        };
        let (mut removing, removed) = load().await;
        let (mut changing, mut changed) = load().await;
        for rack in removed {
            removing.remove(rack).unwrap();
        }
        changed[1].root.raise(RackEvent::Built);
        changed[1].room = "b".to_owned();
        changing.save(changed[1].clone()).unwrap();
        let (removal, change) = tokio::join!(removing.commit(), changing.commit());
        assert_ne!(removal.is_ok(), change.is_ok(), "{removal:?} {change:?}");
        let last = match removal.is_ok() {
            true => RevisionKind::Removed,
            false => RevisionKind::Changed,
        };
        let expected = [(1, RevisionKind::Created), (2, last)];
        let kept = revisions::<_, Rack>(store, other).await;
        assert_eq!(kinds(&kept), expected);
        let kept = revisions::<_, Rack>(store, one).await;
        let length = if removal.is_ok() { 2 } else { 1 };
        assert_eq!(kinds(&kept), expected[..length]);
    }
}

/// Commits that each guard one, change one and delete one of the same rows, while old revisions are
/// removed: they wait for each other, and are done or refused, but no deadlock ends one.
#[tokio::test]
async fn guards_changes_and_removals_at_once_do_not_deadlock() {
    const WRITERS: i64 = 4;
    let database = TestDatabase::create().await;
    let store = stores::postgres(database.url()).await;
    store.create_tables(&[Rack::table()]).await.unwrap();
    let system = RequestContext::system();
    for round in 0..20 {
        let first = round * 10;
        let insert = store.execute(&system, async |uow| {
            (first..first + WRITERS).try_for_each(|id| uow.save(Rack::with(id, "a", [1, 2])))
        });
        let _ = insert.await.unwrap();
        let writers = (0..WRITERS).map(|writer| {
            let (store, system) = (store.clone(), system.clone());
            tokio::spawn(async move {
                let id = |step| first + (writer + step) % WRITERS;
                let mut uow = store.unit_of_work(&system);
                let guarded = uow.get::<Rack>(id(1)).await?;
                let mut changed = uow.get::<Rack>(id(2)).await?;
                let removed = uow.get::<Rack>(id(0)).await?;
                uow.guard(&guarded)?;
                changed.books.pop();
                uow.save(changed)?;
                if writer % 2 == 1 {
                    uow.remove(removed)?;
                }
                if writer > 1 {
                    uow.save(Rack::with(first + WRITERS + writer, "new", [3]))?;
                }
                uow.commit().await.map(drop)
            })
        });
        let writers: Vec<_> = writers.collect();
        let racks = store.maintenance::<Rack>(&system);
        racks.remove_history(chrono::Utc::now()).await.unwrap();
        let mut done = 0;
        for writer in writers {
            match writer.await.unwrap() {
                Ok(()) => done += 1,
                Err(Error::Conflict { .. } | Error::NotFound { .. }) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
        assert!(done > 0, "one of them was first");
        for id in first..first + WRITERS {
            let kept = revisions::<_, Rack>(&store, id).await;
            let mut uow = store.unit_of_work(&system);
            let living = uow.repository::<Rack>().find(id).await.unwrap();
            let last = kept.last();
            match living {
                Some(rack) => {
                    let last = last.expect("the last one of what is there stays");
                    assert_eq!(last.version(), rack.root.version());
                    assert_eq!(last.aggregate().unwrap().numbers(), rack.numbers());
                }
                None => assert!(last.is_none_or(|last| last.kind() == RevisionKind::Removed)),
            }
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "box")]
enum BoxEvent {
    Packed,
}

#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "box", event = BoxEvent, history)]
struct Box {
    #[aggregate(id)]
    id: Id<Box>,
    #[aggregate(root)]
    root: Root<BoxEvent>,
    width: i64,
    /// Named as nothing in the statements may be.
    r: i64,
    #[mapper(generated)]
    area: i64,
    #[mapper(read_only)]
    remark: Option<String>,
}

/// What the database computes, and what others write, is kept as it is stored.
async fn columns_of_others_are_kept<K: Kind>(table: &str) {
    let (fresh, store) = Fresh::<K>::with_store().await;
    fresh.run(table).await;
    store.verify(&[Box::table()]).await.unwrap();
    let id = Id::new();
    let system = RequestContext::system();
    let create = store.execute(&system, async |uow| {
        uow.save(Box {
            id,
            root: Root::new(),
            width: 3,
            r: 1,
            area: 0,
            remark: None,
        })
    });
    let _ = create.await.unwrap();
    let set = [Box::fields().width.set(4)];
    let boxes = store.maintenance::<Box>(&system);
    boxes.update(Specification::all(), set).await.unwrap();
    let mut uow = store.unit_of_work(&system);
    let mut loaded: Box = uow.get(id).await.unwrap();
    assert_eq!(loaded.remark.as_deref(), Some("of others"));
    loaded.width = 5;
    uow.save(loaded).unwrap();
    let _ = uow.commit().await.unwrap();
    let kept = revisions::<_, Box>(&store, id).await;
    let boxes = kept.iter().map(|one| one.aggregate().unwrap());
    let columns: Vec<_> = boxes.map(|one| (one.area, one.remark)).collect();
    let of_others = || Some("of others".to_owned());
    assert_eq!(columns, [9, 16, 25].map(|area| (area, of_others())));
}

#[tokio::test]
async fn columns_of_others_are_kept_on_postgres() {
    let table = "CREATE TABLE box (version bigint NOT NULL, id uuid PRIMARY KEY,
                 width bigint NOT NULL, r bigint NOT NULL, area bigint GENERATED ALWAYS AS (width * width) STORED,
                 remark text DEFAULT 'of others')";
    columns_of_others_are_kept::<Postgres>(table).await;
}

#[tokio::test]
async fn columns_of_others_are_kept_on_sqlite() {
    let table = "CREATE TABLE box (version INTEGER NOT NULL, id BLOB PRIMARY KEY NOT NULL,
                 width INTEGER NOT NULL, r INTEGER NOT NULL, area INTEGER GENERATED ALWAYS AS (width * width) STORED,
                 remark TEXT DEFAULT 'of others')";
    columns_of_others_are_kept::<Sqlite>(table).await;
}

/// One that was removed before the history was begun existed as well.
async fn what_was_removed_before_the_history_is_not_known<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    store.create_tables(&[Trip::table()]).await.unwrap();
    let context = stores::tenant("north");
    let trip = Trip::plan("a");
    let id = trip.id;
    let create = store.execute(&context, async |uow| uow.save(trip.clone()));
    let _ = create.await.unwrap();
    let remove = store.execute(&context, async |uow| {
        let trip: Trip = uow.get(id).await?;
        uow.remove(trip)
    });
    let _ = remove.await.unwrap();
    fresh.run("DELETE FROM cqrs_history").await;
    let as_of = async |context: &RequestContext| {
        let mut uow = store.unit_of_work(context);
        let mut trips = uow.repository::<Trip>();
        trips.find_as_of(id, AsOf::Version(1)).await
    };
    let found = as_of(&context).await;
    assert!(
        matches!(found, Err(Error::NotInHistory { .. })),
        "{found:?}"
    );
    assert!(as_of(&stores::tenant("south")).await.unwrap().is_none());
}

#[tokio::test]
async fn what_was_removed_before_the_history_is_not_known_on_postgres() {
    what_was_removed_before_the_history_is_not_known::<Postgres>().await;
}

#[tokio::test]
async fn what_was_removed_before_the_history_is_not_known_on_sqlite() {
    what_was_removed_before_the_history_is_not_known::<Sqlite>().await;
}
