//! Read models that are built anew beside the rows that are read, and take their place.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cqrs_core::{
    Entity, Envelope, Error, Query, ReadModel, ReadModels, RequestContext, Result, RowProjection,
    StartAt, Store, StoreErrorKind, Subscription, UnitOfWork,
};
use cqrs_integration::domain::{Parcel, ParcelEvent, ParcelId, ParcelView, ParcelViews};
use cqrs_integration::random::seed;
use cqrs_integration::stores;
use cqrs_integration::wire::Pooler;
use cqrs_integration::workload::Workload;
use cqrs_sqlx::{
    Backend, Postgres, ProgressWatch, Retention, SqlStore, SqlTransaction, Sqlite, StoreOptions,
    SubscriptionState, SwitchOver,
};
use futures_core::Stream as _;
use tokio::task::JoinSet;

use super::support::{Recorder, operations};
use super::views::{NAME, Version, rows, run};
use cqrs_integration::each::{Fresh, Kind, kind, on_each, poll_up_to};

on_each!(
    rows_are_built_beside_and_exchanged,
    a_row_type_may_have_changed,
    the_newest_events_may_have_left_the_log,
    an_event_that_fails_halts_the_building_alone,
    the_switch_waits_to_be_told,
    a_rebuild_is_given_up,
    what_cannot_be_rebuilt_is_refused,
    it_is_dropped_at_each_await,
    one_segment_under_load,
    four_segments_under_load,
    progress_is_told,
    progress_is_a_stream,
);

/// [`ParcelView`] with a column more, and one less.
#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(table = "parcel_view", tenant)]
struct Changed {
    #[read_model(key)]
    id: ParcelId,
    events: u64,
    heaviest: i64,
}

struct ChangedViews;

impl RowProjection for ChangedViews {
    type Event = ParcelEvent;
    type Row = Changed;

    const NAME: &'static str = NAME;
    const VERSION: u32 = 2;

    fn key(&self, event: &Envelope<ParcelEvent>) -> Result<Option<ParcelId>> {
        ParcelViews.key(event)
    }

    fn apply(&self, row: &mut Option<Changed>, event: &Envelope<ParcelEvent>) -> Result<()> {
        let row = row.get_or_insert(Changed {
            id: event.aggregate_id()?,
            events: 0,
            heaviest: 0,
        });
        row.events += 1;
        if let ParcelEvent::Weighed { grams } = event.payload() {
            row.heaviest = row.heaviest.max(*grams);
        }
        Ok(())
    }
}

/// [`Version`] 2, which cannot apply weights over 100 until it is mended.
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
            ParcelEvent::Weighed { grams: 101.. } if !self.0.load(Ordering::SeqCst) => {
                Err(Error::other("too heavy"))
            }
            _ => ParcelViews.apply(row, event),
        }
    }
}

async fn commit<B: Backend>(store: &SqlStore<B>, grams: i64) {
    let mut parcel = Parcel::register("parcel");
    parcel.weigh(grams);
    let mut unit_of_work = store.unit_of_work(&stores::tenant("north"));
    unit_of_work.save(parcel).unwrap();
    let _ = unit_of_work.commit().await.unwrap();
}

async fn rebuild<B: Backend>(
    store: &SqlStore<B>,
    projection: impl RowProjection,
    switch: SwitchOver,
) -> Result<String> {
    operations(store).rebuild(&rows(projection), switch).await
}

/// The names of the subscriptions and the versions of what they keep.
async fn versions<B: Backend>(store: &SqlStore<B>) -> Vec<(String, u32)> {
    let statuses = store.subscriptions().await.unwrap();
    let version = |status: cqrs_sqlx::SubscriptionStatus| (status.name, status.version);
    statuses.into_iter().map(version).collect()
}

/// Checks that nothing of a rebuild is left.
async fn assert_alone<K: Kind>(fresh: &Fresh<K>, store: &SqlStore<K>, version: u32) {
    assert_eq!(versions(store).await, [(NAME.to_owned(), version)]);
    for sql in [
        "SELECT count(*) FROM cqrs_rebuild".to_owned(),
        K::either(
            "SELECT count(*) FROM pg_class WHERE relname LIKE '%\\_\\_new%'",
            "SELECT count(*) FROM sqlite_schema WHERE name LIKE '%\\_\\_new%' ESCAPE '\\'",
        )
        .to_owned(),
        format!("SELECT count(*) FROM cqrs_subscription WHERE name <> '{NAME}'"),
    ] {
        assert_eq!(fresh.number(sql).await, 0);
    }
}

