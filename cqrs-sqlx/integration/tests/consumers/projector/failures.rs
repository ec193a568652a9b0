//! Failures: retried in order, then halted with the reason, until someone resumes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use cqrs_core::{
    DomainEvent, Entity as _, Envelope, Error, FailurePolicy, Position, Projection,
    ProjectionTransaction, RequestContext, Result, Store, StoreErrorKind, Subscription,
};
use cqrs_integration::database::{SecuredDatabase, TestDatabase};
use cqrs_integration::wire::{Counts, Pooler, WireProxy};
use cqrs_integration::{domain, stores};
use cqrs_sqlx::{
    Backend, PgStore, Postgres, SqlStore, SqlTransaction, StoreOptions, SubscriptionState,
};
use serde::{Deserialize, Serialize};
use sqlx::{Connection as _, Executor as _, PgConnection};

use super::support::{
    Applied, Recorder, applied, commit, failure, on_each_database, operations, receipt, state,
    with_tables,
};

on_each_database!(
    a_failure_that_passes_is_retried,
    a_failure_that_stays_halts_until_resumed,
    a_halted_subscription_stands_still_everywhere,
    a_panic_is_a_failure,
    an_unknown_event_type_halts_where_it_stands,
    a_payload_that_does_not_fit_halts_where_it_stands,
    errors_of_the_database_that_pass_do_not_count,
    no_failure_spoils_its_own_record,
);

const DELAYS: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(2)];

async fn a_failure_that_passes_is_retried<B: Backend>(store: SqlStore<B>) {
    let last = commit(&store, 2).await.0;
    let failures = AtomicU32::new(2);
    let recorder = Recorder::new("recorder").with_fault(move |_| {
        let left =
            failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        left.map_or(Ok(()), |_| Err(Error::other("not yet")))
    });
    let projector = store.projector().projection(recorder.clone());
    let events = projector
        .retry_delays(DELAYS)
        .run_until_idle()
        .await
        .unwrap();
    assert_eq!(events, 3);
    // The first half of the page is one event, which fails once more.
    assert_eq!(
        recorder.pages(),
        [vec![1, 2, 3], vec![1], vec![1], vec![2, 3]]
    );
    assert_eq!(applied(&store).await, (1..=last).collect::<Vec<_>>());
    assert_eq!(state(&store).await, SubscriptionState::Active);
}

async fn a_failure_that_stays_halts_until_resumed<B: Backend>(store: SqlStore<B>) {
    commit(&store, 0).await;
    let broken = Arc::new(AtomicBool::new(true));
    let recorder = Recorder::new("recorder").with_fault({
        let broken = Arc::clone(&broken);
        move |page| match page.iter().find(|event| event.position().0 >= 2) {
            Some(_) if broken.load(Ordering::Relaxed) => Err(Error::other("out of order")),
            _ => Ok(()),
        }
    });
    let handle = store
        .projector()
        .projection(recorder.clone())
        .retry_delays(DELAYS)
        .start()
        .await
        .unwrap();
    let second = receipt(&store, 1).await;
    let error = store.wait_for(&second, "recorder").await.unwrap_err();
    let halted = failure(&error).clone();
    assert_eq!(halted.name, "recorder");
    assert_eq!(halted.attempts, 3);
    assert!(halted.position.is_some_and(|position| position.0 <= 2));
    assert_eq!(halted.error, "out of order");
    assert_eq!(state(&store).await, SubscriptionState::Halted(halted));
    assert!(!applied(&store).await.contains(&2));

    broken.store(false, Ordering::Relaxed);
    let operations = store.operations(&RequestContext::system()).unwrap();
    operations.resume("recorder").await.unwrap();
    store.wait_for(&second, "recorder").await.unwrap();
    assert_eq!(applied(&store).await, [1, 2, 3]);
    assert_eq!(state(&store).await, SubscriptionState::Active);
    drop(handle);

    let error = operations.resume("no such").await.unwrap_err();
    assert!(matches!(error, Error::Store(error) if *error.kind() == StoreErrorKind::Usage));
}

