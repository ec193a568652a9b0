//! Snapshots of what a subscription keeps, and restoring from them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cqrs_core::{
    ConsistencyCheck, Entity, Envelope, Error, EventBus, FailurePolicy, Parking, Position,
    Projection, ProjectionTransaction, RawPayload, ReadModel, Rebuilds, RequestContext, Result,
    RowProjection, Rows, StartAt, StoreErrorKind, Subscription,
};
use cqrs_integration::domain::{ParcelEvent, ParcelView, ParcelViews};
use cqrs_integration::random::seed;
use cqrs_integration::workload::Workload;
use cqrs_sqlx::{
    Backend, DeadLetterStatus, Postgres, Restored, Retention, SqlStore, SqlTransaction,
    StoreOptions, SubscriptionState, SwitchOver,
};
use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::support::{Applied, Recorder, operations};
use super::views::{NAME, Version, commit, rows};
use cqrs_integration::each::{Fresh, Kind, kind, on_each, poll_up_to};

on_each!(
    rows_are_restored_with_their_checkpoints,
    what_does_not_fit_is_left_out,
    segments_are_restored_too,
    a_gap_behind_it_is_not_restored,
    nothing_is_folded_over_a_gap,
    several_tables_and_a_relay,
    a_table_of_two_handlers_is_copied_once,
    what_a_segment_published_is_not_published_again,
    a_halted_segment_is_paused_with_the_others,
    what_was_skipped_may_be_parked_when_it_comes_again,
    what_was_skipped_before_it_stays_skipped,
    records_of_skipped_events_come_and_go_with_the_rows,
    what_cannot_be_taken_is_refused,
    it_is_removed_with_its_copies,
    it_is_dropped_at_each_await,
    under_load_it_is_of_one_moment,
);

async fn run<B: Backend>(store: &SqlStore<B>) -> u64 {
    run_as(store, ParcelViews).await
}

async fn run_as<B: Backend>(store: &SqlStore<B>, projection: impl RowProjection) -> u64 {
    let projector = store.projector().rows(projection).page_size(3);
    projector.run_until_idle().await.unwrap()
}

async fn snapshot<B: Backend>(store: &SqlStore<B>) -> Uuid {
    let taken = operations(store).snapshot(&rows(ParcelViews)).await;
    taken.unwrap().id
}

/// The id of the snapshot that was restored; `None` where none fits.
async fn restore<B: Backend>(store: &SqlStore<B>) -> Option<Uuid> {
    match operations(store).restore(&rows(ParcelViews)).await.unwrap() {
        Restored::Snapshot(snapshot) => Some(snapshot.id),
        _ => None,
    }
}

fn assert_usage<T: std::fmt::Debug>(refused: Result<T>, why: &str) {
    let error = refused.unwrap_err();
    assert_eq!(*kind(&error), StoreErrorKind::Usage);
    assert!(error.to_string().contains(why), "{error}");
}

async fn rows_are_restored_with_their_checkpoints<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    commit(&store, 3).await;
    run(&store).await;
    let before = fresh.dump("parcel_view").await;
    let taken = operations(&store).snapshot(&rows(ParcelViews)).await;
    let taken = taken.unwrap();
    assert_eq!(taken.position, Position(3));
    assert_eq!((&*taken.tables[0].table, taken.tables[0].rows), (NAME, 1));
    commit(&store, 4).await;
    run(&store).await;
    fresh.run("UPDATE parcel_view SET grams = 7").await;
    let restored = operations(&store).restore(&rows(ParcelViews)).await;
    assert_eq!(restored.unwrap(), Restored::Snapshot(taken.clone()));
    assert_eq!(fresh.dump("parcel_view").await, before);
    assert_eq!(run(&store).await, 4, "what is behind it");
    Workload::check_views(&store).await;

    // Forward too: what it has the rows of is not folded again.
    let operations = operations(&store);
    operations
        .reset(&rows(ParcelViews), StartAt::Beginning)
        .await
        .unwrap();
    operations
        .restore_from(&rows(ParcelViews), taken.id)
        .await
        .unwrap();
    assert_eq!(run(&store).await, 4);
    Workload::check_views(&store).await;
    let records = operations.records(10).await.unwrap();
    let records: Vec<_> = records.iter().map(|record| &*record.operation).collect();
    assert_eq!(records, ["restore", "reset", "restore", "snapshot"]);
}

