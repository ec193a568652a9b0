//! Old events leave the log, and nobody misses them.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cqrs_core::{
    Envelope, Error, EventBus, FailurePolicy, Parking, Position, Projection, ProjectionTransaction,
    RawPayload, RequestContext, Result, Store, Subscription, UnitOfWork,
};
use cqrs_integration::domain::{self, Parcel, ParcelId, ParcelViews};
use cqrs_integration::random::seed;
use cqrs_integration::stores;
use cqrs_integration::wire::WireProxy;
use cqrs_integration::workload::Workload;
use cqrs_sqlx::{HealthLimits, Postgres, Removed, Retention, SqlStore, StoreOptions};
use tokio::task::JoinSet;

use cqrs_integration::each::{Fresh, Kind, kind, on_each};

on_each!(
    old_events_leave_in_batches,
    young_events_stay,
    a_clock_that_was_wrong_holds_up_nothing,
    what_a_subscription_needs_stays,
    what_is_parked_stays,
    what_a_policy_keeps_stays,
    a_tenant_removes_its_own,
    what_the_archive_refuses_stays,
    what_the_archive_refuses_holds_up_nothing,
    what_is_always_refused_keeps_no_neighbours,
    an_archive_that_is_down_is_not_asked_for_ever,
    what_cannot_be_read_holds_up_nothing,
    who_removed_events_is_recorded,
    a_run_is_one_record_that_is_right_at_any_moment,
    an_inline_read_model_is_not_built_over_a_gap,
    under_writers_and_replicas_nothing_is_missed,
);

const HOUR: Duration = Duration::from_secs(3600);

fn hour() -> Retention {
    Retention::older_than(HOUR)
}

/// Keeps what it is given.
#[derive(Clone, Default)]
struct Archive {
    events: Arc<Mutex<Vec<Envelope<RawPayload>>>>,
    refuses: Arc<AtomicBool>,
}

impl EventBus for Archive {
    async fn publish(&self, page: &[Envelope<RawPayload>]) -> Result<()> {
        if self.refuses.load(Ordering::SeqCst) {
            return Err(Error::other("the archive is full"));
        }
        self.events.lock().unwrap().extend_from_slice(page);
        Ok(())
    }
}

/// Commits a parcel with so many events.
async fn parcel<K: Kind>(store: &SqlStore<K>, tenant: &str, events: i64) -> ParcelId {
    let mut parcel = Parcel::register("a");
    (1..events).for_each(|grams| parcel.weigh(grams));
    let id = domain::id(&parcel);
    store
        .execute(&stores::tenant(tenant), async |uow| {
            uow.save(parcel.clone())
        })
        .await
        .unwrap();
    id
}

async fn versions<K: Kind>(store: &SqlStore<K>) -> Vec<u64> {
    let system = RequestContext::system();
    let log = store.events(&system, Position::START, u32::MAX);
    log.await
        .unwrap()
        .iter()
        .map(Envelope::aggregate_version)
        .collect()
}

async fn remove<K: Kind>(store: &SqlStore<K>, retention: &Retention) -> (u64, u64) {
    let system = RequestContext::system();
    let removed = store.remove_events(&system, retention);
    let removed = removed.await.unwrap();
    (removed.events, removed.batches)
}

async fn old_events_leave_in_batches<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(parcel(&store, "north", 5).await);
    }
    let projector = store.projector().rows(ParcelViews);
    projector.run_until_idle().await.unwrap();
    fresh.age().await;
    assert_eq!(remove(&store, &hour().batch_size(7)).await, (16, 3));
    assert_eq!(versions(&store).await, [1, 1, 1, 1]);
    assert_eq!(remove(&store, &hour().batch_size(7)).await, (0, 0));

    // The aggregates go on where they were.
    for id in ids {
        let receipt = store
            .execute(&stores::tenant("north"), async |uow| {
                let mut parcel = uow.get::<Parcel>(id).await?;
                parcel.weigh(1);
                uow.save(parcel)
            })
            .await
            .unwrap();
        assert_eq!(receipt.events().len(), 1);
    }
    assert_eq!(versions(&store).await, [1, 1, 1, 1, 6, 6, 6, 6]);
    assert_eq!(projector.run_until_idle().await.unwrap(), 4);
    let forget = hour().forget_first_events();
    assert_eq!(remove(&store, &forget).await, (4, 1));
    assert_eq!(versions(&store).await, [6, 6, 6, 6]);
}

