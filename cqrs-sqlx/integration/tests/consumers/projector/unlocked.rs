//! Projections that write rows alone: their pages are not locked, and count once all the same.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use cqrs_core::{
    Envelope, Error, FailurePolicy, Owned, Parking, Projection, ProjectionTransaction, Query,
    RawPayload, ReadModels, RequestContext, Result, RowAddress, Store, Subscription,
};
use cqrs_integration::database::TestDatabase;
use cqrs_integration::stores;
use cqrs_sqlx::{Backend, PgStore, Postgres, SqlStore, SqlTransaction, StoreOptions};
use tokio::sync::Semaphore;

use super::support::{
    Applied, Gate, Recorder, applied, commit, on_each_database, receipt, state, with_tables,
};

on_each_database!(
    pages_follow_each_other_without_gaps,
    a_page_may_write_again_and_again,
    a_poison_event_is_parked_and_the_others_are_applied,
    one_connection_is_enough_to_drain,
);

pub(super) fn positions(last: i64) -> Vec<i64> {
    (1..=last).collect()
}

async fn pages_follow_each_other_without_gaps<B: Backend>(store: SqlStore<B>) {
    let recorder = Recorder::new("recorder").rows_alone();
    let mut last = 0;
    for round in 1..6 {
        let before = last;
        // Also pages that end where the log does.
        for _ in 0..round {
            last = commit(&store, 1).await.0;
        }
        let projector = store.projector().page_size(2);
        let projector = projector.projection(recorder.clone());
        let events = projector.run_until_idle().await.unwrap();
        assert_eq!(events, last.abs_diff(before));
    }
    assert_eq!(recorder.pages().concat(), positions(last));
    assert_eq!(applied(&store).await, positions(last));
}

/// Writes rows, reads them, and deletes some, all in one page.
pub(super) struct Changeable;

impl<T: ProjectionTransaction> Projection<T> for Changeable {
    type Event = RawPayload;

    fn name(&self) -> &'static str {
        "changeable"
    }

    fn writes_rows_alone(&self) -> bool {
        true
    }

    async fn apply(&self, page: &[Envelope<RawPayload>], transaction: &mut T) -> Result<()> {
        for event in page {
            let position = event.position().0;
            let address =
                |name: &str| RowAddress::of::<Applied>(None, &(name.to_owned(), position));
            let row = |name: &str, times| Owned {
                tenant: None,
                row: Applied {
                    subscription: name.to_owned(),
                    position,
                    times,
                },
            };
            transaction
                .upsert(&[row("kept", 1), row("gone", 1)])
                .await?;
            transaction.delete::<Applied>(&[address("gone")?]).await?;
            let found = transaction
                .load::<Applied>(&[address("kept")?, address("gone")?])
                .await?;
            assert_eq!(found.len(), 1, "what was written is read");
            transaction
                .upsert(&[row("kept", found[0].row.times)])
                .await?;
        }
        Ok(())
    }
}

async fn a_page_may_write_again_and_again<B: Backend>(store: SqlStore<B>) {
    let last = commit(&store, 4).await.0;
    let projector = || store.projector().page_size(2).projection(Changeable);
    assert_eq!(projector().run_until_idle().await.unwrap(), 5);
    let rows = store
        .read_models(&RequestContext::system())
        .query::<Applied>(Query::all())
        .await
        .unwrap();
    assert!(rows.iter().all(|row| row.subscription == "kept"));
    assert_eq!(applied(&store).await, positions(last));
    assert_eq!(projector().run_until_idle().await.unwrap(), 0);
}

async fn a_poison_event_is_parked_and_the_others_are_applied<B: Backend>(store: SqlStore<B>) {
    let poison = commit(&store, 0).await.0 + 1;
    let parked = commit(&store, 2).await.0;
    let last = commit(&store, 1).await.0;
    let recorder = Recorder::new("recorder")
        .rows_alone()
        .with_fault(move |page| {
            let is_poison = page.iter().any(|event| event.position().0 == poison);
            if is_poison {
                return Err(Error::other("poison"));
            }
            Ok(())
        });
    let subscription =
        Subscription::new(recorder).on_failure(FailurePolicy::Park(Parking::at_most(10)));
    let projector = store.projector().retry_delays([]);
    projector
        .subscribe(subscription)
        .run_until_idle()
        .await
        .unwrap();
    let mut expected = positions(last);
    expected.retain(|position| !(poison..=parked).contains(position));
    assert_eq!(applied(&store).await, expected);
}