async fn what_does_not_fit_is_left_out<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    commit(&store, 3).await;
    run(&store).await;
    let refused = async |id, why: &str| {
        let operations = operations(&store);
        assert_usage(operations.restore_from(&rows(ParcelViews), id).await, why);
    };
    let good = snapshot(&store).await;
    let copy = |id: Uuid| format!("cqrs_copy_{}_0", id.simple());
    let cut = snapshot(&store).await;
    fresh.run(format!("DELETE FROM {}", copy(cut))).await;
    refused(cut, "not as it was taken").await;
    let gone = snapshot(&store).await;
    fresh.run(format!("DROP TABLE {}", copy(gone))).await;
    refused(gone, "not as it was taken").await;
    refused(Uuid::nil(), "has no snapshot").await;
    let unread = snapshot(&store).await;
    fresh
        .run(format!(
            "UPDATE cqrs_projection_snapshot SET checkpoints = '?' WHERE id = {}",
            K::uuid(unread)
        ))
        .await;
    refused(unread, "cannot be read").await;
    assert_eq!(restore(&store).await, Some(good), "the latest that fits");

    let operations = operations(&store);
    operations
        .rebuild(&rows(Version::<2>), SwitchOver::WhenReady)
        .await
        .unwrap();
    run_as(&store, Version::<2>).await;
    let other = operations.restore_from(&rows(Version::<2>), good).await;
    assert_usage(other, "other tables or versions");
    let restored = operations.restore(&rows(Version::<2>)).await.unwrap();
    assert_eq!(restored, Restored::Beginning);
    assert_eq!(run_as(&store, Version::<2>).await, 3);
    Workload::check_views(&store).await;

    let taken = operations.snapshot(&rows(Version::<2>)).await.unwrap();
    fresh
        .run("ALTER TABLE parcel_view ADD COLUMN note integer")
        .await;
    let other = operations.restore_from(&rows(Version::<2>), taken.id).await;
    assert_usage(other, "other columns");
    let restored = operations.restore(&rows(Version::<2>)).await.unwrap();
    assert_eq!(restored, Restored::Beginning);
    run_as(&store, Version::<2>).await;
    Workload::check_views(&store).await;
}

async fn segments_are_restored_too<K: Kind>() {
    let (_fresh, store) = Fresh::<K>::with_store().await;
    let four = || rows::<K>(ParcelViews).segments(4);
    for _ in 0..20 {
        commit(&store, 2).await;
    }
    let projector = store.projector().subscribe(four()).page_size(5);
    projector.run_until_idle().await.unwrap();
    let id = snapshot(&store).await;
    for _ in 0..20 {
        commit(&store, 2).await;
    }
    let operations = operations(&store);
    operations.set_segments(NAME, 3).await.unwrap();
    projector.run_until_idle().await.unwrap();
    operations.pause(NAME).await.unwrap();
    operations.restore_from(&four(), id).await.unwrap();
    let status = &store.subscriptions().await.unwrap()[0];
    assert_eq!((status.segments.len(), status.wanted_segments), (4, 4));
    assert_eq!(status.state, SubscriptionState::Paused, "it stays so");
    operations.resume(NAME).await.unwrap();
    assert_eq!(projector.run_until_idle().await.unwrap(), 40);
    Workload::check_views(&store).await;
}

/// Removes all events but the first of each aggregate.
async fn remove<K: Kind>(fresh: &Fresh<K>, store: &SqlStore<K>) {
    fresh.age().await;
    let retention = Retention::older_than(Duration::from_secs(3600));
    let system = RequestContext::system();
    let removed = store.remove_events(&system, &retention).await.unwrap();
    assert!(removed.events > 0);
}

