//! Segments: several workers share a subscription, and their number changes while they do.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cqrs_core::{
    Envelope, Error, Position, Projection, ProjectionTransaction, RawPayload, RequestContext,
    Result, StoreErrorKind, Subscription,
};
use cqrs_integration::database::{TestDatabase, TestFile};
use cqrs_integration::domain::ParcelViews;
use cqrs_integration::random::seed;
use cqrs_integration::stores;
use cqrs_integration::workload::Workload;
use cqrs_sqlx::{Backend, ProjectorBuilder, SqlStore, SqlTransaction, SubscriptionState};
use tokio::task::JoinSet;

use super::support::{Recorder, applied, commit, on_each_database, state};
use cqrs_integration::each::kind;

on_each_database!(
    every_event_is_of_one_segment,
    one_is_not_split_that_does_not_say_so,
    the_number_changes_at_rest,
    the_number_changes_between_pages,
    a_halted_segment_is_waited_for,
    a_segment_that_will_try_again_is_not_waited_for,
    segments_that_stand_still_do_not_hold_up_the_others,
    there_are_not_too_many,
);

/// A [`Recorder`] of which segments may run beside each other.
#[derive(Clone)]
pub(super) struct Splittable(pub(super) Recorder);

impl<T: ProjectionTransaction> Projection<T> for Splittable {
    type Event = RawPayload;

    fn name(&self) -> &str {
        Projection::<T>::name(&self.0)
    }

    fn is_splittable(&self) -> bool {
        true
    }

    fn writes_rows_alone(&self) -> bool {
        Projection::<T>::writes_rows_alone(&self.0)
    }

    async fn apply(&self, page: &[Envelope<RawPayload>], transaction: &mut T) -> Result<()> {
        self.0.apply(page, transaction).await
    }
}

fn split<B: Backend>(
    store: &SqlStore<B>,
    recorder: &Recorder,
    segments: u32,
) -> ProjectorBuilder<B> {
    let subscription = Subscription::new(Splittable(recorder.clone())).segments(segments);
    store.projector().subscribe(subscription)
}

async fn set<B: Backend>(store: &SqlStore<B>, segments: u32) {
    let operations = store.operations(&RequestContext::system()).unwrap();
    operations.set_segments("recorder", segments).await.unwrap();
}

pub(super) async fn segments<B: Backend>(store: &SqlStore<B>) -> Vec<i64> {
    let status = &store.subscriptions().await.unwrap()[0];
    let positions = status.segments.iter().map(|segment| segment.position.0);
    positions.collect()
}

async fn every_event_is_of_one_segment<B: Backend>(store: SqlStore<B>) {
    let mut last = 0;
    for weighings in 0..30 {
        last = commit(&store, weighings % 3).await.0;
    }
    let recorder = Recorder::new("recorder");
    let projector = split(&store, &recorder, 4).page_size(5);
    assert_eq!(
        projector.run_until_idle().await.unwrap(),
        last.unsigned_abs()
    );
    assert_eq!(applied(&store).await, (1..=last).collect::<Vec<_>>());
    assert_eq!(segments(&store).await, [last; 4]);
    let log = store
        .events(&RequestContext::system(), Position::START, 1000)
        .await
        .unwrap();
    let owner = |position: i64| log[position as usize - 1].aggregate_id_str();
    for page in recorder.pages() {
        assert!(page.is_sorted() && page.len() <= 5);
    }
    // More than one segment had something to do, and each its own aggregates.
    let mut pages_of: BTreeMap<&str, usize> = BTreeMap::new();
    let interleaved = recorder.pages().concat();
    assert!(!interleaved.is_sorted(), "several segments were at work");
    for position in interleaved {
        let before = pages_of.entry(owner(position)).or_default();
        assert!(*before < position as usize, "each aggregate in its order");
        *before = position as usize;
    }
}

async fn one_is_not_split_that_does_not_say_so<B: Backend>(store: SqlStore<B>) {
    let usage = |error: Error| match error {
        Error::Store(error) if *error.kind() == StoreErrorKind::Usage => error.to_string(),
        other => panic!("{other:?}"),
    };
    let recorder = Recorder::new("recorder");
    let subscription = || Subscription::new(recorder.clone());
    let projector = store.projector().subscribe(subscription().segments(2));
    let message = usage(projector.run_until_idle().await.unwrap_err());
    assert!(
        message.contains("does not say that it is splittable"),
        "{message}"
    );
    let projector = store.projector().subscribe(subscription());
    projector.run_until_idle().await.unwrap();
    let operations = store.operations(&RequestContext::system()).unwrap();
    usage(operations.set_segments("recorder", 2).await.unwrap_err());
    operations.set_segments("recorder", 1).await.unwrap();
    usage(operations.set_segments("no such", 2).await.unwrap_err());
    // The code says so now, and later not any more.
    split(&store, &recorder, 1).run_until_idle().await.unwrap();
    operations.set_segments("recorder", 2).await.unwrap();
    usage(projector.run_until_idle().await.unwrap_err());
}

