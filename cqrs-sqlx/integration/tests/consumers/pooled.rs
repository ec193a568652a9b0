//! Behind a pooler that gives each transaction another process of the server: all holds that holds
//! elsewhere, and some of it takes longer.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use cqrs_core::{Position, RequestContext, Store, StoreErrorKind, UnitOfWork};
use cqrs_integration::database::{SecuredDatabase, TestDatabase};
use cqrs_integration::domain::{self, Parcel};
use cqrs_integration::random::seed;
use cqrs_integration::stores;
use cqrs_integration::wire::{Counts, Cut, Direction, Pooler, Prepared, WireProxy};
use cqrs_integration::workload::Workload;
use cqrs_sqlx::{PgStore, StoreOptions};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::oracle::{finish, views, writers};
use crate::projector::support::{Recorder, applied, commit, with_tables};
use crate::warnings;

async fn database() -> TestDatabase {
    let database = TestDatabase::create().await;
    stores::postgres(database.url()).await.close();
    database
}

async fn register(store: &PgStore, label: &str) -> cqrs_core::Result<cqrs_core::CommitReceipt> {
    let mut uow = store.unit_of_work(&stores::tenant("north"));
    uow.save(Parcel::register(label))?;
    uow.commit().await
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_writers_and_three_replicas() {
    let seed = seed();
    let database = database().await;
    let pooler = Pooler::start(database.url(), 16).await;
    let (mut replicas, mut running) = (Vec::new(), Vec::new());
    for page_size in [1, 7, 100] {
        let options = StoreOptions::default().max_connections(6);
        let store = stores::postgres_with(pooler.url(), options).await;
        let projector = views(&store).page_size(page_size);
        running.push(projector.start().await.unwrap());
        replicas.push(store);
    }
    let workload = Workload::new(2_000, 20);
    finish(writers(&workload, &replicas, 8, seed)).await;

    views(&replicas[0]).run_until_idle().await.unwrap();
    for handle in running {
        handle.stop(Duration::from_secs(30)).await;
    }
    workload.check(&replicas[0]).await;
}

#[tokio::test]
async fn the_commit_of_one_aggregate_is_three_round_trips() {
    let database = database().await;
    let pooler = Pooler::start(database.url(), 2).await;
    let proxy = WireProxy::start(pooler.url()).await;
    let store = stores::postgres_with(proxy.url(), StoreOptions::default()).await;
    let _ = register(&store, "prepares").await.unwrap();
    let before = proxy.counts();
    let _ = register(&store, "parcel").await.unwrap();
    let cost = proxy.counts().since(&before);
    let sent = proxy.statements_since(&before);
    assert_eq!((cost.round_trips, sent.len()), (3, 3), "{sent:#?}");
    assert!(
        sent[0].starts_with("BEGIN") && sent[2] == "COMMIT",
        "{sent:#?}"
    );
}

/// What the client begins with may be what the pooler begins with.
#[tokio::test]
async fn the_name_of_the_application_is_no_sign_of_a_connection_of_our_own() {
    let database = database().await;
    let pooler = Pooler::start_named(database.url(), 2, "orders").await;
    let proxy = WireProxy::start(pooler.url()).await;
    let options: PgConnectOptions = proxy.url().parse().unwrap();
    let options = options.application_name("orders");
    for options in [options.clone(), options.extra_float_digits(None)] {
        let store = StoreOptions::default().notifications(false);
        let store = PgStore::connect_with(options, store).await.unwrap();
        let before = proxy.counts();
        let _ = register(&store, "parcel").await.unwrap();
        let sent = proxy.statements_since(&before);
        assert_eq!(sent.len(), 3, "{sent:#?}");
    }
}

/// With notifications, which nobody hears.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_found_by_polling_and_nobody_listens() {
    let database = database().await;
    let pooler = Pooler::start(database.url(), 6).await;
    let proxy = WireProxy::start(pooler.url()).await;
    let options = || StoreOptions::default().max_connections(4);
    let one = stores::postgres_that_tells(pooler.url(), options()).await;
    let other = stores::postgres_that_tells(proxy.url(), options()).await;
    let projector = views(&other).poll_interval(Duration::from_millis(10));
    let _projector = projector.start().await.unwrap();
    for _ in 0..5 {
        let receipt = register(&one, "parcel").await.unwrap();
        one.wait_for(&receipt, "parcel_view").await.unwrap();
    }
    let lag = other.subscriptions().await.unwrap()[0].lag;
    assert_eq!(lag, 0);
    let sent = proxy.statements_since(&Counts::default());
    assert!(!sent.iter().any(|sql| sql.contains("LISTEN")));
}

