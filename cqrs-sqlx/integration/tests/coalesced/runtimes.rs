//! A runtime that ends while it sends work of others: they are on another one, and are answered.

use std::pin::Pin;
use std::sync::mpsc;
use std::time::Duration;

use cqrs_core::{Position, UnitOfWork};
use cqrs_integration::database::TestDatabase;
use cqrs_integration::stores;
use cqrs_integration::wire::{Direction, WireProxy};
use cqrs_sqlx::{PgStore, StoreOptions};
use sqlx::{Connection as _, PgConnection};
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::loads::{LOADS, in_north, load, load_all};
use super::{FLUSH, north, polled, registered, registering};

/// Longer than anything here takes, and shorter than a flush waits for its answer.
const AT_MOST: Duration = Duration::from_secs(25);

async fn opened() -> (TestDatabase, WireProxy, PgStore) {
    let database = TestDatabase::create().await;
    stores::postgres(database.url()).await.close();
    let proxy = WireProxy::start(database.url()).await;
    let options = StoreOptions::default().coalesce(128);
    let options = options.acquire_timeout(Duration::from_secs(60));
    let store = stores::postgres_with(proxy.url(), options).await;
    (database, proxy, store)
}

/// Begins some work on a runtime of its own, so much that it begins all flushes of its lane; begins
/// other work here, which waits for these; and ends that runtime when one of them was sent, to which
/// no answer comes. Returns the outcomes of the work here.
async fn outlive<There, Here>(
    (database, proxy): (&TestDatabase, &WireProxy),
    sql: &'static str,
    there: Vec<There>,
    here: Vec<Here>,
) -> Vec<Here::Output>
where
    There: Future + Send + 'static,
    Here: Future,
{
    // What goes alone is not done before the rest has begun.
    let mut lock = PgConnection::connect(database.url()).await.unwrap();
    sqlx::raw_sql("BEGIN; LOCK TABLE parcel IN ACCESS EXCLUSIVE MODE")
        .execute(&mut lock)
        .await
        .unwrap();
    proxy.silence(Direction::FromServer, usize::MAX, sql);
    let (has_begun, begun) = oneshot::channel();
    let (go_on, goes_on) = mpsc::channel::<()>();
    let (end, ends) = oneshot::channel::<()>();
    let other = std::thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let _there = begin(there);
            has_begun.send(()).unwrap();
            // It is held up here, and no flush with it.
            goes_on.recv().unwrap();
            ends.await.unwrap();
        });
    });
    begun.await.unwrap();
    let here = begin(here);
    lock.close().await.unwrap();
    go_on.send(()).unwrap();
    let is_sent = async {
        while proxy.silent() == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(AT_MOST, is_sent).await.expect("a flush is sent");
    end.send(()).unwrap();
    tokio::task::spawn_blocking(|| other.join().unwrap())
        .await
        .unwrap();
    let outcomes = async {
        let mut outcomes = Vec::new();
        for one in here {
            outcomes.push(one.await);
        }
        outcomes
    };
    timeout(AT_MOST, outcomes).await.expect("all are answered")
}

fn begin<F: Future>(work: Vec<F>) -> Vec<Pin<Box<F>>> {
    let mut begun: Vec<_> = work.into_iter().map(Box::pin).collect();
    for one in &mut begun {
        assert!(polled(one).is_pending(), "it waits");
    }
    begun
}

#[tokio::test]
async fn loads_are_made_alone() {
    let (database, proxy, store) = opened().await;
    let ids = registered(&store, 60).await;
    let _ = load_all(&store, &in_north(&ids)).await;
    // Four go alone, and two begin a flush.
    let there = ids[..6].iter().map(|id| {
        let (store, id) = (store.clone(), *id);
        async move { load(&store, &north(), id).await }
    });
    let (there, context) = (there.collect(), north());
    let here = ids[6..].iter().map(|id| load(&store, &context, *id));
    let outcomes = outlive((&database, &proxy), LOADS, there, here.collect()).await;
    assert_eq!(outcomes, vec![Ok(Some(("known".to_owned(), 1))); 54]);
}

/// They may be done, and are looked for.
#[tokio::test]
async fn commits_are_done_once() {
    let (database, proxy, store) = opened().await;
    let _ = registered(&store, 1).await;
    // One goes alone, and two begin a flush.
    let there = (0..3).map(|_| registering(&store, "there").commit());
    let here = (0..40).map(|_| registering(&store, "here").commit());
    let outcomes = outlive((&database, &proxy), FLUSH, there.collect(), here.collect()).await;
    let log = store
        .events(&north(), Position::START, 1_000)
        .await
        .unwrap();
    for receipt in outcomes {
        let receipt = receipt.unwrap();
        let found = log
            .iter()
            .filter(|event| event.event_id() == receipt.events()[0]);
        assert_eq!(
            found
                .map(|event| Some(event.position()))
                .collect::<Vec<_>>(),
            [receipt.position()]
        );
    }
}
