//! Inline projections: rows and events are one transaction, and no commit is lost on another.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use cqrs_core::{
    Entity, Envelope, Error, Position, Projection, Query, ReadModel, ReadModels, RequestContext,
    Result, RowProjection, Store, StoreErrorKind, UnitOfWork,
};
use cqrs_integration::database::TestDatabase;
use cqrs_integration::domain::{Parcel, ParcelEvent, ParcelView, ParcelViews};
use cqrs_integration::random::seed;
use cqrs_integration::stores;
use cqrs_integration::wire::WireProxy;
use cqrs_integration::workload::Workload;
use cqrs_sqlx::{Backend, SqlStore, SqlTransaction, StoreOptions};
use tokio::task::JoinSet;

use cqrs_integration::each::{Fresh, Kind, on_each};

on_each!(
    writers_fold_into_few_rows,
    a_commit_of_very_many_rows,
    sql_of_ones_own_is_committed_with_the_events,
    sql_that_fails_or_ends_the_transaction_commits_nothing,
    a_name_is_free_when_its_projector_has_stopped,
);

/// What happened within a tenant, in one of few rows.
#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(table = "parcel_total", tenant)]
struct Total {
    #[read_model(key)]
    part: i64,
    events: i64,
    grams: i64,
}

struct Totals;

impl RowProjection for Totals {
    type Event = ParcelEvent;
    type Row = Total;
    const NAME: &'static str = "parcel_total";

    fn key(&self, event: &Envelope<ParcelEvent>) -> Result<Option<i64>> {
        Ok(Some(i64::from(event.event_id().as_bytes()[15] % 3)))
    }

    fn apply(&self, row: &mut Option<Total>, event: &Envelope<ParcelEvent>) -> Result<()> {
        let part = self.key(event)?.unwrap_or_default();
        let total = row.get_or_insert(Total {
            part,
            events: 0,
            grams: 0,
        });
        total.events += 1;
        if let ParcelEvent::Weighed { grams } = event.payload() {
            total.grams += grams;
        }
        Ok(())
    }
}

async fn check_totals<B: Backend>(store: &SqlStore<B>) {
    let system = RequestContext::system();
    let log = store
        .events(&system, Position::START, u32::MAX)
        .await
        .unwrap();
    let mut expected: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    for event in &log {
        let tenant = event.tenant().unwrap();
        let (events, grams) = expected.entry(tenant.to_string()).or_default();
        *events += 1;
        let payload: serde_json::Value = serde_json::from_str(event.payload().as_str()).unwrap();
        *grams += payload["grams"].as_i64().unwrap_or(0);
    }
    for (tenant, sums) in expected {
        let read_models = store.read_models(&stores::tenant(&tenant));
        let totals: Vec<Total> = read_models.query(Query::all()).await.unwrap();
        let found = totals.iter().fold((0, 0), |(events, grams), total| {
            (events + total.events, grams + total.grams)
        });
        assert_eq!(found, sums, "{tenant}");
    }
}

/// Writers that abort, hold their transactions and meet on the same parcels and on the same rows:
/// every event is counted once, in the row of its parcel in order, and nobody deadlocks.
async fn writers_fold_into_few_rows<K: Kind>() {
    let (commits, longest_hold, writers) = K::either((1_500, 8, 12), (500, 0, 6));
    let (fresh, first) = Fresh::<K>::with_store().await;
    first.create_tables(&[Total::table()]).await.unwrap();
    let second = fresh.open(StoreOptions::default()).await;
    // In another order: what is locked first must not depend on it.
    first.inline_rows(Totals).unwrap();
    first.inline_rows(ParcelViews).unwrap();
    second.inline_rows(ParcelViews).unwrap();
    second.inline_rows(Totals).unwrap();

    let workload = Workload::new(commits, longest_hold);
    let seed = seed();
    let mut running = JoinSet::new();
    for (number, store) in (0..writers).zip([&first, &second].into_iter().cycle()) {
        let write = Arc::clone(&workload).write(store.clone(), seed.wrapping_add(number));
        running.spawn(write);
    }
    while let Some(writer) = running.join_next().await {
        writer.unwrap().unwrap();
    }
    workload.check(&first).await;
    check_totals(&first).await;
    first.close();
    second.close();
    drop((first, second));
    // Servers count when a connection ends.
    K::deserted(&fresh.url).await;
    K::assert_no_deadlock(&fresh.url).await;
}

