//! A connection that breaks at any message of a commit: what `execute` reports is what happened,
//! and it happened once.

use std::sync::atomic::{AtomicUsize, Ordering};

use cqrs_core::conformance::fixtures::{OldLetter, OldLetterEvent};
use cqrs_core::{
    Error, IdempotencyKey, RequestContext, Result, Sourced, SourcedState, Store, UnitOfWork,
};
use cqrs_integration::database::TestDatabase;
use cqrs_integration::domain::{self, Parcel, ParcelId, ParcelViews};
use cqrs_integration::stores;
use cqrs_integration::wire::{Cut, Direction, Pooler, WireProxy};
use cqrs_integration::workload::Workload;
use cqrs_sqlx::{PgStore, PgUnitOfWork, StoreOptions};
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

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

/// The ways to commit.
#[derive(Debug, Clone, Copy)]
enum Command {
    /// One statement.
    Create,
    /// A load, then one statement.
    Change,
    /// A load of a stream, then one statement.
    Append,
    /// A transaction that the commit opens itself.
    Several,
    /// A transaction that a read after a write opened.
    ReadAfterWrite,
    /// A transaction with a savepoint that stays and one that is undone.
    Savepoints,
}

const COMMANDS: [Command; 6] = [
    Command::Create,
    Command::Change,
    Command::Append,
    Command::Several,
    Command::ReadAfterWrite,
    Command::Savepoints,
];

#[derive(Debug, Clone, Copy)]
struct Known {
    parcel: ParcelId,
    letter: i64,
}

async fn run(command: Command, known: Known, uow: &mut PgUnitOfWork) -> Result<()> {
    match command {
        Command::Create => uow.save(Parcel::register("new")),
        Command::Change => {
            let mut parcel = uow.get::<Parcel>(known.parcel).await?;
            parcel.weigh(5);
            uow.save(parcel)
        }
        Command::Append => {
            let mut letter = uow.get::<OldLetter>(known.letter).await?;
            letter.raise(OldLetterEvent::Stamped { euros: 1 });
            uow.save(letter)
        }
        Command::Several => {
            let mut parcel = uow.get::<Parcel>(known.parcel).await?;
            parcel.weigh(5);
            parcel.deliver();
            uow.save(parcel)?;
            uow.save(Parcel::register("new"))
        }
        Command::ReadAfterWrite => {
            let new = Parcel::register("new");
            let id = domain::id(&new);
            uow.save(new)?;
            let seen = uow.get::<Parcel>(id).await?;
            assert_eq!(seen.label(), "new", "a read sees what was staged");
            let mut parcel = uow.get::<Parcel>(known.parcel).await?;
            parcel.weigh(5);
            uow.save(parcel)
        }
        Command::Savepoints => {
            uow.savepoint(async |uow| uow.save(Parcel::register("new")))
                .await?;
            let undone = uow
                .savepoint(async |uow| {
                    uow.save(Parcel::register("undone"))?;
                    let _ = uow.get::<Parcel>(known.parcel).await?;
                    Err::<(), _>(Error::other("undone"))
                })
                .await;
            match undone {
                Err(Error::Other(_)) => Ok(()),
                result => result,
            }
        }
    }
}

/// Runs a command with a cut, and checks the outcome. Whether the cut struck.
async fn cut(fixture: &Fixture, command: Command, cut: Cut) -> bool {
    let known = fixture.known().await;
    let before = fixture.log().await.len();
    let name = format!("{command:?} with {cut:?}");
    let runs = AtomicUsize::new(0);
    fixture.proxy.arm(cut);
    let outcome = fixture
        .store
        .execute(&fixture.context, async |uow| {
            runs.fetch_add(1, Ordering::SeqCst);
            run(command, known, uow).await
        })
        .await;
    let struck = fixture.proxy.was_cut();
    fixture.proxy.release().await;
    fixture.proxy.disarm();
    let receipt = outcome.unwrap_or_else(|error| panic!("{name}: {error:?}"));
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

async fn delay_each(fixture: &Fixture) {
    for command in COMMANDS {
        let mut message = 0;
        while cut(fixture, command, Cut::delayed(message)).await {
            message += 1;
        }
        assert!(
            message >= 3,
            "{command:?}: only {message} messages were cut"
        );
    }
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
