//! Loads that are sent together: each caller gets what a load alone would have given it.

use std::time::Duration;

use cqrs_core::conformance::fixtures::{Counter, Locker, Tour, Trip};
use cqrs_core::{AggregateRoot, Entity as _, Id, Repository, RequestContext, Store, UnitOfWork};
use cqrs_integration::database::{SecuredDatabase, TestDatabase};
use cqrs_integration::domain::{self, Parcel, ParcelId};
use cqrs_integration::each::kind;
use cqrs_integration::random::{Random, seed};
use cqrs_integration::stores;
use cqrs_integration::wire::{Cut, Direction, Pooler, WireProxy};
use cqrs_sqlx::{PgStore, StoreOptions};
use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinSet;

use super::facts::counted;
use super::{coalescing, north, registered, weighed};

/// What only a statement has that loads for several callers.
pub(super) const LOADS: &str = "AS wanted(";

/// What each load found: the label and the version, nothing, or the error.
pub(super) type Outcome = Result<Option<(String, u64)>, String>;

pub(super) async fn load(store: &PgStore, context: &RequestContext, id: ParcelId) -> Outcome {
    let mut uow = store.unit_of_work(context);
    let found = uow.repository::<Parcel>().find(id).await;
    let found = found.map_err(|error| error.to_string())?;
    Ok(found.map(|parcel| (parcel.label().to_owned(), domain::version(&parcel))))
}

