//! What the rules share.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use chrono::{DateTime, TimeZone, Utc};

use super::fixtures::{Counter, Locker, Parcel};
use super::{Harness, Setup};
use crate::aggregate::AggregateRoot;
use crate::clock::ManualClock;
use crate::context::{RequestContext, TenantId};
use crate::envelope::{Envelope, RawPayload};
use crate::error::{Error, Result, StoreErrorKind};
use crate::interceptor::Interceptors;
use crate::repository::Repository;
use crate::schema::SchemaIds;
use crate::store::{RetryPolicy, Store};
use crate::unit_of_work::{CommitReceipt, UnitOfWork};

/// How often `execute` runs its work at most.
pub(super) const ATTEMPTS: u32 = 4;

/// A store under test, and what the rules do with it all the time.
pub(super) struct Bench<'h, H: Harness> {
    pub(super) harness: &'h H,
    pub(super) store: H::Store,
    pub(super) clock: Arc<ManualClock>,
}

pub(super) async fn begin<H: Harness>(harness: &H) -> Bench<'_, H> {
    begin_at(harness, Arc::new(ManualClock::new(time(0)))).await
}

pub(super) async fn begin_at<H: Harness>(harness: &H, clock: Arc<ManualClock>) -> Bench<'_, H> {
    begin_as(harness, clock, |_| {}).await
}

pub(super) async fn begin_identified<H: Harness>(harness: &H, ids: SchemaIds) -> Bench<'_, H> {
    let clock = Arc::new(ManualClock::new(time(0)));
    begin_as(harness, clock, |setup| setup.schema_ids = ids).await
}

pub(super) async fn begin_with<H: Harness>(
    harness: &H,
    interceptors: Interceptors,
) -> Bench<'_, H> {
    let clock = Arc::new(ManualClock::new(time(0)));
    begin_as(harness, clock, |setup| setup.interceptors = interceptors).await
}

async fn begin_as<H: Harness>(
    harness: &H,
    clock: Arc<ManualClock>,
    change: impl FnOnce(&mut Setup),
) -> Bench<'_, H> {
    let retry_policy = RetryPolicy {
        attempts: ATTEMPTS,
        first_delay: Duration::from_millis(1),
        max_delay: Duration::from_millis(2),
    };
    let mut setup = Setup::new(Arc::clone(&clock), retry_policy);
    change(&mut setup);
    Bench {
        harness,
        store: harness.store(setup).await,
        clock,
    }
}

impl<H: Harness> Bench<'_, H> {
    pub(super) fn unit_of_work(&self, context: &RequestContext) -> <H::Store as Store>::UnitOfWork {
        self.store.unit_of_work(context)
    }

    /// Saves one aggregate in a unit of work of its own.
    pub(super) async fn try_save<A: AggregateRoot>(
        &self,
        context: &RequestContext,
        aggregate: A,
    ) -> Result<CommitReceipt> {
        let mut uow = self.unit_of_work(context);
        uow.save(aggregate)?;
        uow.commit().await
    }

    pub(super) async fn saved<A: AggregateRoot>(
        &self,
        context: &RequestContext,
        aggregate: A,
    ) -> CommitReceipt {
        ok(self.try_save(context, aggregate).await)
    }

    pub(super) async fn save<A: AggregateRoot>(&self, context: &RequestContext, aggregate: A) {
        let _ = self.saved(context, aggregate).await;
    }

    /// Removes one aggregate in a unit of work of its own.
    pub(super) async fn try_remove<A: AggregateRoot>(
        &self,
        context: &RequestContext,
        aggregate: A,
    ) -> Result<CommitReceipt> {
        let mut uow = self.unit_of_work(context);
        uow.remove(aggregate)?;
        uow.commit().await
    }

    pub(super) async fn removed<A: AggregateRoot>(
        &self,
        context: &RequestContext,
        aggregate: A,
    ) -> CommitReceipt {
        ok(self.try_remove(context, aggregate).await)
    }

    pub(super) async fn remove<A: AggregateRoot>(&self, context: &RequestContext, aggregate: A) {
        let _ = self.removed(context, aggregate).await;
    }

    pub(super) async fn find<A: AggregateRoot>(
        &self,
        context: &RequestContext,
        id: A::Id,
    ) -> Option<A> {
        let mut uow = self.unit_of_work(context);
        ok(uow.repository::<A>().find(id).await)
    }

    pub(super) async fn load<A: AggregateRoot>(&self, context: &RequestContext, id: A::Id) -> A {
        let text = id.to_string();
        let found = self.find(context, id).await;
        found.unwrap_or_else(|| panic!("{} {text} is not there", A::TYPE))
    }

    /// Saves a new parcel that has raised one event, and loads it back.
    pub(super) async fn parcel(&self, context: &RequestContext, label: &str) -> Parcel {
        let parcel = Parcel::register(label);
        let id = parcel.id;
        self.save(context, parcel).await;
        self.load(context, id).await
    }

    /// Saves a new counter that has raised one event, and loads it back.
    pub(super) async fn counter(&self, id: i64) -> Counter {
        let mut counter = Counter::new(id);
        counter.add(1);
        self.save(&system(), counter).await;
        self.load(&system(), id).await
    }

    /// Saves a new locker that has raised one event, and loads it back.
    pub(super) async fn locker(&self, context: &RequestContext, id: &str) -> Locker {
        let mut locker = Locker::new(id);
        locker.assign("ann");
        self.save(context, locker).await;
        self.load(context, id.to_owned()).await
    }

    pub(super) async fn log(&self) -> Vec<Envelope<RawPayload>> {
        self.harness.log(&self.store).await
    }

    /// The events of one aggregate: version and type.
    pub(super) async fn stream<A: AggregateRoot>(&self, id: &A::Id) -> Vec<(u64, String)> {
        let id = id.to_string();
        self.log()
            .await
            .iter()
            .filter(|event| event.aggregate_type() == A::TYPE && event.aggregate_id_str() == id)
            .map(|event| (event.aggregate_version(), event.event_type().to_owned()))
            .collect()
    }

    pub(super) async fn project(&self) {
        self.harness.project(&self.store).await;
    }
}

