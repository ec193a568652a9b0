//! Commands that meet: none is lost, none is done twice, and all come through.

use std::sync::Arc;
use std::time::Duration;

use cqrs_core::{Error, RetryPolicy, Store, UnitOfWork};
use cqrs_integration::domain::{self, Parcel, ParcelId, Parcels};
use cqrs_integration::stores;
use cqrs_sqlx::{SqlStore, StoreOptions};
use tokio::sync::Barrier;

use cqrs_integration::each::{Fresh, Kind, on_each};

on_each!(
    no_increment_is_lost,
    one_of_two_with_the_same_version_wins,
    one_of_many_creates_of_an_id_wins,
    opposite_orders_end_with_all_commits,
    a_nested_transaction_is_a_savepoint,
);

const TASKS: usize = 8;

/// Patient enough that only what is never retried can fail.
fn patient() -> StoreOptions {
    StoreOptions::default().retry_policy(RetryPolicy {
        attempts: 100_000,
        first_delay: Duration::from_micros(200),
        max_delay: Duration::from_millis(5),
    })
}

async fn registered<K: Kind>(store: &SqlStore<K>) -> ParcelId {
    let parcel = Parcel::register("a");
    let id = domain::id(&parcel);
    let mut unit_of_work = store.unit_of_work(&stores::tenant("north"));
    unit_of_work.save(parcel).unwrap();
    let _ = unit_of_work.commit().await.unwrap();
    id
}

async fn get<K: Kind>(store: &SqlStore<K>, id: ParcelId) -> Parcel {
    let mut unit_of_work = store.unit_of_work(&stores::tenant("north"));
    unit_of_work.get::<Parcel>(id).await.unwrap()
}

/// Every parcel's version is the number of its events, and those are numbered from 1 to it.
pub(crate) async fn assert_dense<K: Kind>(fresh: &Fresh<K>) {
    let gaps = fresh
        .number(
            "SELECT count(*) FROM (
                 SELECT p.version, count(e.position) AS events,
                        coalesce(min(e.aggregate_version), 0) AS lowest,
                        coalesce(max(e.aggregate_version), 0) AS highest
                 FROM cqrs_event AS e
                 LEFT JOIN parcel_ids AS p ON p.id = e.aggregate_id
                 GROUP BY e.aggregate_id, p.version
             ) AS a
             WHERE version IS NULL OR version <> events OR lowest <> 1 OR highest <> events",
        )
        .await;
    assert_eq!(gaps, 0, "streams with gaps, or without a row");
    let silent = fresh
        .number(
            "SELECT count(*) FROM parcel_ids
             WHERE id NOT IN (SELECT aggregate_id FROM cqrs_event)",
        )
        .await;
    assert_eq!(silent, 0, "rows without events");
}

/// Makes the view that [`assert_dense`] reads: the ids as the log writes them.
pub(crate) async fn with_ids<K: Kind>(fresh: &Fresh<K>) {
    let id = K::either(
        "id::text",
        "lower(substr(hex(id), 1, 8) || '-' || substr(hex(id), 9, 4) || '-' ||
               substr(hex(id), 13, 4) || '-' || substr(hex(id), 17, 4) || '-' ||
               substr(hex(id), 21))",
    );
    fresh
        .run(format!(
            "CREATE VIEW parcel_ids AS SELECT {id} AS id, version, grams FROM parcel"
        ))
        .await;
}

