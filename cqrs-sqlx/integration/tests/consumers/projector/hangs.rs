//! Handlers that hang, also within a statement: the deadline ends the statement, and the failure counts.

use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cqrs_core::{
    Envelope, FailurePolicy, Parking, Position, Projection, RawPayload, Result, Store as _,
    Subscription,
};
use cqrs_integration::database::TestDatabase;
use cqrs_integration::each::{Fresh, Kind, on_each};
use cqrs_integration::stores;
use cqrs_integration::wire::Pooler;
use cqrs_sqlx::{
    DeadLetterStatus, Postgres, ProjectorBuilder, SqlStore, SqlTransaction, SubscriptionState,
};

use super::support::{Recorder, applied, commit, failure, operations, receipt, state, with_tables};

on_each!(
    a_statement_that_hangs_halts_in_the_end,
    a_statement_that_hangs_is_skipped_in_the_end,
    a_statement_that_hangs_is_parked_in_the_end,
    operators_need_not_wait_for_a_statement_that_hangs,
    whoever_is_interrupted_goes_on_where_it_was,
    replicas_find_an_event_that_hangs_together,
);

/// Longer than a page takes, even where much else happens.
const DEADLINE: Duration = Duration::from_secs(1);

/// Much longer than a test takes that does not wait for what hangs, and much shorter than that hangs.
const BOUND: Duration = Duration::from_secs(60);

/// How an event hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hang {
    InStatement,
    BetweenStatements,
}

/// A [`Recorder`] that hangs at one event.
#[derive(Clone)]
struct Hangs {
    recorder: Recorder,
    at: i64,
    how: Hang,
    /// The pages with that event.
    hung: Arc<Mutex<Vec<Vec<i64>>>>,
}

impl Hangs {
    fn at(at: i64, how: Hang) -> Self {
        Self {
            recorder: Recorder::new("recorder"),
            at,
            how,
            hung: Arc::default(),
        }
    }

    fn hung(&self) -> Vec<Vec<i64>> {
        self.hung.lock().unwrap().clone()
    }
}

impl<K: Kind> Projection<SqlTransaction<K>> for Hangs {
    type Event = RawPayload;

    fn name(&self) -> &'static str {
        "recorder"
    }

    async fn apply(
        &self,
        page: &[Envelope<RawPayload>],
        transaction: &mut SqlTransaction<K>,
    ) -> Result<()> {
        self.recorder.apply(page, transaction).await?;
        let positions: Vec<i64> = page.iter().map(|event| event.position().0).collect();
        if positions.contains(&self.at) {
            self.hung.lock().unwrap().push(positions);
            match self.how {
                Hang::InStatement => {
                    let sql = K::either(
                        "SELECT pg_sleep(600)",
                        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) \
                         SELECT count(*) FROM n",
                    );
                    let ran = K::run_on(transaction.connection(), sql.to_owned()).await;
                    ran.expect("nobody hears of its end");
                }
                Hang::BetweenStatements => pending().await,
            }
        }
        Ok(())
    }
}

fn projector<K: Kind>(
    store: &SqlStore<K>,
    hangs: &Hangs,
    policy: FailurePolicy,
) -> ProjectorBuilder<K> {
    let subscription = Subscription::new(hangs.clone()).on_failure(policy);
    let projector = store.projector().subscribe(subscription);
    projector
        .deadline(DEADLINE)
        .retry_delays([Duration::from_millis(1)])
}

async fn store<K: Kind>() -> (Fresh<K>, SqlStore<K>) {
    let (fresh, store) = Fresh::<K>::with_store().await;
    let store = with_tables(store).await;
    (fresh, store)
}

/// A log of so many events, of which one hangs.
const CASES: [(i64, i64); 2] = [(1, 1), (5, 3)];

/// Runs to the end; what hung.
async fn run<K: Kind>(
    store: &SqlStore<K>,
    (events, at): (i64, i64),
    policy: FailurePolicy,
) -> (Result<u64>, Vec<Vec<i64>>) {
    assert_eq!(commit(store, events - 1).await.0, events);
    let hangs = Hangs::at(at, Hang::InStatement);
    let projector = projector(store, &hangs, policy);
    let ran = tokio::time::timeout(BOUND, projector.run_until_idle()).await;
    let ran = ran.expect("it does not wait for what hangs");
    let mut hung = hangs.hung();
    if events > 1 {
        assert_eq!(hung.remove(0), (1..=events).collect::<Vec<_>>());
    }
    (ran, hung)
}

async fn a_statement_that_hangs_halts_in_the_end<K: Kind>() {
    for case @ (_, at) in CASES {
        let (_fresh, store) = store::<K>().await;
        let (ran, hung) = run(&store, case, FailurePolicy::Halt).await;
        let halted = failure(&ran.unwrap_err()).clone();
        assert_eq!((halted.attempts, halted.position), (2, Some(Position(at))));
        assert_eq!(halted.error, "the page was not applied within 1s");
        assert_eq!(hung, [[at], [at]]);
        assert_eq!(applied(&store).await, (1..at).collect::<Vec<_>>());
        assert_eq!(state(&store).await, SubscriptionState::Halted(halted));
    }
}

async fn a_statement_that_hangs_is_skipped_in_the_end<K: Kind>() {
    is_put_aside::<K>(FailurePolicy::Skip).await;
}

