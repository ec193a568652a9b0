//! Segments of projections that write rows alone: their pages are not locked, and seldom applied in
//! vain.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cqrs_core::{
    Envelope, FailurePolicy, Projection, ProjectionTransaction, Query, ReadModels, RequestContext,
    Result, RowProjection, Rows, Store, Subscription,
};
use cqrs_integration::database::TestDatabase;
use cqrs_integration::domain::{ParcelEvent, ParcelView, ParcelViews};
use cqrs_integration::stores;
use cqrs_integration::wire::{Counts, WireProxy};
use cqrs_integration::workload::Workload;
use cqrs_sqlx::{PgStore, Postgres, ProjectorBuilder, ProjectorHandle};
use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinSet;

use super::segments::{Splittable, segments};
use super::support::{Gate, Recorder, applied, commit, receipt, with_tables};
use super::unlocked::{positions, two_stores};

const LONG: Duration = Duration::from_secs(30);

fn split(store: &PgStore, recorder: &Recorder, segments: u32) -> ProjectorBuilder<Postgres> {
    let subscription = Subscription::new(Splittable(recorder.clone())).segments(segments);
    store.projector().subscribe(subscription)
}

async fn store() -> (TestDatabase, PgStore) {
    let database = TestDatabase::create().await;
    let store = with_tables(stores::postgres(database.url()).await).await;
    (database, store)
}

/// Writers are at work meanwhile, so that workers have much to do and little, by turns.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn workers_of_one_process_apply_nothing_in_vain() {
    let (_database, store) = store().await;
    for _ in 0..60 {
        commit(&store, 1).await;
    }
    let recorder = Recorder::new("recorder").rows_alone();
    let projector = split(&store, &recorder, 4).page_size(3);
    let running = projector.start().await.unwrap();
    for weighings in 0..60 {
        commit(&store, weighings % 4).await;
    }
    let last = receipt(&store, 0).await;
    store.wait_for(&last, "recorder").await.unwrap();
    running.stop(LONG).await;
    let last = last.position().unwrap().0;
    assert_eq!(applied(&store).await, positions(last));
    let mut given = recorder.pages().concat();
    given.sort_unstable();
    assert_eq!(given, positions(last), "a page was applied in vain");
}

/// Keeps [`ParcelView`], which depends on the order of events, and counts the events of its pages.
#[derive(Clone, Default)]
struct Counting(Arc<AtomicU64>);

impl<T: ProjectionTransaction> Projection<T> for Counting {
    type Event = ParcelEvent;

    fn name(&self) -> &str {
        ParcelViews::NAME
    }

    fn writes_rows_alone(&self) -> bool {
        true
    }

    fn is_splittable(&self) -> bool {
        true
    }

    async fn apply(&self, page: &[Envelope<ParcelEvent>], transaction: &mut T) -> Result<()> {
        self.0.fetch_add(page.len() as u64, Ordering::Relaxed);
        Rows(ParcelViews).apply(page, transaction).await
    }
}