async fn a_halted_subscription_stands_still_everywhere<B: Backend>(store: SqlStore<B>) {
    commit(&store, 0).await;
    let recorder = Recorder::new("recorder").with_fault(|_| Err(Error::other("it never works")));
    let projector = || {
        let projector = store.projector().projection(recorder.clone());
        projector.retry_delays(DELAYS)
    };
    failure(&projector().run_until_idle().await.unwrap_err());
    assert_eq!(recorder.pages().len(), 3);
    let error = projector().run_until_idle().await.unwrap_err();
    assert_eq!(failure(&error).attempts, 3);
    let handle = projector().start().await.unwrap();
    let next = receipt(&store, 0).await;
    failure(&store.wait_for(&next, "recorder").await.unwrap_err());
    handle.stop(Duration::from_secs(60)).await;
    assert_eq!(recorder.pages().len(), 3, "nobody tried again");
    assert_eq!(applied(&store).await, Vec::<i64>::new());
}

async fn a_panic_is_a_failure<B: Backend>(store: SqlStore<B>) {
    let last = commit(&store, 1).await.0;
    // A page of several events, and everything after the first two.
    let recorder = Recorder::new("recorder").with_fault(move |page| {
        let is_after = page.iter().any(|event| event.position().0 > last);
        assert!(page.len() == 1 && !is_after, "out of cheese");
        Ok(())
    });
    let projector = || {
        let projector = store.projector().projection(recorder.clone());
        projector.retry_delays(DELAYS)
    };
    assert_eq!(projector().run_until_idle().await.unwrap(), 2);
    assert_eq!(applied(&store).await, (1..=last).collect::<Vec<_>>());

    commit(&store, 0).await;
    let error = projector().run_until_idle().await.unwrap_err();
    assert_eq!(failure(&error).error, "it panicked: out of cheese");
    assert_eq!(applied(&store).await, (1..=last).collect::<Vec<_>>());
}

/// The events of a parcel as code knows them that is behind.
#[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "parcel")]
enum OldEvent {
    Registered { label: String },
}

/// The events of a parcel as code knows them that is wrong.
#[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "parcel")]
enum WrongEvent {
    Registered { label: String },
    Weighed { grams: String },
}

/// Counts the events of a type.
struct Counter<E>(Arc<AtomicU32>, std::marker::PhantomData<fn() -> E>);

impl<E: DomainEvent, T: ProjectionTransaction> Projection<T> for Counter<E> {
    type Event = E;

    fn name(&self) -> &str {
        "counter"
    }

    async fn apply(&self, page: &[Envelope<E>], _: &mut T) -> Result<()> {
        let events = u32::try_from(page.len()).map_err(Error::other)?;
        self.0.fetch_add(events, Ordering::Relaxed);
        Ok(())
    }
}

/// Two events, one that `E` cannot read, and one more.
async fn halts_at_the_third<E: DomainEvent, B: Backend>(store: &SqlStore<B>) -> String {
    commit(store, 0).await;
    commit(store, 0).await;
    commit(store, 1).await;
    let count = Arc::new(AtomicU32::new(0));
    let projector = store
        .projector()
        .projection(Counter::<E>(Arc::clone(&count), std::marker::PhantomData))
        .retry_delays(DELAYS);
    let error = projector.run_until_idle().await.unwrap_err();
    let halted = failure(&error);
    assert_eq!(halted.position.map(|position| position.0), Some(4));
    assert_eq!(halted.attempts, 3);
    assert_eq!(
        count.load(Ordering::Relaxed),
        3,
        "what comes before is applied"
    );
    assert_eq!(store.subscriptions().await.unwrap()[0].position.0, 3);
    halted.error.clone()
}

