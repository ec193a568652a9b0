//! Units of work beyond what the conformance suite sees of them: SQL of the user's own in
//! savepoints and in read-only ones, and idempotency keys under concurrency.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{TimeDelta, Utc};
use cqrs_core::{
    CommitReceipt, Envelope, Error, IdempotencyKey, Position, RequestContext, Store, UnitOfWork,
};
use cqrs_integration::domain::{self, Parcel, ParcelId};
use cqrs_integration::stores::tenant;
use cqrs_sqlx::{SqlStore, SqlUnitOfWork, StoreOptions};
use tokio::sync::Barrier;
use uuid::Uuid;

use cqrs_integration::each::{Fresh, Kind, kind, on_each, poll_up_to};

on_each!(
    own_sql_that_fails_in_a_savepoint_is_undone,
    own_sql_whose_failure_is_swallowed_spoils_no_more_than_its_savepoint,
    an_open_savepoint_is_rolled_back_with_the_rest,
    a_savepoint_is_dropped_at_each_await,
    a_nested_transaction_of_the_users_is_dropped_at_each_await,
    a_transaction_that_own_sql_ends_is_not_committed,
    a_transaction_that_own_sql_replaces_is_not_committed,
    own_sql_that_writes_is_refused_where_only_reading_is_meant,
    commands_that_are_repeated_at_once_are_done_once,
    receipts_are_kept_until_they_are_forgotten,
);

/// One connection: what a unit of work leaves behind on it, the next one would meet.
fn one_connection() -> StoreOptions {
    StoreOptions::default().max_connections(1)
}

async fn with_own_table<K: Kind>() -> (Fresh<K>, SqlStore<K>) {
    let (fresh, store) = Fresh::<K>::with(one_connection()).await;
    fresh.run("CREATE TABLE own (a integer PRIMARY KEY)").await;
    (fresh, store)
}

async fn insert_own<K: Kind>(uow: &mut SqlUnitOfWork<K>) -> cqrs_core::Result<()> {
    let connection = uow.connection().await?;
    K::run_on(connection, "INSERT INTO own VALUES (1)".to_owned())
        .await
        .map_err(Error::other)
}

/// The receipt names the events of the log, in order; each label is that of one parcel.
async fn assert_log<K: Kind>(
    fresh: &Fresh<K>,
    store: &SqlStore<K>,
    receipt: &CommitReceipt,
    labels: &[&str],
) {
    let system = RequestContext::system();
    let log = store.events(&system, Position::START, 100).await.unwrap();
    let events: Vec<_> = log.iter().map(Envelope::event_id).collect();
    assert_eq!(receipt.events(), events);
    assert_eq!(receipt.position(), log.last().map(Envelope::position));
    let found = K::texts(&fresh.url, "SELECT label FROM parcel ORDER BY 1".to_owned());
    assert_eq!(found.await, labels);
}

async fn own_sql_that_fails_in_a_savepoint_is_undone<K: Kind>() {
    let (fresh, store) = with_own_table::<K>().await;
    let mut uow = store.unit_of_work(&tenant("north"));
    uow.save(Parcel::register("a")).unwrap();
    let undone = uow
        .savepoint(async |uow| {
            uow.save(Parcel::register("b"))?;
            insert_own(uow).await?;
            uow.savepoint(async |uow| insert_own(uow).await).await
        })
        .await;
    assert!(matches!(undone, Err(Error::Other(_))), "{undone:?}");
    uow.savepoint(async |uow| insert_own(uow).await)
        .await
        .unwrap();
    uow.save(Parcel::register("c")).unwrap();
    let receipt = uow.commit().await.unwrap();
    assert_log(&fresh, &store, &receipt, &["a", "c"]).await;
    assert_eq!(fresh.number("SELECT count(*) FROM own").await, 1);
}

async fn own_sql_whose_failure_is_swallowed_spoils_no_more_than_its_savepoint<K: Kind>() {
    let (fresh, store) = with_own_table::<K>().await;
    let mut uow = store.unit_of_work(&tenant("north"));
    uow.save(Parcel::register("a")).unwrap();
    let swallowing = uow
        .savepoint(async |uow| {
            uow.save(Parcel::register("b"))?;
            insert_own(uow).await?;
            let _ = insert_own(uow).await;
            Ok(())
        })
        .await;
    uow.save(Parcel::register("c")).unwrap();
    let receipt = uow.commit().await.unwrap();
    // SQLite undoes the statement alone.
    assert_eq!(swallowing.is_ok(), K::either(false, true));
    let labels: &[&str] = K::either(&["a", "c"], &["a", "b", "c"]);
    assert_log(&fresh, &store, &receipt, labels).await;
    let own = fresh.number("SELECT count(*) FROM own").await;
    assert_eq!(own, K::either(0, 1));
}

