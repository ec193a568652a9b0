//! A connection that breaks at any message of a commit: what `execute` reports is what happened,
//! and it happened once.

mod commands;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cqrs_core::conformance::fixtures::{OldLetter, OldLetterEvent};
use cqrs_core::{IdempotencyKey, RequestContext, Sourced, SourcedState, Store, UnitOfWork};
use cqrs_integration::database::TestDatabase;
use cqrs_integration::domain::{self, Parcel, ParcelId, ParcelViews};
use cqrs_integration::stores;
use cqrs_integration::wire::{Cut, Direction, Pooler, WireProxy};
use cqrs_integration::workload::Workload;
use cqrs_sqlx::{PgStore, StoreOptions};
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::time::timeout;
use uuid::Uuid;

use self::commands::{COMMANDS, Command, Known, run};

/// Longer than a commit takes whose answer is lost, and shorter than what is waited for in vain.
const AT_MOST: Duration = Duration::from_secs(25);

/// A database, a proxy before it, and a store behind the proxy with one warm connection.
struct Fixture {
    database: TestDatabase,
    _pooler: Option<Pooler>,
    proxy: WireProxy,
    store: PgStore,
    context: RequestContext,
    /// A parcel at version 1, to change.
    known: ParcelId,
}

impl Fixture {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// One whose proxy is before a pooler that gives each transaction another process of the server.
    async fn pooled() -> Self {
        let database = TestDatabase::create().await;
        let pooler = Pooler::start(database.url(), 4).await;
        Self::on(database, Some(pooler), |_| {}).await
    }

    /// One whose commits fold into a read model.
    async fn inline() -> Self {
        Self::with(|store| store.inline_rows(ParcelViews).unwrap()).await
    }

    async fn with(set_up: fn(&PgStore)) -> Self {
        Self::on(TestDatabase::create().await, None, set_up).await
    }

    async fn on(database: TestDatabase, pooler: Option<Pooler>, set_up: fn(&PgStore)) -> Self {
        let server = pooler.as_ref().map_or(database.url(), Pooler::url);
        stores::postgres(server).await.close();
        let mut owner = PgConnection::connect(database.url()).await.unwrap();
        owner
            .execute("CREATE TABLE noted (once int NOT NULL)")
            .await
            .unwrap();
        let proxy = WireProxy::start(server).await;
        let store = stores::postgres_with(proxy.url(), StoreOptions::default()).await;
        set_up(&store);
        let context = stores::tenant("north");
        let parcel = Parcel::register("known");
        let known = domain::id(&parcel);
        store
            .execute(&context, async |uow| uow.save(parcel.clone()))
            .await
            .unwrap();
        Self {
            database,
            _pooler: pooler,
            proxy,
            store,
            context,
            known,
        }
    }

    /// What commands change: the parcel, and a stream of one event. A longer one would be more
    /// messages each time.
    async fn known(&self) -> Known {
        let (parcel, letter) = (self.known, Uuid::now_v7().as_u64_pair().1.cast_signed());
        let mut new = OldLetter::blank(letter);
        new.raise(OldLetterEvent::Stamped { euros: 1 });
        let saved = self
            .store
            .execute(&self.context, async |uow| uow.save(new.clone()));
        let _ = saved.await.unwrap();
        Known { parcel, letter }
    }

    /// All event ids of the log but the known parcel's first, in order.
    async fn log(&self) -> Vec<Uuid> {
        let mut connection = PgConnection::connect(self.database.url()).await.unwrap();
        let ids: Vec<Uuid> =
            sqlx::query_scalar("SELECT event_id FROM cqrs_event ORDER BY position")
                .fetch_all(&mut connection)
                .await
                .unwrap();
        ids[1..].to_vec()
    }

    /// How often SQL of the user was committed.
    async fn noted(&self) -> i64 {
        let mut connection = PgConnection::connect(self.database.url()).await.unwrap();
        sqlx::query_scalar("SELECT count(*) FROM noted")
            .fetch_one(&mut connection)
            .await
            .unwrap()
    }

