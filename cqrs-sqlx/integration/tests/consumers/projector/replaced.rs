//! SQL of a projection that ends the transaction of its page and begins another.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cqrs_core::{
    Envelope, Error, FailurePolicy, Parking, Position, Projection, RawPayload, RequestContext,
    Result, Store, Subscription, UnitOfWork,
};
use cqrs_integration::domain::Parcel;
use cqrs_integration::stores;
use cqrs_sqlx::{SqlTransaction, SubscriptionState};

use super::support::state;
use cqrs_integration::each::{Fresh, Kind, on_each};

on_each!(
    a_page_in_another_transaction_does_not_count,
    a_replay_in_another_transaction_does_not_count,
);

/// Counts events by SQL of its own; while it is bad, it begins anew in between.
struct Careless<K> {
    bad: Arc<AtomicBool>,
    before: bool,
    kind: PhantomData<fn() -> K>,
}

impl<K: Kind> Projection<SqlTransaction<K>> for Careless<K> {
    type Event = RawPayload;

    fn name(&self) -> &'static str {
        "recorder"
    }

    async fn apply(
        &self,
        page: &[Envelope<RawPayload>],
        transaction: &mut SqlTransaction<K>,
    ) -> Result<()> {
        let again = "ROLLBACK; BEGIN".to_owned();
        let bad = self.bad.load(Ordering::Relaxed);
        if bad && self.before {
            let ran = K::run_on(transaction.connection(), again.clone()).await;
            ran.map_err(Error::other)?;
        }
        for event in page {
            let sql = format!("INSERT INTO counted VALUES ({})", event.position());
            let ran = K::run_on(transaction.connection(), sql).await;
            ran.map_err(Error::other)?;
        }
        if bad && !self.before {
            let ran = K::run_on(transaction.connection(), again).await;
            ran.map_err(Error::other)?;
        }
        Ok(())
    }
}

async fn a_page_in_another_transaction_does_not_count<K: Kind>() {
    for before in [false, true] {
        check::<K>(before, FailurePolicy::Halt).await;
    }
}

async fn a_replay_in_another_transaction_does_not_count<K: Kind>() {
    for before in [false, true] {
        check::<K>(before, FailurePolicy::Park(Parking::at_most(10))).await;
    }
}

async fn check<K: Kind>(before: bool, policy: FailurePolicy) {
    let (fresh, store) = Fresh::<K>::with_store().await;
    fresh.run("CREATE TABLE counted (position BIGINT)").await;
    let context = stores::tenant("north");
    for _ in 0..3 {
        let saved = store.execute(&context, async |uow| uow.save(Parcel::register("parcel")));
        let _ = saved.await.unwrap();
    }
    let bad = Arc::new(AtomicBool::new(true));
    let careless = Careless::<K> {
        bad: Arc::clone(&bad),
        before,
        kind: PhantomData,
    };
    let subscription = Subscription::new(careless).on_failure(policy.clone());
    let projector = store.projector().subscribe(subscription);
    let projector = projector.retry_delays([Duration::ZERO]);
    let operations = store.operations(&RequestContext::system()).unwrap();
    let letters = || operations.dead_letters("recorder", Position::START, 10);
    if matches!(policy, FailurePolicy::Halt) {
        projector.run_until_idle().await.unwrap_err();
        let SubscriptionState::Halted(failure) = state(&store).await else {
            panic!("it goes on");
        };
        assert!(
            failure.error.contains("has ended the transaction"),
            "{failure:?}"
        );
    } else {
        assert_eq!(projector.run_until_idle().await.unwrap(), 0);
        operations.replay_all("recorder").await.unwrap();
        projector.run_until_idle().await.unwrap();
        let letters = letters().await.unwrap();
        let attempts: Vec<_> = letters.iter().map(|letter| letter.attempts).collect();
        assert_eq!(attempts, [3, 3, 3]);
    }
    assert!(fresh.dump("counted").await.is_empty());

    bad.store(false, Ordering::Relaxed);
    operations.resume("recorder").await.unwrap();
    operations.replay_all("recorder").await.unwrap();
    assert_eq!(projector.run_until_idle().await.unwrap(), 3);
    let counted = "SELECT count(DISTINCT position) * 10 + count(*) FROM counted";
    assert_eq!(fresh.number(counted).await, 33);
    assert!(letters().await.unwrap().is_empty());
}
