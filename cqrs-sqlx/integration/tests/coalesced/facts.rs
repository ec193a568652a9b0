//! What goes out together, and what does not wait for whom.

use std::collections::BTreeSet;

use cqrs_core::schema::SchemaIds;
use cqrs_core::{
    AggregateRoot, DomainEvent, Error, IdempotencyKey, Position, RequestContext, Store,
    StoreErrorKind, TraceContext, UnitOfWork,
};
use cqrs_integration::database::{SecuredDatabase, TestDatabase};
use cqrs_integration::domain::{self, Parcel, ParcelEvent, ParcelId, ParcelViews};
use cqrs_integration::stores;
use cqrs_integration::wire::WireProxy;
use cqrs_sqlx::{PgStore, PgUnitOfWork, StoreOptions};
use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinSet;

use super::{FLUSH, coalescing, commit_all, north, registered, registering, weighed};
use cqrs_integration::each::kind;

/// A database with all tables, a proxy before it, and a store behind the proxy.
pub(super) async fn counted() -> (TestDatabase, WireProxy, PgStore) {
    let database = TestDatabase::create().await;
    stores::postgres(database.url()).await.close();
    let proxy = WireProxy::start(database.url()).await;
    let store = coalescing(proxy.url()).await;
    (database, proxy, store)
}

/// A database with all tables, and a store on it.
async fn opened() -> (TestDatabase, PgStore) {
    let database = TestDatabase::create().await;
    stores::postgres(database.url()).await.close();
    let store = coalescing(database.url()).await;
    (database, store)
}

/// Whether a statement carries commits of several callers.
fn is_flush(sql: &str) -> bool {
    sql.contains(FLUSH)
}

/// On one thread the flush begins when all have begun to wait.
#[tokio::test]
async fn commits_of_one_moment_are_two_statements() {
    let (_database, proxy, store) = counted().await;
    for warm in [false, true] {
        let ids = registered(&store, 20).await;
        let mut changes = Vec::new();
        for id in ids {
            changes.push(weighed(&store, id).await);
        }
        let creations = (0..20).map(|_| registering(&store, "new")).collect();
        for work in [changes, creations] {
            let before = proxy.counts();
            let outcomes = commit_all(work).await;
            let sent = proxy.statements_since(&before);
            if warm {
                // The first goes out at once, and the others while it is under way.
                let flushes: Vec<bool> = sent.iter().map(|sql| is_flush(sql)).collect();
                assert_eq!(flushes, [false, true], "{sent:#?}");
            }
            let receipts: Vec<_> = outcomes.into_iter().map(Result::unwrap).collect();
            let events: BTreeSet<_> = receipts
                .iter()
                .flat_map(cqrs_core::CommitReceipt::events)
                .collect();
            assert_eq!(events.len(), 20);
            for receipt in &receipts {
                assert_eq!(receipt.events().len(), 1);
                let before = Position(receipt.position().unwrap().0 - 1);
                let log = store.events(&north(), before, 1).await.unwrap();
                assert_eq!(log[0].event_id(), receipt.events()[0]);
            }
        }
    }
}

/// Each event has the id of its own type, or none.
#[tokio::test]
async fn events_that_go_together_have_the_ids_of_their_schemas() {
    let database = TestDatabase::create().await;
    stores::postgres(database.url()).await.close();
    let mut ids = SchemaIds::default();
    ids.add(Parcel::TYPE, ParcelEvent::EVENT_TYPES[0], "7")
        .unwrap();
    let proxy = WireProxy::start(database.url()).await;
    let options = StoreOptions::default().coalesce(128).schema_ids(ids);
    let store = stores::postgres_with(proxy.url(), options).await;
    for warm in [false, true] {
        let before = proxy.counts();
        let creations = (0..20).map(|_| registering(&store, "new")).collect();
        for outcome in commit_all(creations).await {
            let _ = outcome.unwrap();
        }
        let sent = proxy.statements_since(&before);
        assert!(!warm || sent.iter().any(|sql| is_flush(sql)), "{sent:#?}");
    }
    let mut changes = Vec::new();
    for id in registered(&store, 20).await {
        changes.push(weighed(&store, id).await);
    }
    for outcome in commit_all(changes).await {
        let _ = outcome.unwrap();
    }
    let log = store
        .events(&north(), Position::START, u32::MAX)
        .await
        .unwrap();
    let of = |name: &str, id: Option<&str>| {
        let mut all = log.iter().filter(|event| event.event_type() == name);
        assert!(all.clone().all(|event| event.schema_id() == id), "{name}");
        all.by_ref().count()
    };
    assert_eq!(of("parcel.registered", Some("7")), 60);
    assert_eq!(of("parcel.weighed", None), 20);
}

