//! What is wrong has a name.

use std::time::Duration;

use cqrs_core::{Error, FailurePolicy, Parking, Subscription};
use cqrs_sqlx::{Backend, HealthLimits, Problem, SqlStore};

use super::support::{Recorder, commit, on_each_database};

on_each_database!(
    a_store_without_problems_is_healthy,
    a_halted_subscription_is_a_problem,
    parked_events_are_a_problem,
    a_subscription_that_is_behind_is_a_problem,
);

async fn problems<B: Backend>(store: &SqlStore<B>, limits: &HealthLimits) -> Vec<Problem> {
    let health = store.health(limits).await.unwrap();
    assert_eq!(health.is_healthy(), health.problems.is_empty());
    health.problems
}

async fn a_store_without_problems_is_healthy<B: Backend>(store: SqlStore<B>) {
    commit(&store, 2).await;
    let projector = store.projector().projection(Recorder::new("recorder"));
    projector.run_until_idle().await.unwrap();
    let strict = HealthLimits::default()
        .lag(Duration::ZERO)
        .held(Duration::ZERO);
    let health = store.health(&strict).await.unwrap();
    assert_eq!(health.problems, []);
    assert_eq!(health.subscriptions[0].name, "recorder");
    assert_eq!(health.holders, []);
}

async fn a_halted_subscription_is_a_problem<B: Backend>(store: SqlStore<B>) {
    commit(&store, 0).await;
    let recorder = Recorder::new("recorder").with_fault(|_| Err(Error::other("no")));
    let projector = store.projector().projection(recorder).retry_delays([]);
    projector.run_until_idle().await.unwrap_err();
    let problems = problems(&store, &HealthLimits::default()).await;
    let [Problem::Halted(failure)] = &problems[..] else {
        panic!("{problems:?}");
    };
    assert_eq!(
        (failure.name.as_str(), failure.error.as_str()),
        ("recorder", "no")
    );
    assert_eq!(
        problems[0].to_string(),
        "halted: subscription \"recorder\" failed at position 1 after 1 attempts: no"
    );
}

async fn parked_events_are_a_problem<B: Backend>(store: SqlStore<B>) {
    commit(&store, 1).await;
    let recorder = Recorder::new("recorder").with_fault(|_| Err(Error::other("no")));
    let parking = FailurePolicy::Park(Parking::at_most(10));
    let subscription = Subscription::new(recorder).on_failure(parking);
    let projector = store.projector().subscribe(subscription).retry_delays([]);
    projector.run_until_idle().await.unwrap();
    let found = problems(&store, &HealthLimits::default()).await;
    let [
        Problem::Parked {
            subscription,
            events,
            oldest,
        },
    ] = &found[..]
    else {
        panic!("{found:?}");
    };
    assert_eq!((subscription.as_str(), *events), ("recorder", 2));
    assert!(oldest.is_some());
    assert_eq!(
        problems(&store, &HealthLimits::default().parked(2)).await,
        []
    );
}

async fn a_subscription_that_is_behind_is_a_problem<B: Backend>(store: SqlStore<B>) {
    commit(&store, 0).await;
    let projector = store.projector().projection(Recorder::new("recorder"));
    projector.run_until_idle().await.unwrap();
    commit(&store, 1).await;
    assert_eq!(problems(&store, &HealthLimits::default()).await, []);
    let found = problems(&store, &HealthLimits::default().lag(Duration::ZERO)).await;
    let [
        Problem::Lagging {
            subscription, lag, ..
        },
    ] = &found[..]
    else {
        panic!("{found:?}");
    };
    assert_eq!((subscription.as_str(), *lag), ("recorder", 2));
}