async fn young_events_stay<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    parcel(&store, "north", 3).await;
    fresh.age().await;
    parcel(&store, "north", 3).await;
    assert_eq!(remove(&store, &hour().batch_size(2)).await, (2, 2));
    assert_eq!(versions(&store).await, [1, 1, 2, 3]);
    let impatient = Retention::older_than(Duration::from_secs(3599));
    let system = RequestContext::system();
    let refused = store.remove_events(&system, &impatient);
    let refused = refused.await.unwrap_err();
    assert_eq!(*kind(refused.cause()), cqrs_core::StoreErrorKind::Usage);
    let unlimited = Retention::older_than(Duration::MAX);
    assert_eq!(remove(&store, &unlimited).await, (0, 0));
}

/// Events that were recorded with a time in the future stay, and hold up no other, however many they
/// are.
async fn a_clock_that_was_wrong_holds_up_nothing<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    for _ in 0..3 {
        parcel(&store, "north", 4).await;
    }
    fresh.age().await;
    fresh
        .run(K::either(
            "UPDATE cqrs_event SET recorded_at = now() + interval '9 years' \
             WHERE position BETWEEN 3 AND 8",
            "UPDATE cqrs_event SET recorded_at = '2099-01-01T00:00:00.000000Z' \
             WHERE position BETWEEN 3 AND 8",
        ))
        .await;
    parcel(&store, "north", 4).await;
    assert_eq!(remove(&store, &hour().batch_size(2)).await.0, 4);
    let left = [1, 3, 4, 1, 2, 3, 4, 1, 1, 2, 3, 4];
    assert_eq!(versions(&store).await, left);
}

async fn what_a_subscription_needs_stays<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    let projector = store.projector().rows(ParcelViews);
    parcel(&store, "north", 3).await;
    projector.run_until_idle().await.unwrap();
    parcel(&store, "north", 3).await;
    fresh.age().await;
    assert_eq!(remove(&store, &hour()).await, (2, 1));
    assert_eq!(versions(&store).await, [1, 1, 2, 3]);
    assert_eq!(projector.run_until_idle().await.unwrap(), 3);
    assert_eq!(remove(&store, &hour()).await, (2, 1));
}

/// Fails on each event that is not the first of its aggregate.
struct Picky;

impl<T: ProjectionTransaction> Projection<T> for Picky {
    type Event = RawPayload;

    fn name(&self) -> &str {
        "picky"
    }

    async fn apply(&self, page: &[Envelope<RawPayload>], _: &mut T) -> Result<()> {
        match page.iter().any(|event| event.aggregate_version() > 1) {
            true => Err(Error::other("picky")),
            false => Ok(()),
        }
    }
}

async fn what_is_parked_stays<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    parcel(&store, "north", 3).await;
    let parking = FailurePolicy::Park(Parking::at_most(10));
    let picky = Subscription::new(Picky).on_failure(parking);
    let projector = store.projector().subscribe(picky).retry_delays([]);
    projector.run_until_idle().await.unwrap();
    fresh.age().await;
    assert_eq!(remove(&store, &hour()).await, (0, 0));
    let system = RequestContext::system();
    let operations = store.operations(&system).unwrap();
    for position in [2, 3] {
        operations
            .discard_event("picky", Position(position))
            .await
            .unwrap();
    }
    assert_eq!(remove(&store, &hour()).await, (2, 1));

    let problems = store
        .health(&HealthLimits::default())
        .await
        .unwrap()
        .problems;
    assert_eq!(problems, []);
}

async fn what_a_policy_keeps_stays<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    parcel(&store, "north", 3).await;
    fresh.age().await;
    let keeping = hour().keep("truck").keep("parcel");
    assert_eq!(remove(&store, &keeping).await, (0, 0));
    assert_eq!(remove(&store, &hour().keep("truck")).await, (2, 1));
}

async fn a_tenant_removes_its_own<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    for tenant in ["north", "south"] {
        parcel(&store, tenant, 3).await;
    }
    fresh.age().await;
    let (south, retention) = (stores::tenant("south"), hour());
    let removed = store.remove_events(&south, &retention);
    assert_eq!(removed.await.unwrap().events, 2);
    assert_eq!(versions(&store).await, [1, 2, 3, 1]);
}