async fn an_open_savepoint_is_rolled_back_with_the_rest<K: Kind>() {
    let (fresh, store) = with_own_table::<K>().await;
    for depth in 1..4 {
        let mut uow = store.unit_of_work(&tenant("north"));
        for _ in 0..depth {
            uow.begin_savepoint().await.unwrap();
            uow.save(Parcel::register("no")).unwrap();
        }
        if depth == 3 {
            drop(uow);
        } else {
            uow.rollback().await;
        }
        let mut uow = store.unit_of_work(&tenant("north"));
        uow.save(Parcel::register("yes")).unwrap();
        insert_own(&mut uow).await.unwrap();
        let _ = uow.commit().await.unwrap();
        fresh.run("DELETE FROM own").await;
    }
    assert_eq!(fresh.number("SELECT count(*) FROM parcel").await, 3);
    assert_eq!(fresh.number("SELECT count(*) FROM cqrs_event").await, 3);
}

/// The log holds what the receipts of all commands say, in their order; a command that comes next
/// works, and its rows are there.
struct Ledger<K: Kind> {
    fresh: Fresh<K>,
    store: SqlStore<K>,
    events: Vec<Uuid>,
}

impl<K: Kind> Ledger<K> {
    async fn new() -> Self {
        let (fresh, store) = with_own_table::<K>().await;
        Self {
            fresh,
            store,
            events: Vec::new(),
        }
    }

    async fn check(&mut self, committed: cqrs_core::Result<CommitReceipt>, name: &str) {
        let north = tenant("north");
        let next = self
            .store
            .execute(&north, async |uow| uow.save(Parcel::register("next")))
            .await
            .unwrap_or_else(|error| panic!("after {name}: {error:?}"));
        let system = RequestContext::system();
        let log = self.store.events(&system, Position::START, u32::MAX).await;
        let log: Vec<_> = log.unwrap().iter().map(Envelope::event_id).collect();
        let receipts = committed.iter().chain([&next]);
        self.events.extend(receipts.flat_map(CommitReceipt::events));
        assert_eq!(log, self.events, "{name}");
        let rows = self.fresh.number("SELECT count(*) FROM parcel").await;
        assert_eq!(rows, i64::try_from(log.len()).unwrap(), "{name}");
    }
}

/// Drops a savepoint, alone or within another, at its first, second, third await and so on, and
/// goes on as if nothing had happened.
async fn a_savepoint_is_dropped_at_each_await<K: Kind>() {
    let mut ledger = Ledger::<K>::new().await;
    let mut dropped = 0;
    for (fails, within) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut completed = 0;
        for limit in 0.. {
            let name = format!("fails: {fails}, within: {within}, dropped at await {limit}");
            let inside = async |uow: &mut SqlUnitOfWork<K>| {
                let parcel = Parcel::register("inside");
                let id = domain::id(&parcel);
                uow.save(parcel)?;
                let _: Parcel = uow.get(id).await?;
                match fails {
                    true => Err(Error::other("undone")),
                    false => Ok(()),
                }
            };
            let mut uow = ledger.store.unit_of_work(&tenant("north"));
            uow.save(Parcel::register("before")).unwrap();
            let outcome = if within {
                let outer = uow.savepoint(async |uow| {
                    let inner = poll_up_to(limit, uow.savepoint(async |uow| inside(uow).await));
                    Ok(inner.await)
                });
                outer.await.unwrap_or(None)
            } else {
                poll_up_to(limit, uow.savepoint(async |uow| inside(uow).await)).await
            };
            let _ = uow.save(Parcel::register("after"));
            let committed = uow.commit().await;
            match &outcome {
                None => {
                    dropped += 1;
                    assert!(committed.is_err(), "{name}: {committed:?}");
                }
                Some(outcome) => {
                    completed += 1;
                    assert_eq!(outcome.is_err(), fails, "{name}: {outcome:?}");
                    let receipt = committed.as_ref().unwrap();
                    assert_eq!(receipt.events().len(), if fails { 2 } else { 3 }, "{name}");
                }
            }
            ledger.check(committed, &name).await;
            if completed == 3 {
                break;
            }
        }
    }
    assert!(dropped > 0, "nothing was dropped");
}

