//! Finders that lock: who waits, who is left out, and that each element of a queue is taken once.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use cqrs_core::{Error, InMemoryStore, Query, Repository, RetryPolicy, Store, UnitOfWork};
use cqrs_integration::domain::{self, Parcel, Parcels};
use cqrs_integration::stores::tenant;
use cqrs_sqlx::{SqlStore, StoreOptions};
use sqlx::{Connection, PgConnection};
use tokio::sync::Barrier;

use cqrs_integration::each::{Fresh, Kind, on_each, poll_up_to};

on_each!(
    workers_take_each_once,
    who_locks_waits_for_the_writer,
    a_lock_of_an_undone_savepoint_is_given_back,
);

const WORKERS: usize = 6;
const PARCELS: usize = 40;

async fn save<S: Store>(store: &S, labels: &[&str]) {
    let mut uow = store.unit_of_work(&tenant("north"));
    for label in labels {
        uow.save(Parcel::register(label)).unwrap();
    }
    let _ = uow.commit().await.unwrap();
}

/// Takes parcels until there are none; the labels of those it took.
async fn work<S: Store>(store: S, start: Arc<Barrier>) -> Vec<String> {
    let context = tenant("north");
    let mut taken = Vec::new();
    start.wait().await;
    loop {
        let took = store
            .execute(&context, async |uow| {
                let mut parcels = uow.repository::<Parcel>();
                let Some(mut parcel) = parcels.take_open().await? else {
                    // Others may work on what is left, and give it back.
                    return Ok(match parcels.count_open().await? {
                        0 => None,
                        _ => Some(None),
                    });
                };
                let label = parcel.label().to_owned();
                parcel.deliver();
                parcels.save(parcel)?;
                Ok(Some(Some(label)))
            })
            .await
            .unwrap();
        match took.into_output() {
            None => return taken,
            Some(label) => taken.extend(label),
        }
        tokio::task::yield_now().await;
    }
}

/// Has the workers take all parcels, and checks that each was taken once.
async fn take_all<S: Store>(store: S) {
    let labels: Vec<String> = (0..PARCELS).map(|number| format!("{number:02}")).collect();
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    save(&store, &labels).await;
    let start = Arc::new(Barrier::new(WORKERS));
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| tokio::spawn(work(store.clone(), Arc::clone(&start))))
        .collect();
    let mut taken = Vec::new();
    for worker in workers {
        taken.extend(worker.await.unwrap());
    }
    assert_eq!(taken.len(), PARCELS);
    let distinct: HashSet<_> = taken.iter().map(String::as_str).collect();
    assert_eq!(distinct, labels.into_iter().collect());
    let mut uow = store.unit_of_work(&tenant("north"));
    for parcel in uow.query::<Parcel>(Query::all()).await.unwrap() {
        assert_eq!(domain::version(&parcel), 2, "registered, delivered once");
    }
}

/// Locks leave nothing to try again: a conflict would fail.
async fn workers_take_each_once<K: Kind>() {
    let once = RetryPolicy {
        attempts: 1,
        ..RetryPolicy::default()
    };
    let (fresh, store) = Fresh::<K>::with(StoreOptions::default().retry_policy(once)).await;
    take_all(store).await;
    let delivered = "SELECT count(*) FROM cqrs_event WHERE event_type = 'parcel.delivered'";
    assert_eq!(fresh.number(delivered).await, PARCELS as i64);
}

/// In memory nobody is left out, and the versions see to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_in_memory_take_each_once() {
    let patient = RetryPolicy {
        attempts: 100_000,
        first_delay: Duration::from_micros(10),
        max_delay: Duration::from_micros(100),
    };
    take_all(InMemoryStore::new().with_retry_policy(patient)).await;
}

/// Waits until a statement waits for a lock; at once where whoever locks waits for a connection.
async fn someone_waits<K: Kind>(url: &str) {
    if K::either(false, true) {
        return;
    }
    let mut connection = PgConnection::connect(url).await.unwrap();
    loop {
        let waiting: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        .fetch_one(&mut connection)
        .await
        .unwrap();
        if waiting > 0 {
            return;
        }
    }
}

/// Has one writer lock and change the first open parcel, a second lock the first open one
/// meanwhile, and the first commit then; what the second found.
async fn second_after_first<K: Kind>(
    url: &str,
    store: &SqlStore<K>,
    change: impl FnOnce(&mut Parcel),
) -> Option<Parcel> {
    let mut first = store.unit_of_work(&tenant("north"));
    let mut parcels = first.repository::<Parcel>();
    let mut parcel = parcels.lock_open().await.unwrap().unwrap();
    change(&mut parcel);
    first.save(parcel).unwrap();
    let (asked, mut answer) = tokio::sync::mpsc::channel(1);
    let second = store.clone();
    tokio::spawn(async move {
        let mut uow = second.unit_of_work(&tenant("north"));
        let found = uow.repository::<Parcel>().lock_open().await.unwrap();
        if let Some(mut parcel) = found.clone() {
            parcel.weigh(100);
            uow.save(parcel).unwrap();
        }
        let _ = uow.commit().await.unwrap();
        asked.send(found).await.unwrap();
    });
    someone_waits::<K>(url).await;
    assert!(answer.try_recv().is_err(), "it waits");
    let _ = first.commit().await.unwrap();
    answer.recv().await.unwrap()
}