async fn a_gap_behind_it_is_not_restored<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    commit(&store, 3).await;
    run(&store).await;
    let early = snapshot(&store).await;
    commit(&store, 3).await;
    run(&store).await;
    let late = snapshot(&store).await;
    remove(&fresh, &store).await;
    let before = fresh.dump("parcel_view").await;
    let operations = operations(&store);
    let refused = operations.restore_from(&rows(ParcelViews), early).await;
    assert_usage(refused, "up to position 6 have left the log");
    assert_eq!(fresh.dump("parcel_view").await, before);
    assert_eq!(restore(&store).await, Some(late));
    commit(&store, 2).await;
    assert_eq!(run(&store).await, 2);
    operations.remove_snapshot(NAME, late).await.unwrap();
    let nothing = operations.restore(&rows(ParcelViews)).await;
    assert_usage(nothing, "have left the log");
}

/// Of a type that is not read, events may be missing.
async fn nothing_is_folded_over_a_gap<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    store.create_tables(&[Applied::table()]).await.unwrap();
    commit(&store, 3).await;
    run(&store).await;
    remove(&fresh, &store).await;
    commit(&store, 2).await;
    run(&store).await;
    let before = fresh.dump("parcel_view").await;
    let (careful, careless) = (operations(&store), operations(&store).despite_gaps());
    let again = || rows(ParcelViews);
    let why = "up to position 3 have left the log";
    assert_usage(careful.reset(&again(), StartAt::Beginning).await, why);
    let rebuild = careful.rebuild(&again(), SwitchOver::WhenReady).await;
    assert_usage(rebuild, why);
    assert_eq!(fresh.dump("parcel_view").await, before);
    // Never forward, and to behind the gap at any time.
    careful.reset(&again(), StartAt::Now).await.unwrap();
    assert_eq!(run(&store).await, 0);
    careless.reset(&again(), StartAt::Beginning).await.unwrap();
    assert_eq!(run(&store).await, 3);
    careless
        .rebuild(&again(), SwitchOver::WhenReady)
        .await
        .unwrap();
    assert_eq!(run(&store).await, 3);

    // One that begins there begins with a warning.
    let recorder = || Subscription::new(Recorder::new("late"));
    let projector = store.projector().subscribe(recorder());
    assert_eq!(projector.run_until_idle().await.unwrap(), 3);
}

/// How many parcels there are, by a projection that writes two tables.
#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(table = "parcel_count")]
struct ParcelCount {
    #[read_model(key)]
    id: i64,
    parcels: i64,
}

struct Counted;

impl<T: ProjectionTransaction> Projection<T> for Counted {
    type Event = ParcelEvent;

    fn name(&self) -> &'static str {
        "counted"
    }

    fn tables(&self) -> Option<Vec<Rebuilds>> {
        let version = 1;
        let tables = [ParcelView::table(), ParcelCount::table()];
        Some(tables.map(|table| Rebuilds { table, version }).to_vec())
    }

    async fn clear(&self, transaction: &mut T) -> Result<()> {
        transaction.clear::<ParcelView>().await?;
        transaction.clear::<ParcelCount>().await
    }

    async fn apply(&self, page: &[Envelope<ParcelEvent>], transaction: &mut T) -> Result<()> {
        Rows(ParcelViews).apply(page, transaction).await?;
        let address = cqrs_core::RowAddress::of::<ParcelCount>(None, &1)?;
        let found = transaction.load::<ParcelCount>(&[address]).await?;
        let before = found.first().map_or(0, |owned| owned.row.parcels);
        let is_first = |event: &&Envelope<ParcelEvent>| event.aggregate_version() == 1;
        let parcels = before + page.iter().filter(is_first).count() as i64;
        let row = ParcelCount { id: 1, parcels };
        let row = cqrs_core::Owned { tenant: None, row };
        transaction.upsert(&[row]).await
    }
}

/// Counts what it is given.
#[derive(Clone, Default)]
struct Published(Arc<AtomicU64>);

impl EventBus for Published {
    async fn publish(&self, page: &[Envelope<RawPayload>]) -> Result<()> {
        self.0.fetch_add(page.len() as u64, Ordering::SeqCst);
        Ok(())
    }
}