/// sqlx ends the innermost transaction when the future of a nested `begin` is dropped, and that is
/// the unit of work's.
async fn a_nested_transaction_of_the_users_is_dropped_at_each_await<K: Kind>() {
    let mut ledger = Ledger::<K>::new().await;
    for (keep, within) in [(true, false), (false, false), (true, true), (false, true)] {
        let mut completed = 0;
        for limit in 0.. {
            let name = format!("keep: {keep}, within: {within}, dropped at await {limit}");
            let nested = async |uow: &mut SqlUnitOfWork<K>| {
                uow.save(Parcel::register("sent"))?;
                let connection = uow.connection().await?;
                let sql = format!("INSERT INTO own VALUES ({limit})");
                let nested = poll_up_to(limit, K::nested(connection, sql, keep)).await;
                uow.save(Parcel::register("saved"))?;
                Ok(nested.is_some())
            };
            let mut uow = ledger.store.unit_of_work(&tenant("north"));
            uow.save(Parcel::register("before")).unwrap();
            let is_complete = if within {
                let savepoint = uow.savepoint(async |uow| nested(uow).await);
                savepoint.await.unwrap_or(false)
            } else {
                nested(&mut uow).await.unwrap_or(false)
            };
            let _ = uow.save(Parcel::register("after"));
            let committed = uow.commit().await;
            if is_complete {
                completed += 1;
                assert_eq!(committed.as_ref().unwrap().events().len(), 4, "{name}");
            }
            ledger.check(committed, &name).await;
            ledger.fresh.run("DELETE FROM own").await;
            if completed == 3 {
                break;
            }
        }
    }
}

async fn a_transaction_that_own_sql_ends_is_not_committed<K: Kind>() {
    let mut ledger = Ledger::<K>::new().await;
    for within in [false, true] {
        let ending = async |uow: &mut SqlUnitOfWork<K>| {
            uow.save(Parcel::register("sent"))?;
            let connection = uow.connection().await?;
            K::run_on(connection, "ROLLBACK".to_owned())
                .await
                .map_err(Error::other)?;
            uow.save(Parcel::register("saved"))
        };
        let mut uow = ledger.store.unit_of_work(&tenant("north"));
        uow.save(Parcel::register("before")).unwrap();
        if within {
            let ended = uow.savepoint(async |uow| ending(uow).await).await;
            assert!(ended.is_err());
        } else {
            ending(&mut uow).await.unwrap();
        }
        let _ = uow.save(Parcel::register("after"));
        let committed = uow.commit().await;
        assert!(committed.is_err(), "within: {within}");
        ledger.check(committed, "a rollback of the user's").await;
    }
}

/// `ROLLBACK; BEGIN` leaves a transaction open: another one, without what was sent before.
async fn a_transaction_that_own_sql_replaces_is_not_committed<K: Kind>() {
    let mut ledger = Ledger::<K>::new().await;
    for (within, between) in [
        (false, ""),
        (true, ""),
        (false, "INSERT INTO own VALUES (3);"),
        (true, "INSERT INTO own VALUES (3);"),
    ] {
        let replace = format!(
            "ROLLBACK; {}; {between}",
            K::either("BEGIN", "BEGIN IMMEDIATE")
        );
        let replacing = async |uow: &mut SqlUnitOfWork<K>| {
            uow.save(Parcel::register("sent"))?;
            insert_own(uow).await?;
            let connection = uow.connection().await?;
            K::run_on(connection, replace.clone())
                .await
                .map_err(Error::other)?;
            uow.save(Parcel::register("saved"))
        };
        let mut uow = ledger.store.unit_of_work(&tenant("north"));
        uow.save(Parcel::register("before")).unwrap();
        if within {
            let ended = uow.savepoint(async |uow| replacing(uow).await).await;
            assert!(ended.is_err());
        } else {
            replacing(&mut uow).await.unwrap();
        }
        let _ = uow.save(Parcel::register("after"));
        let committed = uow.commit().await;
        let error = committed.as_ref().unwrap_err();
        assert_eq!(*kind(error), cqrs_core::StoreErrorKind::Usage, "{error}");
        assert!(!error.is_retryable(), "{error}");
        ledger.check(committed, "a transaction replaced").await;
    }
    assert_eq!(ledger.fresh.number("SELECT count(*) FROM own").await, 0);

    // Nothing of the framework was in it: nothing is lost.
    let mut uow = ledger.store.unit_of_work(&tenant("north"));
    let replace = K::either("ROLLBACK; BEGIN", "ROLLBACK; BEGIN IMMEDIATE").to_owned();
    K::run_on(uow.connection().await.unwrap(), replace)
        .await
        .unwrap();
    uow.save(Parcel::register("first")).unwrap();
    insert_own(&mut uow).await.unwrap();
    uow.save(Parcel::register("second")).unwrap();
    let committed = uow.commit().await;
    assert_eq!(committed.as_ref().unwrap().events().len(), 2);
    ledger
        .check(committed, "an empty transaction replaced")
        .await;
}

