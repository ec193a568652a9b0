//! Nothing is skipped: an event that is in flight holds back those after it.

use std::time::Duration;

use chrono::DateTime;
use cqrs_core::{Error, StartAt, Store, StoreErrorKind, Subscription};
use cqrs_integration::cluster::Cluster;
use cqrs_integration::database::TestDatabase;
use cqrs_integration::stores;
use cqrs_integration::wire::WireProxy;
use cqrs_sqlx::{HealthLimits, PgStore, Problem, ProjectorHandle, StoreOptions};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use uuid::Uuid;

use crate::warnings;

use super::support::{self, INSERT, Recorder, applied, commit, receipt};

/// The proof of the horizon asks for what is visible first, and then for who writes: both are one
/// statement, whose plan has no choice.
#[tokio::test]
async fn a_look_reads_the_log_before_the_locks() {
    let database = TestDatabase::create().await;
    let proxy = WireProxy::start(database.url()).await;
    let store = support::with_tables(stores::postgres(proxy.url()).await).await;
    receipt(&store, 0).await;
    let before = proxy.counts();
    let projector = store.projector().projection(Recorder::new("recorder"));
    assert_eq!(projector.run_until_idle().await.unwrap(), 1);
    let sent = proxy.statements_since(&before);
    let look = sent.into_iter().find(|sql| sql.contains("pg_locks"));
    let explain = format!("EXPLAIN {}", look.expect("it looks for writers"));
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    for setting in [
        "RESET ALL",
        "SET enable_nestloop = off",
        "SET enable_seqscan = off",
        "SET enable_sort = off",
        "ANALYZE",
    ] {
        connection.execute(setting).await.unwrap();
        let plan: Vec<String> = sqlx::query_scalar(AssertSqlSafe(explain.clone()))
            .fetch_all(&mut connection)
            .await
            .unwrap();
        let plan = plan.join("\n");
        let place = |node: &str| plan.find(node).unwrap_or_else(|| panic!("{node}: {plan}"));
        assert!(
            plan.starts_with("Nested Loop Left Join"),
            "{setting}: {plan}"
        );
        let [log, locks] = ["CTE Scan on log", "Function Scan on pg_lock_status"].map(place);
        assert!(log < locks, "{setting}: {plan}");
    }
}

/// A running projector that has delivered the first event of the log.
struct Fixture {
    database: TestDatabase,
    store: PgStore,
    recorder: Recorder,
    first: i64,
    _handle: ProjectorHandle,
}

impl Fixture {
    async fn start() -> Self {
        let database = TestDatabase::create().await;
        let store = support::with_tables(stores::postgres(database.url()).await).await;
        let recorder = Recorder::new("recorder");
        let handle = store
            .projector()
            .projection(recorder.clone())
            .poll_interval(Duration::from_millis(10))
            .start()
            .await
            .unwrap();
        let first = receipt(&store, 0).await;
        store.wait_for(&first, "recorder").await.unwrap();
        Self {
            database,
            store,
            recorder,
            first: first.position().unwrap().0,
            _handle: handle,
        }
    }

    async fn connect(&self) -> PgConnection {
        PgConnection::connect(self.database.url()).await.unwrap()
    }

    /// Commits an event and sees that it is held back, however often the projector looks.
    async fn commit_held_back(&self) -> cqrs_core::CommitReceipt {
        let second = receipt(&self.store, 0).await;
        let impatient = stores::postgres_with(
            self.database.url(),
            StoreOptions::default().wait_timeout(Duration::from_millis(200)),
        )
        .await;
        let error = impatient.wait_for(&second, "recorder").await.unwrap_err();
        let Error::Store(error) = error else {
            panic!("{error:?}");
        };
        assert_eq!(*error.kind(), StoreErrorKind::TimedOut, "{error}");
        assert_eq!(applied(&self.store).await, [self.first]);
        second
    }

    /// The positions delivered, in the order of their delivery.
    fn delivered(&self) -> Vec<i64> {
        self.recorder.pages().concat()
    }
}

/// Inserts an event; its position.
async fn insert(connection: &mut PgConnection) -> i64 {
    let id = Uuid::now_v7();
    sqlx::query_scalar(INSERT)
        .bind(id)
        .bind("parcel")
        .bind(id.to_string())
        .bind("parcel.delivered")
        .bind(sqlx::types::Json(serde_json::json!({})))
        .bind([0_u8; 32])
        .bind(chrono::Utc::now())
        .fetch_one(connection)
        .await
        .unwrap()
}

async fn execute(connection: &mut PgConnection, sql: impl Into<String>) {
    let sql = sqlx::AssertSqlSafe(sql.into());
    sqlx::raw_sql(sql).execute(connection).await.unwrap();
}