async fn several_tables_and_a_relay<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    store.create_tables(&[ParcelCount::table()]).await.unwrap();
    let published = Published::default();
    let counted = || Subscription::<SqlTransaction<K>>::new(Counted).relay(published.clone());
    let run = async || {
        let projector = store.projector().subscribe(counted());
        projector.run_until_idle().await.unwrap()
    };
    commit(&store, 3).await;
    run().await;
    let operations = operations(&store);
    let taken = operations.snapshot(&counted()).await.unwrap();
    assert_eq!(taken.tables.len(), 2);
    commit(&store, 3).await;
    run().await;
    fresh
        .run("UPDATE parcel_count SET parcels = 100; DELETE FROM parcel_view")
        .await;
    operations.restore(&counted()).await.unwrap();
    commit(&store, 1).await;
    assert_eq!(run().await, 4);
    Workload::check_views(&store).await;
    assert_eq!(fresh.number("SELECT parcels FROM parcel_count").await, 3);
    assert_eq!(published.0.load(Ordering::SeqCst), 7, "none twice");
}

/// Reads what another handler writes.
struct Beside;

impl<T: ProjectionTransaction> Projection<T> for Beside {
    type Event = ParcelEvent;

    fn name(&self) -> &'static str {
        "beside"
    }

    fn tables(&self) -> Option<Vec<Rebuilds>> {
        Projection::<T>::tables(&Rows(ParcelViews))
    }

    async fn clear(&self, _: &mut T) -> Result<()> {
        Ok(())
    }

    async fn apply(&self, _: &[Envelope<ParcelEvent>], _: &mut T) -> Result<()> {
        Ok(())
    }
}

async fn a_table_of_two_handlers_is_copied_once<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    let both = || rows::<K>(ParcelViews).projection(Beside);
    commit(&store, 3).await;
    let projector = store.projector().subscribe(both());
    projector.run_until_idle().await.unwrap();
    let operations = operations(&store);
    let taken = operations.snapshot(&both()).await.unwrap();
    assert_eq!(taken.tables.len(), 1);
    fresh.run("DELETE FROM parcel_view").await;
    operations.restore_from(&both(), taken.id).await.unwrap();
    Workload::check_views(&store).await;
}

/// Remembers what it is given, and refuses all of one parcel.
#[derive(Clone, Default)]
struct Bus(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    refused: Option<String>,
    positions: Vec<i64>,
}

impl EventBus for Bus {
    async fn publish(&self, page: &[Envelope<RawPayload>]) -> Result<()> {
        let mut seen = self.0.lock().unwrap();
        let refused = seen.refused.as_deref();
        if page
            .iter()
            .any(|event| refused == Some(event.aggregate_id_str()))
        {
            return Err(Error::other("refused"));
        }
        let positions = page.iter().map(|event| event.position().0);
        seen.positions.extend(positions);
        Ok(())
    }
}

/// Segments that were ahead of one that is halted go back with it, and publish nothing twice.
async fn what_a_segment_published_is_not_published_again<K: Kind>() {
    let (_fresh, store) = Fresh::<K>::with_store().await;
    let bus = Bus::default();
    let four = || rows::<K>(ParcelViews).relay(bus.clone()).segments(4);
    let run = async || {
        let projector = store.projector().subscribe(four()).retry_delays([]);
        projector.run_until_idle().await
    };
    commit(&store, 1).await;
    run().await.unwrap();
    let operations = operations(&store);
    operations.snapshot(&four()).await.unwrap();
    for _ in 0..16 {
        commit(&store, 2).await;
    }
    let log = store
        .events(&RequestContext::system(), Position(1), 1)
        .await;
    let refused = log.unwrap()[0].aggregate_id_str().to_owned();
    bus.0.lock().unwrap().refused = Some(refused);
    run().await.unwrap_err();
    let before = bus.0.lock().unwrap().positions.len();
    assert!(before > 1, "other segments are ahead");

    operations.restore(&four()).await.unwrap();
    bus.0.lock().unwrap().refused = None;
    run().await.unwrap();
    Workload::check_views(&store).await;
    let mut published = std::mem::take(&mut bus.0.lock().unwrap().positions);
    published.sort_unstable();
    assert_eq!(published, (1..=33).collect::<Vec<_>>());
}