async fn what_the_archive_refuses_stays<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    parcel(&store, "north", 6).await;
    fresh.age().await;
    let (system, archive) = (RequestContext::system(), Archive::default());
    archive.refuses.store(true, Ordering::SeqCst);
    let refused = store.archive_events(&system, &hour(), &archive).await;
    assert_eq!(
        refused.unwrap_err().cause().to_string(),
        "the archive is full"
    );
    assert_eq!(versions(&store).await, [1, 2, 3, 4, 5, 6]);
    archive.refuses.store(false, Ordering::SeqCst);
    let retention = hour().batch_size(2);
    let removed = store.archive_events(&system, &retention, &archive);
    assert_eq!(removed.await.unwrap().events, 5);
    let archived: Vec<u64> = archive
        .events
        .lock()
        .unwrap()
        .iter()
        .map(Envelope::aggregate_version)
        .collect();
    assert_eq!(archived, [2, 3, 4, 5, 6]);
}

/// Refuses pages with this version of an aggregate.
struct Choosy(u64, Archive);

impl EventBus for Choosy {
    async fn publish(&self, page: &[Envelope<RawPayload>]) -> Result<()> {
        match page.iter().any(|one| one.aggregate_version() == self.0) {
            true => Err(Error::other(format!("refused from {}", page[0].position()))),
            false => self.1.publish(page).await,
        }
    }
}

/// One event that is refused in every run stays; those behind it go, also those of its batch.
async fn what_the_archive_refuses_holds_up_nothing<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    for _ in 0..2 {
        parcel(&store, "north", 8).await;
    }
    fresh.age().await;
    let (system, choosy) = (RequestContext::system(), Choosy(3, Archive::default()));
    let retention = hour().batch_size(2);
    let refused = store.archive_events(&system, &retention, &choosy).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.cause().to_string(), "refused from 3", "the first");
    assert_eq!(
        (refused.removed().events, refused.removed().batches),
        (12, 8)
    );
    assert_eq!(
        refused.to_string(),
        "12 events were removed, others could not be: refused from 3"
    );
    assert_eq!(versions(&store).await, [1, 3, 1, 3]);
    let records = store.operations(&system).unwrap().records(10).await;
    let records: Vec<_> = records.unwrap().into_iter().map(|one| one.detail).collect();
    assert_eq!(records, ["events: 12, up to position: 16"]);

    // They come again, and go when they are taken.
    let archive = Archive::default();
    let removed = store.archive_events(&system, &retention, &archive).await;
    assert_eq!(removed.unwrap().events, 2);
    assert_eq!(versions(&store).await, [1, 1]);
}

/// Counts what it is asked.
#[derive(Default)]
struct Down(AtomicU64);

impl EventBus for Down {
    async fn publish(&self, _: &[Envelope<RawPayload>]) -> Result<()> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Err(Error::other("nobody is there"))
    }
}

async fn an_archive_that_is_down_is_not_asked_for_ever<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    parcel(&store, "north", 150).await;
    fresh.age().await;
    let (system, down) = (RequestContext::system(), Down::default());
    // A batch of one is not asked for twice, and the first one has an event that stays.
    let by_five = (1 + 4) + 19 * (1 + 5) + (1 + 1);
    for (size, asked) in [(1, 100), (5, by_five), (1_000, 1 + 100)] {
        let before = down.0.load(Ordering::SeqCst);
        let retention = hour().batch_size(size);
        let refused = store.archive_events(&system, &retention, &down).await;
        assert_eq!(refused.unwrap_err().removed(), Removed::default());
        let now = down.0.load(Ordering::SeqCst);
        assert_eq!(now - before, asked, "by {size}");
        assert_eq!(versions(&store).await.len(), 150);
    }
}

/// Refuses early versions of an aggregate.
struct FromVersion(u64);

impl EventBus for FromVersion {
    async fn publish(&self, page: &[Envelope<RawPayload>]) -> Result<()> {
        match page.iter().any(|one| one.aggregate_version() < self.0) {
            true => Err(Error::other("too early")),
            false => Ok(()),
        }
    }
}