async fn rows_are_built_beside_and_exchanged<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    for grams in 0..10 {
        commit(&store, grams).await;
    }
    assert_eq!(run(&store, ParcelViews).await.unwrap(), 20);
    fresh.run("UPDATE parcel_view SET grams = 7").await;
    let building = rebuild(&store, ParcelViews, SwitchOver::WhenReady).await;
    assert_eq!(building.unwrap(), "parcel_view (building)");
    assert_eq!(
        fresh.number("SELECT count(*) FROM parcel_view").await,
        10,
        "they are read as before"
    );
    assert_eq!(run(&store, ParcelViews).await.unwrap(), 20);
    Workload::check_views(&store).await;
    assert_alone(&fresh, &store, 1).await;
    commit(&store, 1).await;
    assert_eq!(run(&store, ParcelViews).await.unwrap(), 2);
    Workload::check_views(&store).await;
    let records = operations(&store).records(10).await.unwrap();
    let records: Vec<_> = records.iter().map(|record| &*record.operation).collect();
    assert_eq!(records, ["rebuilt", "rebuild"]);
}

async fn a_row_type_may_have_changed<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    commit(&store, 5).await;
    fresh
        .run("CREATE INDEX by_events ON parcel_view (events, id)")
        .await;
    fresh
        .run("CREATE INDEX by_grams ON parcel_view (grams)")
        .await;
    fresh
        .run(K::either(
            "ALTER TABLE parcel_view ADD CONSTRAINT positive CHECK (events > 0);
             ALTER TABLE parcel_view ADD COLUMN more bigint GENERATED ALWAYS AS (events + 1) STORED;
             DO $$ BEGIN CREATE ROLE reads; EXCEPTION WHEN duplicate_object THEN NULL; END $$; GRANT SELECT ON parcel_view TO reads;
             CREATE POLICY mine ON parcel_view USING (events > 0)",
            "CREATE VIEW heavy AS SELECT * FROM parcel_view;
             CREATE TRIGGER told AFTER INSERT ON parcel_view BEGIN SELECT 1; END",
        ))
        .await;
    let before = belongings(&fresh).await;
    run(&store, ParcelViews).await.unwrap();
    rebuild(&store, ChangedViews, SwitchOver::WhenReady)
        .await
        .unwrap();
    commit(&store, 6).await;
    assert_eq!(
        run(&store, ParcelViews).await.unwrap(),
        2,
        "the old version goes on"
    );
    Workload::check_views(&store).await;
    assert_eq!(versions(&store).await[0].1, 1);

    assert_eq!(run(&store, ChangedViews).await.unwrap(), 4);
    assert_alone(&fresh, &store, 2).await;
    store.verify(&[Changed::table()]).await.unwrap();
    let read = async || {
        let models = store.read_models(&RequestContext::system());
        let rows = models.query::<Changed>(Query::all()).await.unwrap();
        let mut heaviest: Vec<i64> = rows.iter().map(|row| row.heaviest).collect();
        heaviest.sort_unstable();
        heaviest
    };
    assert_eq!(read().await, [5, 6]);
    let mut kept = before;
    kept.retain(|what| !what.contains("by_grams"));
    assert_eq!(belongings(&fresh).await, kept);

    commit(&store, 7).await;
    assert_eq!(
        run(&store, ParcelViews).await.unwrap(),
        0,
        "it is not its own"
    );
    assert_eq!(run(&store, ChangedViews).await.unwrap(), 2);
    assert_eq!(read().await, [5, 6, 7]);

    // And back.
    rebuild(&store, ParcelViews, SwitchOver::WhenReady)
        .await
        .unwrap();
    assert_eq!(run(&store, ParcelViews).await.unwrap(), 6);
    Workload::check_views(&store).await;
    assert_alone(&fresh, &store, 1).await;
}