/// More rows than a server has room for locks, in one commit.
async fn a_commit_of_very_many_rows<K: Kind>() {
    let rows = K::either(12_000, 1_000);
    let (_fresh, store) = Fresh::<K>::with_store().await;
    store.inline_rows(ParcelViews).unwrap();
    let receipt = store
        .execute(&stores::tenant("north"), async |uow| {
            (0..rows).try_for_each(|_| uow.save(Parcel::register("a")))
        })
        .await
        .unwrap();
    assert_eq!(receipt.events().len(), rows);
    Workload::check_views(&store).await;
}

/// Counts labels in a table of its own.
struct LabelCounts<K> {
    table: &'static str,
    kind: PhantomData<fn() -> K>,
}

impl<K> LabelCounts<K> {
    fn into(table: &'static str) -> Self {
        Self {
            table,
            kind: PhantomData,
        }
    }
}

impl<K: Kind> Projection<SqlTransaction<K>> for LabelCounts<K> {
    type Event = ParcelEvent;

    fn name(&self) -> &str {
        "label_count"
    }

    async fn apply(
        &self,
        page: &[Envelope<ParcelEvent>],
        transaction: &mut SqlTransaction<K>,
    ) -> Result<()> {
        for event in page {
            let ParcelEvent::Registered { label } = event.payload() else {
                continue;
            };
            let sql = match label.as_str() {
                "end" => "ROLLBACK".to_owned(),
                "replace" => "ROLLBACK; BEGIN".to_owned(),
                _ => format!(
                    "INSERT INTO {} (label, n) VALUES ('{label}', 1) \
                     ON CONFLICT (label) DO UPDATE SET n = label_count.n + 1",
                    self.table
                ),
            };
            let ran = K::run_on(transaction.connection(), sql).await;
            ran.map_err(Error::other)?;
        }
        Ok(())
    }
}

async fn sql_of_ones_own_is_committed_with_the_events<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    fresh
        .run("CREATE TABLE label_count (label TEXT PRIMARY KEY, n BIGINT NOT NULL)")
        .await;
    store.inline(LabelCounts::<K>::into("label_count")).unwrap();
    let context = stores::tenant("north");
    let mut running = JoinSet::new();
    for writer in 0..4 {
        let (store, context) = (store.clone(), context.clone());
        running.spawn(async move {
            for round in 0..10 {
                let label = if (writer + round) % 2 == 0 {
                    "even"
                } else {
                    "odd"
                };
                let saved = store.execute(&context, async |uow| uow.save(Parcel::register(label)));
                saved.await.unwrap();
            }
        });
    }
    while let Some(writer) = running.join_next().await {
        writer.unwrap();
    }
    for label in ["even", "odd"] {
        let n = fresh.number(format!("SELECT n FROM label_count WHERE label = '{label}'"));
        assert_eq!(n.await, 20);
    }
}

async fn sql_that_fails_or_ends_the_transaction_commits_nothing<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    fresh
        .run("CREATE TABLE label_count (label TEXT PRIMARY KEY, n BIGINT NOT NULL)")
        .await;
    let context = stores::tenant("north");
    let before = fresh.state().await;
    store.inline(LabelCounts::<K>::into("label_count")).unwrap();
    for label in ["end", "replace"] {
        let ended = store.execute(&context, async |uow| uow.save(Parcel::register(label)));
        let error = ended.await.unwrap_err();
        let Error::Store(cause) = &error else {
            panic!("expected a usage error, got {error:?}");
        };
        assert_eq!(cause.kind(), &StoreErrorKind::Usage, "{error:?}");
        assert_eq!(fresh.state().await, before, "{label}");
    }

    let second = fresh.open(StoreOptions::default()).await;
    second
        .inline(LabelCounts::<K>::into("no_such_table"))
        .unwrap();
    let failed = second.execute(&context, async |uow| uow.save(Parcel::register("a")));
    let error = failed.await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the inline projection \"label_count\" failed"
    );
    assert_eq!(fresh.state().await, before);
    // The connections are as good as new.
    fresh
        .run("CREATE TABLE no_such_table (label TEXT PRIMARY KEY, n BIGINT NOT NULL)")
        .await;
    let saved = store.execute(&context, async |uow| uow.save(Parcel::register("a")));
    assert_eq!(saved.await.unwrap().events().len(), 1);
}

