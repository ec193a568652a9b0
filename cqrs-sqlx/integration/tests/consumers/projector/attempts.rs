//! What is known of failures: each attempt, and clocks that are set back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cqrs_core::{
    Error, FailurePolicy, Parking, Position, RequestContext, Store, Subscription, UnitOfWork,
};
use cqrs_integration::domain::Parcel;
use cqrs_integration::stores;
use cqrs_sqlx::{DeadLetter, ProjectorBuilder, SqlStore};

use super::support::{Recorder, applied, with_tables};
use cqrs_integration::each::{Fresh, Kind, on_each};

on_each!(
    a_dead_letter_tells_of_each_attempt,
    a_clock_that_was_set_back_delays_no_replay,
);

/// A subscription that fails as long as it is told to, and says which time it is.
fn projector<K: Kind>(
    store: &SqlStore<K>,
    failures: u32,
    parking: Parking,
    delays: usize,
) -> ProjectorBuilder<K> {
    let count = Arc::new(AtomicU32::new(0));
    let recorder = Recorder::new("recorder").with_fault(move |_| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        if number < failures {
            return Err(Error::other(format!("failure {number} of \"many\"")));
        }
        Ok(())
    });
    let subscription = Subscription::new(recorder).on_failure(FailurePolicy::Park(parking));
    let projector = store.projector().subscribe(subscription);
    projector.retry_delays(vec![Duration::ZERO; delays])
}

async fn register<K: Kind>(store: &SqlStore<K>) {
    let context = stores::tenant("north");
    let saved = store.execute(&context, async |uow| uow.save(Parcel::register("parcel")));
    let _ = saved.await.unwrap();
}

async fn letters<K: Kind>(store: &SqlStore<K>) -> Vec<DeadLetter> {
    let operations = store.operations(&RequestContext::system()).unwrap();
    let letters = operations.dead_letters("recorder", Position::START, 10);
    letters.await.unwrap()
}

async fn a_dead_letter_tells_of_each_attempt<K: Kind>() {
    let (_fresh, store) = Fresh::<K>::with_store().await;
    let store = with_tables(store).await;
    register(&store).await;
    let projector = projector(&store, 5, Parking::at_most(10), 3);
    assert_eq!(projector.run_until_idle().await.unwrap(), 0);
    let told = |letter: &DeadLetter| -> Vec<String> {
        assert!(letter.history.is_sorted_by_key(|attempt| attempt.at));
        let errors = letter.history.iter().map(|attempt| attempt.error.clone());
        errors.collect()
    };
    let expected: Vec<_> = (0..5).map(|n| format!("failure {n} of \"many\"")).collect();
    let letter = &letters(&store).await[0];
    assert_eq!(letter.attempts, 4);
    assert_eq!(told(letter), expected[..4]);

    let operations = store.operations(&RequestContext::system()).unwrap();
    operations.replay_all("recorder").await.unwrap();
    projector.run_until_idle().await.unwrap();
    assert_eq!(told(&letters(&store).await[0]), expected);

    operations.replay_all("recorder").await.unwrap();
    projector.run_until_idle().await.unwrap();
    assert!(letters(&store).await.is_empty());
    assert_eq!(applied(&store).await, [1]);

    // What was tried for this event is not told of the next.
    register(&store).await;
    let poison = self::projector(&store, 1, Parking::at_most(10), 0);
    poison.run_until_idle().await.unwrap();
    assert_eq!(told(&letters(&store).await[0]), expected[..1]);
}

async fn a_clock_that_was_set_back_delays_no_replay<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    let store = with_tables(store).await;
    register(&store).await;
    let day = Duration::from_secs(24 * 60 * 60);
    let projector = projector(&store, 1, Parking::at_most(10).replayed_every(day), 0);
    projector.run_until_idle().await.unwrap();
    projector.run_until_idle().await.unwrap();
    assert_eq!(letters(&store).await[0].attempts, 1);
    for table in ["cqrs_dead_letter", "cqrs_segment"] {
        let sql = K::either(
            "UPDATE {table} SET replay_at = replay_at + interval '1 hour',
             replay_set_at = replay_set_at + interval '1 hour'",
            "UPDATE {table} SET
             replay_at = strftime('%Y-%m-%dT%H:%M:%f', replay_at, '+1 hour') || '000Z',
             replay_set_at = strftime('%Y-%m-%dT%H:%M:%f', replay_set_at, '+1 hour') || '000Z'",
        );
        fresh.run(sql.replace("{table}", table)).await;
    }
    projector.run_until_idle().await.unwrap();
    assert!(letters(&store).await.is_empty());
    assert_eq!(applied(&store).await, [1]);
}