/// Those that are refused each time are at the head of the log in the end; what is behind them goes, also
/// of their batch.
async fn what_is_always_refused_keeps_no_neighbours<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    parcel(&store, "north", 120).await;
    fresh.age().await;
    let (system, retention) = (RequestContext::system(), hour().batch_size(1_000));
    let refused = store
        .archive_events(&system, &retention, &FromVersion(60))
        .await;
    assert_eq!(refused.unwrap_err().removed().events, 61);
    assert_eq!(versions(&store).await, (1..60).collect::<Vec<_>>());
    parcel(&store, "north", 80).await;
    fresh.age().await;
    let refused = store
        .archive_events(&system, &retention, &FromVersion(60))
        .await;
    // 58 of the first and 58 of the second are more than a hundred.
    assert_eq!(refused.unwrap_err().removed().events, 0);
    let removed = store
        .archive_events(&system, &retention, &FromVersion(0))
        .await;
    assert_eq!(removed.unwrap().events, 58 + 79);
}

async fn what_cannot_be_read_holds_up_nothing<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    parcel(&store, "north", 6).await;
    fresh.age().await;
    let spoilt = K::either("'\\x00'::bytea", "x'00'");
    fresh
        .run(format!(
            "UPDATE cqrs_event SET content_hash = {spoilt} WHERE position = 3"
        ))
        .await;
    let (system, archive) = (RequestContext::system(), Archive::default());
    let retention = hour().batch_size(2);
    let removed = store.archive_events(&system, &retention, &archive);
    assert_eq!(removed.await.unwrap().events, 4);
    let archived: Vec<_> = archive.events.lock().unwrap().drain(..).collect();
    let archived: Vec<_> = archived.iter().map(|event| event.position().0).collect();
    assert_eq!(archived, [2, 4, 5, 6]);
    assert_eq!(fresh.number("SELECT count(*) FROM cqrs_event").await, 2);
    assert_eq!(remove(&store, &hour()).await, (1, 1), "it is not read");
    assert_eq!(versions(&store).await, [1]);
}

#[tokio::test]
async fn without_an_archive_no_event_is_read() {
    let (fresh, store) = Fresh::<Postgres>::with_store().await;
    parcel(&store, "north", 6).await;
    fresh.age().await;
    let proxy = WireProxy::start(&fresh.url).await;
    let store = stores::postgres(proxy.url()).await;
    let before = proxy.counts();
    assert_eq!(remove(&store, &hour()).await.0, 5);
    let sent = proxy.statements_since(&before);
    assert!(!sent.iter().any(|sql| sql.contains("payload")), "{sent:#?}");
}

async fn who_removed_events_is_recorded<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    parcel(&store, "north", 6).await;
    parcel(&store, "south", 3).await;
    fresh.age().await;
    let kim = RequestContext::system().with_actor("kim");
    let lee = stores::tenant("south").with_actor("lee");
    let archive = Archive::default();
    let removed = store.archive_events(&lee, &hour(), &archive).await;
    assert_eq!(removed.unwrap().events, 2);
    let retention = hour().batch_size(3);
    for expected in [5, 0] {
        let removed = store.remove_events(&kim, &retention).await.unwrap();
        assert_eq!(removed.events, expected);
    }
    let operations = store.operations(&kim).unwrap();
    let records = operations.records(10).await.unwrap();
    let records: Vec<_> = records
        .iter()
        .map(|one| {
            let actor = one.actor.as_deref().unwrap_or_default();
            let fields = [&one.operation, &one.subscription, &one.detail];
            let [operation, subscription, detail] = fields.map(String::as_str);
            (actor, operation, subscription, detail, one.correlation_id)
        })
        .collect();
    let (kims, lees) = (kim.metadata().correlation_id, lee.metadata().correlation_id);
    // Of the second batch that removes something.
    let of_all = "events: 5, up to position: 6";
    let of_south = "events: 2, up to position: 9, of tenant: south";
    assert_eq!(
        records,
        [
            ("kim", "remove_events", "", of_all, kims),
            ("lee", "archive_events", "", of_south, lees),
        ]
    );

    let left = versions(&store).await;
    parcel(&store, "north", 2).await;
    fresh.age().await;
    fresh.run("DROP TABLE cqrs_operation").await;
    store.remove_events(&kim, &retention).await.unwrap_err();
    let unchanged = [left.as_slice(), &[1, 2]].concat();
    assert_eq!(versions(&store).await, unchanged, "not without a record");
}

/// An archive that sees the records of operations each time it is given a page.
struct Auditor<K: Kind> {
    fresh: Fresh<K>,
    store: SqlStore<K>,
    seen: Mutex<Vec<Vec<String>>>,
}

impl<K: Kind> Auditor<K> {
    async fn records(&self) -> Vec<String> {
        let operations = self.store.operations(&RequestContext::system()).unwrap();
        let records = operations.records(10).await.unwrap();
        records.into_iter().map(|record| record.detail).collect()
    }
}