    /// Aggregates as (version, events in the log), to see that rows and events agree.
    async fn versions(&self) -> Vec<(i64, i64)> {
        let mut connection = PgConnection::connect(self.database.url()).await.unwrap();
        sqlx::query_as(
            "SELECT p.version, count(e.*) FROM parcel p
             LEFT JOIN cqrs_event e ON e.aggregate_id = p.id::text
             GROUP BY p.id, p.version",
        )
        .fetch_all(&mut connection)
        .await
        .unwrap()
    }
}

/// Runs a command with a cut, and checks the outcome. Whether the cut struck.
async fn cut(fixture: &Fixture, command: Command, cut: Cut) -> bool {
    cut_and_release(fixture, command, cut, |_| false).await
}

/// As [`cut`], and what is delayed arrives when the SQL that was executed is as this says.
async fn cut_and_release(
    fixture: &Fixture,
    command: Command,
    cut: Cut,
    arrives: fn(&[String]) -> bool,
) -> bool {
    let known = fixture.known().await;
    let (before, noted) = (fixture.log().await.len(), fixture.noted().await);
    let name = format!("{command:?} with {cut:?}");
    let runs = AtomicUsize::new(0);
    fixture.proxy.arm(cut);
    let outcome = fixture.store.execute(&fixture.context, async |uow| {
        runs.fetch_add(1, Ordering::SeqCst);
        run(command, known, uow).await
    });
    let outcome = fixture.proxy.release_during(outcome, arrives);
    let outcome = timeout(AT_MOST, outcome).await;
    let struck = fixture.proxy.was_cut();
    fixture.proxy.disarm();
    let outcome = outcome.unwrap_or_else(|_| panic!("{name} has no end"));
    let receipt = outcome.unwrap_or_else(|error| panic!("{name}: {error:?}"));
    assert_eq!(
        fixture.noted().await - noted,
        i64::from(command.is_sql()),
        "{name}: SQL of the user counts once"
    );
    assert_eq!(
        fixture.log().await[before..],
        *receipt.events(),
        "{name}: the log holds what the receipt says, once"
    );
    for (version, events) in fixture.versions().await {
        assert_eq!(version, events, "{name}: each version has its event");
    }
    assert!(runs.load(Ordering::SeqCst) <= 2, "{name}");
    struck
}

/// Cuts at message 0, 1, 2 and so on, until there is no such message.
async fn cut_at_each(direction: Direction, make: fn(Direction, usize) -> Cut) {
    cut_all(&Fixture::new().await, direction, make).await;
}

async fn cut_all(fixture: &Fixture, direction: Direction, make: fn(Direction, usize) -> Cut) {
    for command in COMMANDS {
        let mut message = 0;
        while cut(fixture, command, make(direction, message)).await {
            message += 1;
        }
        assert!(
            message >= 3,
            "{command:?}: only {message} messages were cut"
        );
    }
}

/// The inline rows have each event of the log once, whatever was cut.
#[tokio::test]
async fn inline_rows_are_committed_with_their_events() {
    let fixture = Fixture::inline().await;
    for direction in [Direction::FromClient, Direction::FromServer] {
        for make in [Cut::before, Cut::after] {
            cut_all(&fixture, direction, make).await;
        }
    }
    Workload::check_views(&fixture.store).await;
}

#[tokio::test]
async fn cut_at_each_message_before_a_pooler() {
    let fixture = Fixture::pooled().await;
    for direction in [Direction::FromClient, Direction::FromServer] {
        for make in [Cut::before, Cut::after] {
            cut_all(&fixture, direction, make).await;
        }
    }
}

#[tokio::test]
async fn a_commit_that_would_arrive_late_through_a_pooler_is_not_done_twice() {
    delay_each(&Fixture::pooled().await).await;
}

#[tokio::test]
async fn cut_before_each_message_to_the_server() {
    cut_at_each(Direction::FromClient, Cut::before).await;
}

#[tokio::test]
async fn cut_after_each_message_to_the_server() {
    cut_at_each(Direction::FromClient, Cut::after).await;
}

#[tokio::test]
async fn cut_before_each_answer() {
    cut_at_each(Direction::FromServer, Cut::before).await;
}

#[tokio::test]
async fn cut_after_each_answer() {
    cut_at_each(Direction::FromServer, Cut::after).await;
}

