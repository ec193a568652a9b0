//! Decisions over several aggregates: what holds while others commit.

use std::sync::Arc;

use cqrs_core::conformance::fixtures::{Account, AccountForm, Ledger};
use cqrs_core::{Entity, Error, RequestContext, Result, Store, UnitOfWork};
use cqrs_integration::stores;
use cqrs_sqlx::{Postgres, SqlStore};
use tokio::sync::Barrier;

use cqrs_integration::each::{Fresh, Kind, on_each};

on_each!(
    rows_that_cross,
    a_row_and_a_stream_that_cross,
    a_stream_and_a_row_that_cross,
    streams_that_cross,
);

const ROUNDS: usize = 20;

fn north() -> RequestContext {
    stores::tenant("north")
}

async fn with_accounts<K: Kind>() -> (Fresh<K>, SqlStore<K>) {
    let (fresh, store) = Fresh::<K>::with_store().await;
    store.create_tables(&[Account::table()]).await.unwrap();
    (fresh, store)
}

async fn open<K: Kind, A: AccountForm>(store: &SqlStore<K>, number: &str) {
    let mut account = A::unopened(number);
    account.open("ann");
    account.transfer(10);
    let mut uow = store.unit_of_work(&north());
    uow.save(account).unwrap();
    let _ = uow.commit().await.unwrap();
}

async fn load<K: Kind, A: AccountForm>(store: &SqlStore<K>, number: &str) -> A {
    let mut uow = store.unit_of_work(&north());
    uow.get::<A>(number.to_owned()).await.unwrap()
}

/// Takes 15 off the first where that leaves both together at 0 or more.
async fn withdraw<U: UnitOfWork, R: AccountForm, W: AccountForm>(
    uow: &mut U,
    from: &str,
    other: &str,
) -> Result<()> {
    let other: R = uow.get(other.to_owned()).await?;
    let mut account: W = uow.get(from.to_owned()).await?;
    if account.contents().1 + other.contents().1 < 15 {
        return Err(Error::other("too little on both"));
    }
    account.transfer(-15);
    uow.guard(&other)?;
    uow.save(account)
}

async fn rows_that_cross<K: Kind>() {
    cross::<K, Account, Account>().await;
}

async fn a_row_and_a_stream_that_cross<K: Kind>() {
    cross::<K, Account, Ledger>().await;
}

async fn a_stream_and_a_row_that_cross<K: Kind>() {
    cross::<K, Ledger, Account>().await;
}

async fn streams_that_cross<K: Kind>() {
    cross::<K, Ledger, Ledger>().await;
}

/// Decisions that have read the same and then commit at one moment: never two of them count, and
/// none has to be ended to break a deadlock.
async fn cross<K: Kind, A: AccountForm, B: AccountForm>() {
    let (fresh, store) = with_accounts::<K>().await;
    for round in 0..ROUNDS {
        let (one, two) = (format!("{round} one"), format!("{round} two"));
        open::<K, A>(&store, &one).await;
        open::<K, B>(&store, &two).await;
        let barrier = Arc::new(Barrier::new(4));
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..4 {
            let (store, barrier) = (store.clone(), Arc::clone(&barrier));
            let (one, two) = (one.clone(), two.clone());
            tasks.spawn(async move {
                let mut uow = store.unit_of_work(&north());
                let decided = match task % 2 {
                    0 => withdraw::<_, B, A>(&mut uow, &one, &two).await,
                    _ => withdraw::<_, A, B>(&mut uow, &two, &one).await,
                };
                barrier.wait().await;
                decided.unwrap();
                uow.commit().await
            });
        }
        let mut done = 0;
        while let Some(committed) = tasks.join_next().await {
            match committed.unwrap() {
                Ok(receipt) => done += receipt.events().len(),
                Err(error) => assert!(error.is_conflict(), "{error:?}"),
            }
        }
        assert_eq!(done, 1, "round {round}");
        let one = load::<K, A>(&store, &one).await;
        let two = load::<K, B>(&store, &two).await;
        assert_eq!(one.contents().1 + two.contents().1, 5);
    }
    store.close();
    drop(store);
    K::deserted(&fresh.url).await;
    K::assert_no_deadlock(&fresh.url).await;
}

/// What is guarded does not change before the commit is over; so the log, too, has the decision
/// before what came after it. Other guards do not wait.
async fn nothing_comes_between<R: AccountForm>(others: usize) {
    let (fresh, store) = with_accounts::<Postgres>().await;
    open::<_, R>(&store, "read").await;
    open::<_, Ledger>(&store, "written").await;
    open::<_, Account>(&store, "another").await;

    let mut uow = store.unit_of_work(&north());
    uow.guard(&load::<_, R>(&store, "read").await).unwrap();
    let mut written = load::<_, Ledger>(&store, "written").await;
    written.transfer(1);
    uow.save(written).unwrap();
    // Sends what is staged, and checks the guard.
    let _ = uow.connection().await.unwrap();

    let mut other = store.unit_of_work(&north());
    other.guard(&load::<_, R>(&store, "read").await).unwrap();
    let _ = other.commit().await.unwrap();

    let mut moving = store.unit_of_work(&north());
    let mut read = load::<_, R>(&store, "read").await;
    read.transfer(1);
    moving.save(read).unwrap();
    for _ in 0..others {
        let mut another = load::<_, Account>(&store, "another").await;
        another.transfer(1);
        moving.save(another).unwrap();
    }
    let moving = tokio::spawn(moving.commit());
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
    while fresh.number(waiting).await == 0 {
        assert!(!moving.is_finished(), "it did not wait");
        tokio::task::yield_now().await;
    }
    let decided = uow.commit().await.unwrap();
    let moved = moving.await.unwrap().unwrap();
    assert!(decided.position() < moved.position());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_comes_between_a_guarded_row_and_the_commit() {
    nothing_comes_between::<Account>(0).await;
    nothing_comes_between::<Account>(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_comes_between_a_guarded_stream_and_the_commit() {
    nothing_comes_between::<Ledger>(0).await;
    nothing_comes_between::<Ledger>(1).await;
}