/// One segment of four is halted when all are paused. Neither a reset nor restoring a snapshot lets
/// it go on, as it does not the others.
async fn a_halted_segment_is_paused_with_the_others<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    let bus = Bus::default();
    let four = || rows::<K>(ParcelViews).relay(bus.clone()).segments(4);
    let run = async || {
        let projector = store.projector().subscribe(four()).retry_delays([]);
        projector.run_until_idle().await
    };
    let paused = async || {
        let status = store.subscriptions().await.unwrap().remove(0);
        assert!(status.paused, "{status:#?}");
        assert!(status.segments.iter().all(|one| one.paused), "{status:#?}");
        status.state
    };
    commit(&store, 1).await;
    run().await.unwrap();
    let operations = operations(&store);
    operations.snapshot(&four()).await.unwrap();
    for _ in 0..16 {
        commit(&store, 2).await;
    }
    let log = store
        .events(&RequestContext::system(), Position(1), 1)
        .await;
    let poison = log.unwrap()[0].aggregate_id_str().to_owned();
    for restores in [true, false] {
        bus.0.lock().unwrap().refused = Some(poison.clone());
        run().await.unwrap_err();
        operations.pause(NAME).await.unwrap();
        let state = paused().await;
        let SubscriptionState::Halted(failure) = state else {
            panic!("the failure is not forgotten: {state:?}");
        };
        assert_eq!(failure.position, Some(Position(2)));
        bus.0.lock().unwrap().refused = None;
        let error = run().await.unwrap_err();
        assert!(error.to_string().contains("refused"), "{error}");

        let published = bus.0.lock().unwrap().positions.len();
        let rows = match restores {
            true => {
                operations.restore(&four()).await.unwrap();
                1
            }
            false => {
                let four = four();
                let reset = operations.reset(&four, StartAt::Beginning);
                reset.await.unwrap();
                0
            }
        };
        let error = run().await.unwrap_err();
        assert!(error.to_string().contains("is paused"), "{error}");
        assert_eq!(paused().await, SubscriptionState::Paused);
        let views = fresh.number("SELECT count(*) FROM parcel_view").await;
        assert_eq!(views, rows, "nothing is applied");
        assert_eq!(bus.0.lock().unwrap().positions.len(), published);
        if restores {
            operations.resume(NAME).await.unwrap();
            continue;
        }
        operations.resume(NAME).await.unwrap();
        run().await.unwrap();
        Workload::check_views(&store).await;
        let mut published = bus.0.lock().unwrap().positions.clone();
        published.sort_unstable();
        assert_eq!(published, (1..=33).collect::<Vec<_>>());
    }
}

/// Skipped by one release, and parked by the next behind another event of its aggregate: its record
/// is still there where handlers have side effects, and where a snapshot was restored.
async fn what_was_skipped_may_be_parked_when_it_comes_again<K: Kind>() {
    for restores in [false, true] {
        let (_fresh, store) = Fresh::<K>::with_store().await;
        let bus = Bus::default();
        let fails_at = |version, policy| {
            Subscription::<SqlTransaction<K>>::named(NAME)
                .projection(FailsAt(version))
                .relay(bus.clone())
                .on_failure(policy)
        };
        let run = async |version, policy| {
            let subscription = fails_at(version, policy);
            let projector = store.projector().subscribe(subscription);
            projector.retry_delays([]).run_until_idle().await.unwrap();
        };
        let operations = operations(&store);
        let letters = async || {
            let letters = operations.dead_letters(NAME, Position::START, 100).await;
            letters.unwrap()
        };
        commit(&store, 1).await;
        run(0, FailurePolicy::Skip).await;
        let skipping = fails_at(0, FailurePolicy::Skip);
        operations.snapshot(&skipping).await.unwrap();
        commit(&store, 4).await;
        run(3, FailurePolicy::Skip).await;
        match restores {
            true => drop(operations.restore(&skipping).await.unwrap()),
            false => {
                let reset = operations.reset(&skipping, StartAt::Beginning);
                reset.await.unwrap();
            }
        }
        let skipped = letters().await;
        assert_eq!(skipped.len(), 1);
        assert_eq!(skipped[0].status, DeadLetterStatus::Skipped);

        let parking = FailurePolicy::Park(Parking::at_most(10));
        run(2, parking.clone()).await;
        let parked = letters().await;
        let positions: Vec<_> = parked.iter().map(|letter| letter.position.0).collect();
        assert_eq!(positions, [3, 4, 5]);
        let attempts = [1, 0, 0];
        for (letter, attempts) in parked.iter().zip(attempts) {
            assert_eq!(letter.status, DeadLetterStatus::Parked);
            assert_eq!(letter.attempts, attempts);
            assert_eq!(letter.error.is_some(), attempts > 0);
            assert_eq!(letter.history.len(), attempts as usize);
        }
        operations.replay_all(NAME).await.unwrap();
        run(0, parking).await;
        assert_eq!(letters().await, []);
        Workload::check_views(&store).await;
    }
}

