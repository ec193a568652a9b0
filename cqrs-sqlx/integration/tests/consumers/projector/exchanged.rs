//! The moment in which rows that were built anew take the place of others, and what may be in its
//! way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cqrs_core::{
    Envelope, Error, FailurePolicy, Parking, Position, Query, ReadModel, ReadModels,
    RequestContext, Result, RowProjection, StartAt, Store, StoreErrorKind, Subscription,
    UnitOfWork,
};
use cqrs_integration::domain::{Parcel, ParcelEvent, ParcelId, ParcelView, ParcelViews};
use cqrs_integration::random::seed;
use cqrs_integration::stores;
use cqrs_integration::workload::Workload;
use cqrs_sqlx::{
    Backend, HealthLimits, Postgres, Problem, SqlStore, SqlTransaction, SubscriptionState,
    SwitchOver,
};

use sqlx::{Connection as _, PgConnection};

use super::support::operations;
use super::views::{NAME, Version, commit, rows, run};
use crate::oracle::Worker;
use cqrs_integration::each::{Fresh, Kind, kind, on_each};

on_each!(
    a_column_may_be_of_another_type,
    what_is_in_the_way_halts_the_building,
    a_paused_subscription_is_not_exchanged,
    one_that_is_halted_and_paused_is_not_exchanged,
    a_reset_takes_the_version_of_the_code,
    a_rebuild_is_no_alarm,
    the_name_of_a_rebuild_is_taken,
    what_is_parked_goes_with_the_rows,
);

/// [`ParcelView`] with the number of events in words.
#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(table = "parcel_view", tenant)]
struct InWords {
    #[read_model(key)]
    id: ParcelId,
    events: String,
}

struct WordViews;

impl RowProjection for WordViews {
    type Event = ParcelEvent;
    type Row = InWords;

    const NAME: &'static str = NAME;
    const VERSION: u32 = 2;

    fn key(&self, event: &Envelope<ParcelEvent>) -> Result<Option<ParcelId>> {
        ParcelViews.key(event)
    }

    fn apply(&self, row: &mut Option<InWords>, event: &Envelope<ParcelEvent>) -> Result<()> {
        let row = row.get_or_insert(InWords {
            id: event.aggregate_id()?,
            events: String::new(),
        });
        row.events.push('i');
        Ok(())
    }
}

async fn rebuild<B: Backend>(store: &SqlStore<B>, projection: impl RowProjection) -> String {
    operations(store)
        .rebuild(&rows(projection), SwitchOver::WhenReady)
        .await
        .unwrap()
}

async fn version<B: Backend>(store: &SqlStore<B>) -> u32 {
    store.subscriptions().await.unwrap()[0].version
}

async fn state<B: Backend>(store: &SqlStore<B>, name: &str) -> SubscriptionState {
    let statuses = store.subscriptions().await.unwrap();
    let status = statuses.into_iter().find(|status| status.name == name);
    status.expect("it is registered").state
}

async fn read<K: Kind, R: ReadModel>(store: &SqlStore<K>) -> Result<Vec<R>> {
    let models = store.read_models(&RequestContext::system());
    models.query::<R>(Query::all()).await
}

/// Several connections of the store have prepared its statements on the table as it was.
async fn a_column_may_be_of_another_type<K: Kind>() {
    let (_fresh, store) = Fresh::<K>::with_store().await;
    commit(&store, 3).await;
    run(&store, ParcelViews).await.unwrap();
    let readers = || {
        let (one, two) = (read::<K, InWords>(&store), read::<K, InWords>(&store));
        async { tokio::join!(one, two) }
    };
    let (one, two) = readers().await;
    assert!(one.is_err() && two.is_err(), "the column is a number");
    rebuild(&store, WordViews).await;
    assert_eq!(run(&store, WordViews).await.unwrap(), 3);
    let (one, two) = readers().await;
    for found in [one, two] {
        assert_eq!(found.unwrap()[0].events, "iii");
    }
    commit(&store, 2).await;
    assert_eq!(run(&store, WordViews).await.unwrap(), 2);

    // And back, where the projector has prepared its own statements on the table too.
    rebuild(&store, ParcelViews).await;
    assert_eq!(run(&store, ParcelViews).await.unwrap(), 5);
    Workload::check_views(&store).await;
    commit(&store, 2).await;
    assert_eq!(run(&store, ParcelViews).await.unwrap(), 2);
    Workload::check_views(&store).await;
}