async fn an_unknown_event_type_halts_where_it_stands<B: Backend>(store: SqlStore<B>) {
    let error = halts_at_the_third::<OldEvent, B>(&store).await;
    assert_eq!(
        error,
        "event at position 4: unknown event type \"parcel.weighed\" of aggregate \"parcel\""
    );
}

async fn a_payload_that_does_not_fit_halts_where_it_stands<B: Backend>(store: SqlStore<B>) {
    let error = halts_at_the_third::<WrongEvent, B>(&store).await;
    assert!(
        error.contains("payload of event type \"parcel.weighed\""),
        "{error}"
    );
}

async fn errors_of_the_database_that_pass_do_not_count<B: Backend>(store: SqlStore<B>) {
    let last = receipt(&store, 0).await;
    let kinds = [
        StoreErrorKind::Contention,
        StoreErrorKind::Unavailable,
        StoreErrorKind::PoolTimedOut,
    ];
    let calls = AtomicU32::new(0);
    let recorder = Recorder::new("recorder").with_fault(move |_| {
        let call = calls.fetch_add(1, Ordering::Relaxed) as usize;
        match kinds.get(call) {
            Some(kind) => Err(Error::store(kind.clone(), "it will pass")),
            None => Ok(()),
        }
    });
    let projector = store.projector().projection(recorder.clone());
    let handle = projector.retry_delays([]).start().await.unwrap();
    store.wait_for(&last, "recorder").await.unwrap();
    assert_eq!(recorder.pages().len(), 4);
    assert_eq!(applied(&store).await, [1]);
    handle.stop(Duration::from_secs(60)).await;
}

/// Nobody is to blame: somebody changes or indexes the table, for longer than a page may take.
const TABLE: Waits = Waits {
    lock: "BEGIN; LOCK TABLE applied",
    page: 1,
    page_size: 100,
};

/// The transaction of the second page is begun with the commit of the first.
const ROW_OF_SECOND_PAGE: Waits = Waits {
    lock: "BEGIN; INSERT INTO applied (subscription, position, times) VALUES ('recorder', 2, 0)",
    page: 2,
    page_size: 1,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_a_lock_is_no_failure() {
    for (waits, rows_alone) in [(TABLE, true), (TABLE, false), (ROW_OF_SECOND_PAGE, false)] {
        for is_pooled in [false, true] {
            let database = TestDatabase::create().await;
            let pooler = Pooler::start(database.url(), 4).await;
            let url = if is_pooled {
                pooler.url()
            } else {
                database.url()
            };
            let store = with_tables(stores::postgres(url).await).await;
            println!("{waits:?}, rows alone: {rows_alone}, pooled: {is_pooled}");
            let is_tried_again = |recorder: &Recorder| recorder.pages().len() > waits.page;
            waits
                .play(&store, database.url(), rows_alone, &[], is_tried_again)
                .await;
        }
    }
}

/// That it waits can be seen. Its process keeps what it holds until it has the lock; so until then the
/// page is claimed in vain, and a failure could not be recorded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_a_lock_is_no_failure_of_a_role_that_may_not_cancel() {
    let tables = [&[Applied::table()], domain::tables().as_slice()].concat();
    let database = SecuredDatabase::create(&tables).await;
    let proxy = WireProxy::start(database.member_url()).await;
    let options = StoreOptions::default().row_level_security();
    let store = stores::postgres_with(proxy.url(), options).await;
    let is_given_up = |_: &Recorder| {
        let sent = proxy.statements_since(&Counts::default());
        let mut sent = sent.iter();
        // What follows it is sent when it was answered: whether the process is still there.
        sent.any(|sql| sql.contains("pg_cancel_backend"))
            && sent.any(|sql| sql.starts_with("SELECT pid FROM"))
    };
    // After a failure it would not be tried again.
    let delays = [Duration::from_secs(3600)];
    ROW_OF_SECOND_PAGE
        .play(
            &store,
            database.superuser_url(),
            false,
            &delays,
            is_given_up,
        )
        .await;
}