async fn a_statement_that_hangs_is_parked_in_the_end<K: Kind>() {
    is_put_aside::<K>(FailurePolicy::Park(Parking::default())).await;
}

async fn is_put_aside<K: Kind>(policy: FailurePolicy) {
    let skips = matches!(policy, FailurePolicy::Skip);
    for case @ (events, at) in CASES {
        let (_fresh, store) = store::<K>().await;
        let (ran, hung) = run(&store, case, policy.clone()).await;
        ran.unwrap();
        assert_eq!(hung, [[at], [at]]);
        let operations = operations(&store);
        let letters = operations.dead_letters("recorder", Position::START, 10);
        let letters = letters.await.unwrap();
        assert_eq!((letters[0].position.0, letters[0].attempts), (at, 2));
        // They are all of one aggregate.
        let (is_skipped, others): (_, Vec<i64>) = if skips {
            (true, (1..=events).filter(|one| *one != at).collect())
        } else {
            (false, (1..at).collect())
        };
        assert_eq!(letters[0].status == DeadLetterStatus::Skipped, is_skipped);
        assert_eq!(applied(&store).await, others);
    }
}

async fn operators_need_not_wait_for_a_statement_that_hangs<K: Kind>() {
    let (_fresh, store) = store::<K>().await;
    commit(&store, 0).await;
    let hangs = Hangs::at(1, Hang::InStatement);
    let projector = projector(&store, &hangs, FailurePolicy::Halt);
    // It is tried again and again.
    let projector = projector.retry_delays([Duration::ZERO; 50]);
    let handle = projector.start().await.unwrap();
    while hangs.hung().is_empty() {
        tokio::task::yield_now().await;
    }
    let operations = operations(&store);
    let paused = tokio::time::timeout(BOUND, operations.pause("recorder")).await;
    paused.expect("the page is given up").unwrap();
    let hung = hangs.hung().len();
    handle.stop(Duration::from_secs(60)).await;
    assert_eq!(hangs.hung().len(), hung, "nobody tried again");
    assert_eq!(state(&store).await, SubscriptionState::Paused);
}

/// Each page is tried once, although the server has to notice first that it was given up.
async fn whoever_is_interrupted_goes_on_where_it_was<K: Kind>() {
    for how in [Hang::BetweenStatements, Hang::InStatement] {
        let (_fresh, store) = store::<K>().await;
        commit(&store, 3).await;
        let hangs = Hangs::at(3, how);
        let projector = projector(&store, &hangs, FailurePolicy::Skip);
        projector.run_until_idle().await.unwrap();
        assert_eq!(
            hangs.recorder.pages(),
            [
                vec![1, 2, 3, 4],
                vec![1],
                vec![2],
                vec![3],
                vec![3],
                vec![4]
            ],
            "{how:?}"
        );
    }
    let (_fresh, store) = store::<K>().await;
    commit(&store, 3).await;
    let panics = Recorder::new("recorder").with_fault(|page| {
        assert!(page.iter().all(|event| event.position().0 != 3), "poison");
        Ok(())
    });
    let skips = Subscription::new(panics.clone()).on_failure(FailurePolicy::Skip);
    let projector = store.projector().subscribe(skips).retry_delays([]);
    projector.run_until_idle().await.unwrap();
    assert_eq!(
        panics.pages(),
        [vec![1, 2, 3, 4], vec![1, 2], vec![3], vec![4]]
    );
}

async fn replicas_find_an_event_that_hangs_together<K: Kind>() {
    let (fresh, store) = store::<K>().await;
    let last = receipt(&store, 11).await;
    let hangs = Hangs::at(10, Hang::InStatement);
    let (mut replicas, mut running) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let replica = fresh.open(cqrs_sqlx::StoreOptions::default()).await;
        let projector = projector(&replica, &hangs, FailurePolicy::Skip);
        running.push(projector.start().await.unwrap());
        replicas.push(replica);
    }
    let applied_there = tokio::time::timeout(BOUND, replicas[0].wait_for(&last, "recorder")).await;
    applied_there.expect("it is found").unwrap();
    for handle in running {
        handle.stop(Duration::from_secs(60)).await;
    }
    let others: Vec<_> = (1..=12).filter(|one| *one != 10).collect();
    assert_eq!(applied(&store).await, others);
    let hung = hangs.hung();
    // Each replica may have to find out that a page has to be taken apart, and tries the event alone
    // twice at most: another may be at it while the first writes down that it failed.
    let (alone, pages): (Vec<_>, Vec<_>) = hung.iter().partition(|page| page.len() == 1);
    assert!(pages.len() <= 3 && alone.len() <= 6, "{hung:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_hangs_behind_a_pooler_is_skipped_in_the_end() {
    for case @ (events, at) in CASES {
        let database = TestDatabase::create().await;
        let pooler = Pooler::start(database.url(), 4).await;
        let store = with_tables(stores::postgres(pooler.url()).await).await;
        let (ran, hung) = run::<Postgres>(&store, case, FailurePolicy::Skip).await;
        ran.unwrap();
        assert_eq!(hung, [[at], [at]]);
        let others: Vec<_> = (1..=events).filter(|one| *one != at).collect();
        assert_eq!(applied(&store).await, others);
    }
}
