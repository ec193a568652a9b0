//! Connections that break or go silent while many commits wait: what that costs the others.

use std::collections::BTreeSet;
use std::time::Duration;

use cqrs_core::{CommitReceipt, Envelope, Position, Store, UnitOfWork};
use cqrs_integration::database::TestDatabase;
use cqrs_integration::stores;
use cqrs_integration::wire::{Direction, WireProxy};
use cqrs_sqlx::{PgStore, StoreOptions};
use tokio::task::JoinSet;
use tokio::time::timeout;
use uuid::Uuid;

use super::loads::{LOADS, in_north, load_all};
use super::{FLUSH, commit_all, north, registered, registering};

/// Longer than anything here takes, and shorter than what is waited for where it goes wrong.
const AT_MOST: Duration = Duration::from_secs(25);

/// How many connections a store of ten has at most: with those for flushes, and for finding out what
/// became of them.
const CONNECTIONS: usize = 10 + 4 + 2;

struct Fixture {
    _database: TestDatabase,
    proxy: WireProxy,
    store: PgStore,
}

impl Fixture {
    /// A store that has committed nothing yet.
    async fn with(options: StoreOptions) -> Self {
        let database = TestDatabase::create().await;
        stores::postgres(database.url()).await.close();
        let proxy = WireProxy::start(database.url()).await;
        let store = stores::postgres_with(proxy.url(), options).await;
        Self {
            _database: database,
            proxy,
            store,
        }
    }

    /// A store that has sent commits together, so that it has connections for it.
    async fn new(acquire_timeout: Duration) -> Self {
        let options = StoreOptions::default().max_connections(10).coalesce(128);
        let fixture = Self::with(options.acquire_timeout(acquire_timeout)).await;
        fixture.register(20).await;
        fixture
    }

    /// Adds so many parcels at the same moment, and checks that each is there once.
    async fn register(&self, parcels: usize) {
        let before = self.log().await;
        let work = (0..parcels).map(|_| registering(&self.store, "new"));
        let outcomes = timeout(AT_MOST, commit_all(work.collect()));
        let outcomes = outcomes.await.expect("nobody waits for long");
        let receipts: Vec<CommitReceipt> = outcomes.into_iter().map(Result::unwrap).collect();
        let reported: BTreeSet<Uuid> = receipts
            .iter()
            .flat_map(CommitReceipt::events)
            .copied()
            .collect();
        assert_eq!(reported.len(), parcels);
        let log = self.log().await;
        let new: BTreeSet<Uuid> = log.difference(&before).copied().collect();
        assert_eq!(new, reported);
        for receipt in receipts {
            let before = Position(receipt.position().unwrap().0 - 1);
            let log = self.store.events(&north(), before, 1).await.unwrap();
            assert_eq!(log[0].event_id(), receipt.events()[0]);
        }
    }

    /// Opens as many connections as there may be for commits that go alone.
    async fn open_all(&self) {
        let mut open = Vec::new();
        for _ in 0..10 {
            let mut uow = self.store.unit_of_work(&north());
            uow.connection().await.unwrap();
            open.push(uow);
        }
        for uow in open {
            uow.rollback().await;
        }
    }

    async fn log(&self) -> BTreeSet<Uuid> {
        let log = self.store.events(&north(), Position::START, u32::MAX).await;
        log.unwrap().iter().map(Envelope::event_id).collect()
    }
}

/// On one thread all but the first are in one flush.
#[tokio::test]
async fn a_broken_flush_is_found_out_on_few_connections() {
    let fixture = Fixture::new(Duration::from_secs(30)).await;
    fixture.proxy.refuse(FLUSH);
    fixture.register(128).await;
    let peak = fixture.proxy.peak();
    assert!(peak <= CONNECTIONS, "{peak} connections");
}

/// The server has done the work, and the answer is lost: one look tells all of them.
#[tokio::test]
async fn a_flush_that_was_done_is_found_for_all_its_callers() {
    let fixture = Fixture::new(Duration::from_secs(30)).await;
    fixture.proxy.keep_answers_to(FLUSH);
    let before = fixture.proxy.counts();
    fixture.register(128).await;
    let sent = fixture.proxy.statements_since(&before);
    let looks = sent
        .iter()
        .filter(|sql| sql.contains("JOIN cqrs_event AS l"));
    assert_eq!(looks.count(), 1, "{sent:#?}");
    assert!(fixture.proxy.peak() <= CONNECTIONS);
}