async fn the_number_changes_at_rest<B: Backend>(store: SqlStore<B>) {
    let recorder = Recorder::new("recorder");
    let projector = split(&store, &recorder, 1);
    let mut last = 0;
    for count in [3, 1, 7, 7, 2] {
        last = commit(&store, 2).await.0;
        projector.run_until_idle().await.unwrap();
        set(&store, count).await;
        assert_eq!(segments(&store).await, vec![last; count as usize]);
    }
    commit(&store, 2).await;
    last += 3;
    projector.run_until_idle().await.unwrap();
    assert_eq!(applied(&store).await, (1..=last).collect::<Vec<_>>());
}

/// Segments are at different positions when the change is asked for.
async fn the_number_changes_between_pages<B: Backend>(store: SqlStore<B>) {
    for _ in 0..40 {
        commit(&store, 1).await;
    }
    let recorder = Recorder::new("recorder");
    let pages = Arc::new(Mutex::new(0));
    let halting = recorder.clone().with_fault({
        let pages = Arc::clone(&pages);
        move |_| {
            let mut pages = pages.lock().unwrap();
            *pages += 1;
            if *pages % 4 == 0 {
                return Err(Error::store(StoreErrorKind::Usage, "enough"));
            }
            Ok(())
        }
    });
    // A page fails alone and halts its segment, so that the positions differ.
    let projector = split(&store, &halting, 3).page_size(1).retry_delays([]);
    let operations = store.operations(&RequestContext::system()).unwrap();
    for count in [2, 5, 1, 4] {
        projector.run_until_idle().await.unwrap_err();
        set(&store, count).await;
        operations.resume("recorder").await.unwrap();
    }
    let free = split(&store, &recorder, 3).page_size(1);
    free.run_until_idle().await.unwrap();
    assert_eq!(segments(&store).await, [80; 4]);
    assert_eq!(applied(&store).await, (1..=80).collect::<Vec<_>>());
}

async fn a_halted_segment_is_waited_for<B: Backend>(store: SqlStore<B>) {
    for _ in 0..12 {
        commit(&store, 0).await;
    }
    let recorder = Recorder::new("recorder");
    let poisoned = recorder.clone().with_fault(|page| {
        let is_poison = page.iter().any(|event| event.position().0 == 6);
        if is_poison {
            Err(Error::other("poison"))
        } else {
            Ok(())
        }
    });
    let projector = split(&store, &poisoned, 3).retry_delays([]);
    projector.run_until_idle().await.unwrap_err();
    set(&store, 2).await;
    projector.run_until_idle().await.unwrap_err();
    assert_eq!(segments(&store).await.len(), 3);
    let status = &store.subscriptions().await.unwrap()[0];
    assert_eq!(status.wanted_segments, 2);
    let operations = store.operations(&RequestContext::system()).unwrap();
    operations.resume("recorder").await.unwrap();
    split(&store, &recorder, 3).run_until_idle().await.unwrap();
    assert_eq!(segments(&store).await, [12; 2]);
    assert_eq!(applied(&store).await, (1..=12).collect::<Vec<_>>());
}

/// The barrier is in front of the event that it would try again.
async fn a_segment_that_will_try_again_is_not_waited_for<B: Backend>(store: SqlStore<B>) {
    for _ in 0..12 {
        commit(&store, 0).await;
    }
    let recorder = Recorder::new("recorder");
    let poisoned = recorder.clone().with_fault(|_| Err(Error::other("poison")));
    let projector = split(&store, &poisoned, 1).retry_delays([Duration::from_secs(3600)]);
    let running = projector.start().await.unwrap();
    while !matches!(state(&store).await, SubscriptionState::Retrying(_)) {
        tokio::task::yield_now().await;
    }
    running.stop(Duration::from_secs(30)).await;
    set(&store, 3).await;
    assert_eq!(segments(&store).await, [0; 3]);
    split(&store, &recorder, 1).run_until_idle().await.unwrap();
    assert_eq!(segments(&store).await, [12; 3]);
    assert_eq!(applied(&store).await, (1..=12).collect::<Vec<_>>());
}