#[tokio::test]
async fn a_commit_alone_is_what_it_is_without() {
    let (_database, proxy, store) = counted().await;
    for _ in 0..3 {
        let before = proxy.counts();
        let receipt = registering(&store, "new").commit().await.unwrap();
        let sent = proxy.statements_since(&before);
        assert_eq!(sent.len(), 1, "{sent:#?}");
        assert!(!is_flush(&sent[0]), "{sent:#?}");
        assert_eq!(receipt.events().len(), 1);
    }
}

/// Commits all of them, and waits until all but one have ended.
async fn all_but(last: usize, work: Vec<PgUnitOfWork>) -> JoinSet<usize> {
    let others = work.len() - 1;
    let mut commits = JoinSet::new();
    for (number, uow) in work.into_iter().enumerate() {
        commits.spawn(async move {
            let receipt = uow.commit().await.unwrap();
            assert_eq!(receipt.events().len(), 1);
            number
        });
    }
    for _ in 0..others {
        let ended = commits.join_next().await.unwrap().unwrap();
        assert_ne!(ended, last, "it needs the lock");
    }
    commits
}

#[tokio::test]
async fn a_locked_row_delays_its_own_commit_alone() {
    let (database, store) = opened().await;
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    for locked in [0, 1, 7] {
        let ids = registered(&store, 10).await;
        let mut holder = connection.begin().await.unwrap();
        sqlx::query("SELECT 1 FROM parcel WHERE id = $1 FOR UPDATE")
            .bind(ids[locked].uuid())
            .execute(&mut *holder)
            .await
            .unwrap();
        let mut work = Vec::new();
        for id in ids {
            work.push(weighed(&store, id).await);
        }
        let mut left = all_but(locked, work).await;
        holder.rollback().await.unwrap();
        assert_eq!(left.join_next().await.unwrap().unwrap(), locked);
    }
}