/// What belongs to the table and is not of the code.
async fn belongings<K: Kind>(fresh: &Fresh<K>) -> Vec<String> {
    let sql = K::either(
        "SELECT 'index ' || pg_get_indexdef(indexrelid) FROM pg_index
         WHERE indrelid = 'parcel_view'::regclass
         UNION ALL SELECT 'rights ' || a.privilege_type || ' ' || a.grantee::regrole::text
         FROM pg_class AS c, aclexplode(c.relacl) AS a
         WHERE c.oid = 'parcel_view'::regclass AND a.grantee <> c.relowner
         UNION ALL SELECT 'policy ' || polname || pg_get_expr(polqual, polrelid) FROM pg_policy
         WHERE polrelid = 'parcel_view'::regclass
         UNION ALL SELECT 'check ' || pg_get_constraintdef(oid) FROM pg_constraint
         WHERE conrelid = 'parcel_view'::regclass AND contype = 'c'
         UNION ALL SELECT 'generated ' || attname FROM pg_attribute
         WHERE attrelid = 'parcel_view'::regclass AND attgenerated <> ''
         ORDER BY 1",
        "SELECT type || ' ' || sql FROM sqlite_schema
         WHERE type IN ('index', 'trigger', 'view') AND sql IS NOT NULL ORDER BY 1",
    );
    K::texts(&fresh.url, sql.to_owned()).await
}

/// More of them than the switch applies itself.
async fn the_newest_events_may_have_left_the_log<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    for grams in 0..30 {
        commit(&store, grams).await;
    }
    run(&store, ParcelViews).await.unwrap();
    fresh.age().await;
    let retention = Retention::older_than(Duration::from_secs(3600)).forget_first_events();
    let system = RequestContext::system();
    let removed = store.remove_events(&system, &retention);
    assert_eq!(removed.await.unwrap().events, 60);
    let operations = operations(&store).despite_gaps();
    let view = rows(Version::<2>);
    let rebuilt = operations.rebuild(&view, SwitchOver::WhenReady).await;
    rebuilt.unwrap();
    // It has never seen them.
    let other = fresh.open(StoreOptions::default()).await;
    let projector = other.projector().subscribe(view).page_size(4);
    assert_eq!(projector.run_until_idle().await.unwrap(), 0);
    assert_alone(&fresh, &store, 2).await;
    assert_eq!(fresh.number("SELECT count(*) FROM parcel_view").await, 0);
}

async fn an_event_that_fails_halts_the_building_alone<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    for grams in [1, 2, 200, 3] {
        commit(&store, grams).await;
    }
    run(&store, ParcelViews).await.unwrap();
    let mended = Arc::new(AtomicBool::new(false));
    let faulty = || Faulty(Arc::clone(&mended));
    let building = rebuild(&store, faulty(), SwitchOver::WhenReady).await;
    let building = building.unwrap();
    let error = run(&store, faulty()).await.unwrap_err();
    assert_eq!(super::support::failure(&error).name, building);
    commit(&store, 4).await;
    assert_eq!(run(&store, ParcelViews).await.unwrap(), 2);
    Workload::check_views(&store).await;
    let statuses = store.subscriptions().await.unwrap();
    assert_eq!(statuses[0].state, SubscriptionState::Active);
    assert!(matches!(statuses[1].state, SubscriptionState::Halted(_)));

    mended.store(true, Ordering::SeqCst);
    operations(&store).resume(&building).await.unwrap();
    run(&store, faulty()).await.unwrap();
    assert_alone(&fresh, &store, 2).await;
    Workload::check_views(&store).await;
}

async fn the_switch_waits_to_be_told<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    commit(&store, 1).await;
    run(&store, ParcelViews).await.unwrap();
    assert!(!operations(&store).switch_rebuild(NAME).await.unwrap());
    rebuild(&store, Version::<2>, SwitchOver::WhenTold)
        .await
        .unwrap();
    assert_eq!(run(&store, Version::<2>).await.unwrap(), 2);
    for _ in 0..3 {
        commit(&store, 1).await;
        assert_eq!(run(&store, Version::<2>).await.unwrap(), 2);
        assert_eq!(run(&store, ParcelViews).await.unwrap(), 2);
    }
    // The one that is read is ahead now: the switch itself applies what is missing.
    commit(&store, 1).await;
    assert_eq!(run(&store, ParcelViews).await.unwrap(), 2);
    assert_eq!(versions(&store).await.len(), 2);
    assert!(operations(&store).switch_rebuild(NAME).await.unwrap());
    run(&store, Version::<2>).await.unwrap();
    assert_alone(&fresh, &store, 2).await;
    Workload::check_views(&store).await;
}