/// One stands still for an hour, or for good; what comes then for the other is applied.
async fn segments_that_stand_still_do_not_hold_up_the_others<B: Backend>(store: SqlStore<B>) {
    commit(&store, 0).await;
    for delays in [vec![Duration::from_secs(3600)], Vec::new()] {
        let poisoned = Recorder::new("recorder").with_fault(|page| {
            match page.iter().any(|event| event.position() == Position(1)) {
                true => Err(Error::other("poison")),
                false => Ok(()),
            }
        });
        let polling = Duration::from_secs(60);
        let projector = split(&store, &poisoned, 2).poll_interval(polling);
        let running = projector.retry_delays(delays).workers(1).start();
        let running = running.await.unwrap();
        while matches!(state(&store).await, SubscriptionState::Active) {
            tokio::task::yield_now().await;
        }
        // Until one is of the other segment.
        let before = applied(&store).await.len();
        let others = async {
            while applied(&store).await.len() == before {
                commit(&store, 0).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), others).await;
        assert!(waited.is_ok(), "the other segment stands still");
        running.stop(Duration::from_secs(30)).await;
        let operations = store.operations(&RequestContext::system()).unwrap();
        operations.resume("recorder").await.unwrap();
    }
}

async fn there_are_not_too_many<B: Backend>(store: SqlStore<B>) {
    let most = Subscription::<SqlTransaction<B>>::MOST_SEGMENTS;
    let recorder = Recorder::new("recorder");
    let error = split(&store, &recorder, most + 1).run_until_idle().await;
    assert_eq!(*kind(&error.unwrap_err()), StoreErrorKind::Usage);
    split(&store, &recorder, 1).run_until_idle().await.unwrap();
    let operations = store.operations(&RequestContext::system()).unwrap();
    for segments in [most + 1, u32::MAX] {
        let error = operations.set_segments("recorder", segments).await;
        assert_eq!(*kind(&error.unwrap_err()), StoreErrorKind::Usage);
    }
    assert_eq!(segments(&store).await, [0]);
    assert!(operations.records(9).await.unwrap().is_empty());
}

/// [`ParcelViews`], which depends on the order of events,
/// in segments that change while writers and replicas are at work.
async fn the_number_changes_under_load<B: Backend>(
    replicas: Vec<SqlStore<B>>,
    workload: Arc<Workload>,
    seed: u64,
) {
    let builder = |store: &SqlStore<B>| {
        let subscription: Subscription<SqlTransaction<B>> =
            Subscription::named("views").rows(ParcelViews).segments(3);
        store.projector().subscribe(subscription)
    };
    let mut running = Vec::new();
    for (store, page_size) in replicas.iter().zip([2, 10, 100]) {
        let projector = builder(store).page_size(page_size);
        let projector = projector.poll_interval(Duration::from_millis(2));
        running.push(projector.start().await.unwrap());
    }
    let mut writers = JoinSet::new();
    for (number, store) in (0..6).zip(replicas.iter().cycle()) {
        writers.spawn(
            workload
                .clone()
                .write(store.clone(), seed.wrapping_add(number)),
        );
    }
    let operations = replicas[0].operations(&RequestContext::system()).unwrap();
    let mut changes = [5, 1, 8, 2, 4].into_iter().cycle();
    let mut changed = 0;
    while let Some(writer) = writers.try_join_next().map_or_else(
        || (!writers.is_empty()).then_some(None),
        |writer| Some(Some(writer)),
    ) {
        if let Some(writer) = writer {
            writer.unwrap().unwrap();
        }
        let count = changes.next().unwrap();
        operations.set_segments("views", count).await.unwrap();
        loop {
            let status = &replicas[0].subscriptions().await.unwrap()[0];
            if status.segments.len() == count as usize {
                break;
            }
            tokio::task::yield_now().await;
        }
        changed += 1;
    }
    assert!(changed >= 5, "{changed}");
    builder(&replicas[0]).run_until_idle().await.unwrap();
    for handle in running {
        handle.stop(Duration::from_secs(30)).await;
    }
    workload.check(&replicas[0]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_number_changes_under_load_on_postgres() {
    let database = TestDatabase::create().await;
    stores::postgres(database.url()).await.close();
    let mut replicas = Vec::new();
    for _ in 0..3 {
        let options = cqrs_sqlx::StoreOptions::default();
        replicas.push(stores::postgres_with(database.url(), options).await);
    }
    the_number_changes_under_load(replicas, Workload::new(1_500, 10), seed()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_number_changes_under_load_on_sqlite() {
    let file = TestFile::create();
    let replicas = vec![
        stores::sqlite(&file.url()).await,
        cqrs_sqlx::SqliteStore::connect(&file.url()).await.unwrap(),
    ];
    the_number_changes_under_load(replicas, Workload::new(300, 0), seed()).await;
}