/// Each with as many workers as there are segments, so that they meet again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_processes_share_segments_and_apply_little_in_vain() {
    let (_database, one, two) = two_stores().await;
    let workload = Workload::new(1_000, 10);
    let counting = Counting::default();
    let mut running = Vec::new();
    for store in [&one, &two] {
        let subscription = Subscription::new(counting.clone()).segments(3);
        let projector = store.projector().page_size(5).subscribe(subscription);
        running.push(projector.start().await.unwrap());
    }
    let mut writers = JoinSet::new();
    let seed = cqrs_integration::random::seed();
    for (number, store) in (0..4).zip([&one, &two].into_iter().cycle()) {
        let seed = seed.wrapping_add(number);
        writers.spawn(workload.clone().write(store.clone(), seed));
    }
    while let Some(writer) = writers.join_next().await {
        writer.unwrap().unwrap();
    }
    let subscription = Subscription::new(counting.clone()).segments(3);
    let projector = one.projector().subscribe(subscription);
    projector.run_until_idle().await.unwrap();
    for handle in running {
        handle.stop(LONG).await;
    }
    let views = one
        .read_models(&RequestContext::system())
        .query::<ParcelView>(Query::all())
        .await
        .unwrap();
    let events: u64 = views.iter().map(|view| view.events).sum();
    let given = counting.0.load(Ordering::Relaxed);
    println!("{events} events, {} in vain", given - events);
    assert!(
        given - events <= events / 4,
        "{events} events, {given} given"
    );
    workload.check(&one).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_left_to_a_process_is_taken_when_that_dies() {
    let (_database, one, two) = two_stores().await;
    let before = receipt(&one, 4).await;
    let mut processes = Vec::new();
    for store in [&one, &two] {
        let (recorder, gate) = Recorder::new("recorder").rows_alone().with_gate();
        let projector = split(store, &recorder, 1).page_size(2);
        let running = projector.start().await.unwrap();
        gate.arrived.acquire().await.unwrap().forget();
        processes.push((running, recorder, gate));
    }
    let (winner, loser) = (&processes[0], &processes[1]);
    winner.2.open.add_permits(1_000);
    one.wait_for(&before, "recorder").await.unwrap();
    assert_eq!(loser.1.pages(), [[1, 2]], "it still holds the first page");
    loser.2.open.add_permits(1_000);

    let (winner, _, _) = processes.remove(0);
    winner.stop(LONG).await;
    let last = receipt(&one, 2).await;
    two.wait_for(&last, "recorder").await.unwrap();
    let last = last.position().unwrap().0;
    assert_eq!(applied(&one).await, positions(last));
    let loser = processes[0].1.pages().concat();
    assert_eq!(loser, [1, 2, 6, 7, 8]);
}

/// It has the other segment to work on, for longer than it takes to notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_left_is_taken_by_a_process_that_is_busy() {
    let (_database, one, two) = two_stores().await;
    let mut last = 0;
    for _ in 0..600 {
        last = commit(&one, 0).await.0;
    }
    let mut processes = Vec::new();
    for store in [&one, &two] {
        let (recorder, gate) = Recorder::new("recorder").rows_alone().with_gate();
        let projector = split(store, &recorder, 2).page_size(1).workers(1);
        let running = projector.start().await.unwrap();
        gate.arrived.acquire().await.unwrap().forget();
        processes.push((running, gate));
    }
    for (_, gate) in &processes {
        gate.open.add_permits(1);
        gate.arrived.acquire().await.unwrap().forget();
    }
    let (dying, _) = processes.remove(0);
    dying.stop(Duration::ZERO).await;
    let (busy, gate) = &processes[0];
    let stood = segments(&two).await;
    loop {
        gate.open.add_permits(1);
        gate.arrived.acquire().await.unwrap().forget();
        let stand = segments(&two).await;
        if stand.iter().zip(&stood).all(|(now, then)| now > then) {
            break;
        }
        assert!(*stand.iter().max().unwrap() + 50 < last, "{stand:?}");
    }
    gate.open.add_permits(1_000);
    let receipt = receipt(&one, 0).await;
    two.wait_for(&receipt, "recorder").await.unwrap();
    busy.stop(LONG).await;
    assert_eq!(applied(&one).await, positions(last + 1));
}

/// Two workers of one process or of two. One has a page that it does not finish; the other has found
/// that taken, again and again, and pauses for ever longer.
struct Pausing {
    _database: TestDatabase,
    proxy: WireProxy,
    stores: Vec<PgStore>,
    running: Vec<ProjectorHandle>,
    gate: Arc<Gate>,
}

/// After so many looks, of which one may have been before there was anything to do, the pause is at
/// least 2.6 seconds.
const LOOKS_UNTIL_LONG: usize = 11;
/// What is not found within that has waited for a pause.
const WITHIN_A_PAUSE: Duration = Duration::from_secs(2);