async fn a_rebuild_is_given_up<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    commit(&store, 1).await;
    run(&store, ParcelViews).await.unwrap();
    assert!(!operations(&store).cancel_rebuild(NAME).await.unwrap());
    for _ in 0..2 {
        rebuild(&store, Version::<2>, SwitchOver::WhenTold)
            .await
            .unwrap();
        run(&store, Version::<2>).await.unwrap();
        assert!(operations(&store).cancel_rebuild(NAME).await.unwrap());
        assert_alone(&fresh, &store, 1).await;
    }
    commit(&store, 1).await;
    assert_eq!(run(&store, Version::<2>).await.unwrap(), 0);
    assert_eq!(run(&store, ParcelViews).await.unwrap(), 2);
    Workload::check_views(&store).await;
}

/// What would be gone with the old table: how it is made and removed, and what is said of it.
const OF_POSTGRES: &[([&str; 2], &str)] = &[
    (
        [
            "CREATE RULE kept AS ON DELETE TO parcel_view DO INSTEAD NOTHING",
            "DROP RULE kept ON parcel_view",
        ],
        "rule kept",
    ),
    (
        [
            "CREATE PUBLICATION told FOR TABLE parcel_view",
            "DROP PUBLICATION told",
        ],
        "publication told",
    ),
];
const OF_SQLITE: &[([&str; 2], &str)] = &[(
    [
        "ALTER TABLE parcel_view RENAME TO kept; CREATE TABLE parcel_view (id BLOB PRIMARY KEY,
         tenant_id TEXT, grams INTEGER, events INTEGER, more INTEGER AS (events + 1),
         parcel BLOB REFERENCES parcel, UNIQUE (grams, events))",
        "DROP TABLE parcel_view; ALTER TABLE kept RENAME TO parcel_view",
    ],
    "foreign key to parcel, generated column more, unique constraint of grams, events",
)];

async fn what_cannot_be_rebuilt_is_refused<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    let operations = operations(&store);
    let refused = async |subscription: Subscription<SqlTransaction<K>>, why: &str| {
        let error = operations
            .rebuild(&subscription, SwitchOver::WhenReady)
            .await
            .unwrap_err();
        assert_eq!(*kind(&error), StoreErrorKind::Usage);
        let message = error.to_string();
        assert!(message.contains(why), "{message}");
    };
    refused(rows(ParcelViews), "there is no subscription named").await;
    run(&store, ParcelViews).await.unwrap();
    refused(rows(ParcelViews).rows(Version::<2>), "other handlers").await;
    let own = Subscription::named(NAME).projection(Recorder::new("recorder"));
    refused(own, "other handlers").await;
    refused(rows(ParcelViews).start_at(StartAt::Now), "StartAt::Time").await;
    fresh
        .run("CREATE TABLE parcel_view__new (id integer)")
        .await;
    refused(rows(ParcelViews), "in the way").await;
    fresh.run("DROP TABLE parcel_view__new").await;
    let view = "CREATE VIEW heavy AS SELECT * FROM parcel_view";
    fresh.run(view).await;
    if K::either(true, false) {
        refused(rows(ParcelViews), "view heavy").await;
        fresh.run("DROP VIEW heavy").await;
    }
    for &([make, remove], why) in K::either(OF_POSTGRES, OF_SQLITE) {
        fresh.run(make).await;
        refused(rows(ParcelViews), why).await;
        fresh.run(remove).await;
    }
    // Those of SQLite refer to names, and stay.
    operations
        .rebuild(&rows(ParcelViews), SwitchOver::WhenReady)
        .await
        .unwrap();
    refused(rows(ParcelViews), "is being rebuilt").await;
    run(&store, ParcelViews).await.unwrap();
    assert_alone(&fresh, &store, 1).await;
}

/// SQLite takes names in capitals for the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_is_kept_however_the_table_is_written() {
    let (fresh, store) = Fresh::<Sqlite>::with_store().await;
    fresh
        .run(
            "ALTER TABLE parcel_view RENAME TO kept; ALTER TABLE kept RENAME TO Parcel_View;
             ALTER TABLE Parcel_View RENAME COLUMN events TO Events;
             CREATE INDEX by_events ON Parcel_View (Events)",
        )
        .await;
    commit(&store, 5).await;
    run(&store, ParcelViews).await.unwrap();
    rebuild(&store, ParcelViews, SwitchOver::WhenReady)
        .await
        .unwrap();
    run(&store, ParcelViews).await.unwrap();
    assert_alone(&fresh, &store, 1).await;
    let sql = "SELECT count(*) FROM sqlite_schema WHERE name = 'by_events'";
    assert_eq!(fresh.number(sql).await, 1);
}