/// Whether a page waits for a lock is known of a transaction alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_rows_alone_are_transactions_that_can_be_found() {
    let database = TestDatabase::create().await;
    let pooler = Pooler::start(database.url(), 4).await;
    let store = with_tables(stores::postgres(pooler.url()).await).await;
    let last = commit(&store, 2).await;
    let (recorder, gate) = Recorder::new("recorder").rows_alone().with_gate();
    let projector = store.projector().page_size(1).projection(recorder);
    let handle = projector.start().await.unwrap();
    let mut observer = PgConnection::connect(database.url()).await.unwrap();
    for _ in 0..last.0 {
        gate.arrived.acquire().await.unwrap().forget();
        let open: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
             WHERE locktype = 'advisory' AND datname = current_database()
               AND state = 'idle in transaction'",
        )
        .fetch_one(&mut observer)
        .await
        .unwrap();
        assert_eq!(open, 1, "the page that is held");
        gate.open.add_permits(1);
    }
    handle.stop(Duration::from_secs(60)).await;
    assert_eq!(applied(&store).await, (1..=last.0).collect::<Vec<_>>());
}

/// A setting of the session would be there for whoever gets the connection next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_set_in_sessions_of_the_server() {
    const CONNECTIONS: usize = 3;
    let database = database().await;
    let pooler = Pooler::start(database.url(), CONNECTIONS).await;
    let options = StoreOptions::default().coalesce(16);
    let store = stores::postgres_that_tells(pooler.url(), options).await;
    let mut commits = JoinSet::new();
    for _ in 0..10 {
        let store = store.clone();
        commits.spawn(async move { register(&store, "parcel").await });
    }
    for receipt in commits.join_all().await {
        let _ = receipt.unwrap();
    }
    views(&store).run_until_idle().await.unwrap();
    let mut strangers = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stranger = PgConnection::connect(pooler.url()).await.unwrap();
        stranger.execute("BEGIN").await.unwrap();
        let set: Vec<String> = sqlx::query_scalar(
            "SELECT name FROM pg_settings
             WHERE source = 'session' AND name NOT IN ('application_name', 'client_encoding',
                   'DateStyle', 'TimeZone', 'standard_conforming_strings')",
        )
        .fetch_all(&mut stranger)
        .await
        .unwrap();
        assert_eq!(set, [""; 0]);
        // It keeps the connection, so that the next one gets another.
        strangers.push(stranger);
    }
}

/// The process that still works on a lost commit may be another role's, which has taken ours when it
/// logged in. It is waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_may_not_be_ended_is_waited_for() {
    const WORDS: [&str; 1] = ["GRANT pg_signal_backend"];
    warnings::remember();
    let database = SecuredDatabase::create(&domain::tables()).await;
    let pooler = Pooler::start(database.member_url(), 4).await;
    for server in [pooler.url(), database.member_url()] {
        let proxy = WireProxy::start(server).await;
        let options = StoreOptions::default().row_level_security();
        let store = stores::postgres_with(proxy.url(), options).await;
        let parcel = Parcel::register("lost");
        let id = domain::id(&parcel);
        let north = stores::tenant("north");
        let mut uow = store.unit_of_work(&north);
        uow.save(parcel).unwrap();
        let _ = uow.get::<Parcel>(id).await.unwrap();
        proxy.arm(Cut::delayed(0));
        let warned = warnings::so_far(&WORDS).len();
        let is_refused = |_: &[String]| warnings::so_far(&WORDS).len() > warned;
        let receipt = proxy.release_during(uow.commit(), is_refused).await;
        assert!(is_refused(&[]), "the process was ended");
        let log = store.events(&north, Position::START, 10).await.unwrap();
        let last = log.last().unwrap();
        assert_eq!(receipt.unwrap().events(), [last.event_id()]);
    }
}