async fn one_connection_is_enough_to_drain<B: Backend>(store: SqlStore<B>) {
    let last = commit(&store, 10).await.0;
    let recorder = Recorder::new("recorder").rows_alone();
    let projector = store.projector().page_size(2).projection(recorder);
    projector.run_until_idle().await.unwrap();
    assert_eq!(applied(&store).await, positions(last));
}

#[tokio::test]
async fn a_store_of_one_connection_drains() {
    let database = TestDatabase::create().await;
    with_tables(stores::postgres(database.url()).await).await;
    let options = StoreOptions::default().max_connections(1);
    one_connection_is_enough_to_drain(stores::postgres_with(database.url(), options).await).await;
}

/// Two stores, as of two processes.
pub(super) async fn two_stores() -> (TestDatabase, PgStore, PgStore) {
    let database = TestDatabase::create().await;
    let one = with_tables(stores::postgres(database.url()).await).await;
    let two = stores::postgres_with(database.url(), StoreOptions::default()).await;
    (database, one, two)
}

/// Both are given the same page, and both go on at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_workers_with_one_page_one_is_committed() {
    let (_database, one, two) = two_stores().await;
    let last = commit(&one, 4).await.0;
    let mut tasks = Vec::new();
    let mut gates = Vec::new();
    for store in [&one, &two] {
        let (recorder, gate) = Recorder::new("recorder").rows_alone().with_gate();
        let projector = store.projector().page_size(2).projection(recorder);
        tasks.push(tokio::spawn(async move {
            projector.run_until_idle().await.unwrap()
        }));
        gate.arrived.acquire().await.unwrap().forget();
        gates.push(gate);
    }
    for gate in &gates {
        gate.open.add_permits(1_000);
    }
    let mut events = 0;
    for task in tasks {
        events += task.await.unwrap();
    }
    assert_eq!(events, 5, "each event by one of them");
    assert_eq!(applied(&one).await, positions(last));
}

/// Holds a page, does something to its subscription, and lets it go on.
async fn meanwhile(
    store: &PgStore,
    other: &PgStore,
    what: impl AsyncFnOnce(&PgStore),
) -> (u64, Recorder) {
    let (recorder, gate) = Recorder::new("recorder").rows_alone().with_gate();
    let projector = store.projector().page_size(2).projection(recorder.clone());
    let task = tokio::spawn(async move { projector.run_until_idle().await });
    let Gate { arrived, open } = &*gate;
    arrived.acquire().await.unwrap().forget();
    what(other).await;
    open.add_permits(1_000);
    (task.await.unwrap().unwrap_or(0), recorder)
}

/// What the others have written, as far as it is removed.
struct Cleared;

impl<T: ProjectionTransaction> Projection<T> for Cleared {
    type Event = RawPayload;