async fn what_is_in_the_way_halts_the_building<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    commit(&store, 3).await;
    run(&store, ParcelViews).await.unwrap();
    let building = rebuild(&store, WordViews).await;
    fresh
        .run(K::either(
            "CREATE VIEW late AS SELECT * FROM parcel_view",
            "CREATE INDEX late ON parcel_view (grams + 1)",
        ))
        .await;
    let error = run(&store, WordViews).await.unwrap_err();
    assert!(!error.is_retryable(), "{error}");
    let SubscriptionState::Halted(failure) = state(&store, &building).await else {
        panic!("it goes on");
    };
    assert!(failure.error.contains("take their place"), "{failure}");
    let health = store.health(&HealthLimits::default()).await.unwrap();
    assert_eq!(health.problems, [Problem::Halted(failure)]);
    commit(&store, 2).await;
    run(&store, ParcelViews).await.unwrap();
    Workload::check_views(&store).await;

    fresh
        .run(K::either("DROP VIEW late", "DROP INDEX late"))
        .await;
    operations(&store).resume(&building).await.unwrap();
    run(&store, WordViews).await.unwrap();
    assert_eq!(version(&store).await, 2);
    assert_eq!(read::<K, InWords>(&store).await.unwrap().len(), 2);
}

async fn a_paused_subscription_is_not_exchanged<K: Kind>() {
    let (_fresh, store) = Fresh::<K>::with_store().await;
    commit(&store, 3).await;
    run(&store, ParcelViews).await.unwrap();
    let building = rebuild(&store, Version::<2>).await;
    operations(&store).pause(NAME).await.unwrap();
    assert_eq!(run(&store, Version::<2>).await.unwrap(), 3, "it is built");
    assert_eq!(state(&store, NAME).await, SubscriptionState::Paused);
    assert_eq!(state(&store, &building).await, SubscriptionState::Building);
    operations(&store).resume(NAME).await.unwrap();
    run(&store, Version::<2>).await.unwrap();
    assert_eq!(store.subscriptions().await.unwrap().len(), 1);
    assert_eq!(version(&store).await, 2);
    Workload::check_views(&store).await;
}

async fn one_that_is_halted_and_paused_is_not_exchanged<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    commit(&store, 3).await;
    run(&store, ParcelViews).await.unwrap();
    fresh
        .run("UPDATE cqrs_segment SET status = 'halted', failed_attempts = 1, error = 'no'")
        .await;
    operations(&store).pause(NAME).await.unwrap();
    rebuild(&store, Version::<2>).await;
    assert_eq!(run(&store, Version::<2>).await.unwrap(), 3, "it is built");
    assert_eq!(store.subscriptions().await.unwrap().len(), 2);
    assert_eq!(version(&store).await, 1);
    operations(&store).resume(NAME).await.unwrap();
    run(&store, Version::<2>).await.unwrap();
    assert_eq!(store.subscriptions().await.unwrap().len(), 1);
    assert_eq!(version(&store).await, 2);
}

/// Between the look at the rebuild and the locks of the switch, it was given up and begun anew, with
/// the word that it waits to be told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_told_of_another_rebuild_does_not_count() {
    let (fresh, store) = Fresh::<Postgres>::with_store().await;
    commit(&store, 3).await;
    run(&store, ParcelViews).await.unwrap();
    let (operations, views) = (operations(&store), rows(Version::<2>));
    let building = operations.rebuild(&views, SwitchOver::WhenTold).await;
    let building = building.unwrap();
    run(&store, Version::<2>).await.unwrap();
    assert!(operations.switch_rebuild(NAME).await.unwrap());

    let mut holder = PgConnection::connect(&fresh.url).await.unwrap();
    let mut transaction = holder.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM cqrs_segment WHERE subscription = $1 FOR UPDATE")
        .bind(NAME)
        .execute(&mut *transaction)
        .await
        .unwrap();
    let switching = tokio::spawn({
        let store = store.clone();
        async move { run(&store, Version::<2>).await }
    });
    let mut observer = PgConnection::connect(&fresh.url).await.unwrap();
    let blocked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                   AND datname = current_database() AND query LIKE '%FROM cqrs_segment%'";
    loop {
        let blocked: i64 = sqlx::query_scalar(blocked)
            .fetch_one(&mut observer)
            .await
            .unwrap();
        if blocked > 0 {
            break;
        }
        tokio::task::yield_now().await;
    }
    sqlx::query("UPDATE cqrs_rebuild SET switches = FALSE")
        .execute(&mut *transaction)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    switching.await.unwrap().unwrap();
    assert_eq!(state(&store, &building).await, SubscriptionState::Building);
    assert_eq!(version(&store).await, 1);
}

