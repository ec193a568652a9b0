//! Subscriptions of the store in memory: retries, halting, resuming; and tasks at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use cqrs_core::conformance::fixtures::{
    Counter, CounterEvent, CounterTotal, CounterTotals, LabelUses,
};
use cqrs_core::memory::{InMemoryTransaction, SubscriptionHalted, SubscriptionState};
use cqrs_core::{
    Envelope, Error, InMemoryStore, Owned, Position, Projection, ProjectionTransaction, Query,
    ReadModels, RequestContext, Result, RowProjection, Store, UnitOfWork,
};

/// Writes a row per event, and then fails at the event that adds `bad`, `times` times.
struct Fragile {
    bad: i64,
    times: AtomicU32,
    pages: Arc<AtomicU32>,
}

impl Projection<InMemoryTransaction> for Fragile {
    type Event = CounterEvent;

    fn name(&self) -> &str {
        "fragile"
    }

    async fn apply(
        &self,
        page: &[Envelope<CounterEvent>],
        transaction: &mut InMemoryTransaction,
    ) -> Result<()> {
        self.pages.fetch_add(1, Ordering::Relaxed);
        for event in page {
            let CounterEvent::Added { by } = *event.payload() else {
                continue;
            };
            let row = CounterTotal {
                counter: by,
                direction: String::new(),
                sum: event.position().0,
                additions: 1,
            };
            transaction.upsert(&[Owned { tenant: None, row }]).await?;
            if by == self.bad
                && self
                    .times
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                        left.checked_sub(1)
                    })
                    .is_ok()
            {
                return Err(Error::other("it broke"));
            }
        }
        Ok(())
    }
}

fn fragile(bad: i64, times: u32) -> (InMemoryStore, Arc<AtomicU32>) {
    let store = InMemoryStore::new();
    let pages = Arc::new(AtomicU32::new(0));
    let projection = Fragile {
        bad,
        times: AtomicU32::new(times),
        pages: Arc::clone(&pages),
    };
    store.subscribe(projection).expect("the name is free");
    (store, pages)
}

/// Writes five events: the counter 1 adds 1 to 5.
async fn write(store: &InMemoryStore) -> Result<()> {
    let mut counter = Counter::new(1);
    (1..=5).for_each(|by| counter.add(by));
    let mut uow = store.unit_of_work(&RequestContext::system());
    uow.save(counter)?;
    let receipt = uow.commit().await?;
    assert_eq!(receipt.position(), Some(Position(5)));
    Ok(())
}

async fn applied(store: &InMemoryStore) -> Result<Vec<i64>> {
    let read_models = store.read_models(&RequestContext::system());
    let rows = read_models.query(Query::<CounterTotal>::all()).await?;
    Ok(rows.into_iter().map(|row| row.counter).collect())
}

#[tokio::test]
async fn a_failure_that_passes_is_tried_again() {
    let (store, pages) = fragile(3, 2);
    write(&store).await.unwrap();
    store.project().await.unwrap();
    assert_eq!(applied(&store).await.unwrap(), [1, 2, 3, 4, 5]);
    assert_eq!(pages.load(Ordering::Relaxed), 3);
    let status = store.subscription_status("fragile").unwrap();
    assert_eq!(status.position, Position(5));
    assert!(matches!(status.state, SubscriptionState::Active));
}

#[tokio::test]
async fn a_failure_that_stays_halts_at_its_event_until_resumed() {
    // Three tries of the page and three of the event alone, and as many after the first resume.
    let (store, _) = fragile(3, 12);
    write(&store).await.unwrap();
    let error = store.project().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"subscription "fragile" is halted at position 3"#
    );
    let Error::Other(error) = error else {
        panic!("{error:?}")
    };
    let halted: &SubscriptionHalted = error.downcast_ref().unwrap();
    assert_eq!((halted.name(), halted.position()), ("fragile", Position(3)));
    let source = std::error::Error::source(halted).unwrap();
    assert_eq!(source.to_string(), "it broke");

    assert_eq!(applied(&store).await.unwrap(), [1, 2]);
    let status = store.subscription_status("fragile").unwrap();
    assert_eq!(status.position, Position(2));
    let SubscriptionState::Halted { position, .. } = status.state else {
        panic!("{status:?}")
    };
    assert_eq!(position, Position(3));

    assert!(store.project().await.is_err());
    store.resume("fragile").unwrap();
    assert!(store.project().await.is_err());
    store.resume("fragile").unwrap();
    store.project().await.unwrap();
    assert_eq!(applied(&store).await.unwrap(), [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn waiting_behind_the_halt_is_no_error() {
    let (store, _) = fragile(99, u32::MAX);
    let ctx = RequestContext::system();
    let mut receipts = Vec::new();
    for by in [1, 99, 2] {
        let receipt = store
            .execute(&ctx, async |uow| {
                let mut counter = Counter::new(by);
                counter.add(by);
                uow.save(counter)
            })
            .await
            .unwrap();
        receipts.push(receipt);
    }
    assert!(store.wait_for(&receipts[2], "fragile").await.is_err());
    store.wait_for(&receipts[0], "fragile").await.unwrap();
    assert!(store.wait_for(&receipts[1], "fragile").await.is_err());
    assert_eq!(applied(&store).await.unwrap(), [1]);
}

#[tokio::test]
async fn a_name_is_subscribed_once() {
    let store = InMemoryStore::new();
    store.subscribe_rows(CounterTotals).unwrap();
    store.subscribe_rows(LabelUses).unwrap();
    let error = store.subscribe_rows(CounterTotals).unwrap_err();
    assert!(error.to_string().contains(CounterTotals::NAME), "{error}");
    assert!(store.subscription_status("no such").is_none());
    assert!(store.resume("no such").is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tasks_at_once_lose_nothing() {
    const TASKS: i64 = 8;
    const EACH: i64 = 25;
    let store = InMemoryStore::new().with_retry_policy(cqrs_core::RetryPolicy {
        attempts: u32::MAX,
        ..cqrs_core::RetryPolicy::default()
    });
    store.subscribe_rows(CounterTotals).unwrap();
    let ctx = RequestContext::system();
    let _ = store
        .execute(&ctx, async |uow| uow.save(Counter::new(1)))
        .await
        .unwrap();
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let (store, ctx) = (store.clone(), ctx.clone());
            tokio::spawn(async move {
                for _ in 0..EACH {
                    let receipt = store
                        .execute(&ctx, async |uow| {
                            let mut counter: Counter = uow.get(1).await?;
                            tokio::task::yield_now().await;
                            counter.add(1);
                            uow.save(counter)
                        })
                        .await
                        .unwrap();
                    let name = CounterTotals::NAME;
                    store.wait_for(&receipt, name).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let read_models = store.read_models(&ctx);
    let key = (1, "up".to_owned());
    let total: CounterTotal = read_models.find(key).await.unwrap().unwrap();
    assert_eq!((total.sum, total.additions), (200, TASKS * EACH));
    assert_eq!(store.events().len(), 201);
}