#[tokio::test]
async fn a_held_transaction_that_commits_is_delivered_first() {
    let fixture = Fixture::start().await;
    let mut held = fixture.connect().await;
    execute(&mut held, "BEGIN").await;
    let early = insert(&mut held).await;
    let second = fixture.commit_held_back().await;
    execute(&mut held, "COMMIT").await;

    fixture.store.wait_for(&second, "recorder").await.unwrap();
    let late = second.position().unwrap().0;
    assert!(early < late);
    assert_eq!(fixture.delivered(), [fixture.first, early, late]);
    assert_eq!(applied(&fixture.store).await, [fixture.first, early, late]);
}

/// A bulk insert copies into the log: the server locks the table before it takes the first row, and
/// a position is drawn when its row arrives.
#[tokio::test]
async fn a_held_copy_holds_back_what_comes_after() {
    let fixture = Fixture::start().await;
    let mut held = fixture.connect().await;
    let mut looker = fixture.connect().await;
    execute(&mut held, "BEGIN").await;
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(&mut held)
        .await
        .unwrap();
    let columns = "correlation_id, aggregate_type, aggregate_id, event_id, aggregate_version, \
                   event_type, schema_version, payload, content_hash, occurred_at";
    let mut copy = held
        .copy_in_raw(&format!("COPY cqrs_event ({columns}) FROM STDIN"))
        .await
        .unwrap();
    let locked: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = $1 AND granted
                        AND relation = 'cqrs_event'::regclass AND mode = 'RowExclusiveLock')",
    )
    .bind(pid)
    .fetch_one(&mut looker)
    .await
    .unwrap();
    assert!(locked, "before the first row");

    let before: i64 = sqlx::query_scalar("SELECT last_value FROM cqrs_event_position")
        .fetch_one(&mut looker)
        .await
        .unwrap();
    let (id, hash) = (Uuid::now_v7(), "00".repeat(32));
    let row = format!(
        "{id}\tparcel\t{id}\t{id}\t1\tparcel.delivered\t1\t{{}}\t\\\\x{hash}\t2026-01-02 03:04:05Z\n"
    );
    copy.send(row.as_bytes()).await.unwrap();
    let mut drawn = before;
    while drawn == before {
        drawn = sqlx::query_scalar("SELECT last_value FROM cqrs_event_position")
            .fetch_one(&mut looker)
            .await
            .unwrap();
    }
    let second = fixture.commit_held_back().await;
    copy.finish().await.unwrap();
    execute(&mut held, "COMMIT").await;

    fixture.store.wait_for(&second, "recorder").await.unwrap();
    let late = second.position().unwrap().0;
    assert!(drawn < late);
    assert_eq!(fixture.delivered(), [fixture.first, drawn, late]);
}

#[tokio::test]
async fn a_held_transaction_that_rolls_back_leaves_a_gap() {
    let fixture = Fixture::start().await;
    let mut held = fixture.connect().await;
    execute(&mut held, "BEGIN").await;
    insert(&mut held).await;
    let second = fixture.commit_held_back().await;
    execute(&mut held, "ROLLBACK").await;

    fixture.store.wait_for(&second, "recorder").await.unwrap();
    let late = second.position().unwrap().0;
    assert_eq!(fixture.delivered(), [fixture.first, late]);
}

#[tokio::test]
async fn a_prepared_transaction_is_in_flight_also_without_a_session() {
    let fixture = Fixture::start().await;
    let mut held = fixture.connect().await;
    execute(&mut held, "BEGIN").await;
    let early = insert(&mut held).await;
    // The name is known to the whole server.
    let prepare = format!("PREPARE TRANSACTION '{}'", fixture.database.name());
    let commit = format!("COMMIT PREPARED '{}'", fixture.database.name());
    execute(&mut held, prepare).await;
    held.close().await.unwrap();
    let second = fixture.commit_held_back().await;
    let mut other = fixture.connect().await;
    execute(&mut other, commit).await;

    fixture.store.wait_for(&second, "recorder").await.unwrap();
    let late = second.position().unwrap().0;
    assert_eq!(fixture.delivered(), [fixture.first, early, late]);
}