    fn name(&self) -> &'static str {
        "recorder"
    }

    async fn clear(&self, transaction: &mut T) -> Result<()> {
        transaction.clear::<Applied>().await
    }

    async fn apply(&self, _: &[Envelope<RawPayload>], _: &mut T) -> Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_page_that_a_reset_overtakes_is_given_up() {
    let (_database, one, two) = two_stores().await;
    let last = commit(&one, 4).await.0;
    // So that there is something to set back.
    let before = Recorder::new("recorder").rows_alone();
    one.projector()
        .projection(before)
        .run_until_idle()
        .await
        .unwrap();
    let last = last.max(commit(&one, 0).await.0);
    let (events, recorder) = meanwhile(&one, &two, async |other| {
        let subscription = Subscription::new(Cleared);
        let operations = other.operations(&RequestContext::system()).unwrap();
        operations
            .reset(&subscription, cqrs_core::StartAt::Beginning)
            .await
            .unwrap();
    })
    .await;
    assert_eq!(recorder.pages()[0], [last], "the page that was held");
    assert_eq!(events, last.unsigned_abs());
    assert_eq!(applied(&one).await, positions(last));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_page_that_a_pause_overtakes_is_given_up() {
    let (_database, one, two) = two_stores().await;
    let last = commit(&one, 4).await.0;
    let (events, _) = meanwhile(&one, &two, async |other| {
        let operations = other.operations(&RequestContext::system()).unwrap();
        operations.pause("recorder").await.unwrap();
    })
    .await;
    assert_eq!(events, 0);
    assert_eq!(applied(&one).await, [0_i64; 0]);
    let operations = two.operations(&RequestContext::system()).unwrap();
    operations.resume("recorder").await.unwrap();
    let recorder = Recorder::new("recorder").rows_alone();
    let projector = one.projector().projection(recorder);
    assert_eq!(projector.run_until_idle().await.unwrap(), 5);
    assert_eq!(applied(&one).await, positions(last));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn replicas_that_race_apply_each_event_once() {
    let (_database, one, two) = two_stores().await;
    let mut handles = Vec::new();
    for store in [&one, &two, &one] {
        let projector = store.projector().page_size(3);
        let projector = projector.projection(Recorder::new("recorder").rows_alone());
        handles.push(projector.start().await.unwrap());
    }
    let write = async |store: &PgStore| {
        for weighings in 0..25 {
            commit(store, weighings % 4).await;
        }
    };
    tokio::join!(write(&one), write(&two));
    let last = receipt(&one, 0).await;
    two.wait_for(&last, "recorder").await.unwrap();
    drop(handles);
    assert_eq!(applied(&one).await, positions(last.position().unwrap().0));
}

/// Loads a row when it may, and remembers whether it could.
#[derive(Clone)]
struct Late {
    gate: Arc<Gate>,
    loaded: Arc<Mutex<Vec<bool>>>,
}

impl<T: ProjectionTransaction> Projection<T> for Late {
    type Event = RawPayload;

    fn name(&self) -> &'static str {
        "late"
    }

    fn writes_rows_alone(&self) -> bool {
        true
    }

    async fn apply(&self, _: &[Envelope<RawPayload>], transaction: &mut T) -> Result<()> {
        self.gate.arrived.add_permits(1);
        self.gate.open.acquire().await.unwrap().forget();
        let address = RowAddress::of::<Applied>(None, &("late".to_owned(), 1_i64))?;
        let loaded = transaction.load::<Applied>(&[address]).await;
        self.loaded.lock().unwrap().push(loaded.is_ok());
        loaded.map(drop)
    }
}

/// A look at the checkpoint when the page is written would be too late: behind a pooler, which hides
/// it, a crash of the server may bring back the checkpoint that was seen after newer rows were loaded.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rows_are_loaded_while_the_checkpoint_is_as_it_was_seen() {
    let (_database, one, two) = two_stores().await;
    commit(&one, 0).await;
    let late = Late {
        gate: Arc::new(Gate {
            arrived: Semaphore::new(0),
            open: Semaphore::new(0),
        }),
        loaded: Arc::default(),
    };
    let projector = one.projector().projection(late.clone());
    let operations = two.operations(&RequestContext::system()).unwrap();
    let pause = async {
        late.gate.arrived.acquire().await.unwrap().forget();
        operations.pause("late").await.unwrap();
        late.gate.open.add_permits(1);
    };
    let (paused, ()) = tokio::join!(projector.run_until_idle(), pause);
    let paused = paused.unwrap_err().to_string();
    assert!(paused.contains("is paused"), "{paused}");
    assert_eq!(*late.loaded.lock().unwrap(), [false]);

    operations.resume("late").await.unwrap();
    late.gate.open.add_permits(1);
    assert_eq!(projector.run_until_idle().await.unwrap(), 1);
    assert_eq!(*late.loaded.lock().unwrap(), [false, true]);
}

/// Says that it writes rows alone, and asks for the connection.
struct Lying(Arc<AtomicBool>);

impl Projection<SqlTransaction<Postgres>> for Lying {
    type Event = RawPayload;

    fn name(&self) -> &'static str {
        "lying"
    }

    fn writes_rows_alone(&self) -> bool {
        true
    }

    async fn apply(
        &self,
        _: &[Envelope<RawPayload>],
        transaction: &mut SqlTransaction<Postgres>,
    ) -> Result<()> {
        self.0.store(true, Ordering::Relaxed);
        transaction.connection();
        Ok(())
    }
}

#[tokio::test]
async fn who_writes_rows_alone_gets_no_connection() {
    let database = TestDatabase::create().await;
    let store = with_tables(stores::postgres(database.url()).await).await;
    commit(&store, 0).await;
    let asked = Arc::new(AtomicBool::new(false));
    let projector = store.projector().retry_delays([]);
    let projector = projector.projection(Lying(Arc::clone(&asked)));
    let error = projector.run_until_idle().await.unwrap_err();
    assert!(asked.load(Ordering::Relaxed));
    assert!(error.to_string().contains("writes rows alone"), "{error}");
    assert!(!matches!(
        state(&store).await,
        cqrs_sqlx::SubscriptionState::Active
    ));
}
