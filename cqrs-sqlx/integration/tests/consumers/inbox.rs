//! Inboxes on databases: deliveries that meet, and forgetting.

use std::sync::Arc;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use cqrs_core::{Delivery, IdempotencyKey, Inbox, RetryPolicy, Store, UnitOfWork};
use cqrs_integration::domain::{self, Parcel};
use cqrs_integration::stores;
use cqrs_sqlx::StoreOptions;
use tokio::sync::Barrier;

use cqrs_integration::each::{Fresh, Kind, on_each};

on_each!(
    deliveries_that_meet_are_processed_once,
    messages_and_receipts_are_forgotten_apart,
);

const TASKS: usize = 6;
const MESSAGES: usize = 15;

async fn deliveries_that_meet_are_processed_once<K: Kind>() {
    let patient = StoreOptions::default().retry_policy(RetryPolicy {
        attempts: 100_000,
        first_delay: Duration::from_micros(200),
        max_delay: Duration::from_millis(5),
    });
    let (_fresh, store) = Fresh::<K>::with(patient).await;
    let context = stores::tenant("north");
    let parcel = Parcel::register("a");
    let id = domain::id(&parcel);
    store
        .execute(&context, async |uow| uow.save(parcel.clone()))
        .await
        .unwrap();
    let barrier = Arc::new(Barrier::new(TASKS));
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (store, barrier) = (store.clone(), Arc::clone(&barrier));
            tokio::spawn(async move {
                let context = stores::tenant("north");
                let inbox = Inbox::new("weighing").unwrap();
                let mut first = 0;
                barrier.wait().await;
                for message in 0..MESSAGES {
                    // Each task in an order of its own.
                    let message = format!("m{}", (message * (task + 1) + task) % MESSAGES);
                    let receipt = inbox
                        .process(&store, &context, &message, async |uow| {
                            let mut parcel = uow.get::<Parcel>(id).await?;
                            parcel.weigh(1);
                            uow.save(parcel)
                        })
                        .await
                        .unwrap();
                    assert_eq!(receipt.events().len(), 1);
                    first += i64::from(*receipt.output() == Delivery::First);
                }
                first
            })
        })
        .collect();
    let mut first = 0;
    for task in tasks {
        first += task.await.unwrap();
    }
    let mut uow = store.unit_of_work(&context);
    let grams = uow.get::<Parcel>(id).await.unwrap().grams();
    assert_eq!(first, grams, "each first delivery has weighed once");
    assert_eq!(grams, i64::try_from(MESSAGES).unwrap());
}

async fn messages_and_receipts_are_forgotten_apart<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    let context = stores::tenant("north");
    let (one, other) = (Inbox::new("one").unwrap(), Inbox::new("one.b").unwrap());
    for inbox in [&one, &other] {
        for message in ["m", "n"] {
            inbox
                .process(&store, &context, message, async |_| Ok(()))
                .await
                .unwrap();
        }
    }
    let key = IdempotencyKey::new("command").unwrap();
    store
        .execute_once(&context, &key, async |_| Ok(()))
        .await
        .unwrap();
    let later = Utc::now() + TimeDelta::hours(1);
    let earlier = Utc::now() - TimeDelta::hours(1);
    assert_eq!(store.forget_messages(&one, earlier).await.unwrap(), 0);
    assert_eq!(store.forget_messages(&one, later).await.unwrap(), 2);
    assert_eq!(store.forget_messages(&one, later).await.unwrap(), 0);
    assert_eq!(store.forget_receipts(later).await.unwrap(), 1);
    assert_eq!(fresh.number("SELECT count(*) FROM cqrs_receipt").await, 2);
    let again = one.process(&store, &context, "m", async |_| Ok(()));
    assert_eq!(again.await.unwrap().output(), &Delivery::First);
    let again = other.process(&store, &context, "m", async |_| Ok(()));
    assert_eq!(again.await.unwrap().output(), &Delivery::Repeated);
}