impl Pausing {
    async fn begin(rows_alone: bool, processes: usize, segments: u32, looks: usize) -> Self {
        let database = TestDatabase::create().await;
        let proxy = WireProxy::start(database.url()).await;
        let mut recorder = Recorder::new("recorder");
        if rows_alone {
            recorder = recorder.rows_alone();
        }
        let (recorder, gate) = recorder.with_gate();
        let (mut stores, mut running) = (Vec::new(), Vec::new());
        for process in 0..processes {
            let store = stores::postgres(proxy.url()).await;
            if process == 0 {
                commit(&with_tables(store.clone()).await, 0).await;
            }
            let projector = split(&store, &recorder, segments).workers(2 / processes);
            let projector = projector.poll_interval(Duration::from_secs(3600));
            running.push(projector.start().await.unwrap());
            if process == 0 {
                gate.arrived.acquire().await.unwrap().forget();
            }
            stores.push(store);
        }
        let pausing = Self {
            _database: database,
            proxy,
            stores,
            running,
            gate,
        };
        let before = pausing.looks();
        while pausing.looks() < before + looks {
            tokio::task::yield_now().await;
        }
        pausing
    }

    /// How often was asked who is where, since no page was found.
    fn looks(&self) -> usize {
        let sent = self.proxy.statements_since(&Counts::default());
        let is_look = |sql: &&String| {
            sql.ends_with("FROM cqrs_segment WHERE subscription = $1 ORDER BY segment")
        };
        sent.iter().filter(is_look).count()
    }

    /// The process that pauses.
    fn store(&self) -> &PgStore {
        &self.stores[self.stores.len() - 1]
    }