/// Fails on the event with this number of each parcel.
struct FailsAt(u64);

impl<T: ProjectionTransaction> Projection<T> for FailsAt {
    type Event = ParcelEvent;

    fn name(&self) -> &'static str {
        "fails_at"
    }

    fn tables(&self) -> Option<Vec<Rebuilds>> {
        Projection::<T>::tables(&Rows(ParcelViews))
    }

    async fn clear(&self, transaction: &mut T) -> Result<()> {
        Rows(ParcelViews).clear(transaction).await
    }

    async fn apply(&self, page: &[Envelope<ParcelEvent>], transaction: &mut T) -> Result<()> {
        if page.iter().any(|event| event.aggregate_version() == self.0) {
            return Err(Error::other("this one"));
        }
        Rows(ParcelViews).apply(page, transaction).await
    }
}

/// A snapshot of segments at different positions: what one of them had skipped by then does not come
/// again.
async fn what_was_skipped_before_it_stays_skipped<K: Kind>() {
    let (_fresh, store) = Fresh::<K>::with_store().await;
    let four = |policy| {
        Subscription::<SqlTransaction<K>>::new(Picky(true))
            .segments(4)
            .on_failure(policy)
    };
    let run = async |policy| {
        let projector = store.projector().subscribe(four(policy)).retry_delays([]);
        let _ = projector.run_until_idle().await;
    };
    commit(&store, 2).await;
    run(FailurePolicy::Halt).await;
    for _ in 0..16 {
        commit(&store, 2).await;
    }
    run(FailurePolicy::Skip).await;
    let operations = operations(&store);
    let skipped = async || {
        let letters = operations.dead_letters(NAME, Position::START, 100).await;
        letters.unwrap().len()
    };
    let before = skipped().await;
    assert!(before > 0, "other segments are ahead");
    operations
        .snapshot(&four(FailurePolicy::Skip))
        .await
        .unwrap();
    operations
        .restore(&four(FailurePolicy::Skip))
        .await
        .unwrap();
    assert_eq!(skipped().await, before);
    run(FailurePolicy::Skip).await;
    assert_eq!(skipped().await, 17);
    let check = ConsistencyCheck::of(&ParcelViews);
    let report = check.run(&store, &RequestContext::system()).await.unwrap();
    assert!(report.is_consistent(), "{report}");
}

/// Rows that lack an event are restored with the record of that, and others without one.
async fn records_of_skipped_events_come_and_go_with_the_rows<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    commit(&store, 3).await;
    let operations = operations(&store);
    let mut taken = Vec::new();
    for fails in [true, false] {
        let picky =
            || Subscription::<SqlTransaction<K>>::new(Picky(fails)).on_failure(FailurePolicy::Skip);
        let projector = store.projector().subscribe(picky()).retry_delays([]);
        projector.run_until_idle().await.unwrap();
        taken.push(operations.snapshot(&picky()).await.unwrap().id);
        operations
            .reset(&picky(), StartAt::Beginning)
            .await
            .unwrap();
    }
    for (id, skipped) in [(taken[0], 1), (taken[1], 0), (taken[0], 1)] {
        let picky = Subscription::new(Picky(false));
        operations.restore_from(&picky, id).await.unwrap();
        let letters = operations.dead_letters(NAME, Position::START, 100).await;
        assert_eq!(letters.unwrap().len(), skipped);
        let check = ConsistencyCheck::of(&ParcelViews);
        let report = check.run(&store, &RequestContext::system()).await.unwrap();
        assert!(report.is_consistent(), "{report}");
    }
    operations.remove_snapshot(NAME, taken[0]).await.unwrap();
    let tables = K::texts(
        &fresh.url,
        K::either(
            "SELECT relname::text FROM pg_class WHERE relname LIKE '%skipped'",
            "SELECT name FROM sqlite_master WHERE name LIKE '%skipped'",
        )
        .to_owned(),
    );
    assert_eq!(tables.await, [""; 0]);
}

