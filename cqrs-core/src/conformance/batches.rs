//! Work in batches, and work within work.

use std::sync::atomic::{AtomicU32, Ordering};

use super::Harness;
use super::fixtures::Counter;
use super::support::{assert_already_exists, assert_usage, begin, err, ok, system};
use crate::error::{Error, Result};
use crate::store::Store;
use crate::unit_of_work::UnitOfWork;

async fn create<U: UnitOfWork>(uow: &mut U, id: i64) -> Result<()> {
    let mut counter = Counter::new(id);
    counter.add(1);
    uow.save(counter)
}

/// Every item is committed once, in order, and a commit follows every `size` of them.
pub async fn batches_commit_every_so_many_items<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let store = &bench.store;
    let done = store
        .execute_in_batches(&system(), 3, 1..=7, async |uow, id| create(uow, id).await)
        .await
        .unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!((done.items(), done.commits()), (7, 3));
    let log = bench.log().await;
    let ids: Vec<&str> = log
        .iter()
        .map(super::super::envelope::Envelope::aggregate_id_str)
        .collect();
    assert_eq!(ids, ["1", "2", "3", "4", "5", "6", "7"]);
    assert_eq!(done.receipt().position(), Some(log[6].position()));
    let nothing = store
        .execute_in_batches(&system(), 3, Vec::<i64>::new(), async |uow, id| {
            create(uow, id).await
        })
        .await
        .unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!((nothing.items(), nothing.commits()), (0, 0));
}

/// A batch that fails is undone as a whole; the error says how many items were committed before.
pub async fn a_failed_batch_says_what_was_committed<H: Harness>(h: &H) {
    let bench = begin(h).await;
    bench.counter(6).await;
    let store = &bench.store;
    let error = store
        .execute_in_batches(&system(), 2, 1..=9, async |uow, id| create(uow, id).await)
        .await
        .map(|done| panic!("{done:?}"))
        .unwrap_or_else(|error| error);
    assert_eq!(
        (error.committed().items(), error.committed().commits()),
        (4, 2)
    );
    assert_already_exists::<Counter>(error.cause(), &6);
    let says = format!(
        "the batch after 4 committed items failed: {}",
        error.cause()
    );
    assert_eq!(error.to_string(), says);
    let log = bench.log().await;
    let ids: Vec<&str> = log
        .iter()
        .map(super::super::envelope::Envelope::aggregate_id_str)
        .collect();
    assert_eq!(ids, ["6", "1", "2", "3", "4"]);
    let zero = store
        .execute_in_batches(&system(), 0, 1..=9, async |uow, id| create(uow, id).await)
        .await;
    assert_usage(&err(zero.map_err(Error::from)));
}

/// A batch runs again after a conflict, with its own items alone.
pub async fn a_batch_runs_again_after_a_conflict<H: Harness>(h: &H) {
    let bench = begin(h).await;
    bench.counter(1).await;
    let store = &bench.store;
    let runs = AtomicU32::new(0);
    let done = store
        .execute_in_batches(&system(), 2, [1, 2, 3, 4, 5], async |uow, by| {
            let run = runs.fetch_add(1, Ordering::Relaxed);
            let mut counter: Counter = uow.get(1).await?;
            if run == 2 {
                let mut other = store.unit_of_work(&system());
                let mut counter: Counter = other.get(1).await?;
                counter.add(100);
                other.save(counter)?;
                let _ = other.commit().await?;
            }
            counter.add(by);
            uow.save(counter)
        })
        .await
        .unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!((done.items(), done.commits()), (5, 3));
    assert_eq!(runs.into_inner(), 7);
    assert_eq!(bench.load::<Counter>(&system(), 1).await.value, 116);
}

/// Work that begins within the work of the same store is refused, and the outer work goes on.
pub async fn work_within_work_is_refused<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let store = &bench.store;
    let receipt = ok(store
        .execute(&system(), async |uow| {
            let nested = store
                .execute(&system(), async |uow| create(uow, 2).await)
                .await;
            assert_usage(&err(nested));
            let nested = store.clone();
            assert_usage(&err(nested.read(&system(), async |_| Ok(())).await));
            create(uow, 1).await
        })
        .await);
    assert_eq!(receipt.events().len(), 1);
    assert_eq!(bench.log().await.len(), 1);
    // One after the other, and one beside the other, they are welcome.
    ok(store
        .execute(&system(), async |uow| create(uow, 3).await)
        .await);
}