/// A second that locks waits for the first, sees what it has committed, and adds to it without a
/// conflict; what is no longer open is not found.
async fn who_locks_waits_for_the_writer<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    save(&store, &["a"]).await;
    let found = second_after_first(&fresh.url, &store, |parcel| parcel.weigh(10)).await;
    assert_eq!(found.map(|parcel| parcel.grams()), Some(10));
    let found = second_after_first(&fresh.url, &store, Parcel::deliver).await;
    assert!(found.is_none(), "{found:?}");
    let mut uow = store.unit_of_work(&tenant("north"));
    let parcel = uow.repository::<Parcel>().get_labelled("a").await.unwrap();
    assert_eq!((parcel.grams(), domain::version(&parcel)), (110, 4));
}

/// What one holds others leave out, until it ends; other tenants are not concerned.
#[tokio::test]
async fn what_is_locked_is_left_out() {
    let (_fresh, store) = Fresh::<cqrs_sqlx::Postgres>::with_store().await;
    save(&store, &["a", "b"]).await;
    let take = async |uow: &mut cqrs_sqlx::PgUnitOfWork| {
        let taken = uow.repository::<Parcel>().take_open().await.unwrap();
        taken.map(|parcel| parcel.label().to_owned())
    };
    let open = || store.unit_of_work(&tenant("north"));
    let (mut first, mut second, mut third) = (open(), open(), open());
    assert_eq!(take(&mut first).await.as_deref(), Some("a"));
    assert_eq!(take(&mut second).await.as_deref(), Some("b"));
    assert_eq!(take(&mut third).await, None);
    let mut elsewhere = store.unit_of_work(&tenant("south"));
    assert_eq!(take(&mut elsewhere).await, None);
    // Who only reads does not wait, and neither does who writes something else.
    assert_eq!(open().repository::<Parcel>().count_open().await.unwrap(), 2);
    save(&store, &["c"]).await;
    first.rollback().await;
    assert_eq!(take(&mut third).await.as_deref(), Some("a"));
    drop(second);
    let mut fourth = open();
    // A unit of work that is dropped gives its rows back when its connection is repaired.
    while take(&mut fourth).await.as_deref() != Some("b") {
        fourth.rollback().await;
        fourth = open();
    }
}

/// A lock is refused before anything is sent, also where nothing could be.
#[tokio::test]
async fn a_refused_lock_sends_nothing() {
    let (_fresh, store) = Fresh::<cqrs_sqlx::Postgres>::with_store().await;
    store.close();
    let mut reading = store.read_only(&tenant("north"));
    let refused = poll_up_to(0, reading.repository::<Parcel>().lock_open()).await;
    let error = refused.expect("nothing is awaited").unwrap_err();
    assert!(
        error.to_string().contains("a lock would not last here"),
        "{error}"
    );
    let query = Query::<domain::ParcelView>::all().lock();
    let models = store.read_models(&tenant("north"));
    let refused = poll_up_to(0, cqrs_core::ReadModels::query(&models, query)).await;
    assert!(refused.expect("nothing is awaited").is_err());
}

/// Where locks are those of rows, one that was taken in a savepoint ends when that is undone; one
/// that was taken before it stays.
async fn a_lock_of_an_undone_savepoint_is_given_back<K: Kind>() {
    let (_fresh, store) = Fresh::<K>::with_store().await;
    save(&store, &["a", "b"]).await;
    let mut uow = store.unit_of_work(&tenant("north"));
    let kept = uow.repository::<Parcel>().take_open().await.unwrap();
    assert_eq!(kept.unwrap().label(), "a");
    let undone = uow.savepoint(async |uow| {
        let all = uow.query::<Parcel>(Query::all().lock()).await?;
        assert_eq!(all.len(), 2);
        Err::<(), _>(Error::other("undone"))
    });
    assert!(undone.await.is_err());
    let mut other = store.unit_of_work(&tenant("north"));
    let mut parcels = other.repository::<Parcel>();
    // Else the lock is that of the database, and whoever wants it waits.
    if K::either(true, false) {
        let found = parcels.take_open().await.unwrap();
        assert_eq!(found.unwrap().label(), "b");
    }
    uow.rollback().await;
    let found = parcels.take_open().await.unwrap();
    assert_eq!(found.unwrap().label(), "a");
}