/// Fails on the second event of each parcel, where it is told to.
struct Picky(bool);

impl<T: ProjectionTransaction> Projection<T> for Picky {
    type Event = ParcelEvent;

    fn name(&self) -> &'static str {
        NAME
    }

    fn is_splittable(&self) -> bool {
        true
    }

    fn tables(&self) -> Option<Vec<Rebuilds>> {
        Projection::<T>::tables(&Rows(ParcelViews))
    }

    async fn clear(&self, transaction: &mut T) -> Result<()> {
        Rows(ParcelViews).clear(transaction).await
    }

    async fn apply(&self, page: &[Envelope<ParcelEvent>], transaction: &mut T) -> Result<()> {
        let is_second = |event: &Envelope<_>| event.aggregate_version() == 2;
        if self.0 && page.iter().any(is_second) {
            return Err(Error::other("picky"));
        }
        Rows(ParcelViews).apply(page, transaction).await
    }
}

async fn what_cannot_be_taken_is_refused<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    let operations = operations(&store);
    let unknown = operations.snapshot(&rows(ParcelViews)).await;
    assert_usage(unknown, "there is no subscription named");
    commit(&store, 3).await;
    run(&store).await;
    let own = Subscription::named(NAME).projection(Recorder::new("recorder"));
    assert_usage(operations.snapshot(&own).await, "is not known");
    assert_usage(operations.restore(&own).await, "is not known");
    let relay = Subscription::named(NAME).relay(Published::default());
    assert_usage(operations.snapshot(&relay).await, "is not known");
    let newer = operations.snapshot(&rows(Version::<2>)).await;
    assert_usage(newer, "keeps rows of version 1");
    operations.remove(NAME).await.unwrap();
    fresh.run("DELETE FROM parcel_view").await;

    let parking = FailurePolicy::Park(Parking::at_most(10));
    let picky = |fails| Subscription::new(Picky(fails)).on_failure(parking.clone());
    let projector = store.projector().subscribe(picky(true)).retry_delays([]);
    projector.run_until_idle().await.unwrap();
    assert_usage(operations.snapshot(&picky(true)).await, "parked events");
    operations.replay_all(NAME).await.unwrap();
    let projector = store.projector().subscribe(picky(false));
    projector.run_until_idle().await.unwrap();
    Workload::check_views(&store).await;
    operations.snapshot(&picky(false)).await.unwrap();
}

async fn it_is_removed_with_its_copies<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    commit(&store, 3).await;
    run(&store).await;
    let (first, second) = (snapshot(&store).await, snapshot(&store).await);
    let operations = operations(&store);
    let listed = operations.snapshots(NAME).await.unwrap();
    let ids: Vec<_> = listed.iter().map(|snapshot| snapshot.id).collect();
    assert_eq!(ids, [second, first]);
    let copies = K::either(
        "SELECT count(*) FROM pg_class WHERE relname LIKE 'cqrs\\_copy\\_%'",
        "SELECT count(*) FROM sqlite_schema WHERE name LIKE 'cqrs\\_copy\\_%' ESCAPE '\\'",
    );
    assert_eq!(fresh.number(copies).await, 2);
    assert!(!operations.remove_snapshot("other", first).await.unwrap());
    assert!(operations.remove_snapshot(NAME, first).await.unwrap());
    assert!(!operations.remove_snapshot(NAME, first).await.unwrap());
    assert_eq!(fresh.number(copies).await, 1);
    assert_eq!(restore(&store).await, Some(second));
}

