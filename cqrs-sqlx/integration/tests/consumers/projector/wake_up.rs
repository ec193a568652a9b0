//! Waking the projectors of other processes. Two stores in one process know nothing of each other,
//! so they stand for two processes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cqrs_core::{CommitReceipt, RequestContext, RowProjection, StartAt, Store, Subscription};
use cqrs_integration::database::{TestDatabase, TestFile};
use cqrs_integration::domain::ParcelViews;
use cqrs_integration::stores;
use cqrs_integration::wire::{Counts, Direction, WireProxy};
use cqrs_sqlx::{Backend, PgStore, ProjectorHandle, SqlStore, SqliteStore, StoreOptions};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection};

use super::support::{Recorder, applied, failure, receipt, with_tables};

/// Longer than any test runs.
const NEVER: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_millis(10);

fn options() -> StoreOptions {
    StoreOptions::default().max_connections(4)
}

/// A database with its tables.
async fn database() -> TestDatabase {
    let database = TestDatabase::create().await;
    with_tables(stores::postgres(database.url()).await)
        .await
        .close();
    database
}

async fn telling(url: &str) -> PgStore {
    stores::postgres_that_tells(url, options()).await
}

async fn project<B: Backend>(
    store: &SqlStore<B>,
    name: &'static str,
    poll: Duration,
) -> ProjectorHandle {
    let projector = store.projector().projection(Recorder::new(name));
    projector.poll_interval(poll).start().await.unwrap()
}

/// Commits in one process and waits in another.
async fn passes(from: &PgStore, to: &PgStore) -> CommitReceipt {
    let receipt = receipt(from, 0).await;
    to.wait_for(&receipt, "recorder").await.unwrap();
    receipt
}

/// Asks once where a subscription stands, and never again unless it is told something.
async fn patient(url: &str) -> PgStore {
    stores::postgres_that_tells(url, options().wait_interval(NEVER)).await
}

/// A process that runs a projector, and hears what others tell. It finds nothing by polling.
async fn projecting(database: &TestDatabase) -> (PgStore, ProjectorHandle, PgConnection) {
    let store = telling(database.url()).await;
    let mut observer = PgConnection::connect(database.url()).await.unwrap();
    let projector = project(&store, "recorder", NEVER).await;
    until_listening(&mut observer, 1).await;
    (store, projector, observer)
}

/// Ends the sessions whose last statement has this in it, and returns how many there were.
async fn terminate(observer: &mut PgConnection, statement: &str) -> i64 {
    sqlx::query_scalar(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()
           AND query LIKE '%' || $1 || '%'",
    )
    .bind(statement)
    .fetch_one(observer)
    .await
    .unwrap()
}

/// As [`terminate`], of one that is there, or soon will be.
async fn terminate_one(observer: &mut PgConnection, statement: &str) {
    while terminate(observer, statement).await == 0 {
        tokio::task::yield_now().await;
    }
}

/// Waits until so many sessions listen.
async fn until_listening(observer: &mut PgConnection, sessions: i64) {
    while listeners(observer).await != sessions {
        tokio::task::yield_now().await;
    }
}

/// Has a process wait until it listens, as it does from the first wait on that is not over at once.
async fn until_it_waits(observer: &mut PgConnection, waits: &PgStore) {
    while listeners(observer).await < 2 {
        passes(waits, waits).await;
    }
}

