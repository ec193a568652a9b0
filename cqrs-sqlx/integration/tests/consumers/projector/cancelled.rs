//! Projectors that are dropped at each of their awaits, while events fail, are parked and replayed.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cqrs_core::{
    Error, FailurePolicy, Parking, Position, RequestContext, Store, Subscription, UnitOfWork,
};
use cqrs_integration::domain::{self, Parcel};
use cqrs_integration::stores;
use cqrs_sqlx::{Backend, SqlStore};

use super::support::{Recorder, applied, on_each_database};
use cqrs_integration::each::poll_up_to;

on_each_database!(a_projector_is_dropped_at_each_await);

/// Events of a few parcels in turn; the position of the last.
async fn write<B: Backend>(store: &SqlStore<B>, round: i64) -> Position {
    let context = stores::tenant("north");
    let mut last = Position::START;
    for number in 0..3 {
        let mut unit_of_work = store.unit_of_work(&context);
        let mut parcel = Parcel::register(&format!("{round} {number}"));
        (0..number).for_each(|grams| parcel.weigh(grams));
        let id = domain::id(&parcel);
        unit_of_work.save(parcel).unwrap();
        let _ = unit_of_work.commit().await.unwrap();
        let mut unit_of_work = store.unit_of_work(&context);
        let mut parcel: Parcel = unit_of_work.get(id).await.unwrap();
        parcel.weigh(1);
        unit_of_work.save(parcel).unwrap();
        last = unit_of_work.commit().await.unwrap().position().unwrap();
    }
    last
}

async fn a_projector_is_dropped_at_each_await<B: Backend>(store: SqlStore<B>) {
    let poison: Arc<Mutex<BTreeSet<i64>>> = Arc::default();
    let recorder = Recorder::new("recorder").with_fault({
        let poison = Arc::clone(&poison);
        move |page| {
            let poison = poison.lock().unwrap();
            let failing = page
                .iter()
                .find(|event| poison.contains(&event.position().0));
            failing.map_or(Ok(()), |event| {
                Err(Error::other(format!("{}", event.position())))
            })
        }
    });
    let projector = || {
        let policy = FailurePolicy::Park(Parking::at_most(10_000));
        let subscription = Subscription::new(recorder.clone()).on_failure(policy);
        let projector = store.projector().subscribe(subscription);
        projector.page_size(4).retry_delays([Duration::ZERO])
    };
    let operations = store.operations(&RequestContext::system()).unwrap();
    projector().run_until_idle().await.unwrap();
    let (mut last, mut dropped, mut ended) = (Position::START, 0, 0);
    for limit in 0.. {
        last = write(&store, limit).await;
        // Some fail from now on, and some of those that did are cured.
        *poison.lock().unwrap() = (1..=last.0).filter(|n| (n + limit) % 5 == 0).collect();
        if limit % 3 == 0 {
            operations.replay_all("recorder").await.unwrap();
        }
        let limit = usize::try_from(limit).unwrap();
        match poll_up_to(limit, projector().run_until_idle()).await {
            Some(result) => {
                result.unwrap();
                ended += 1;
            }
            None => dropped += 1,
        }
        if ended == 3 || limit == 150 {
            break;
        }
    }
    assert!(dropped > 10, "{dropped}");

    poison.lock().unwrap().clear();
    projector().run_until_idle().await.unwrap();
    operations.replay_all("recorder").await.unwrap();
    projector().run_until_idle().await.unwrap();
    assert_eq!(applied(&store).await, (1..=last.0).collect::<Vec<_>>());
    let status = &store.subscriptions().await.unwrap()[0];
    assert_eq!((status.parked, status.position), (0, last));
}