#[tokio::test]
async fn who_holds_the_horizon_is_named() {
    let fixture = Fixture::start().await;
    assert_eq!(fixture.store.horizon_holders().await.unwrap(), []);
    let mut held = fixture.connect().await;
    execute(&mut held, "SET application_name = 'import'; BEGIN").await;
    insert(&mut held).await;
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(&mut held)
        .await
        .unwrap();
    execute(&mut held, "SELECT 'the last statement'").await;
    // One that has nothing to do with the log.
    let mut other = fixture.connect().await;
    execute(
        &mut other,
        "CREATE TABLE other (a int); BEGIN; INSERT INTO other VALUES (1)",
    )
    .await;

    let holders = fixture.store.horizon_holders().await.unwrap();
    let [holder] = &holders[..] else {
        panic!("one holds it: {holders:?}");
    };
    assert_eq!(holder.pid, Some(pid));
    assert_eq!(holder.application.as_deref(), Some("import"));
    assert_eq!(holder.state.as_deref(), Some("idle in transaction"));
    assert_eq!(holder.query.as_deref(), Some("SELECT 'the last statement'"));
    assert_eq!(holder.prepared, None);
    assert!(
        holder
            .to_string()
            .starts_with(&format!("session {pid} of \"import\""))
    );

    let name = fixture.database.name();
    execute(&mut held, format!("PREPARE TRANSACTION '{name}'")).await;
    held.close().await.unwrap();
    let holders = fixture.store.horizon_holders().await.unwrap();
    let [holder] = &holders[..] else {
        panic!("one holds it: {holders:?}");
    };
    assert_eq!((holder.pid, holder.prepared.as_deref()), (None, Some(name)));
    execute(&mut other, "ROLLBACK").await;
    execute(&mut other, format!("ROLLBACK PREPARED '{name}'")).await;
    assert_eq!(fixture.store.horizon_holders().await.unwrap(), []);
}

#[tokio::test]
async fn a_commit_between_two_held_ones_waits_for_the_earlier_alone() {
    let fixture = Fixture::start().await;
    let (mut one, mut two) = (fixture.connect().await, fixture.connect().await);
    execute(&mut one, "BEGIN").await;
    let early = insert(&mut one).await;
    let second = fixture.commit_held_back().await;
    execute(&mut two, "BEGIN").await;
    let late = insert(&mut two).await;
    execute(&mut one, "COMMIT").await;

    fixture.store.wait_for(&second, "recorder").await.unwrap();
    let middle = second.position().unwrap().0;
    assert!(early < middle && middle < late);
    assert_eq!(fixture.delivered(), [fixture.first, early, middle]);
    execute(&mut two, "COMMIT").await;
    let last = receipt(&fixture.store, 0).await;
    fixture.store.wait_for(&last, "recorder").await.unwrap();
    assert_eq!(fixture.delivered()[3..], [late, last.position().unwrap().0]);
}

#[tokio::test]
async fn transactions_that_do_not_hold_the_log_do_not_hold_the_horizon() {
    let fixture = Fixture::start().await;
    let mut reader = fixture.connect().await;
    execute(
        &mut reader,
        "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM cqrs_event",
    )
    .await;
    let mut writer = fixture.connect().await;
    execute(
        &mut writer,
        "CREATE TABLE other (a int); BEGIN; INSERT INTO other VALUES (1); \
         SELECT pg_current_xact_id()",
    )
    .await;
    let mut undone = fixture.connect().await;
    execute(&mut undone, "BEGIN; SAVEPOINT s").await;
    insert(&mut undone).await;
    execute(&mut undone, "ROLLBACK TO SAVEPOINT s").await;

    let second = receipt(&fixture.store, 0).await;
    fixture.store.wait_for(&second, "recorder").await.unwrap();
    for connection in [reader, writer, undone] {
        connection.close().await.unwrap();
    }
}

#[tokio::test]
async fn writers_of_another_database_do_not_hold_the_horizon() {
    let fixture = Fixture::start().await;
    let other = TestDatabase::create().await;
    stores::postgres(other.url()).await.close();
    let mut held = PgConnection::connect(other.url()).await.unwrap();
    execute(&mut held, "BEGIN").await;
    insert(&mut held).await;

    let second = receipt(&fixture.store, 0).await;
    fixture.store.wait_for(&second, "recorder").await.unwrap();
    held.close().await.unwrap();
}

#[tokio::test]
async fn running_until_idle_waits_for_writers_in_flight() {
    let fixture = Fixture::start().await;
    let mut held = fixture.connect().await;
    execute(&mut held, "BEGIN").await;
    let early = insert(&mut held).await;
    let late = commit(&fixture.store, 0).await.0;
    let other = Recorder::new("other");
    let projector = fixture.store.projector().projection(other.clone());
    let mut idle = std::pin::pin!(projector.run_until_idle());
    let waiting = tokio::time::timeout(Duration::from_millis(50), &mut idle).await;
    assert!(waiting.is_err(), "it waits");
    execute(&mut held, "COMMIT").await;
    assert_eq!(idle.await.unwrap(), 3);
    assert_eq!(other.pages().concat(), [fixture.first, early, late]);
}