/// How many sessions listen.
async fn listeners(observer: &mut PgConnection) -> i64 {
    sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND query LIKE 'LISTEN%' AND state = 'idle'",
    )
    .fetch_one(observer)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_of_another_process_is_told() {
    let database = database().await;
    let (one, other) = (telling(database.url()).await, telling(database.url()).await);
    let _projector = project(&other, "recorder", NEVER).await;
    for _ in 0..20 {
        passes(&one, &other).await;
    }
    assert_eq!(applied(&other).await.len(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_listen_or_tell_may_be_killed() {
    let database = database().await;
    let (one, other) = (telling(database.url()).await, telling(database.url()).await);
    let mut observer = PgConnection::connect(database.url()).await.unwrap();
    let _projector = project(&other, "recorder", NEVER).await;
    passes(&one, &other).await;
    for _ in 0..5 {
        terminate_one(&mut observer, "LISTEN").await;
        passes(&one, &other).await;
        terminate_one(&mut observer, "pg_notify").await;
        passes(&one, &other).await;
    }
    assert_eq!(applied(&other).await.len(), 11);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_swallows_notifications_costs_latency_alone() {
    let database = database().await;
    let proxy = WireProxy::start(database.url()).await;
    proxy.swallow_notifications();
    let (one, other) = (telling(database.url()).await, telling(proxy.url()).await);
    let _projector = project(&other, "recorder", SOON).await;
    while proxy.swallowed() < 3 {
        passes(&one, &other).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_refuses_to_listen_costs_latency_alone() {
    let database = database().await;
    let proxy = WireProxy::start(database.url()).await;
    proxy.refuse("LISTEN");
    let (one, other) = (telling(database.url()).await, telling(proxy.url()).await);
    let mut observer = PgConnection::connect(database.url()).await.unwrap();
    let _projector = project(&other, "recorder", SOON).await;
    for _ in 0..5 {
        passes(&one, &other).await;
    }
    assert_eq!(listeners(&mut observer).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_notifications_there_is_polling() {
    let database = database().await;
    let proxy = WireProxy::start(database.url()).await;
    let silent = || stores::postgres_with(proxy.url(), options());
    let (one, other) = (silent().await, silent().await);
    let _projector = project(&other, "recorder", SOON).await;
    for _ in 0..5 {
        passes(&one, &other).await;
    }
    let sent = proxy.statements_since(&Counts::default());
    let about_others = |sql: &&String| sql.contains("NOTIFY") || sql.contains("pg_notify");
    assert_eq!(sent.iter().find(about_others), None);
    assert!(!sent.iter().any(|sql| sql.contains("LISTEN")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_commits_are_told_of_together() {
    let database = database().await;
    let proxy = WireProxy::start(database.url()).await;
    let store = telling(proxy.url()).await;
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                for _ in 0..100 {
                    receipt(&store, 0).await;
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let told = || {
        let sent = proxy.statements_since(&Counts::default());
        sent.iter().filter(|sql| sql.contains("pg_notify")).count()
    };
    while told() == 0 {
        tokio::task::yield_now().await;
    }
    let told = told();
    assert!(told <= 200, "{told} for 400 commits");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_projectors_of_a_store_listen_together_until_the_last_has_gone() {
    let database = database().await;
    let store = telling(database.url()).await;
    let mut observer = PgConnection::connect(database.url()).await.unwrap();
    let first = project(&store, "first", NEVER).await;
    let second = project(&store, "second", NEVER).await;
    let seen = receipt(&store, 0).await;
    for name in ["first", "second"] {
        store.wait_for(&seen, name).await.unwrap();
    }
    until_listening(&mut observer, 1).await;

    first.stop(NEVER).await;
    let seen = receipt(&store, 0).await;
    store.wait_for(&seen, "second").await.unwrap();
    assert_eq!(listeners(&mut observer).await, 1);

    second.stop(NEVER).await;
    until_listening(&mut observer, 0).await;
    let again = project(&store, "first", NEVER).await;
    store.wait_for(&seen, "first").await.unwrap();
    assert_eq!(again.stop(NEVER).await, cqrs_sqlx::Stopped::Drained);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_most_impatient_projector_decides_how_often_to_look() {
    let database = database().await;
    let silent = || stores::postgres_with(database.url(), options());
    let (one, other) = (silent().await, silent().await);
    let _patient = project(&other, "patient", NEVER).await;
    let _impatient = project(&other, "impatient", SOON).await;
    let seen = receipt(&one, 0).await;
    for name in ["patient", "impatient"] {
        other.wait_for(&seen, name).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_on_one_file_find_each_others_commits() {
    let file = TestFile::create();
    let one = with_tables(stores::sqlite(&file.url()).await).await;
    let other = SqliteStore::connect(&file.url()).await.unwrap();
    let projector = other.projector().projection(Recorder::new("recorder"));
    let _projector = projector.start().await.unwrap();
    for _ in 0..20 {
        let receipt = receipt(&one, 0).await;
        other.wait_for(&receipt, "recorder").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_in_another_process_is_told() {
    let database = database().await;
    let (projects, _projector, _) = projecting(&database).await;
    let waits = patient(database.url()).await;
    for _ in 0..20 {
        passes(&waits, &waits).await;
    }
    assert_eq!(applied(&projects).await.len(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_wait_in_other_processes_are_told() {
    let database = database().await;
    let (projects, _projector, _) = projecting(&database).await;
    let others = [patient(database.url()).await, patient(database.url()).await];
    let waiting: Vec<_> = (0..20)
        .map(|number| {
            let other = others[number % 2].clone();
            tokio::spawn(async move {
                for _ in 0..5 {
                    passes(&other, &other).await;
                }
            })
        })
        .collect();
    for waiting in waiting {
        waiting.await.unwrap();
    }
    assert_eq!(applied(&projects).await.len(), 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_what_halts_in_another_process_is_told() {
    let database = database().await;
    let (waits, projects) = (patient(database.url()).await, telling(database.url()).await);
    let (recorder, gate) = Recorder::new("recorder")
        .with_fault(|_| Err(cqrs_core::Error::other("poison")))
        .with_gate();
    let projector = projects.projector().projection(recorder).retry_delays([]);
    let _projector = projector.start().await.unwrap();
    let mut observer = PgConnection::connect(database.url()).await.unwrap();
    until_listening(&mut observer, 1).await;
    let receipt = receipt(&waits, 0).await;
    let waiting = {
        let waits = waits.clone();
        tokio::spawn(async move { waits.wait_for(&receipt, "recorder").await })
    };
    gate.arrived.acquire().await.unwrap().forget();
    gate.open.add_permits(10);
    let error = waiting.await.unwrap().unwrap_err();
    assert!(failure(&error).error.contains("poison"), "{error}");
}

/// Where a process does not know that a checkpoint went back, it says that it is there. Who waits then
/// says that it is not so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_told_what_is_not_so_is_told_again() {
    let database = database().await;
    let (projects, _projector, mut observer) = projecting(&database).await;
    let waits = patient(database.url()).await;
    until_it_waits(&mut observer, &waits).await;
    let receipt = passes(&waits, &waits).await;
    let before = applied(&projects).await.len();
    sqlx::query("UPDATE cqrs_segment SET position = position - 1")
        .execute(&mut observer)
        .await
        .unwrap();
    // The projector itself would ask after ten.
    let waiting = waits.wait_for(&receipt, "recorder");
    let waited = tokio::time::timeout(Duration::from_secs(5), waiting).await;
    waited.expect("it is told").unwrap();
    assert_eq!(applied(&projects).await.len(), before + 1);
}

/// What has halted looks at nothing by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_halted_is_resumed_from_another_process() {
    let database = database().await;
    let (operates, projects) = (patient(database.url()).await, telling(database.url()).await);
    let poisoned = Arc::new(AtomicBool::new(true));
    let recorder = Recorder::new("recorder").with_fault({
        let poisoned = Arc::clone(&poisoned);
        move |_| match poisoned.swap(false, Ordering::SeqCst) {
            true => Err(cqrs_core::Error::other("poison")),
            false => Ok(()),
        }
    });
    let projector = projects.projector().projection(recorder).retry_delays([]);
    let _projector = projector.poll_interval(NEVER).start().await.unwrap();
    let mut observer = PgConnection::connect(database.url()).await.unwrap();
    until_listening(&mut observer, 1).await;
    let context = RequestContext::system();
    for _ in 0..5 {
        poisoned.store(true, Ordering::SeqCst);
        let receipt = receipt(&operates, 0).await;
        let halted = operates.wait_for(&receipt, "recorder").await.unwrap_err();
        assert!(failure(&halted).error.contains("poison"), "{halted}");
        let operations = operates.operations(&context).unwrap();
        operations.resume("recorder").await.unwrap();
        operates.wait_for(&receipt, "recorder").await.unwrap();
    }
    assert_eq!(applied(&projects).await.len(), 5);
}

/// What is committed is done, and projectors are told of it, though no connection lasts after that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_done_is_told_though_connections_break() {
    // Of checkpoints that are read without being locked.
    const READ: &str = "version, clock_timestamp() FROM cqrs_segment WHERE subscription = $1 ORDER";
    let database = database().await;
    let proxy = WireProxy::start(database.url()).await;
    let (operates, projects) = (telling(proxy.url()).await, telling(database.url()).await);
    let poisoned = Arc::new(AtomicBool::new(true));
    let recorder = Recorder::new("recorder").with_fault({
        let poisoned = Arc::clone(&poisoned);
        move |_| match poisoned.swap(false, Ordering::SeqCst) {
            true => Err(cqrs_core::Error::other("poison")),
            false => Ok(()),
        }
    });
    let projector = projects.projector().projection(recorder).rows(ParcelViews);
    let projector = projector.retry_delays([]).poll_interval(NEVER);
    let _projector = projector.start().await.unwrap();
    let mut observer = PgConnection::connect(database.url()).await.unwrap();
    until_listening(&mut observer, 1).await;
    let receipt = receipt(&projects, 0).await;
    let halted = projects.wait_for(&receipt, "recorder").await.unwrap_err();
    assert!(failure(&halted).error.contains("poison"), "{halted}");

    proxy.refuse(READ);
    let operations = operates.operations(&RequestContext::system()).unwrap();
    operations.resume("recorder").await.unwrap();
    projects.wait_for(&receipt, "recorder").await.unwrap();
    let views = Subscription::named(ParcelViews::NAME).rows(ParcelViews);
    operations.reset(&views, StartAt::Beginning).await.unwrap();
    operations.restore(&views).await.unwrap();
    let records = operations.records(3).await.unwrap();
    let records: Vec<_> = records.iter().map(|record| &*record.operation).collect();
    assert_eq!(
        records,
        ["reset", "reset", "resume"],
        "no snapshot is there"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_session_of_who_waits_may_be_killed() {
    let database = database().await;
    let (projects, _projector, mut observer) = projecting(&database).await;
    let waits = patient(database.url()).await;
    until_it_waits(&mut observer, &waits).await;
    let before = applied(&projects).await.len();
    for _ in 0..5 {
        terminate_one(&mut observer, "cqrs_arrived").await;
        passes(&waits, &waits).await;
    }
    assert_eq!(applied(&projects).await.len(), before + 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_and_hears_nothing_any_more_asks() {
    let database = database().await;
    let proxy = WireProxy::start(database.url()).await;
    let (_projects, _projector, mut observer) = projecting(&database).await;
    let waits = telling(proxy.url()).await;
    until_it_waits(&mut observer, &waits).await;
    proxy.refuse("cqrs_arrived");
    terminate_one(&mut observer, "cqrs_arrived").await;
    for _ in 0..5 {
        passes(&waits, &waits).await;
    }
    until_listening(&mut observer, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_behind_a_pooler_asks() {
    let database = database().await;
    let proxy = WireProxy::start(database.url()).await;
    proxy.swallow_notifications();
    let (_projects, _projector, _) = projecting(&database).await;
    let waits = telling(proxy.url()).await;
    while proxy.swallowed() < 3 {
        passes(&waits, &waits).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_projector_that_nobody_waits_for_tells_nothing() {
    let database = database().await;
    let proxy = WireProxy::start(database.url()).await;
    let (other, projects) = (telling(database.url()).await, telling(proxy.url()).await);
    let _projector = project(&projects, "recorder", NEVER).await;
    let mut observer = PgConnection::connect(database.url()).await.unwrap();
    until_listening(&mut observer, 1).await;
    let told = || {
        let sent = proxy.statements_since(&Counts::default());
        sent.iter().filter(|sql| sql.contains("pg_notify")).count()
    };
    for _ in 0..20 {
        passes(&other, &projects).await;
    }
    assert_eq!(told(), 0);
    let waits = patient(database.url()).await;
    while told() == 0 {
        passes(&waits, &waits).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_closed_listens_no_more() {
    let database = database().await;
    let (_projects, _projector, mut observer) = projecting(&database).await;
    let waits = patient(database.url()).await;
    until_it_waits(&mut observer, &waits).await;
    waits.close();
    until_listening(&mut observer, 1).await;
}

/// As where a host is gone that nobody says goodbye for: nothing is heard any more, and nothing breaks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_answered_is_given_up() {
    const LOOK: &str = "FROM cqrs_event_position";
    const CLAIM: &str = "FOR UPDATE SKIP LOCKED";
    let database = database().await;
    let proxy = WireProxy::start(database.url()).await;
    let other = stores::postgres_with(database.url(), options()).await;
    let impatient = options().acquire_timeout(Duration::from_secs(3));
    let store = stores::postgres_with(proxy.url(), impatient).await;
    let projector = store.projector().projection(Recorder::new("recorder"));
    let projector = projector.deadline(Duration::from_millis(500));
    let _projector = projector.poll_interval(SOON).start().await.unwrap();
    passes(&other, &other).await;
    for (silent, statement) in [LOOK, CLAIM].into_iter().enumerate() {
        proxy.silence(Direction::FromServer, 1, statement);
        while proxy.silent() == silent {
            let _ = receipt(&other, 0).await;
        }
        passes(&other, &other).await;
    }
}

/// Else the sessions of a host that is gone hold what they have for two hours.
#[tokio::test]
async fn the_server_asks_whether_hosts_are_there() {
    let database = database().await;
    let set: PgConnectOptions = database.url().parse().unwrap();
    let by_user = set.clone().options([("tcp_keepalives_idle", "60")]);
    for (set, idle) in [(set, "15"), (by_user, "60")] {
        let store = PgStore::connect_with(set, options()).await.unwrap();
        let mut unit_of_work = store.unit_of_work(&RequestContext::system());
        let connection = unit_of_work.connection().await.unwrap();
        let found: String = sqlx::query_scalar("SHOW tcp_keepalives_idle")
            .fetch_one(connection)
            .await
            .unwrap();
        assert_eq!(found, idle);
    }
}