async fn no_increment_is_lost<K: Kind>() {
    const INCREMENTS: usize = 50;
    let (fresh, store) = Fresh::<K>::with(patient()).await;
    with_ids(&fresh).await;
    let id = registered(&store).await;
    let barrier = Arc::new(Barrier::new(TASKS));
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let (store, barrier) = (store.clone(), Arc::clone(&barrier));
            tokio::spawn(async move {
                let context = stores::tenant("north");
                barrier.wait().await;
                for _ in 0..INCREMENTS {
                    let receipt = store
                        .execute(&context, async |uow| {
                            let mut parcel = uow.get::<Parcel>(id).await?;
                            parcel.weigh(1);
                            uow.save(parcel)
                        })
                        .await
                        .unwrap();
                    assert_eq!(receipt.events().len(), 1);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let increments = i64::try_from(TASKS * INCREMENTS).unwrap();
    assert_eq!(get(&store, id).await.grams(), increments);
    assert_eq!(
        fresh.number("SELECT version FROM parcel").await,
        increments + 1
    );
    let events = fresh.number("SELECT count(*) FROM cqrs_event").await;
    assert_eq!(events, increments + 1);
    assert_dense(&fresh).await;
}

/// Twice: in one statement each, and in transactions of several aggregates each.
async fn one_of_two_with_the_same_version_wins<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    with_ids(&fresh).await;
    for round in 0..20 {
        let id = registered(&store).await;
        let (one, two) = (get(&store, id).await, get(&store, id).await);
        let barrier = Arc::new(Barrier::new(2));
        let tasks = [(one, 3), (two, 4)].map(|(mut parcel, grams)| {
            let (store, barrier) = (store.clone(), Arc::clone(&barrier));
            tokio::spawn(async move {
                let mut unit_of_work = store.unit_of_work(&stores::tenant("north"));
                parcel.weigh(grams);
                unit_of_work.save(parcel).unwrap();
                if round % 2 == 1 {
                    unit_of_work.save(Parcel::register("beside")).unwrap();
                }
                barrier.wait().await;
                unit_of_work.commit().await.map(|_| grams)
            })
        });
        let mut winner = None;
        let mut losers = 0;
        for task in tasks {
            match task.await.unwrap() {
                Ok(grams) => assert_eq!(winner.replace(grams), None, "both won"),
                Err(Error::Conflict {
                    expected, found, ..
                }) => {
                    assert_eq!((expected, found), (1, 2));
                    losers += 1;
                }
                Err(other) => panic!("{other:?}"),
            }
        }
        assert_eq!(losers, 1);
        assert_eq!(Some(get(&store, id).await.grams()), winner);
        let beside = "SELECT count(*) FROM parcel WHERE label = 'beside'";
        assert_eq!(fresh.number(beside).await, (round + 1) / 2);
    }
    assert_dense(&fresh).await;
}

async fn one_of_many_creates_of_an_id_wins<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    with_ids(&fresh).await;
    for round in 0..10 {
        let parcel = Parcel::register("a");
        let id = domain::id(&parcel);
        let barrier = Arc::new(Barrier::new(TASKS));
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| {
                let (store, barrier) = (store.clone(), Arc::clone(&barrier));
                let mut parcel = parcel.clone();
                parcel.weigh(i64::try_from(task).unwrap());
                tokio::spawn(async move {
                    // Another tenant's id is taken as well.
                    let tenant = if task % 2 == 0 { "north" } else { "south" };
                    let mut unit_of_work = store.unit_of_work(&stores::tenant(tenant));
                    unit_of_work.save(parcel).unwrap();
                    if round % 2 == 1 {
                        unit_of_work.save(Parcel::register("beside")).unwrap();
                    }
                    barrier.wait().await;
                    unit_of_work.commit().await
                })
            })
            .collect();
        let mut created = 0;
        for task in tasks {
            match task.await.unwrap() {
                Ok(_) => created += 1,
                Err(Error::AlreadyExists {
                    aggregate,
                    id: taken,
                }) => assert_eq!((aggregate, taken), ("parcel", id.to_string())),
                Err(other) => panic!("{other:?}"),
            }
        }
        assert_eq!(created, 1);
        let beside = "SELECT count(*) FROM parcel WHERE label = 'beside'";
        assert_eq!(fresh.number(beside).await, (round + 1) / 2);
    }
    assert_dense(&fresh).await;
}