async fn it_is_dropped_at_each_await<K: Kind>() {
    let options = StoreOptions::default().max_connections(1);
    let (fresh, store) = Fresh::<K>::with(options).await;
    for grams in 1..4 {
        commit(&store, grams).await;
    }
    run(&store, ParcelViews).await.unwrap();
    for limit in 0.. {
        let begin = rebuild(&store, ParcelViews, SwitchOver::WhenReady);
        let begun = match poll_up_to(limit, begin).await {
            Some(begun) => begun.is_ok(),
            None => false,
        };
        Workload::check_views(&store).await;
        let projector = store.projector().rows(ParcelViews).page_size(4);
        let ended = poll_up_to(limit, projector.run_until_idle()).await;
        // Built in part or not, exchanged or not: what is read is whole.
        Workload::check_views(&store).await;
        if ended.is_none() && limit % 3 > 0 {
            // The next goes on with it.
            continue;
        }
        run(&store, ParcelViews).await.unwrap();
        Workload::check_views(&store).await;
        assert_alone(&fresh, &store, 1).await;
        if let Some(ended) = ended.filter(|_| begun) {
            ended.unwrap();
            break;
        }
    }
}

async fn one_segment_under_load<K: Kind>() {
    under_load::<K>(1).await;
}

async fn four_segments_under_load<K: Kind>() {
    under_load::<K>(4).await;
}

/// Writers, readers and two replicas of each version are at work while the rows are built anew and
/// exchanged, several times.
async fn under_load<K: Kind>(segments: u32) {
    let options = || StoreOptions::default().notifications(false);
    let (fresh, store) = Fresh::<K>::with(options()).await;
    let replicas = [store, fresh.open(options()).await];
    rebuild_under_load(&fresh, replicas, segments).await;
}

/// Behind a pooler that gives each transaction another process of the server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_behind_a_pooler() {
    let options = || StoreOptions::default().notifications(false);
    let (mut fresh, direct) = Fresh::<Postgres>::with(options()).await;
    direct.close();
    let pooler = Pooler::start(&fresh.url, 16).await;
    pooler.url().clone_into(&mut fresh.url);
    let replicas = [fresh.open(options()).await, fresh.open(options()).await];
    rebuild_under_load(&fresh, replicas, 4).await;
}