async fn it_is_dropped_at_each_await<K: Kind>() {
    let options = StoreOptions::default().max_connections(1);
    let (_fresh, store) = Fresh::<K>::with(options).await;
    commit(&store, 3).await;
    run(&store).await;
    snapshot(&store).await;
    commit(&store, 3).await;
    run(&store).await;
    let (operations, views) = (operations(&store), rows(ParcelViews));
    for limit in 0.. {
        let taken = poll_up_to(limit, operations.snapshot(&views)).await;
        let restored = poll_up_to(limit, operations.restore(&views)).await;
        run(&store).await;
        Workload::check_views(&store).await;
        for snapshot in operations
            .snapshots(NAME)
            .await
            .unwrap()
            .into_iter()
            .skip(2)
        {
            operations.remove_snapshot(NAME, snapshot.id).await.unwrap();
        }
        if taken.is_some() && restored.is_some() {
            break;
        }
    }
}

/// Writers and replicas are at work while snapshots are taken and restored.
async fn under_load_it_is_of_one_moment<K: Kind>() {
    let seed = seed();
    let options = || StoreOptions::default().notifications(false);
    let (fresh, store) = Fresh::<K>::with(options()).await;
    let other = fresh.open(options()).await;
    let four = || rows::<K>(ParcelViews).segments(4);
    let mut running = Vec::new();
    for store in [&store, &other] {
        let projector = store.projector().page_size(7).subscribe(four());
        running.push(projector.start().await.unwrap());
    }
    let workload = Workload::new(K::either(300, 100), K::either(5, 0));
    let mut writers = JoinSet::new();
    for number in 0..4 {
        let store = if number % 2 == 0 { &store } else { &other };
        writers.spawn(workload.clone().write(store.clone(), seed + number));
    }
    let writing = tokio::spawn(async move {
        while let Some(writer) = writers.join_next().await {
            writer.unwrap().unwrap();
        }
    });
    let (operations, mut last, mut times) = (operations(&store), false, 0);
    while !last {
        last = writing.is_finished();
        operations.snapshot(&four()).await.unwrap();
        if times % 2 == 0 {
            let restored = operations.restore(&four()).await.unwrap();
            assert!(matches!(restored, Restored::Snapshot(_)));
        }
        for snapshot in operations
            .snapshots(NAME)
            .await
            .unwrap()
            .into_iter()
            .skip(2)
        {
            operations.remove_snapshot(NAME, snapshot.id).await.unwrap();
        }
        times += 1;
    }
    writing.await.unwrap();
    let projector = store.projector().subscribe(four());
    projector.run_until_idle().await.unwrap();
    for handle in running {
        handle.stop(Duration::from_secs(30)).await;
    }
    workload.check(&store).await;
}

/// Rows and checkpoints are of one moment, also where the table is exchanged just then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_not_taken_in_the_middle_of_a_switch() {
    let (fresh, store) = Fresh::<Postgres>::with_store().await;
    commit(&store, 3).await;
    run(&store).await;
    let mut switch = PgConnection::connect(&fresh.url).await.unwrap();
    sqlx::raw_sql("BEGIN; LOCK TABLE parcel_view")
        .execute(&mut switch)
        .await
        .unwrap();
    let taking = tokio::spawn({
        let store = store.clone();
        async move { operations(&store).snapshot(&rows(ParcelViews)).await }
    });
    let waiting = "SELECT count(*) FROM pg_stat_activity \
                   WHERE wait_event_type = 'Lock' AND datname = current_database()";
    while fresh.number(waiting).await == 0 {
        tokio::task::yield_now().await;
    }
    sqlx::raw_sql(
        "CREATE TABLE built AS SELECT * FROM parcel_view; DROP TABLE parcel_view;
         ALTER TABLE built RENAME TO parcel_view;
         UPDATE cqrs_segment SET position = 77; COMMIT",
    )
    .execute(&mut switch)
    .await
    .unwrap();
    let taken = taking.await.unwrap().unwrap();
    assert_eq!((taken.position, taken.tables[0].rows), (Position(77), 1));
}