/// A second is how long Postgres lets two wait for each other. Who may not change that waits.
async fn deadlocks_end_soon<K: Kind>(fresh: &Fresh<K>, store: SqlStore<K>) -> SqlStore<K> {
    let sooner = K::either(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET deadlock_timeout = ''5ms''',
                                    current_database()); END $$",
        "SELECT 1",
    );
    if K::run(&fresh.url, sooner.to_owned()).await.is_err() {
        return store;
    }
    // It holds for new connections.
    store.close();
    fresh.open(patient()).await
}

async fn opposite_orders_end_with_all_commits<K: Kind>() {
    const COMMITS: usize = 15;
    let (fresh, store) = Fresh::<K>::with(patient()).await;
    with_ids(&fresh).await;
    let store = deadlocks_end_soon(&fresh, store).await;
    let ids = [registered(&store).await, registered(&store).await];
    let barrier = Arc::new(Barrier::new(4));
    // Two of them save both at once; two send the first before they change the second.
    let tasks: Vec<_> = (0..4)
        .map(|task| {
            let (store, barrier) = (store.clone(), Arc::clone(&barrier));
            let [first, second] = if task % 2 == 0 { ids } else { [ids[1], ids[0]] };
            let flush = task >= 2;
            tokio::spawn(async move {
                let context = stores::tenant("north");
                barrier.wait().await;
                for _ in 0..COMMITS {
                    store
                        .execute(&context, async |uow| {
                            let mut parcel = uow.get::<Parcel>(first).await?;
                            parcel.weigh(1);
                            uow.save(parcel)?;
                            if flush {
                                uow.repository::<Parcel>().find_open(10).await?;
                            }
                            let mut parcel = uow.get::<Parcel>(second).await?;
                            parcel.weigh(1);
                            uow.save(parcel)
                        })
                        .await
                        .map(drop)
                        .unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    for id in ids {
        let grams = get(&store, id).await.grams();
        assert_eq!(grams, i64::try_from(4 * COMMITS).unwrap());
    }
    assert_dense(&fresh).await;
}

async fn a_nested_transaction_is_a_savepoint<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    with_ids(&fresh).await;
    fresh.run("CREATE TABLE note (text text NOT NULL)").await;
    let id = registered(&store).await;
    let insert = |text: &str| format!("INSERT INTO note VALUES ('{text}')");

    let mut unit_of_work = store.unit_of_work(&stores::tenant("north"));
    let mut parcel = unit_of_work.get::<Parcel>(id).await.unwrap();
    parcel.weigh(5);
    unit_of_work.save(parcel).unwrap();
    let connection = unit_of_work.connection().await.unwrap();
    K::run_on(connection, insert("outer")).await.unwrap();
    K::nested(connection, insert("kept"), true).await.unwrap();
    let undone = format!(
        "{}; DELETE FROM parcel; DELETE FROM cqrs_event",
        insert("undone")
    );
    K::nested(connection, undone, false).await.unwrap();
    // One that fails is dropped with its transaction open, and does no harm to the outer work either.
    let broken = format!("{}; INSERT INTO note VALUES (NULL)", insert("broken"));
    K::nested(connection, broken, true).await.unwrap_err();
    unit_of_work.save(Parcel::register("after")).unwrap();
    let receipt = unit_of_work.commit().await.unwrap();

    assert_eq!(receipt.events().len(), 2);
    let notes = fresh.dump("note").await;
    assert_eq!(
        notes,
        K::either(["(kept)", "(outer)"], ["'kept'", "'outer'"])
    );
    assert_eq!(get(&store, id).await.grams(), 5);
    assert_eq!(fresh.number("SELECT count(*) FROM parcel").await, 2);
    assert_eq!(fresh.number("SELECT count(*) FROM cqrs_event").await, 3);
    assert_dense(&fresh).await;

    // All of it is undone with the outer work.
    let before = fresh.state().await;
    let mut unit_of_work = store.unit_of_work(&stores::tenant("north"));
    unit_of_work.save(Parcel::register("gone")).unwrap();
    let connection = unit_of_work.connection().await.unwrap();
    K::nested(connection, insert("gone"), true).await.unwrap();
    unit_of_work.rollback().await;
    assert_eq!(fresh.state().await, before);
    assert_eq!(fresh.dump("note").await, notes);
}