impl<K: Kind> EventBus for Auditor<K> {
    async fn publish(&self, _: &[Envelope<RawPayload>]) -> Result<()> {
        let records = self.records().await;
        self.seen.lock().unwrap().push(records);
        let pages = self.seen.lock().unwrap().len();
        match pages {
            3 => self.fresh.run("DELETE FROM cqrs_operation").await,
            5.. => return Err(Error::other("the archive is full")),
            _ => {}
        }
        Ok(())
    }
}

async fn a_run_is_one_record_that_is_right_at_any_moment<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    parcel(&store, "north", 10).await;
    fresh.age().await;
    let auditor = Auditor {
        fresh,
        store: store.clone(),
        seen: Mutex::default(),
    };
    let (system, retention) = (RequestContext::system(), hour().batch_size(2));
    let refused = store.archive_events(&system, &retention, &auditor).await;
    assert_eq!(
        refused.unwrap_err().cause().to_string(),
        "the archive is full"
    );
    assert_eq!(
        *auditor.seen.lock().unwrap(),
        [
            vec![],
            vec!["events: 1, up to position: 2"],
            vec!["events: 3, up to position: 4"],
            // Old records may be deleted at any time.
            vec!["events: 5, up to position: 6"],
            // A batch, and its two events.
            vec!["events: 7, up to position: 8"],
            vec!["events: 7, up to position: 8"],
            vec!["events: 7, up to position: 8"],
        ]
    );
    assert_eq!(auditor.records().await, ["events: 7, up to position: 8"]);
}

async fn an_inline_read_model_is_not_built_over_a_gap<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    store.inline_rows(ParcelViews).unwrap();
    parcel(&store, "north", 3).await;
    fresh.age().await;
    assert_eq!(remove(&store, &hour()).await.0, 2);
    let before = fresh.dump("parcel_view").await;
    let refused = store.rebuild_inline(ParcelViews).await.unwrap_err();
    assert_eq!(*kind(&refused), cqrs_core::StoreErrorKind::Usage);
    let message = refused.to_string();
    assert!(
        message.contains("up to position 3 have left the log"),
        "{message}"
    );
    assert_eq!(fresh.dump("parcel_view").await, before);

    let operations = store.operations(&RequestContext::system()).unwrap();
    let refused = operations.rebuild_inline(ParcelViews).await;
    refused.unwrap_err();
    let careless = operations.despite_gaps();
    assert_eq!(careless.rebuild_inline(ParcelViews).await.unwrap(), 1);
    assert_ne!(fresh.dump("parcel_view").await, before);
    let record = &careless.records(1).await.unwrap()[0];
    assert_eq!(
        (&*record.operation, &*record.subscription),
        ("rebuild_inline", "parcel_view")
    );
}

/// What was archived and what is left are together what receipts named, and the read model is the
/// fold of it.
async fn under_writers_and_replicas_nothing_is_missed<K: Kind>() {
    let seed = seed();
    let (fresh, store) = Fresh::<K>::with_store().await;
    let other = fresh.open(StoreOptions::default()).await;
    let mut running = Vec::new();
    for store in [&store, &other] {
        let projector = store.projector().rows(ParcelViews).page_size(50);
        running.push(projector.start().await.unwrap());
    }
    let workload = Workload::new(K::either(1_500, 400), K::either(10, 0));
    let mut writers = JoinSet::new();
    for number in 0..6 {
        let store = if number % 2 == 0 { &store } else { &other };
        writers.spawn(workload.clone().write(store.clone(), seed + number));
    }
    let (system, archive) = (RequestContext::system(), Archive::default());
    let writing = tokio::spawn(async move {
        while let Some(writer) = writers.join_next().await {
            writer.unwrap().unwrap();
        }
    });
    let mut last = false;
    while !last {
        last = writing.is_finished();
        fresh.age().await;
        let retention = hour().batch_size(20);
        let removed = store.archive_events(&system, &retention, &archive);
        removed.await.unwrap();
    }
    writing.await.unwrap();
    store
        .projector()
        .rows(ParcelViews)
        .run_until_idle()
        .await
        .unwrap();
    for handle in running {
        handle.stop(HOUR).await;
    }
    let archived = std::mem::take(&mut *archive.events.lock().unwrap());
    assert!(!archived.is_empty());
    workload.check_with(&store, archived).await;
}
