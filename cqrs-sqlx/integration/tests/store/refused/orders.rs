//! Aggregates that are saved in opposite orders are locked in one.

use std::sync::Arc;
use std::time::Duration;

use cqrs_core::conformance::fixtures::Counter;
use cqrs_core::{Entity, Error, RequestContext, Result, RetryPolicy, Store, UnitOfWork};
use cqrs_sqlx::{PgUnitOfWork, Postgres, SqlStore, SqlUnitOfWork, StoreOptions};
use tokio::sync::Barrier;

use cqrs_integration::each::{Fresh, Kind, on_each};

on_each!(saves_in_opposite_orders_do_not_deadlock);

/// Far more than a busy machine needs, and far less than a deadlock lasts here.
const PATIENCE: Duration = Duration::from_secs(60);

/// A database in which nobody resolves a deadlock, with counters 1 to 10.
async fn counters<K: Kind>() -> (Fresh<K>, SqlStore<K>) {
    let (fresh, first) = Fresh::<K>::with_store().await;
    fresh
        .run(K::either(
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET deadlock_timeout = ''1d''',
                                        current_database()); END $$",
            "SELECT 1",
        ))
        .await;
    // It holds for new connections.
    first.close();
    let patient = RetryPolicy {
        attempts: 100_000,
        first_delay: Duration::from_micros(200),
        max_delay: Duration::from_millis(5),
    };
    let options = StoreOptions::default().retry_policy(patient);
    let store = fresh.open(options).await;
    store.create_tables(&[Counter::table()]).await.unwrap();
    let mut uow = store.unit_of_work(&RequestContext::system());
    for id in 1..=10 {
        uow.save(Counter::new(id)).unwrap();
    }
    let _ = uow.commit().await.unwrap();
    (fresh, store)
}

/// Adds one to each of these counters. All are loaded first: a read would send what was saved
/// before it.
async fn add<K: Kind>(uow: &mut SqlUnitOfWork<K>, ids: &[i64]) -> Result<()> {
    let mut counters = Vec::new();
    for &id in ids {
        counters.push(uow.get::<Counter>(id).await?);
    }
    for mut counter in counters {
        counter.add(1);
        uow.save(counter)?;
    }
    Ok(())
}

/// What was counted up to each of the first counters; versions and events agree with it.
async fn counted<K: Kind>(fresh: &Fresh<K>, ids: i64) -> Vec<i64> {
    let mut counted = Vec::new();
    for id in 1..=ids {
        let counter = format!("FROM conformance_counter WHERE id = {id}");
        let value = fresh.number(format!("SELECT value {counter}")).await;
        let version = fresh.number(format!("SELECT version {counter}")).await;
        let events = format!("SELECT count(*) FROM cqrs_event WHERE aggregate_id = '{id}'");
        assert_eq!(fresh.number(events).await, value + 1, "events of {id}");
        assert_eq!(version, value + 1, "version of {id}");
        counted.push(value);
    }
    counted
}

async fn saves_in_opposite_orders_do_not_deadlock<K: Kind>() {
    const ROUNDS: usize = 40;
    const ORDERS: [[i64; 4]; 6] = [
        [1, 2, 3, 4],
        [4, 3, 2, 1],
        [2, 4, 1, 3],
        [3, 1, 4, 2],
        [1, 4, 3, 2],
        [2, 3, 4, 1],
    ];
    // What the planner knows of a small table decides in which order it reads the rows.
    for analyzed in [false, true] {
        let (fresh, store) = counters::<K>().await;
        if analyzed {
            fresh.run("ANALYZE").await;
        }
        let barrier = Arc::new(Barrier::new(ORDERS.len()));
        let tasks = ORDERS.map(|order| {
            let (store, barrier) = (store.clone(), Arc::clone(&barrier));
            tokio::spawn(async move {
                let context = RequestContext::system();
                for _ in 0..ROUNDS {
                    barrier.wait().await;
                    let receipt = store
                        .execute(&context, async |uow| add(uow, &order).await)
                        .await
                        .unwrap();
                    assert_eq!(receipt.events().len(), order.len());
                }
            })
        });
        let all = async {
            for task in tasks {
                task.await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, all)
            .await
            .expect("nobody waits for ever");
        let expected = i64::try_from(ORDERS.len() * ROUNDS).unwrap();
        assert_eq!(counted(&fresh, 4).await, [expected; 4]);
    }
}

/// A unit of work that has changed one counter and holds its lock, and its server process.
async fn holder(store: &SqlStore<Postgres>, id: i64) -> (PgUnitOfWork, i32) {
    let mut uow = store.unit_of_work(&RequestContext::system());
    add(&mut uow, &[id]).await.unwrap();
    let connection = uow.connection().await.unwrap();
    let process = sqlx::query_scalar("SELECT pg_backend_pid()");
    let process = process.fetch_one(connection).await.unwrap();
    (uow, process)
}

/// Waits until this many wait for one another.
async fn waiting(fresh: &Fresh<Postgres>, count: i64, condition: &str) {
    let waiting = format!(
        "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND wait_event_type = 'Lock' AND {condition}"
    );
    while fresh.number(&waiting).await != count {
        tokio::task::yield_now().await;
    }
}

/// A small table is read as it lies, and a row that was changed lies behind the others. A statement
/// that began before the change still finds it in front.
#[tokio::test]
async fn rows_that_have_moved_are_locked_in_the_same_order() {
    let (fresh, store) = counters::<Postgres>().await;
    fresh.run("ANALYZE").await;
    let rounds = async {
        let (first, _) = holder(&store, 1).await;
        let (second, of_second) = holder(&store, 2).await;
        let commit = async |ids: &'static [i64]| {
            let mut uow = store.unit_of_work(&RequestContext::system());
            add(&mut uow, ids).await?;
            uow.commit().await
        };
        let driver = async {
            waiting(&fresh, 1, "true").await;
            let _ = first.commit().await.unwrap();
            let blocked = format!("{of_second} = ANY (pg_blocking_pids(pid))");
            waiting(&fresh, 1, &blocked).await;
            let next = async {
                waiting(&fresh, 2, "true").await;
                let _ = second.commit().await.unwrap();
            };
            tokio::join!(commit(&[3, 1]), next).0
        };
        tokio::join!(commit(&[3, 2, 1]), driver)
    };
    let (early, late) = tokio::time::timeout(PATIENCE, rounds)
        .await
        .expect("nobody waits for ever");
    let early = early.unwrap_err();
    assert!(matches!(early, Error::Conflict { .. }), "{early:?}");
    assert_eq!(late.unwrap().events().len(), 2);
    assert_eq!(counted(&fresh, 4).await, [2, 1, 1, 0]);
}