/// A client that gives up while it waits for its turn in the pooler: what it has sent arrives later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_is_given_up_in_the_queue_of_a_pooler_is_not_done() {
    let database = database().await;
    let pooler = Pooler::start(database.url(), 1).await;
    let store = stores::postgres_with(pooler.url(), StoreOptions::default()).await;
    // Its connection is open, and its statements are prepared.
    let _ = register(&store, "first").await.unwrap();
    let mut busy = PgConnection::connect(pooler.url()).await.unwrap();
    let transaction = busy.begin().await.unwrap();
    {
        let mut commit = pin!(register(&store, "given up"));
        let sent = poll_fn(|context| Poll::Ready(commit.as_mut().poll(context).is_pending()));
        assert!(sent.await, "there is no connection to the server");
        // The connection is closed with the future.
    }
    transaction.commit().await.unwrap();
    let _ = register(&store, "last").await.unwrap();
    let mut observer = PgConnection::connect(database.url()).await.unwrap();
    let labels: Vec<String> = sqlx::query_scalar("SELECT label FROM parcel ORDER BY id")
        .fetch_all(&mut observer)
        .await
        .unwrap();
    assert_eq!(labels, ["first", "last"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_migrate_at_once_and_leave_no_lock() {
    let database = TestDatabase::create().await;
    let pooler = Pooler::start(database.url(), 4).await;
    let barrier = Arc::new(Barrier::new(4));
    let mut tasks = JoinSet::new();
    // One of them is directly at the server.
    for url in [pooler.url(), pooler.url(), pooler.url(), database.url()] {
        let (url, barrier) = (url.to_owned(), Arc::clone(&barrier));
        tasks.spawn(async move {
            let store = stores::postgres_with(&url, StoreOptions::default()).await;
            barrier.wait().await;
            store.migrate().await.unwrap();
        });
    }
    tasks.join_all().await;
    let mut observer = PgConnection::connect(database.url()).await.unwrap();
    let count = "SELECT count(*) FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database
                 WHERE locktype = 'advisory' AND datname = current_database()";
    let locks: i64 = sqlx::query_scalar(count)
        .fetch_one(&mut observer)
        .await
        .unwrap();
    assert_eq!(locks, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_mixes_up_prepared_statements_is_refused() {
    let database = database().await;
    // With one, all goes well by chance.
    for connections in [1, 2] {
        let pooler = Pooler::start_with(database.url(), connections, Prepared::AsTheyCome).await;
        for _ in 0..3 {
            let refused = PgStore::connect(pooler.url()).await.err();
            let Some(cqrs_core::Error::Store(refused)) = refused else {
                panic!("{refused:?}");
            };
            assert_eq!(*refused.kind(), StoreErrorKind::Usage);
            assert!(refused.to_string().contains("max_prepared_statements"));
        }
    }
}

/// Whoever finds out what became of a commit sees all tenants, and nobody after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_to_a_lost_commit_opens_no_tenants_to_others() {
    let database = SecuredDatabase::create(&domain::tables()).await;
    let pooler = Pooler::start(database.url(), 2).await;
    let proxy = WireProxy::start(pooler.url()).await;
    let options = StoreOptions::default().row_level_security();
    let store = stores::postgres_with(proxy.url(), options).await;
    let _ = register(&store, "first").await.unwrap();
    let mut lost = 0;
    for message in 0.. {
        proxy.arm(Cut::before(Direction::FromServer, message));
        let outcome = register(&store, "next").await;
        if !proxy.was_cut() {
            break;
        }
        lost += usize::from(outcome.is_ok());
    }
    assert!(lost > 0, "no answer was lost");
    let mut stranger = PgConnection::connect(pooler.url()).await.unwrap();
    for _ in 0..4 {
        let seen: i64 = sqlx::query_scalar("SELECT count(*) FROM parcel")
            .fetch_one(&mut stranger)
            .await
            .unwrap();
        assert_eq!(seen, 0);
    }
    let all = store
        .events(&RequestContext::system(), cqrs_core::Position::START, 100)
        .await
        .unwrap();
    assert!(all.len() > lost);
}