async fn a_reset_takes_the_version_of_the_code<K: Kind>() {
    let (_fresh, store) = Fresh::<K>::with_store().await;
    commit(&store, 3).await;
    run(&store, ParcelViews).await.unwrap();
    assert_eq!(
        run(&store, Version::<2>).await.unwrap(),
        0,
        "it is not its own"
    );
    let operations = operations(&store);
    operations
        .reset(&rows(Version::<2>), StartAt::Beginning)
        .await
        .unwrap();
    assert_eq!(run(&store, ParcelViews).await.unwrap(), 0);
    assert_eq!(run(&store, Version::<2>).await.unwrap(), 3);
    assert_eq!(version(&store).await, 2);
    Workload::check_views(&store).await;
}

/// Whoever is told of lags must not be told of a rebuild.
async fn a_rebuild_is_no_alarm<K: Kind>() {
    let (_fresh, store) = Fresh::<K>::with_store().await;
    commit(&store, 3).await;
    run(&store, ParcelViews).await.unwrap();
    let building = rebuild(&store, Version::<2>).await;
    assert_eq!(state(&store, &building).await, SubscriptionState::Building);
    let limits = HealthLimits::default().lag(Duration::ZERO);
    let health = store.health(&limits).await.unwrap();
    assert_eq!(health.problems, []);
    let status = &health.subscriptions[1];
    assert!(status.builds && status.lag == 3 && status.lag_time > Duration::ZERO);
    assert!(!health.subscriptions[0].builds);
}

async fn the_name_of_a_rebuild_is_taken<K: Kind>() {
    let (_fresh, store) = Fresh::<K>::with_store().await;
    commit(&store, 3).await;
    run(&store, ParcelViews).await.unwrap();
    let building = rebuild(&store, Version::<2>).await;
    let own = || Subscription::<SqlTransaction<K>>::named(&building).rows(Version::<2>);
    let operations = operations(&store);
    for refused in [
        operations.reset(&own(), StartAt::Beginning).await,
        operations
            .rebuild(&own(), SwitchOver::WhenReady)
            .await
            .map(drop),
        operations.remove(&building).await,
        operations.remove(NAME).await,
        store
            .projector()
            .subscribe(own())
            .run_until_idle()
            .await
            .map(drop),
    ] {
        assert_eq!(*kind(&refused.unwrap_err()), StoreErrorKind::Usage);
    }
    run(&store, Version::<2>).await.unwrap();
    operations.remove(NAME).await.unwrap();
    assert_eq!(store.subscriptions().await.unwrap(), []);
}

/// [`Version`] 2, which fails on a weight of 2 until it is mended.
struct Faulty(Arc<AtomicBool>);

impl RowProjection for Faulty {
    type Event = ParcelEvent;
    type Row = ParcelView;

    const NAME: &'static str = NAME;
    const VERSION: u32 = 2;

    fn key(&self, event: &Envelope<ParcelEvent>) -> Result<Option<ParcelId>> {
        ParcelViews.key(event)
    }

    fn apply(&self, row: &mut Option<ParcelView>, event: &Envelope<ParcelEvent>) -> Result<()> {
        match event.payload() {
            ParcelEvent::Weighed { grams: 2 } if !self.0.load(Ordering::SeqCst) => {
                Err(Error::other("too heavy"))
            }
            _ => ParcelViews.apply(row, event),
        }
    }
}