async fn own_sql_that_writes_is_refused_where_only_reading_is_meant<K: Kind>() {
    let (fresh, store) = with_own_table::<K>().await;
    for ends_well in [true, false] {
        let mut uow = store.read_only(&tenant("north"));
        let error = insert_own(&mut uow).await.unwrap_err();
        assert!(
            error
                .to_string()
                .contains(K::either("read-only", "readonly")),
            "{error}"
        );
        if ends_well {
            uow.rollback().await;
        } else {
            drop(uow);
        }
        // The connection may write again.
        let north = tenant("north");
        let writing = store.execute(&north, async |uow| insert_own(uow).await);
        let _ = writing.await.unwrap();
        fresh.run("DELETE FROM own").await;
    }
    assert_eq!(fresh.number("SELECT count(*) FROM own").await, 0);
}

async fn weigh_once<K: Kind>(
    store: &SqlStore<K>,
    known: ParcelId,
    key: &IdempotencyKey,
) -> CommitReceipt<i64> {
    let north = tenant("north");
    let receipt = store.execute_once(&north, key, async |uow| {
        let mut parcel: Parcel = uow.get(known).await?;
        parcel.weigh(1);
        let grams = parcel.grams();
        uow.save(parcel)?;
        Ok(grams)
    });
    receipt.await.unwrap()
}

async fn commands_that_are_repeated_at_once_are_done_once<K: Kind>() {
    const KEYS: usize = 20;
    const CLIENTS: usize = 6;
    let (fresh, store) = Fresh::<K>::with_store().await;
    let parcel = Parcel::register("known");
    let known = domain::id(&parcel);
    let mut uow = store.unit_of_work(&tenant("north"));
    uow.save(parcel).unwrap();
    let _ = uow.commit().await.unwrap();
    let barrier = Arc::new(Barrier::new(CLIENTS));
    let mut clients = Vec::new();
    for client in 0..CLIENTS {
        // As many processes would: stores of their own.
        let store = fresh.open(StoreOptions::default()).await;
        let barrier = Arc::clone(&barrier);
        clients.push(tokio::spawn(async move {
            let mut receipts = Vec::new();
            for step in 0..KEYS {
                // Half of them meet at each key, half come from the other end.
                let key = if client % 2 == 0 {
                    step
                } else {
                    KEYS - 1 - step
                };
                barrier.wait().await;
                let text = IdempotencyKey::new(format!("key {key}")).unwrap();
                receipts.push((key, weigh_once(&store, known, &text).await));
            }
            receipts
        }));
    }
    let mut by_key: HashMap<usize, CommitReceipt<i64>> = HashMap::new();
    for client in clients {
        for (key, receipt) in client.await.unwrap() {
            assert_eq!(receipt.events().len(), 1);
            let first = by_key.entry(key).or_insert_with(|| receipt.clone());
            assert_eq!(*first, receipt, "key {key}");
        }
    }
    let keys = i64::try_from(KEYS).unwrap();
    assert_eq!(fresh.number("SELECT grams FROM parcel").await, keys);
    assert_eq!(
        fresh.number("SELECT count(*) FROM cqrs_event").await,
        keys + 1
    );
    assert_eq!(
        fresh.number("SELECT count(*) FROM cqrs_receipt").await,
        keys
    );
    let mut outputs: Vec<i64> = by_key.values().map(|receipt| *receipt.output()).collect();
    outputs.sort_unstable();
    assert_eq!(outputs, (1..=keys).collect::<Vec<_>>());
}

async fn receipts_are_kept_until_they_are_forgotten<K: Kind>() {
    let (_fresh, store) = Fresh::<K>::with(one_connection()).await;
    let key = IdempotencyKey::new("forgotten").unwrap();
    let north = tenant("north");
    let run = async |output: i64| {
        let receipt = store.execute_once(&north, &key, async |_| Ok(output));
        receipt.await.unwrap().into_output()
    };
    assert_eq!(run(1).await, 1);
    let an_hour = TimeDelta::hours(1);
    assert_eq!(
        store.forget_receipts(Utc::now() - an_hour).await.unwrap(),
        0
    );
    assert_eq!(run(2).await, 1);
    assert_eq!(
        store.forget_receipts(Utc::now() + an_hour).await.unwrap(),
        1
    );
    assert_eq!(run(3).await, 3);
    let error = IdempotencyKey::new("a".repeat(256)).unwrap_err();
    assert_eq!(*kind(&error), cqrs_core::StoreErrorKind::Usage);
}
