//! A connection that breaks at any message while commits are sent together: each caller hears what
//! happened to its own, and it happened once.

use std::collections::BTreeSet;

use cqrs_core::{Result, Store, UnitOfWork};
use cqrs_integration::database::TestDatabase;
use cqrs_integration::domain::{Parcel, ParcelId};
use cqrs_integration::stores;
use cqrs_integration::wire::{Cut, Direction, Pooler, WireProxy};
use cqrs_sqlx::{PgStore, PgUnitOfWork};
use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{coalescing, north, registered};

/// How the store looks for events whose commit was lost.
const LOOK: &str = "JOIN cqrs_event AS l";

struct Fixture {
    database: TestDatabase,
    _pooler: Option<Pooler>,
    proxy: WireProxy,
    store: PgStore,
    known: Vec<ParcelId>,
}

impl Fixture {
    async fn new() -> Self {
        Self::on(TestDatabase::create().await, None).await
    }

    /// One whose proxy is before a pooler that gives each transaction another process of the server.
    async fn pooled() -> Self {
        let database = TestDatabase::create().await;
        let pooler = Pooler::start(database.url(), 6).await;
        Self::on(database, Some(pooler)).await
    }

    async fn on(database: TestDatabase, pooler: Option<Pooler>) -> Self {
        let server = pooler.as_ref().map_or(database.url(), Pooler::url);
        stores::postgres(server).await.close();
        let proxy = WireProxy::start(server).await;
        let store = coalescing(proxy.url()).await;
        let known = registered(&store, 4).await;
        Self {
            database,
            _pooler: pooler,
            proxy,
            store,
            known,
        }
    }

    async fn log(&self) -> BTreeSet<Uuid> {
        let mut connection = PgConnection::connect(self.database.url()).await.unwrap();
        let ids: Vec<Uuid> = sqlx::query_scalar("SELECT event_id FROM cqrs_event")
            .fetch_all(&mut connection)
            .await
            .unwrap();
        let log: BTreeSet<Uuid> = ids.iter().copied().collect();
        assert_eq!(log.len(), ids.len(), "an event is in the log twice");
        log
    }

    /// Changes the known parcels and adds as many, all at the same moment; the events of the
    /// receipts.
    async fn run(&self) -> BTreeSet<Uuid> {
        let mut commands = JoinSet::new();
        for id in self.known.iter().copied().map(Some) {
            for id in [id, None] {
                let store = self.store.clone();
                commands.spawn(async move {
                    let context = north();
                    let work = store.execute(&context, async |uow| change(uow, id).await);
                    work.await.unwrap().events().to_vec()
                });
            }
        }
        commands.join_all().await.into_iter().flatten().collect()
    }

    /// Runs with a cut; whether it struck. What is delayed arrives when the store has looked for it.
    async fn cut(&self, cut: Cut) -> bool {
        let before = self.log().await;
        self.proxy.arm(cut);
        let has_looked = |sent: &[String]| {
            let mut looked = sent.iter().skip_while(|sql| !sql.contains(LOOK));
            looked.any(|sql| sql == "ROLLBACK")
        };
        let reported = self.proxy.release_during(self.run(), has_looked).await;
        let struck = self.proxy.was_cut();
        self.proxy.disarm();
        let log = self.log().await;
        let new: BTreeSet<Uuid> = log.difference(&before).copied().collect();
        assert_eq!(new, reported, "{cut:?}: the log holds what receipts say");
        struck
    }

    /// Rows and events agree.
    async fn check(&self) {
        let mut connection = PgConnection::connect(self.database.url()).await.unwrap();
        let versions: Vec<(i64, i64)> = sqlx::query_as(
            "SELECT p.version, count(e.*) FROM parcel p
             LEFT JOIN cqrs_event e ON e.aggregate_id = p.id::text GROUP BY p.id, p.version",
        )
        .fetch_all(&mut connection)
        .await
        .unwrap();
        assert!(versions.iter().all(|(version, events)| version == events));
    }
}

async fn change(uow: &mut PgUnitOfWork, id: Option<ParcelId>) -> Result<()> {
    let Some(id) = id else {
        return uow.save(Parcel::register("new"));
    };
    let mut parcel = uow.get::<Parcel>(id).await?;
    parcel.weigh(5);
    uow.save(parcel)
}

/// Cuts at message 0, 1, 2 and so on, until there is no such message.
async fn cut_at_each(make: impl Fn(usize) -> Cut) {
    cut_at_each_of(Fixture::new().await, make).await;
}

async fn cut_at_each_of(fixture: Fixture, make: impl Fn(usize) -> Cut) {
    fixture.run().await;
    let (mut message, mut missed) = (0, 0);
    // How many messages there are depends on who meets whom.
    while missed < 3 {
        if !fixture.cut(make(message)).await {
            missed += 1;
        }
        message += 1;
    }
    assert!(message > 10, "only {message} messages were cut");
    fixture.check().await;
}

#[tokio::test]
async fn cut_before_each_message_to_the_server() {
    cut_at_each(|message| Cut::before(Direction::FromClient, message)).await;
}

#[tokio::test]
async fn cut_after_each_message_to_the_server() {
    cut_at_each(|message| Cut::after(Direction::FromClient, message)).await;
}

#[tokio::test]
async fn cut_before_each_answer() {
    cut_at_each(|message| Cut::before(Direction::FromServer, message)).await;
}

#[tokio::test]
async fn cut_after_each_answer() {
    cut_at_each(|message| Cut::after(Direction::FromServer, message)).await;
}

#[tokio::test]
async fn commits_that_would_arrive_late_are_not_done_twice() {
    cut_at_each(Cut::delayed).await;
}

#[tokio::test]
async fn cut_at_each_message_before_a_pooler() {
    for direction in [Direction::FromClient, Direction::FromServer] {
        for make in [Cut::before, Cut::after] {
            cut_at_each_of(Fixture::pooled().await, |at| make(direction, at)).await;
        }
    }
    cut_at_each_of(Fixture::pooled().await, Cut::delayed).await;
}