/// Runs futures side by side in this task.
pub(super) async fn join_all<F: Future<Output = ()>>(futures: impl Iterator<Item = F>) {
    let mut running: Vec<_> = futures.map(Box::pin).collect();
    poll_fn(|context| {
        running.retain_mut(|future| future.as_mut().poll(context).is_pending());
        if running.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

/// The start of the suite's time, and `seconds` later.
pub(super) fn time(seconds: i64) -> DateTime<Utc> {
    Utc.timestamp_opt(1_767_323_045 + seconds, 678_901_000)
        .single()
        .unwrap_or_default()
}

pub(super) fn tenant(name: &str) -> TenantId {
    ok(TenantId::new(name))
}

/// The context of a tenant, with an actor.
pub(super) fn north() -> RequestContext {
    RequestContext::tenant(tenant("north")).with_actor("ann")
}

/// The context of another tenant.
pub(super) fn south() -> RequestContext {
    RequestContext::tenant(tenant("south")).with_actor("ben")
}

/// The context of the system.
pub(super) fn system() -> RequestContext {
    RequestContext::system().with_actor("root")
}

#[track_caller]
pub(super) fn ok<T, E: std::fmt::Debug>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("expected success, got {error:?}"))
}

#[track_caller]
pub(super) fn err<T: std::fmt::Debug>(result: Result<T>) -> Error {
    match result {
        Ok(value) => panic!("expected an error, got {value:?}"),
        Err(error) => error,
    }
}

#[track_caller]
pub(super) fn assert_conflict<A: AggregateRoot>(
    error: &Error,
    id: &A::Id,
    expected: u64,
    found: u64,
) {
    match error {
        Error::Conflict {
            aggregate,
            id: text,
            expected: stale,
            found: current,
        } => assert_eq!(
            (*aggregate, text.clone(), *stale, *current),
            (A::TYPE, id.to_string(), expected, found)
        ),
        other => panic!("expected a conflict, got {other:?}"),
    }
    assert!(error.is_conflict());
    assert!(error.is_retryable());
}

#[track_caller]
pub(super) fn assert_already_exists<A: AggregateRoot>(error: &Error, wanted: &A::Id) {
    match error {
        Error::AlreadyExists { aggregate, id } => {
            assert_eq!((*aggregate, id.clone()), (A::TYPE, wanted.to_string()));
        }
        other => panic!("expected that it already exists, got {other:?}"),
    }
    assert!(error.is_conflict());
    assert!(!error.is_retryable());
}

#[track_caller]
pub(super) fn assert_not_found<A: AggregateRoot>(error: &Error, wanted: &A::Id) {
    match error {
        Error::NotFound { aggregate, id } => {
            assert_eq!((*aggregate, id.clone()), (A::TYPE, wanted.to_string()));
        }
        other => panic!("expected that it is not found, got {other:?}"),
    }
    assert!(error.is_not_found());
    assert!(!error.is_retryable());
}

#[track_caller]
pub(super) fn assert_usage(error: &Error) {
    match error {
        Error::Store(error) => assert_eq!(error.kind(), &StoreErrorKind::Usage, "{error}"),
        other => panic!("expected a usage error, got {other:?}"),
    }
}

/// Checks that a column refused a value, by its name.
#[track_caller]
pub(super) fn assert_refused(error: &Error, table: &str, column: &str) {
    match error {
        Error::Mapping(error) => {
            assert_eq!(
                (error.table.as_str(), error.column.as_str()),
                (table, column)
            );
        }
        other => panic!("expected that column {column} refuses it, got {other:?}"),
    }
    assert!(!error.is_retryable());
}