async fn rebuild_under_load<K: Kind>(fresh: &Fresh<K>, replicas: [SqlStore<K>; 2], segments: u32) {
    let store = replicas[0].clone();
    let (commits, hold) = K::either((400, 5), (150, 0));
    let workload = Workload::new(commits, hold);
    let seed = seed();
    let mut running = Vec::new();
    for (store, page_size) in replicas.iter().zip([3, 50]) {
        let projector = store.projector().page_size(page_size);
        let projector = projector.poll_interval(Duration::from_millis(2));
        let one = rows(Version::<1>).segments(segments);
        running.push(projector.subscribe(one).start().await.unwrap());
        let projector = store.projector().page_size(page_size);
        let projector = projector.poll_interval(Duration::from_millis(2));
        let two = rows(Version::<2>).segments(segments);
        running.push(projector.subscribe(two).start().await.unwrap());
    }
    let mut tasks = JoinSet::new();
    for (number, store) in (0..6).zip(replicas.iter().cycle()) {
        let writer = workload.clone().write(store.clone(), seed + number);
        tasks.spawn(async move { writer.await.unwrap() });
    }
    let over = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn(read_on(replicas[1].clone(), Arc::clone(&over)));
    let mut made = workload.made();
    made.wait_for(|made| *made > 20).await.unwrap();
    for version in [2, 1, 2] {
        let begun = match version {
            1 => rebuild(&store, Version::<1>, SwitchOver::WhenReady).await,
            _ => rebuild(&store, Version::<2>, SwitchOver::WhenReady).await,
        };
        until_gone(&store, &begun.unwrap()).await;
        assert_eq!(versions(&store).await, [(NAME.to_owned(), version)]);
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    let two = rows(Version::<2>).segments(segments);
    let projector = store.projector().subscribe(two);
    projector.run_until_idle().await.unwrap();
    over.store(true, Ordering::SeqCst);
    reader.await.unwrap();
    for handle in running {
        handle.stop(Duration::from_secs(30)).await;
    }
    workload.check(&store).await;
    assert_alone(fresh, &store, 2).await;
    let status = &store.subscriptions().await.unwrap()[0];
    assert_eq!(status.segments.len(), segments as usize);
}

/// Waits until rows have taken the place of others.
async fn until_gone<B: Backend>(store: &SqlStore<B>, building: &str) {
    let mut watch = store
        .watch_progress(building)
        .every(Duration::from_millis(5));
    while let Ok(Some(_)) = watch.next().await {}
}

/// No read sees less than one before it.
async fn read_on<B: Backend>(store: SqlStore<B>, over: Arc<AtomicBool>) {
    let mut before = 0;
    while !over.load(Ordering::SeqCst) {
        let models = store.read_models(&RequestContext::system());
        let rows = models.query::<ParcelView>(Query::all()).await.unwrap();
        let events: u64 = rows.iter().map(|row| row.events).sum();
        assert!(events >= before, "{events} after {before}");
        before = events;
        tokio::task::yield_now().await;
    }
}

async fn progress_is_told<K: Kind>() {
    let (_fresh, store) = Fresh::<K>::with_store().await;
    let unknown = store.progress(NAME).await.unwrap_err();
    assert_eq!(*kind(&unknown), StoreErrorKind::Usage);
    for grams in 0..5 {
        commit(&store, grams).await;
    }
    run(&store, ParcelViews).await.unwrap();
    let progress = store.progress(NAME).await.unwrap();
    assert!(progress.is_done());
    assert_eq!(progress.to_string(), "parcel_view: 100 % (10 of 10)");
    let building = rebuild(&store, Version::<2>, SwitchOver::WhenTold).await;
    let building = building.unwrap();
    let mut watch = store.watch_progress(&building).every(Duration::ZERO);
    let first = watch.next().await.unwrap().unwrap();
    assert_eq!(first.to_string(), "parcel_view (building): 0 % (0 of 10)");
    run(&store, Version::<2>).await.unwrap();
    let last = watch.next().await.unwrap().unwrap();
    assert!(last.is_done() && last.rate.is_some_and(|rate| rate > 0.0));
    assert_eq!(watch.next().await.unwrap(), None);
    let mut watch = store.watch_progress(&building).every(Duration::ZERO);
    commit(&store, 1).await;
    assert!(!watch.next().await.unwrap().unwrap().is_done());
    operations(&store).cancel_rebuild(NAME).await.unwrap();
    assert_eq!(watch.next().await.unwrap(), None, "it is gone");

    // What is built has not taken the place of the other yet.
    operations(&store).pause(NAME).await.unwrap();
    let building = rebuild(&store, Version::<2>, SwitchOver::WhenReady).await;
    run(&store, Version::<2>).await.unwrap();
    let mut watch = store
        .watch_progress(&building.unwrap())
        .every(Duration::ZERO);
    for _ in 0..3 {
        assert!(watch.next().await.unwrap().unwrap().is_done());
    }
    operations(&store).resume(NAME).await.unwrap();
    run(&store, Version::<2>).await.unwrap();
    assert_eq!(watch.next().await.unwrap(), None, "it is read");
}

async fn progress_is_a_stream<K: Kind>() {
    let (_fresh, store) = Fresh::<K>::with_store().await;
    let next = async |watch: &mut ProgressWatch<K>| {
        poll_fn(|context| Pin::new(&mut *watch).poll_next(context)).await
    };
    let mut watch = store.watch_progress(NAME).every(Duration::ZERO);
    let unknown = next(&mut watch).await.unwrap().unwrap_err();
    assert_eq!(*kind(&unknown), StoreErrorKind::Usage);
    assert!(next(&mut watch).await.is_none(), "it ends after an error");

    run(&store, ParcelViews).await.unwrap();
    commit(&store, 1).await;
    let mut watch = store.watch_progress(NAME).every(Duration::from_millis(1));
    let first = next(&mut watch).await.unwrap().unwrap();
    assert_eq!(first.to_string(), "parcel_view: 0 % (0 of 2)");
    run(&store, ParcelViews).await.unwrap();
    let last = next(&mut watch).await.unwrap().unwrap();
    assert!(last.is_done(), "{last}");
    assert!(next(&mut watch).await.is_none());
}