    /// Everything is applied when the page goes on.
    async fn end(self) {
        self.gate.open.add_permits(1_000);
        let last = receipt(self.store(), 0).await;
        self.store().wait_for(&last, "recorder").await.unwrap();
        for running in self.running {
            running.stop(LONG).await;
        }
        let last = last.position().unwrap().0;
        assert_eq!(applied(&self.stores[0]).await, positions(last));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_of_a_segment_that_nobody_is_at_waits_for_no_pause() {
    for (rows_alone, processes) in [(true, 1), (false, 2)] {
        println!("rows alone: {rows_alone}, processes: {processes}");
        let pausing = Pausing::begin(rows_alone, processes, 2, LOOKS_UNTIL_LONG).await;
        let commits = async {
            // Some of them are of the other segment.
            for _ in 0..30 {
                commit(pausing.store(), 0).await;
            }
        };
        let found = tokio::time::timeout(WITHIN_A_PAUSE, pausing.gate.arrived.acquire());
        let (found, ()) = tokio::join!(found, commits);
        found.expect("it is found at once").unwrap().forget();
        pausing.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_would_find_nothing_is_not_woken_by_commits() {
    for (rows_alone, processes) in [(true, 1), (false, 1), (false, 2)] {
        println!("rows alone: {rows_alone}, processes: {processes}");
        let pausing = Pausing::begin(rows_alone, processes, 1, 8).await;
        let (before, begun) = (pausing.looks(), Instant::now());
        for _ in 0..30 {
            commit(pausing.store(), 0).await;
        }
        // Its pauses, of more than a second each, may have ended meanwhile.
        let looks = pausing.looks() - before;
        let ended = 1 + usize::try_from(begun.elapsed().as_secs()).unwrap();
        assert!(looks <= ended, "{looks} looks, {ended} pauses");
        pausing.end().await;
    }
}

/// Each of two workers is at home in two of four segments.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_at_home_in_a_segment_leaves_it_for_one_that_is_far_behind() {
    const FAR: i64 = 10_000;
    for ahead in [FAR - 1, FAR + 1] {
        let (database, store) = store().await;
        let (recorder, gate) = Recorder::new("recorder").rows_alone().with_gate();
        split(&store, &recorder, 4).run_until_idle().await.unwrap();
        let mut connection = PgConnection::connect(database.url()).await.unwrap();
        for begins in [1, 2 * FAR] {
            let sql = "SELECT setval('cqrs_event_position', $1, false)";
            let skipped = sqlx::query(sql).bind(begins);
            skipped.execute(&mut connection).await.unwrap();
            for _ in 0..60 {
                commit(&store, 0).await;
            }
        }
        let sql = "UPDATE cqrs_segment SET position = $1 WHERE segment % 2 = 1";
        let odd = sqlx::query(sql).bind(ahead);
        odd.execute(&mut connection).await.unwrap();
        let projector = split(&store, &recorder, 4).page_size(1).workers(2);
        let running = projector.start().await.unwrap();
        gate.arrived.acquire_many(2).await.unwrap().forget();
        let mut first = recorder.pages().concat();
        first.sort_unstable();
        let is_behind: Vec<_> = first.iter().map(|position| *position < FAR).collect();
        assert_eq!(is_behind, [true, ahead > FAR], "{ahead}: {first:?}");
        gate.open.add_permits(1_000);
        running.stop(LONG).await;
    }
}

/// The number of segments changes while an event is applied that fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_put_aside_is_not_behind_the_end_of_a_segment() {
    let (database, store) = store().await;
    let (recorder, gate) = Recorder::new("recorder").rows_alone().with_gate();
    let is_second = AtomicU64::new(0);
    let poison = Arc::new(AtomicU64::new(u64::MAX));
    let recorder = recorder.with_fault({
        let poison = Arc::clone(&poison);
        move |page| {
            let position = page[0].position().0.cast_unsigned();
            if is_second.fetch_add(1, Ordering::Relaxed) == 1 {
                poison.store(position, Ordering::Relaxed);
            }
            match poison.load(Ordering::Relaxed) == position {
                true => Err(cqrs_core::Error::other("poison")),
                false => Ok(()),
            }
        }
    });
    let skipping = || {
        let subscription = Subscription::new(Splittable(recorder.clone())).segments(2);
        let subscription = subscription.on_failure(FailurePolicy::Skip);
        let projector = store.projector().subscribe(subscription);
        projector.retry_delays([]).page_size(1).workers(1)
    };
    skipping().run_until_idle().await.unwrap();
    let mut last = 0;
    for _ in 0..20 {
        last = commit(&store, 0).await.0;
    }
    // One segment stands still, so that the other is the furthest.
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    let waits = "UPDATE cqrs_segment SET failed_attempts = 1, \
                 retry_at = now() + interval '1 hour' WHERE segment = 0";
    sqlx::query(waits).execute(&mut connection).await.unwrap();
    let running = skipping().start().await.unwrap();
    gate.arrived.acquire().await.unwrap().forget();
    gate.open.add_permits(1);
    gate.arrived.acquire().await.unwrap().forget();
    let operations = store.operations(&RequestContext::system()).unwrap();
    operations.set_segments("recorder", 3).await.unwrap();
    gate.open.add_permits(1_000);
    // It has time to be put aside, where nothing else holds the row.
    for _ in 0..200 {
        if store.subscriptions().await.unwrap()[0].skipped > 0 {
            break;
        }
    }
    let goes_on = "UPDATE cqrs_segment SET failed_attempts = 0, retry_at = NULL WHERE segment = 0";
    sqlx::query(goes_on).execute(&mut connection).await.unwrap();
    let receipt = receipt(&store, 0).await;
    store.wait_for(&receipt, "recorder").await.unwrap();
    running.stop(LONG).await;
    assert_eq!(segments(&store).await.len(), 3);
    let poison = poison.load(Ordering::Relaxed).cast_signed();
    let mut expected = positions(last + 1);
    expected.retain(|position| *position != poison);
    assert_eq!(applied(&store).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_page_that_panics_leaves_its_segment_to_others() {
    let (_database, store) = store().await;
    for _ in 0..20 {
        commit(&store, 1).await;
    }
    let panics = Arc::new(AtomicU64::new(0));
    let recorder = Recorder::new("recorder").rows_alone().with_fault({
        let panics = Arc::clone(&panics);
        move |_| {
            let number = panics.fetch_add(1, Ordering::Relaxed);
            assert!(number > 9 || !number.is_multiple_of(3), "now and then");
            Ok(())
        }
    });
    let projector = split(&store, &recorder, 3).page_size(4);
    let running = projector.retry_delays([Duration::ZERO; 9]).start();
    let running = running.await.unwrap();
    let last = receipt(&store, 0).await;
    store.wait_for(&last, "recorder").await.unwrap();
    running.stop(LONG).await;
    assert!(panics.load(Ordering::Relaxed) > 9);
    let last = last.position().unwrap().0;
    assert_eq!(applied(&store).await, positions(last));
}