/// Loads all of them at the same moment; the outcomes in their order. On one thread they go out when
/// all have asked.
pub(super) async fn load_all(
    store: &PgStore,
    wanted: &[(RequestContext, ParcelId)],
) -> Vec<Outcome> {
    let mut loads = JoinSet::new();
    for (number, (context, id)) in wanted.iter().enumerate() {
        let (store, context, id) = (store.clone(), context.clone(), *id);
        loads.spawn(async move { (number, load(&store, &context, id).await) });
    }
    let mut outcomes = loads.join_all().await;
    outcomes.sort_by_key(|(number, _)| *number);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

pub(super) fn in_north(ids: &[ParcelId]) -> Vec<(RequestContext, ParcelId)> {
    ids.iter().map(|id| (north(), *id)).collect()
}

#[tokio::test]
async fn many_loads_of_one_moment_are_few_statements() {
    let (_database, proxy, store) = counted().await;
    let ids = registered(&store, 100).await;
    for warm in [false, true] {
        let before = proxy.counts();
        let outcomes = load_all(&store, &in_north(&ids)).await;
        let sent = proxy.statements_since(&before);
        let (together, alone): (Vec<_>, Vec<_>) = sent.iter().partition(|sql| sql.contains(LOADS));
        assert_eq!(outcomes, vec![Ok(Some(("known".to_owned(), 1))); 100]);
        if warm {
            assert!(alone.len() <= 10 && together.len() <= 2, "{sent:#?}");
            assert!(!together.is_empty(), "{sent:#?}");
        }
    }
}

#[tokio::test]
async fn a_few_loads_go_out_alone() {
    let (_database, proxy, store) = counted().await;
    let ids = registered(&store, 4).await;
    let before = proxy.counts();
    let _ = load_all(&store, &in_north(&ids)).await;
    let sent = proxy.statements_since(&before);
    assert!(!sent.iter().any(|sql| sql.contains(LOADS)), "{sent:#?}");
}

/// Rows that are there, removed, of another tenant or of none, that cannot be read, and that never
/// were, of tenants and of the system.
#[tokio::test]
async fn each_gets_what_a_load_alone_gives() {
    let (database, proxy, store) = counted().await;
    let alone = stores::postgres_with(database.url(), StoreOptions::default()).await;
    let mut ids = registered(&store, 30).await;
    for id in &ids[..10] {
        let mut uow = store.unit_of_work(&north());
        let parcel: Parcel = uow.get(*id).await.unwrap();
        uow.remove(parcel).unwrap();
        let _ = uow.commit().await.unwrap();
    }
    for id in &ids[10..20] {
        let _ = weighed(&store, *id).await.commit().await.unwrap();
    }
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    for (tenant, rows) in [("south", &ids[15..22]), ("", &ids[22..25])] {
        let rows: Vec<_> = rows.iter().map(|id| id.uuid()).collect();
        sqlx::query("UPDATE parcel SET tenant_id = $1 WHERE id = ANY($2)")
            .bind(tenant)
            .bind(rows)
            .execute(&mut connection)
            .await
            .unwrap();
    }
    ids.extend((0..5).map(|_| Id::new()));
    let mut random = Random::new(seed());
    let contexts = [north(), stores::tenant("south"), RequestContext::system()];
    let before = proxy.counts();
    for _ in 0..20 {
        let mut wanted = Vec::new();
        for _ in 0..100 {
            let context = &contexts[random.below(3) as usize];
            wanted.push((
                context.clone(),
                ids[random.below(ids.len() as u64) as usize],
            ));
        }
        let found = load_all(&store, &wanted).await;
        for ((context, id), found) in wanted.iter().zip(found) {
            assert_eq!(found, load(&alone, context, *id).await);
        }
    }
    let sent = proxy.statements_since(&before);
    let together = sent.iter().filter(|sql| sql.contains(LOADS)).count();
    assert!(together >= 20, "{together} statements for several callers");
}

/// What is in a list of keys is each key and nothing else.
#[tokio::test]
async fn texts_and_integers_are_keys_too() {
    let (database, proxy, store) = counted().await;
    let alone = stores::postgres_with(database.url(), StoreOptions::default()).await;
    let tables = [Locker::table(), Counter::table()];
    store.create_tables(&tables).await.unwrap();
    let mut texts: Vec<String> = [" ", "NULL", "{a,b}", "\"", "\\", "'", "é", "E", "e", "\n"]
        .map(str::to_owned)
        .into();
    texts.push("long ".repeat(51));
    let integers = [i64::MIN, -1, 0, 1, 9, 10, i64::from(i32::MAX) + 1, i64::MAX];
    let mut uow = store.unit_of_work(&north());
    for id in &texts {
        uow.save(Locker::new(id)).unwrap();
    }
    for id in integers {
        uow.save(Counter::new(id)).unwrap();
    }
    let _ = uow.commit().await.unwrap();
    texts.extend(["none", "null", "  "].map(str::to_owned));
    texts.push("too large for a flush".repeat(100_000));
    let integers = integers.into_iter().chain([2, i64::MIN + 1]);
    let contexts = [north(), stores::tenant("south"), RequestContext::system()];
    let before = proxy.counts();
    for context in contexts {
        same_as_alone::<Locker>(&store, &alone, &context, texts.iter().cloned()).await;
        same_as_alone::<Counter>(&store, &alone, &context, integers.clone()).await;
    }
    let sent = proxy.statements_since(&before);
    for table in ["conformance_locker", "conformance_counter"] {
        let together = sent
            .iter()
            .filter(|sql| sql.contains(LOADS) && sql.contains(table));
        assert!(together.count() >= 3, "{sent:#?}");
    }
}

/// Loads all of them at the same moment from a store that has loads meet, and one by one from
/// another.
async fn same_as_alone<T: AggregateRoot + std::fmt::Debug>(
    store: &PgStore,
    alone: &PgStore,
    context: &RequestContext,
    ids: impl Iterator<Item = T::Id> + Clone,
) {
    let shown = |store: &PgStore, id: T::Id| {
        let mut uow = store.unit_of_work(context);
        async move {
            let found = uow.repository::<T>().find(id).await;
            format!("{:?}", found.map_err(|error| error.to_string()))
        }
    };
    // Each thrice, so that more meet than go out alone.
    let ids = ids.clone().chain(ids.clone()).chain(ids);
    let loads: JoinSet<_> = ids
        .clone()
        .enumerate()
        .map(|(number, id)| {
            let load = shown(store, id);
            async move { (number, load.await) }
        })
        .collect();
    let mut found = loads.join_all().await;
    found.sort();
    for ((_, found), id) in found.into_iter().zip(ids) {
        assert_eq!(found, shown(alone, id).await);
    }
}

/// Who has committed, or was told of a commit, loads what was committed, or what came after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_sees_what_was_committed_before_it() {
    let (_database, proxy, store) = counted().await;
    let ids = registered(&store, 4).await;
    let before = proxy.counts();
    let mut writers = JoinSet::new();
    for number in 0..32 {
        let (store, id) = (store.clone(), ids[number % 4]);
        writers.spawn(async move {
            for _ in 0..20 {
                let mut uow = store.unit_of_work(&north());
                let mut parcel: Parcel = uow.get(id).await.unwrap();
                let version = domain::version(&parcel);
                parcel.weigh(1);
                uow.save(parcel).unwrap();
                let is_ours = uow.commit().await.is_ok();
                let seen = load(&store, &north(), id).await.unwrap().unwrap().1;
                assert!(seen > version, "{seen} after {version}, ours: {is_ours}");
            }
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended.unwrap();
    }
    let sent = proxy.statements_since(&before);
    assert!(sent.iter().any(|sql| sql.contains(LOADS)));
}

/// In a transaction, under policies, and with children.
#[tokio::test]
async fn what_needs_more_is_loaded_alone() {
    let (_database, proxy, store) = counted().await;
    let ids = registered(&store, 40).await;
    let tables = [Tour::table(), Trip::table()];
    store.create_tables(&tables).await.unwrap();
    let before = proxy.counts();
    let mut loads = JoinSet::new();
    for id in ids {
        let store = store.clone();
        loads.spawn(async move {
            let mut uow = store.unit_of_work(&north());
            uow.connection().await.unwrap();
            uow.get::<Parcel>(id).await.unwrap();
            let tour = uow.repository::<Tour>().find(Id::new()).await.unwrap();
            assert!(tour.is_none());
        });
    }
    let _ = loads.join_all().await;
    let mut loads = JoinSet::new();
    for _ in 0..40 {
        let store = store.clone();
        loads.spawn(async move {
            let mut uow = store.unit_of_work(&north());
            uow.repository::<Tour>()
                .find(Id::new())
                .await
                .unwrap()
                .is_none()
        });
    }
    assert!(loads.join_all().await.into_iter().all(|none| none));
    let sent = proxy.statements_since(&before);
    assert!(!sent.iter().any(|sql| sql.contains(LOADS)), "{sent:#?}");
}

#[tokio::test]
async fn policies_see_each_tenant_alone() {
    let database = SecuredDatabase::create(&domain::tables()).await;
    let proxy = WireProxy::start(database.url()).await;
    let options = StoreOptions::default().coalesce(128).row_level_security();
    let store = stores::postgres_with(proxy.url(), options).await;
    let ids = registered(&store, 40).await;
    let before = proxy.counts();
    let outcomes = load_all(&store, &in_north(&ids)).await;
    assert_eq!(outcomes, vec![Ok(Some(("known".to_owned(), 1))); 40]);
    let sent = proxy.statements_since(&before);
    assert!(!sent.iter().any(|sql| sql.contains(LOADS)), "{sent:#?}");
}

/// Callers that give up while their loads wait, or are under way.
#[tokio::test]
async fn callers_that_give_up_harm_nobody() {
    let (_database, _proxy, store) = counted().await;
    let ids = registered(&store, 60).await;
    for polls in 0..6 {
        let wanted = in_north(&ids);
        let kept = load_all(&store, &wanted);
        let mut dropped = JoinSet::new();
        for id in ids.clone() {
            let store = store.clone();
            dropped.spawn(async move {
                let context = north();
                let load = load(&store, &context, id);
                let _ = cqrs_integration::each::poll_up_to(polls, load).await;
            });
        }
        let kept = kept.await;
        assert_eq!(kept, vec![Ok(Some(("known".to_owned(), 1))); 60]);
        let _ = dropped.join_all().await;
    }
}

/// A connection that breaks at any message: nobody is told anything but what there is.
#[tokio::test]
async fn a_broken_connection_costs_a_second_statement() {
    for direction in [Direction::FromClient, Direction::FromServer] {
        let (_database, proxy, store) = counted().await;
        let ids = registered(&store, 60).await;
        let mut cuts = 0;
        for message in 0..40 {
            // Those that go out alone need connections that are there: opening one is not repeated.
            let _ = load_all(&store, &in_north(&ids)).await;
            proxy.arm(Cut::before(direction, message));
            let outcomes = load_all(&store, &in_north(&ids)).await;
            assert_eq!(outcomes, vec![Ok(Some(("known".to_owned(), 1))); 60]);
            cuts += usize::from(proxy.was_cut());
            proxy.disarm();
        }
        assert!(cuts > 10, "{cuts} cuts");
    }
}

/// Nor do loads that meet hold the connections of flushes for as long as a table is locked, behind a
/// pooler either.
#[tokio::test]
async fn a_locked_table_is_waited_for_alone() {
    let (database, proxy, store) = counted().await;
    let pooler = Pooler::start(proxy.url(), 20).await;
    let pooled = coalescing(pooler.url()).await;
    for store in [store, pooled] {
        let ids = registered(&store, 30).await;
        let mut locking = PgConnection::connect(database.url()).await.unwrap();
        let mut lock = locking.begin().await.unwrap();
        sqlx::query("LOCK TABLE parcel IN ACCESS EXCLUSIVE MODE")
            .execute(&mut *lock)
            .await
            .unwrap();
        let wanted = in_north(&ids);
        let loads = load_all(&store, &wanted);
        let all_alone = async {
            // The store has ten connections for them.
            while waiting(&database).await != (10, 0) {
                tokio::task::yield_now().await;
            }
            lock.rollback().await.unwrap();
        };
        let both = async { tokio::join!(loads, all_alone) };
        let both = tokio::time::timeout(Duration::from_secs(25), both).await;
        let (outcomes, ()) = both.expect("no flush waits for the table");
        assert_eq!(outcomes, vec![Ok(Some(("known".to_owned(), 1))); 30]);
    }
}

/// How many loads wait for a lock: alone, and for several callers.
async fn waiting(database: &TestDatabase) -> (i64, i64) {
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    let found = sqlx::query_as(
        "SELECT count(*) FILTER (WHERE query NOT LIKE '%AS wanted(%'),
                count(*) FILTER (WHERE query LIKE '%AS wanted(%')
         FROM pg_stat_activity
         WHERE datname = current_database() AND wait_event_type = 'Lock'",
    );
    found.fetch_one(&mut connection).await.unwrap()
}

/// A table that is not there is each caller's own error.
#[tokio::test]
async fn a_statement_that_fails_is_the_error_of_a_load_alone() {
    let (database, _proxy, store) = counted().await;
    let ids = registered(&store, 30).await;
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    sqlx::query("ALTER TABLE parcel RENAME TO gone")
        .execute(&mut connection)
        .await
        .unwrap();
    let alone = stores::postgres_with(database.url(), StoreOptions::default()).await;
    let expected = load(&alone, &north(), ids[0]).await;
    assert!(expected.is_err());
    let outcomes = load_all(&store, &in_north(&ids)).await;
    assert_eq!(outcomes, vec![expected; 30]);
}

#[tokio::test]
async fn a_closed_store_refuses_all() {
    let (_database, _proxy, store) = counted().await;
    let ids = registered(&store, 30).await;
    store.close();
    let mut loads = JoinSet::new();
    for id in ids {
        let store = store.clone();
        loads.spawn(async move {
            let mut uow = store.unit_of_work(&north());
            uow.get::<Parcel>(id).await.unwrap_err()
        });
    }
    for error in loads.join_all().await {
        assert_eq!(*kind(&error), cqrs_core::StoreErrorKind::Usage);
    }
}