/// Makes labels unique.
async fn unique_labels(database: &TestDatabase) {
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    sqlx::query("CREATE UNIQUE INDEX parcel_label ON parcel (label)")
        .execute(&mut connection)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_key_that_others_may_yet_take_delays_its_own_commit_alone() {
    let (database, store) = opened().await;
    unique_labels(&database).await;
    for last in [0, 1, 7] {
        let label = |number: usize| format!("{last} {number}");
        let mut holder = registering(&store, &label(last));
        holder.connection().await.unwrap();
        let work = (0..10).map(|number| registering(&store, &label(number)));
        let mut left = all_but(last, work.collect()).await;
        holder.rollback().await;
        assert_eq!(left.join_next().await.unwrap().unwrap(), last);
    }
}

#[tokio::test]
async fn a_violated_constraint_is_the_error_of_its_own_caller() {
    let (database, store) = opened().await;
    unique_labels(&database).await;
    let labels = ["a", "b", "c", "d", "c", "e", "f"];
    let work = labels.map(|label| registering(&store, label)).into();
    let outcomes = commit_all(work).await;
    let failed: Vec<_> = outcomes
        .iter()
        .filter_map(|one| one.as_ref().err())
        .collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    let name = Some("parcel_label".to_owned());
    assert_eq!(*kind(failed[0]), StoreErrorKind::Constraint { name });
    assert!(outcomes[2].is_err() != outcomes[4].is_err());
}

/// The others need not go out alone because of one.
#[tokio::test]
async fn a_violated_constraint_sends_few_back() {
    let (database, proxy, store) = counted().await;
    unique_labels(&database).await;
    let _ = registering(&store, "taken").commit().await.unwrap();
    for warm in [false, true] {
        let label = |number: usize| match number {
            50 => "taken".to_owned(),
            _ => format!("{warm} {number}"),
        };
        let work = (0..100).map(|number| registering(&store, &label(number)));
        let before = proxy.counts();
        let outcomes = commit_all(work.collect()).await;
        for (number, outcome) in outcomes.iter().enumerate() {
            assert_eq!(outcome.is_err(), number == 50);
        }
        let sent = proxy.statements_since(&before);
        let (flushes, alone): (Vec<_>, Vec<_>) = sent.iter().partition(|sql| is_flush(sql));
        // The first, and the few that were sent with the one.
        assert!(alone.len() <= 1 + 4 || !warm, "{} alone", alone.len());
        assert!(flushes.len() <= 11 || !warm, "{} flushes", flushes.len());
    }
}

#[tokio::test]
async fn of_two_with_the_same_version_one_wins() {
    let (_database, store) = opened().await;
    let ids = registered(&store, 5).await;
    let mut work = Vec::new();
    for id in [ids[0], ids[1], ids[2], ids[1], ids[3], ids[1], ids[4]] {
        work.push(weighed(&store, id).await);
    }
    let outcomes = commit_all(work).await;
    let mut won = 0;
    for (number, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Ok(_) if number % 2 == 1 => won += 1,
            Ok(_) => {}
            Err(Error::Conflict {
                expected,
                found,
                id,
                ..
            }) => {
                assert_eq!((expected, found, id), (1, 2, ids[1].to_string()));
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(won, 1);
}

#[tokio::test]
async fn each_event_says_where_it_comes_from() {
    let (_database, proxy, store) = counted().await;
    let contexts: Vec<RequestContext> = (0..12)
        .map(|number| {
            let context = stores::tenant(["north", "south"][number % 2]);
            let context = match number % 3 {
                0 => context,
                1 => context.with_causation_id(uuid::Uuid::now_v7()),
                _ => context.with_trace(TraceContext {
                    traceparent: format!("00-{number:032x}-{number:016x}-01"),
                    tracestate: (number > 4).then(|| format!("at={number}")),
                }),
            };
            context.with_actor(format!("actor {number}"))
        })
        .collect();
    let work = contexts.iter().map(|context| {
        let mut uow = store.unit_of_work(context);
        let mut parcel = Parcel::register("new");
        parcel.weigh(3);
        uow.save(parcel).unwrap();
        uow
    });
    let before = proxy.counts();
    let outcomes = commit_all(work.collect()).await;
    assert!(
        proxy
            .statements_since(&before)
            .iter()
            .any(|sql| is_flush(sql))
    );
    for (context, outcome) in contexts.iter().zip(outcomes) {
        let receipt = outcome.unwrap();
        let log = store.events(context, Position::START, 100).await.unwrap();
        let own = log
            .iter()
            .filter(|event| receipt.events().contains(&event.event_id()));
        let own: Vec<_> = own.collect();
        assert_eq!(own.len(), 2);
        for event in own {
            assert_eq!(event.metadata(), context.metadata());
            assert_eq!(event.tenant(), context.scope().tenant());
        }
    }
}

/// How work that needs more than a row and its events is made.
async fn needing_more(store: &PgStore, how: usize, id: ParcelId) -> PgUnitOfWork {
    let mut uow = weighed(store, id).await;
    match how {
        0 => uow.save(Parcel::register("another")).unwrap(),
        1 => {
            let key = IdempotencyKey::new(id.to_string()).unwrap();
            uow.record(&key, "null".to_owned()).unwrap();
        }
        2 => {
            uow.connection().await.unwrap();
        }
        _ => uow.begin_savepoint().await.unwrap(),
    }
    if how == 3 {
        uow.release_savepoint().await.unwrap();
    }
    uow
}

#[tokio::test]
async fn what_needs_more_is_committed_alone() {
    let (_database, proxy, store) = counted().await;
    for how in 0..4 {
        let mut work = Vec::new();
        for id in registered(&store, 5).await {
            work.push(needing_more(&store, how, id).await);
        }
        let before = proxy.counts();
        for outcome in commit_all(work).await {
            assert!(!outcome.unwrap().events().is_empty());
        }
        let sent = proxy.statements_since(&before);
        assert!(!sent.iter().any(|sql| is_flush(sql)), "{how}: {sent:#?}");
    }
}

#[tokio::test]
async fn large_rows_are_committed_alone() {
    let (_database, proxy, store) = counted().await;
    let label = "long".repeat(20_000);
    let before = proxy.counts();
    let work = (0..5).map(|_| registering(&store, &label)).collect();
    for outcome in commit_all(work).await {
        assert_eq!(outcome.unwrap().events().len(), 1);
    }
    let sent = proxy.statements_since(&before);
    assert!(!sent.iter().any(|sql| is_flush(sql)));
}

#[tokio::test]
async fn inline_projections_are_applied_with_their_own_commit() {
    let (_database, proxy, store) = counted().await;
    store.inline_rows(ParcelViews).unwrap();
    let before = proxy.counts();
    let work = (0..5).map(|_| registering(&store, "new")).collect();
    for outcome in commit_all(work).await {
        assert_eq!(outcome.unwrap().events().len(), 1);
    }
    let sent = proxy.statements_since(&before);
    assert!(!sent.iter().any(|sql| is_flush(sql)), "{sent:#?}");
    cqrs_integration::workload::Workload::check_views(&store).await;
}

#[tokio::test]
async fn policies_see_each_tenant_alone() {
    let database = SecuredDatabase::create(&domain::tables()).await;
    let proxy = WireProxy::start(database.url()).await;
    let options = StoreOptions::default().coalesce(128).row_level_security();
    let store = stores::postgres_with(proxy.url(), options).await;
    let work = (0..6).map(|number| {
        let mut uow = store.unit_of_work(&stores::tenant(["north", "south"][number % 2]));
        uow.save(Parcel::register("new")).unwrap();
        uow
    });
    let before = proxy.counts();
    for outcome in commit_all(work.collect()).await {
        assert_eq!(outcome.unwrap().events().len(), 1);
    }
    let sent = proxy.statements_since(&before);
    assert!(!sent.iter().any(|sql| is_flush(sql)), "{sent:#?}");
}

#[tokio::test]
async fn hooks_and_counts_are_each_callers_own() {
    let (_database, store) = opened().await;
    let (told, mut hears) = tokio::sync::mpsc::unbounded_channel();
    let before = store.changes().count("parcel");
    let work = (0..10).map(|_| {
        let mut uow = registering(&store, "new");
        let told = told.clone();
        uow.after_commit(move |receipt| told.send(receipt.events().to_vec()).unwrap());
        uow
    });
    let outcomes = commit_all(work.collect()).await;
    drop(told);
    let mut heard = Vec::new();
    while let Some(events) = hears.recv().await {
        heard.extend(events);
    }
    let receipts = outcomes
        .iter()
        .flat_map(|one| one.as_ref().unwrap().events());
    let receipts: BTreeSet<_> = receipts.copied().collect();
    assert_eq!(heard.len(), 10);
    assert_eq!(heard.into_iter().collect::<BTreeSet<_>>(), receipts);
    assert!(store.changes().count("parcel") >= before + 10);
}

#[tokio::test]
async fn a_closed_store_refuses_all() {
    let (_database, store) = opened().await;
    let work: Vec<_> = (0..5).map(|_| registering(&store, "new")).collect();
    store.close();
    for outcome in commit_all(work).await {
        assert_eq!(*kind(&outcome.unwrap_err()), StoreErrorKind::Usage);
    }
}