/// A subscription that begins now, or at a time, waits for who writes to the log, and says who that
/// is.
#[tokio::test(flavor = "multi_thread")]
async fn who_holds_up_a_beginning_is_named() {
    warnings::remember();
    let database = TestDatabase::create().await;
    let store = support::with_tables(stores::postgres(database.url()).await).await;
    let first = commit(&store, 0).await;
    let starts = [
        ("begins_now", StartAt::Now, 0),
        ("begins_at_a_time", StartAt::Time(DateTime::UNIX_EPOCH), 4),
    ];
    let mut last = first.0;
    for (name, start, before) in starts {
        let mut holder = PgConnection::connect(database.url()).await.unwrap();
        let importing = "SET application_name = 'import'";
        sqlx::query(importing).execute(&mut holder).await.unwrap();
        let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
            .fetch_one(&mut holder)
            .await
            .unwrap();
        let mut transaction = holder.begin().await.unwrap();
        last = last.max(insert(&mut transaction).await);
        let recorder = Recorder::new(name);
        let subscription = Subscription::new(recorder.clone()).start_at(start);
        let projector = store.projector().subscribe(subscription);
        let beginning = tokio::spawn(async move { projector.run_until_idle().await });
        let session = format!("session {pid} of \"import\"");
        let named = warnings::until(&[name, &session]).await;
        assert!(
            named[0].contains("the subscription begins when a transaction has ended"),
            "{named:?}"
        );
        let limits = HealthLimits::default().held(Duration::ZERO);
        let health = store.health(&limits).await.unwrap();
        let is_held = |problem: &Problem| matches!(problem, Problem::HorizonHeld(_));
        assert!(health.problems.iter().any(is_held), "{health:?}");
        assert!(!beginning.is_finished());
        transaction.commit().await.unwrap();
        assert_eq!(beginning.await.unwrap().unwrap(), before);
        assert_eq!(warnings::until(&[name, &session]).await.len(), 1, "once");
        last = last.max(commit(&store, 0).await.0);
        let after = Subscription::new(recorder.clone()).start_at(start);
        let projector = store.projector().subscribe(after);
        assert_eq!(projector.run_until_idle().await.unwrap(), 1);
        assert_eq!(recorder.pages().concat().last(), Some(&last));
    }
}

/// Waits until the horizon was looked for some times after now.
async fn looks_pass(observer: &mut PgConnection) {
    const LAST: &str = "SELECT coalesce(max(query_start), 'epoch') FROM pg_stat_activity
        WHERE pid <> pg_backend_pid() AND state = 'idle' AND query LIKE '%cqrs_event_position%'";
    let now = "SELECT clock_timestamp()";
    for _ in 0..3 {
        let begun: DateTime<chrono::Utc> = sqlx::query_scalar(now)
            .fetch_one(&mut *observer)
            .await
            .unwrap();
        let mut last = begun;
        while last <= begun {
            tokio::task::yield_now().await;
            last = sqlx::query_scalar(LAST)
                .fetch_one(&mut *observer)
                .await
                .unwrap();
        }
    }
}

/// A position that was drawn is not on the disk before something is committed: the server may give
/// it out again after a crash. The horizon must not be behind it by then.
#[tokio::test]
async fn a_position_that_is_given_out_again_after_a_crash_is_applied() {
    let cluster = Cluster::start().await;
    let store = support::with_tables(stores::postgres(&cluster.url()).await).await;
    let projector = store.projector().projection(Recorder::new("recorder"));
    let poll = Duration::from_millis(10);
    let _handle = projector.poll_interval(poll).start().await.unwrap();
    let (mut lost, mut again) = (0, -1);
    while lost != again {
        let mut held = PgConnection::connect(&cluster.url()).await.unwrap();
        let mut observer = PgConnection::connect(&cluster.url()).await.unwrap();
        let first = receipt(&store, 0).await;
        store.wait_for(&first, "recorder").await.unwrap();
        // The next position is written to the log of the server anew, and not flushed.
        execute(&mut observer, "CHECKPOINT").await;
        execute(&mut held, "BEGIN").await;
        lost = insert(&mut held).await;
        looks_pass(&mut observer).await;
        cluster.crash();

        let mut held = PgConnection::connect(&cluster.url()).await.unwrap();
        let mut observer = PgConnection::connect(&cluster.url()).await.unwrap();
        execute(&mut held, "BEGIN").await;
        again = insert(&mut held).await;
        looks_pass(&mut observer).await;
        execute(&mut held, "COMMIT").await;
        let after = receipt(&store, 0).await;
        store.wait_for(&after, "recorder").await.unwrap();
        assert!(
            applied(&store).await.contains(&again),
            "{again} was skipped"
        );
    }
}
