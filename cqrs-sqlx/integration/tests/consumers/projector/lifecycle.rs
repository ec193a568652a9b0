//! Starting and stopping.

use std::time::Duration;

use cqrs_core::Store;
use cqrs_sqlx::{Backend, SqlStore, Stopped};

use super::support::{Recorder, applied, commit, on_each_database, receipt};

on_each_database!(
    a_page_under_way_is_finished,
    a_page_that_takes_too_long_is_rolled_back,
    dropping_the_handle_rolls_back,
    a_projector_ends_with_its_store,
    several_subscriptions_run_beside_each_other,
);

const LONG: Duration = Duration::from_secs(60);

async fn a_page_under_way_is_finished<B: Backend>(store: SqlStore<B>) {
    commit(&store, 0).await;
    let (recorder, gate) = Recorder::new("recorder").with_gate();
    let projector = store.projector().projection(recorder.clone());
    let handle = projector.page_size(1).start().await.unwrap();
    gate.arrived.acquire().await.unwrap().forget();

    let (stopped, ()) = tokio::join!(handle.stop(LONG), async {
        gate.open.add_permits(10);
    });
    assert_eq!(stopped, Stopped::Drained);
    assert_eq!(applied(&store).await, [1]);
    commit(&store, 0).await;
    assert_eq!(handle.stop(Duration::ZERO).await, Stopped::Drained);
    assert_eq!(recorder.pages().len(), 1, "no page was begun after");
}

async fn a_page_that_takes_too_long_is_rolled_back<B: Backend>(store: SqlStore<B>) {
    let first = receipt(&store, 1).await;
    let (recorder, gate) = Recorder::new("recorder").with_gate();
    let projector = || store.projector().projection(recorder.clone());
    let handle = projector().start().await.unwrap();
    gate.arrived.acquire().await.unwrap().forget();
    assert_eq!(handle.stop(Duration::ZERO).await, Stopped::Cancelled);
    assert_eq!(handle.stop(LONG).await, Stopped::Cancelled);
    assert_eq!(applied(&store).await, Vec::<i64>::new());

    gate.open.add_permits(10);
    let handle = projector().start().await.unwrap();
    store.wait_for(&first, "recorder").await.unwrap();
    assert_eq!(applied(&store).await, [1, 2]);
    assert_eq!(handle.stop(LONG).await, Stopped::Drained);
}

async fn dropping_the_handle_rolls_back<B: Backend>(store: SqlStore<B>) {
    let first = receipt(&store, 0).await;
    let (recorder, gate) = Recorder::new("recorder").with_gate();
    let projector = || store.projector().projection(recorder.clone());
    let handle = projector().start().await.unwrap();
    gate.arrived.acquire().await.unwrap().forget();
    drop(handle);
    let handle = projector().start().await.unwrap();
    gate.arrived.acquire().await.unwrap().forget();
    gate.open.add_permits(10);
    store.wait_for(&first, "recorder").await.unwrap();
    assert_eq!(applied(&store).await, [1]);
    drop(handle);
}

async fn a_projector_ends_with_its_store<B: Backend>(store: SqlStore<B>) {
    let first = receipt(&store, 0).await;
    let projector = store.projector().projection(Recorder::new("recorder"));
    let projector = projector.poll_interval(Duration::from_millis(1));
    let handle = projector.start().await.unwrap();
    store.wait_for(&first, "recorder").await.unwrap();
    store.close();
    assert_eq!(handle.ended().await, Stopped::Drained);
}

async fn several_subscriptions_run_beside_each_other<B: Backend>(store: SqlStore<B>) {
    let (held, gate) = Recorder::new("held").with_gate();
    let free = Recorder::new("free");
    let projector = store.projector().projection(held).projection(free.clone());
    let handle = projector.start().await.unwrap();
    let first = receipt(&store, 1).await;
    gate.open.add_permits(10);
    for name in ["held", "free"] {
        store.wait_for(&first, name).await.unwrap();
    }
    assert_eq!(applied(&store).await, [1, 1, 2, 2]);
    assert_eq!(handle.stop(LONG).await, Stopped::Drained);
}
