//! Callers that give up while their commits wait, or are under way with those of others.

use cqrs_core::{Position, UnitOfWork};
use cqrs_integration::database::TestDatabase;
use cqrs_integration::stores;
use cqrs_sqlx::PgStore;
use sqlx::{Connection, PgConnection};
use tokio::task::JoinSet;

use super::{coalescing, north, polled, registering};
use cqrs_integration::each::poll_up_to;

async fn opened() -> (TestDatabase, PgStore) {
    let database = TestDatabase::create().await;
    stores::postgres(database.url()).await.close();
    let store = coalescing(database.url()).await;
    (database, store)
}

async fn events(store: &PgStore) -> usize {
    let log = store.events(&north(), Position::START, 1000).await;
    log.unwrap().len()
}

/// Lets no commit of a parcel end before this is closed.
async fn held(database: &TestDatabase) -> PgConnection {
    let mut holder = PgConnection::connect(database.url()).await.unwrap();
    sqlx::raw_sql("BEGIN; LOCK TABLE parcel IN SHARE MODE")
        .execute(&mut holder)
        .await
        .unwrap();
    holder
}

/// On one thread the flush takes nothing before this test waits.
#[tokio::test]
async fn a_commit_that_nobody_waits_for_is_not_sent() {
    let (database, store) = opened().await;
    let holder = held(&database).await;
    let mut first = Box::pin(registering(&store, "first").commit());
    assert!(polled(&mut first).is_pending(), "it goes out at once");
    let mut behind = JoinSet::new();
    for dropped in 0..5 {
        let commit = registering(&store, "dropped").commit();
        assert!(poll_up_to(0, commit).await.is_none(), "{dropped} waits");
        let uow = registering(&store, "kept");
        behind.spawn(uow.commit());
    }
    holder.close().await.unwrap();
    let _ = first.await.unwrap();
    for receipt in behind.join_all().await {
        assert_eq!(receipt.unwrap().events().len(), 1);
    }
    assert_eq!(events(&store).await, 6);
}

/// What a flush has taken it commits, whoever waits for it.
#[tokio::test]
async fn a_commit_under_way_happens_without_its_caller() {
    let (database, store) = opened().await;
    let holder = held(&database).await;
    let mut first = Box::pin(registering(&store, "first").commit());
    assert!(polled(&mut first).is_pending());
    let mut dropped = Box::pin(registering(&store, "dropped").commit());
    assert!(polled(&mut dropped).is_pending());
    let before = store_count(&store);
    // It ends before the other, in the same flush.
    let mut other = Box::pin(registering(&store, "other").commit());
    assert!(polled(&mut other).is_pending());
    holder.close().await.unwrap();
    let other = other.await.unwrap();
    assert_eq!(other.events().len(), 1);
    drop(dropped);
    let _ = first.await.unwrap();
    assert_eq!(events(&store).await, 3);
    assert!(store_count(&store) > before);
    let _ = registering(&store, "next").commit().await.unwrap();
}

fn store_count(store: &PgStore) -> u64 {
    use cqrs_core::Store as _;
    store.changes().count("parcel")
}