/// Commits alone that break are found out by few at a time, too.
#[tokio::test]
async fn broken_commits_are_found_out_on_few_connections() {
    let fixture = Fixture::with(StoreOptions::default().max_connections(40)).await;
    fixture.register(40).await;
    fixture.proxy.keep_answers_to("INSERT INTO \"parcel\"");
    let question = "SELECT pid FROM (SELECT pid FROM pg_stat_activity";
    fixture
        .proxy
        .silence(Direction::FromClient, usize::MAX, question);
    let before = fixture.proxy.counts();
    let mut commits = JoinSet::new();
    for _ in 0..40 {
        commits.spawn(registering(&fixture.store, "new").commit());
    }
    let all_are_lost = async {
        while fixture.proxy.counts().since(&before).statements < 40 || fixture.proxy.open() > 2 {
            tokio::task::yield_now().await;
        }
    };
    let few = timeout(AT_MOST, all_are_lost).await;
    few.unwrap_or_else(|_| panic!("{} connections", fixture.proxy.open()));
}

#[tokio::test]
async fn a_flush_that_never_arrives_is_given_up() {
    let fixture = Fixture::new(Duration::from_secs(3)).await;
    let proxy = &fixture.proxy;
    proxy.silence(Direction::FromClient, usize::MAX, FLUSH);
    fixture.register(40).await;
}

/// The server does the work of two, and no answer comes: each caller hears that its own is done.
#[tokio::test]
async fn flushes_whose_answers_never_come_are_found_out() {
    let fixture = Fixture::new(Duration::from_secs(3)).await;
    let proxy = &fixture.proxy;
    proxy.silence(Direction::FromServer, 2, FLUSH);
    // More than one flush takes. On a machine that stands still they may not be two.
    while proxy.silent() < 2 {
        fixture.register(200).await;
    }
}

/// Those who wait behind two flushes go on alone, while those in them may wait for a minute.
#[tokio::test]
async fn nobody_waits_behind_silent_flushes() {
    let fixture = Fixture::new(Duration::from_secs(60)).await;
    let proxy = &fixture.proxy;
    proxy.silence(Direction::FromClient, usize::MAX, FLUSH);
    let mut stuck = JoinSet::new();
    stuck.spawn(registering(&fixture.store, "alone").commit());
    for silent in 1..=2 {
        // On a machine that stands still for a second one may go on alone.
        while proxy.silent() < silent {
            stuck.spawn(registering(&fixture.store, "stuck").commit());
            while proxy.silent() < silent && stuck.try_join_next().is_none() {
                tokio::task::yield_now().await;
            }
        }
    }
    // On a machine that stands still for a second they may meet in a third flush, and a fourth.
    for _ in 0..3 {
        let behind = (0..20).map(|_| registering(&fixture.store, "behind"));
        if let Ok(outcomes) = timeout(AT_MOST / 5, commit_all(behind.collect())).await {
            assert!(
                outcomes
                    .into_iter()
                    .all(|one| one.unwrap().events().len() == 1)
            );
            return;
        }
    }
    panic!("they wait");
}

#[tokio::test]
async fn flushes_that_get_no_connection_hold_nobody_up() {
    let options = StoreOptions::default().max_connections(10).coalesce(128);
    let fixture = Fixture::with(options.acquire_timeout(Duration::from_secs(60))).await;
    fixture.open_all().await;
    fixture.proxy.fill_up();
    for _ in 0..3 {
        fixture.register(20).await;
    }
}

/// Where it takes longer to open one than anybody is to wait, commits are sent together all the same
/// when it is there.
#[tokio::test]
async fn a_connection_that_comes_late_is_used_for_flushes() {
    let options = StoreOptions::default().max_connections(1).coalesce(128);
    let fixture = Fixture::with(options.acquire_timeout(Duration::from_secs(60))).await;
    // Whoever commits alone has a connection.
    fixture.register(1).await;
    let proxy = &fixture.proxy;
    proxy.fill_up();
    let before = proxy.counts();
    let sent_together = async {
        let is_flush = |sql: &String| sql.contains(FLUSH);
        while !proxy.statements_since(&before).iter().any(is_flush) {
            fixture.register(20).await;
            proxy.admit();
        }
    };
    let sent = timeout(AT_MOST, sent_together).await;
    sent.expect("they go together at last");
}

/// Nobody hears of a connection that took loads of several callers and went silent.
#[tokio::test]
async fn loads_that_are_not_answered_are_made_alone() {
    for direction in [Direction::FromClient, Direction::FromServer] {
        let fixture = Fixture::new(Duration::from_secs(3)).await;
        let ids = registered(&fixture.store, 200).await;
        fixture.proxy.silence(direction, usize::MAX, LOADS);
        // More than one flush takes, so that some wait behind it.
        let wanted = in_north(&ids);
        let outcomes = timeout(AT_MOST, load_all(&fixture.store, &wanted)).await;
        let outcomes = outcomes.expect("nobody waits for long");
        assert_eq!(outcomes, vec![Ok(Some(("known".to_owned(), 1))); 200]);
        assert!(fixture.proxy.silent() > 0, "none were sent together");
    }
}