/// A page that waits for what somebody else has locked.
#[derive(Debug, Clone, Copy)]
struct Waits {
    lock: &'static str,
    /// Which one it is.
    page: usize,
    page_size: u32,
}

impl Waits {
    /// Keeps the lock until the page was given up.
    async fn play(
        &self,
        store: &PgStore,
        database: &str,
        rows_alone: bool,
        delays: &[Duration],
        is_given_up: impl Fn(&Recorder) -> bool,
    ) {
        let last = commit(store, 1).await.0;
        let mut locks = PgConnection::connect(database).await.unwrap();
        locks.execute(self.lock).await.unwrap();
        let mut recorder = Recorder::new("recorder");
        if rows_alone {
            recorder = recorder.rows_alone();
        }
        let skips = Subscription::new(recorder.clone()).on_failure(FailurePolicy::Skip);
        let projector = store.projector().subscribe(skips);
        let projector = projector.retry_delays(delays.to_vec());
        let projector = projector.page_size(self.page_size);
        let projector = projector.deadline(Duration::from_secs(2));
        let handle = projector.start().await.unwrap();
        let is_applied = async {
            while !is_given_up(&recorder) {
                tokio::task::yield_now().await;
            }
            locks.execute("ROLLBACK").await.unwrap();
            while applied(store).await.len() < 2 {
                tokio::task::yield_now().await;
            }
        };
        let is_applied = tokio::time::timeout(Duration::from_secs(30), is_applied).await;
        is_applied.expect("it is tried again");
        handle.stop(Duration::from_secs(60)).await;
        assert_eq!(applied(store).await, (1..=last).collect::<Vec<_>>());
        let operations = operations(store);
        let letters = operations.dead_letters("recorder", Position::START, 10);
        assert_eq!(letters.await.unwrap().len(), 0);
    }
}

async fn no_failure_spoils_its_own_record<B: Backend>(store: SqlStore<B>) {
    commit(&store, 0).await;
    let recorder = Recorder::new("recorder")
        .with_fault(|_| Err(Error::other("NUL \0, quote ', and \u{1F4E6}")));
    let projector = store.projector().projection(recorder).retry_delays([]);
    let error = projector.run_until_idle().await.unwrap_err();
    assert_eq!(
        failure(&error).error,
        "NUL \u{fffd}, quote ', and \u{1F4E6}"
    );
}

/// Runs SQL of its own, and goes on after its error.
struct Careless;

impl Projection<SqlTransaction<Postgres>> for Careless {
    type Event = cqrs_core::RawPayload;

    fn name(&self) -> &str {
        "careless"
    }

    async fn apply(
        &self,
        page: &[Envelope<cqrs_core::RawPayload>],
        transaction: &mut SqlTransaction<Postgres>,
    ) -> Result<()> {
        for event in page {
            sqlx::query("INSERT INTO applied VALUES ('careless', $1, 1)")
                .bind(event.position().0)
                .execute(transaction.connection())
                .await
                .map_err(Error::other)?;
        }
        let broken = sqlx::query("SELECT 1 / 0").execute(transaction.connection());
        assert!(broken.await.is_err());
        Ok(())
    }
}

#[tokio::test]
async fn an_error_that_a_projection_swallowed_is_found_out() {
    let database = TestDatabase::create().await;
    let store = with_tables(stores::postgres(database.url()).await).await;
    commit(&store, 0).await;
    let projector = store.projector().projection(Careless).retry_delays([]);
    let error = projector.run_until_idle().await.unwrap_err();
    assert!(failure(&error).error.contains("aborted"), "{error}");
    assert_eq!(applied(&store).await, Vec::<i64>::new());
    assert_eq!(store.subscriptions().await.unwrap()[0].position.0, 0);
}