#[tokio::test]
async fn a_key_is_recorded_with_its_commit_or_not_at_all() {
    let fixture = Fixture::new().await;
    for command in [Command::Change, Command::Append] {
        record_with_each_cut(&fixture, command).await;
    }
}

async fn record_with_each_cut(fixture: &Fixture, command: Command) {
    for direction in [Direction::FromClient, Direction::FromServer] {
        for make in [Cut::before, Cut::after] {
            let mut message = 0;
            loop {
                let name = format!("{command:?} {direction:?} {message}");
                let known = fixture.known().await;
                let before = fixture.log().await.len();
                let key = IdempotencyKey::new(Uuid::now_v7().to_string()).unwrap();
                let once = async || {
                    fixture
                        .store
                        .execute_once(&fixture.context, &key, async |uow| {
                            run(command, known, uow).await?;
                            Ok(message)
                        })
                        .await
                };
                fixture.proxy.arm(make(direction, message));
                let first = once()
                    .await
                    .unwrap_or_else(|error| panic!("{name}: {error:?}"));
                let struck = fixture.proxy.was_cut();
                fixture.proxy.release().await;
                fixture.proxy.disarm();
                let second = once().await.unwrap();
                assert_eq!(first, second, "{name}");
                assert_eq!(fixture.log().await[before..], *first.events(), "{name}");
                if !struck {
                    break;
                }
                message += 1;
            }
            assert!(message >= 3, "only {message} messages were cut");
        }
    }
}

#[tokio::test]
async fn a_commit_that_would_arrive_late_is_not_done_twice() {
    delay_each(&Fixture::new().await).await;
}

/// What is delayed arrives when the store has looked for it.
async fn delay_each(fixture: &Fixture) {
    delay_each_until(fixture, has_looked).await;
}

async fn delay_each_until(fixture: &Fixture, arrives: fn(&[String]) -> bool) {
    for command in COMMANDS {
        let mut message = 0;
        while cut_and_release(fixture, command, Cut::delayed(message), arrives).await {
            message += 1;
        }
        assert!(
            message >= 3,
            "{command:?}: only {message} messages were cut"
        );
    }
}

/// It may still be done while the store asks, and is found then.
#[tokio::test]
async fn a_commit_may_arrive_while_the_store_asks_what_became_of_it() {
    for fixture in [Fixture::new().await, Fixture::pooled().await] {
        delay_each_until(&fixture, is_asked).await;
    }
}

/// Whether the store has been told what became of a commit.
fn has_looked(sent: &[String]) -> bool {
    let is_look = |sql: &String| {
        ["JOIN cqrs_event AS l", "pg_xact_status"]
            .iter()
            .any(|look| sql.contains(look))
    };
    sent.iter()
        .skip_while(|sql| !is_look(sql))
        .any(|sql| sql == "ROLLBACK")
}

/// Whether the store has asked for the process of a lost commit.
fn is_asked(sent: &[String]) -> bool {
    sent.iter()
        .any(|sql| sql.starts_with("SELECT pid FROM (SELECT"))
}

#[tokio::test]
async fn users_own_sql_alone_is_resolved_by_its_transaction() {
    for fixture in [Fixture::new().await, Fixture::pooled().await] {
        cut_users_own_sql(fixture).await;
    }
}

async fn cut_users_own_sql(fixture: Fixture) {
    let mut message = 0;
    let mut committed = 0;
    loop {
        let mut uow = fixture.store.unit_of_work(&fixture.context);
        let connection = uow.connection().await.unwrap();
        sqlx::query("UPDATE parcel SET grams = grams + 1")
            .execute(connection)
            .await
            .unwrap();
        fixture
            .proxy
            .arm(Cut::before(Direction::FromServer, message));
        if uow.commit().await.is_ok() {
            committed += 1;
        }
        let struck = fixture.proxy.was_cut();
        fixture.proxy.disarm();
        if !struck {
            break;
        }
        message += 1;
    }
    assert!(message >= 3, "only {message} messages were cut");
    let mut connection = PgConnection::connect(fixture.database.url()).await.unwrap();
    let grams: i64 = sqlx::query_scalar("SELECT grams FROM parcel")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(
        grams, committed,
        "each commit that was reported, and no other"
    );
}