async fn a_name_is_free_when_its_projector_has_stopped<K: Kind>() {
    let (_fresh, store) = Fresh::<K>::with_store().await;
    let usage = |result: Result<()>| {
        let error = result.unwrap_err();
        assert!(
            error
                .to_string()
                .contains("registered inline and with a projector"),
            "{error}"
        );
    };
    let projector = store.projector().rows(ParcelViews).start().await.unwrap();
    usage(store.inline_rows(ParcelViews));
    projector.stop(Duration::from_secs(30)).await;
    store
        .projector()
        .rows(ParcelViews)
        .run_until_idle()
        .await
        .unwrap();

    store.inline_rows(ParcelViews).unwrap();
    usage(store.projector().rows(ParcelViews).start().await.map(drop));
    usage(
        store
            .projector()
            .rows(ParcelViews)
            .run_until_idle()
            .await
            .map(drop),
    );
    let context = stores::tenant("north");
    let saved = store.execute(&context, async |uow| uow.save(Parcel::register("a")));
    let receipt = saved.await.unwrap();
    store.wait_for(&receipt, ParcelViews::NAME).await.unwrap();
    let views: Vec<ParcelView> = store
        .read_models(&RequestContext::system())
        .query(Query::all())
        .await
        .unwrap();
    assert_eq!(views.len(), 1);
}

/// What an inline projection costs, and that only those pay whose events it reads.
#[tokio::test]
async fn an_inline_projection_costs_five_statements() {
    let database = TestDatabase::create().await;
    stores::postgres(database.url()).await.close();
    let proxy = WireProxy::start(database.url()).await;
    let store = stores::postgres_with(proxy.url(), StoreOptions::default()).await;
    store
        .create_tables(&[Total::table(), Note::table()])
        .await
        .unwrap();
    let context = stores::tenant("north");
    let expected = [
        // Begin, write with events, lock, load, write back, commit.
        6, 9,
    ];
    for (projections, expected) in (1..).zip(expected) {
        match projections {
            1 => store.inline_rows(ParcelViews).unwrap(),
            _ => store.inline_rows(Totals).unwrap(),
        }
        for _ in 0..2 {
            let before = proxy.counts();
            let saved = store.execute(&context, async |uow| uow.save(Parcel::register("a")));
            saved.await.unwrap();
            let sent = proxy.statements_since(&before);
            assert_eq!(
                proxy.counts().since(&before).statements,
                expected,
                "{sent:#?}"
            );
        }
    }
    let before = proxy.counts();
    let saved = store.execute(&context, async |uow| uow.save(Note::new()));
    saved.await.unwrap();
    let sent = proxy.statements_since(&before);
    assert_eq!(proxy.counts().since(&before).statements, 1, "{sent:#?}");
}

#[derive(Debug, Clone, serde::Serialize, serde::Deserialize, cqrs_core::DomainEvent)]
#[event(aggregate = "note")]
enum NoteEvent {
    Written,
}

/// An aggregate that no projection reads.
#[derive(Debug, Clone, cqrs_core::Aggregate)]
#[aggregate(table = "note", event = NoteEvent, tenant)]
struct Note {
    #[aggregate(id)]
    id: cqrs_core::Id<Note>,
    #[aggregate(root)]
    root: cqrs_core::Root<NoteEvent>,
}

impl Note {
    fn new() -> Self {
        let mut root = cqrs_core::Root::new();
        root.raise(NoteEvent::Written);
        Self {
            id: cqrs_core::Id::new(),
            root,
        }
    }
}
