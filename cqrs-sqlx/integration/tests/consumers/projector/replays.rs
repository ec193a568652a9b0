//! Replays beside pages, delays without end, and subscriptions that are removed.

use std::time::Duration;

use cqrs_core::{FailurePolicy, Parking, Position, Query, ReadModels, RequestContext, Store};
use cqrs_sqlx::{Backend, SqlStore, SubscriptionState};

use super::parking::{Poison, create, letters, parked, parking, projector, three};
use super::support::operations;
use super::support::{Applied, applied, on_each_database, receipt, state};
use cqrs_integration::each::Kind;

on_each_database!(
    replays_that_are_due_again_and_again_do_not_hold_up_the_others,
    what_is_in_front_of_an_unreadable_event_is_replayed,
    a_delay_may_be_for_ever,
    a_replay_may_be_never,
    a_subscription_that_was_removed_starts_over,
    a_subscription_is_removed,
);

fn replayed_every(interval: Duration) -> FailurePolicy {
    FailurePolicy::Park(Parking::at_most(10).replayed_every(interval))
}

async fn replays_that_are_due_again_and_again_do_not_hold_up_the_others<B: Backend>(
    store: SqlStore<B>,
) {
    three(&store, 1).await;
    let poison = Poison::default();
    poison.set([1, 2]);
    let policy = replayed_every(Duration::ZERO);
    let projector = projector(&store, &poison.recorder(), policy);
    let running = projector.start().await.unwrap();
    while letters(&store)
        .await
        .first()
        .is_none_or(|letter| letter.attempts < 3)
    {
        tokio::task::yield_now().await;
    }
    let last = receipt(&store, 2).await;
    store.wait_for(&last, "recorder").await.unwrap();
    assert_eq!(applied(&store).await, [3, 4, 5, 6]);
    poison.set([]);
    while !letters(&store).await.is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(applied(&store).await, [1, 2, 3, 4, 5, 6]);
    running.stop(Duration::from_secs(60)).await;
}

/// Runs SQL past the framework.
async fn run<B: Kind>(store: &SqlStore<B>, sql: &str) {
    let mut unit_of_work = store.unit_of_work(&RequestContext::system());
    let connection = cqrs_sqlx::SqlUnitOfWork::connection(&mut unit_of_work);
    B::run_on(connection.await.unwrap(), sql.to_owned())
        .await
        .unwrap();
    let _ = cqrs_core::UnitOfWork::commit(unit_of_work).await.unwrap();
}

async fn what_is_in_front_of_an_unreadable_event_is_replayed<B: Kind>(store: SqlStore<B>) {
    three(&store, 4).await;
    let poison = Poison::default();
    poison.set([1]);
    let projector = projector(&store, &poison.recorder(), parking(10));
    projector.run_until_idle().await.unwrap();
    assert_eq!(parked(&store).await, [1, 4, 7, 10]);
    let spoilt = B::either("'\\x00'::bytea", "x'00'");
    let spoil = format!("UPDATE cqrs_event SET content_hash = {spoilt} WHERE position = 7");
    run(&store, &spoil).await;
    poison.set([]);
    operations(&store).replay_all("recorder").await.unwrap();
    assert_eq!(projector.run_until_idle().await.unwrap(), 2);
    assert_eq!(parked(&store).await, [7, 10]);
    assert_eq!(letters(&store).await[0].attempts, 1);
}

/// Nobody waits that long, and nothing ends for it: whoever resumes goes on.
async fn a_delay_may_be_for_ever<B: Backend>(store: SqlStore<B>) {
    create(&store).await;
    let poison = Poison::default();
    poison.set([1]);
    let projector = projector(&store, &poison.recorder(), FailurePolicy::Halt);
    let running = projector
        .retry_delays([Duration::MAX])
        .jitter(|| f64::NAN)
        .start()
        .await
        .unwrap();
    while !matches!(state(&store).await, SubscriptionState::Retrying(_)) {
        tokio::task::yield_now().await;
    }
    poison.set([]);
    operations(&store).resume("recorder").await.unwrap();
    while applied(&store).await != [1] {
        tokio::task::yield_now().await;
    }
    running.stop(Duration::from_secs(60)).await;
}

async fn a_replay_may_be_never<B: Backend>(store: SqlStore<B>) {
    three(&store, 2).await;
    let poison = Poison::default();
    poison.set([1]);
    let policy = replayed_every(Duration::MAX);
    let projector = projector(&store, &poison.recorder(), policy);
    assert_eq!(projector.run_until_idle().await.unwrap(), 4);
    assert_eq!(parked(&store).await, [1, 4]);
    operations(&store).replay_all("recorder").await.unwrap();
    assert_eq!(projector.run_until_idle().await.unwrap(), 0);
    assert_eq!(letters(&store).await[0].attempts, 2);
    poison.set([]);
    operations(&store).replay_all("recorder").await.unwrap();
    assert_eq!(projector.run_until_idle().await.unwrap(), 2);
    assert_eq!(applied(&store).await, (1..=6).collect::<Vec<_>>());
}

/// By hand, past the operation: what was left out then is applied with the rest, or left out
/// again.
async fn a_subscription_that_was_removed_starts_over<B: Kind>(store: SqlStore<B>) {
    three(&store, 2).await;
    let poison = Poison::default();
    poison.set([1]);
    let projector = projector(&store, &poison.recorder(), parking(10));
    projector.run_until_idle().await.unwrap();
    assert_eq!(parked(&store).await, [1, 4]);
    for again in [true, false] {
        run(
            &store,
            "DELETE FROM cqrs_segment; DELETE FROM cqrs_subscription; DELETE FROM applied",
        )
        .await;
        poison.set(again.then_some(1));
        projector.run_until_idle().await.unwrap();
        let expected: Vec<i64> = if again { vec![1, 4] } else { Vec::new() };
        assert_eq!(parked(&store).await, expected);
    }
    assert_eq!(operations(&store).replay_all("recorder").await.unwrap(), 0);
    assert_eq!(applied(&store).await, (1..=6).collect::<Vec<_>>());
}

async fn a_subscription_is_removed<B: Backend>(store: SqlStore<B>) {
    three(&store, 2).await;
    let poison = Poison::default();
    poison.set([1]);
    let projector = projector(&store, &poison.recorder(), parking(10));
    projector.run_until_idle().await.unwrap();
    let operations = operations(&store);
    operations.remove("recorder").await.unwrap();
    assert!(store.subscriptions().await.unwrap().is_empty());
    let letters = operations.dead_letters("recorder", Position::START, 10);
    assert!(letters.await.unwrap().is_empty());
    let record = &operations.records(1).await.unwrap()[0];
    assert_eq!(
        (&*record.operation, &*record.subscription),
        ("remove", "recorder")
    );
    operations.remove("recorder").await.unwrap_err();
    let last = receipt(&store, 0).await;
    store.wait_for(&last, "recorder").await.unwrap_err();
    let system = RequestContext::system();
    let rows = store.read_models(&system);
    let rows = rows.query(Query::<Applied>::all()).await.unwrap();
    assert_eq!(rows.len(), 4, "its rows stay");
}