/// An event that is parked while rows are built is parked for who reads them.
async fn what_is_parked_goes_with_the_rows<K: Kind>() {
    let (_fresh, store) = Fresh::<K>::with_store().await;
    for events in [5, 2, 5] {
        commit(&store, events).await;
    }
    run(&store, ParcelViews).await.unwrap();
    let mended = Arc::new(AtomicBool::new(false));
    let faulty = || {
        let parking = FailurePolicy::Park(Parking::at_most(100));
        rows::<K>(Faulty(Arc::clone(&mended))).on_failure(parking)
    };
    let projector = || {
        let projector = store.projector().subscribe(faulty()).page_size(3);
        projector.retry_delays([])
    };
    let operations = operations(&store);
    let building = operations.rebuild(&faulty(), SwitchOver::WhenTold).await;
    let building = building.unwrap();
    projector().run_until_idle().await.unwrap();
    Workload::check_views(&store).await;
    let statuses = store.subscriptions().await.unwrap();
    let parked: Vec<u64> = statuses.iter().map(|status| status.parked).collect();
    assert_eq!(
        parked,
        [0, 6],
        "the second weight and what follows it, twice"
    );

    // One more of a parked aggregate comes with the switch itself.
    let parcel = operations.dead_letters(&building, Position::START, 1).await;
    let id = parcel.unwrap()[0].aggregate_id.parse().unwrap();
    let north = stores::tenant("north");
    let weigh = store.execute(&north, async |uow| {
        let mut parcel = uow.get::<Parcel>(id).await?;
        parcel.weigh(1);
        uow.save(parcel)
    });
    let _ = weigh.await.unwrap();
    run(&store, ParcelViews).await.unwrap();
    operations.switch_rebuild(NAME).await.unwrap();
    projector().run_until_idle().await.unwrap();
    let statuses = store.subscriptions().await.unwrap();
    assert_eq!((statuses.len(), statuses[0].parked), (1, 7));
    mended.store(true, Ordering::SeqCst);
    operations.replay_all(NAME).await.unwrap();
    projector().run_until_idle().await.unwrap();
    Workload::check_views(&store).await;
}

/// A transaction that reads the table, and so keeps others from exchanging it.
async fn reader(url: &str) -> PgConnection {
    let mut reader = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql("BEGIN; SELECT count(*) FROM parcel_view")
        .execute(&mut reader)
        .await
        .unwrap();
    reader
}

/// Waits until a switch waits for the table, or does not any more.
async fn until_it_waits(fresh: &Fresh<Postgres>, waits: i64) {
    let waiting = "SELECT count(*) FROM pg_stat_activity \
                   WHERE wait_event_type = 'Lock' AND query LIKE 'DROP TABLE%' \
                   AND datname = current_database()";
    while fresh.number(waiting).await != waits {
        tokio::task::yield_now().await;
    }
}

/// Readers queue behind a switch that waits: so it gives up soon, and comes again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_that_waits_for_a_reader_gives_up_and_comes_again() {
    let (fresh, store) = Fresh::<Postgres>::with_store().await;
    commit(&store, 3).await;
    run(&store, ParcelViews).await.unwrap();
    let reader = reader(&fresh.url).await;
    rebuild(&store, Version::<2>).await;
    let projector = store.projector().rows(Version::<2>).start().await.unwrap();
    for _ in 0..2 {
        until_it_waits(&fresh, 1).await;
        until_it_waits(&fresh, 0).await;
        Workload::check_views(&store).await;
    }
    commit(&store, 3).await;
    run(&store, ParcelViews).await.unwrap();
    Workload::check_views(&store).await;
    assert_eq!(version(&store).await, 1);
    drop(reader);
    while version(&store).await != 2 {
        tokio::task::yield_now().await;
    }
    Workload::check_views(&store).await;
    drop(projector);
}

/// Whatever is killed leaves the rows that are read whole, and what was built to the next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_are_killed_while_they_build_and_exchange() {
    let seed = seed();
    let (fresh, store) = Fresh::<Postgres>::with_store().await;
    let workload = Workload::new(1_000, 0);
    workload.clone().write(store.clone(), seed).await.unwrap();
    run(&store, ParcelViews).await.unwrap();
    let building = rebuild(&store, Version::<2>).await;
    let reader = reader(&fresh.url).await;
    let mut before = 0;
    for kill in 0..6 {
        let worker = Worker::of_version(&fresh.url, 2);
        worker.kill_in_page(1 + (seed ^ kill) % 4).await;
        workload.check(&store).await;
        let done = store.progress(&building).await.unwrap().done;
        assert!(done >= before);
        before = done;
    }
    for _ in 0..3 {
        let worker = Worker::of_version(&fresh.url, 2);
        until_it_waits(&fresh, 1).await;
        worker.kill().await;
        until_it_waits(&fresh, 0).await;
        workload.check(&store).await;
        assert_eq!(store.subscriptions().await.unwrap().len(), 2);
    }
    drop(reader);
    let _worker = Worker::of_version(&fresh.url, 2);
    while version(&store).await != 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(store.subscriptions().await.unwrap().len(), 1);
    workload.check(&store).await;
}
