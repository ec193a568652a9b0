//! `execute`: retries and outputs.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Harness;
use super::fixtures::{AccountForm, Counter, LabelUse, Ledger, Parcel};
use super::support::{
    ATTEMPTS, Bench, assert_already_exists, assert_conflict, assert_not_found, assert_usage, begin,
    err, north, ok, system,
};
use crate::aggregate::AggregateRoot;
use crate::error::{DomainError, Error, Result};
use crate::handler::{CommandHandler, QueryHandler};
use crate::read_model::ReadModels;
use crate::repository::Repository;
use crate::specification::Specification;
use crate::store::Store;
use crate::unit_of_work::UnitOfWork;

#[derive(Debug, PartialEq)]
struct TooHeavy {
    grams: u32,
}

impl fmt::Display for TooHeavy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} g is too heavy", self.grams)
    }
}

impl std::error::Error for TooHeavy {}
impl DomainError for TooHeavy {}

/// Adds to a counter in a unit of work of its own.
async fn add<S: Store>(store: &S, id: i64, by: i64) -> Result<()> {
    let mut uow = store.unit_of_work(&system());
    let mut counter: Counter = uow.get(id).await?;
    counter.add(by);
    uow.save(counter)?;
    let _ = uow.commit().await?;
    Ok(())
}

/// What the work returns comes with the receipt of its commit; it runs once where nothing is in
/// its way.
pub async fn the_output_comes_with_the_receipt<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let runs = AtomicU32::new(0);
    let receipt = ok(bench
        .store
        .execute(&north(), async |uow| {
            runs.fetch_add(1, Ordering::Relaxed);
            let parcel = Parcel::register("made");
            let id = parcel.id;
            uow.save(parcel)?;
            Ok(id)
        })
        .await);
    assert_eq!(runs.into_inner(), 1);
    assert_eq!(receipt.events().len(), 1);
    let log = bench.log().await;
    assert_eq!(receipt.position(), Some(log[0].position()));
    let id = receipt.into_output();
    assert_eq!(bench.load::<Parcel>(&north(), id).await.label, "made");
}

/// A conflict runs the work again, in a new unit of work, until it succeeds: once more than there
/// were conflicts.
pub async fn a_conflict_runs_the_work_again<H: Harness>(h: &H) {
    let bench = begin(h).await;
    bench.counter(1).await;
    let runs = AtomicU32::new(0);
    let store = &bench.store;
    let receipt = ok(store
        .execute(&system(), async |uow| {
            let run = runs.fetch_add(1, Ordering::Relaxed) + 1;
            let mut counter: Counter = uow.get(1).await?;
            if run < 3 {
                add(store, 1, 10).await?;
            }
            counter.add(100);
            uow.save(counter)?;
            Ok(run)
        })
        .await);
    assert_eq!(receipt.output(), &3);
    assert_eq!(runs.into_inner(), 3);
    let counter: Counter = bench.load(&system(), 1).await;
    assert_eq!((counter.value, counter.root.version()), (121, 4));
    assert_eq!(bench.log().await.len(), 4);
}

/// A conflict spends its unit of work, also where the work does not pass it on: the commit is a
/// usage error with the conflict as its source, and the work runs again.
pub async fn a_conflict_that_the_work_swallows_runs_it_again<H: Harness>(h: &H) {
    let bench = begin(h).await;
    bench.counter(1).await;
    let runs = AtomicU32::new(0);
    let store = &bench.store;
    let receipt = ok(store
        .execute(&system(), async |uow| {
            let run = runs.fetch_add(1, Ordering::Relaxed) + 1;
            let mut counter: Counter = uow.get(1).await?;
            if run == 1 {
                add(store, 1, 10).await?;
            }
            counter.add(100);
            uow.save(counter)?;
            let mut counters = uow.repository::<Counter>();
            let counted = counters.count(Specification::all()).await;
            assert_eq!(counted.is_err(), run == 1);
            Ok(run)
        })
        .await);
    assert_eq!(receipt.into_output(), 2);
    let counter: Counter = bench.load(&system(), 1).await;
    assert_eq!((counter.value, counter.root.version()), (111, 3));

    let mut stale = counter.clone();
    add(store, 1, 1)
        .await
        .unwrap_or_else(|error| panic!("{error:?}"));
    stale.add(5);
    let mut uow = bench.unit_of_work(&system());
    ok(uow.save(stale));
    let first = err(uow.get::<Counter>(1).await);
    let second = err(uow.get::<Counter>(1).await);
    let last = err(uow.commit().await);
    assert_conflict::<Counter>(&first, &1, 3, 4);
    for spent in [second, last] {
        assert_usage(&spent);
        assert!(spent.is_retryable());
        let source = std::error::Error::source(&spent).map(ToString::to_string);
        assert_eq!(source, Some(first.to_string()));
    }
}

/// Work that always meets a conflict runs as often as the policy says, and returns the last one.
pub async fn retries_end<H: Harness>(h: &H) {
    let bench = begin(h).await;
    bench.counter(1).await;
    assert_eq!(bench.store.retry_policy().attempts, ATTEMPTS);
    let runs = AtomicU32::new(0);
    let store = &bench.store;
    let error = err(store
        .execute(&system(), async |uow| {
            runs.fetch_add(1, Ordering::Relaxed);
            let mut counter: Counter = uow.get(1).await?;
            add(store, 1, 1).await?;
            counter.add(100);
            uow.save(counter)
        })
        .await);
    assert_eq!(runs.into_inner(), ATTEMPTS);
    let last = u64::from(ATTEMPTS);
    assert_conflict::<Counter>(&error, &1, last, last + 1);
    let counter: Counter = bench.load(&system(), 1).await;
    assert_eq!(counter.value, 1 + i64::from(ATTEMPTS));
}

/// An error of the domain is not retried, and comes out as what it was.
pub async fn an_error_of_the_domain_is_not_retried<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let runs = AtomicU32::new(0);
    let error = err(bench
        .store
        .execute(&north(), async |uow| -> Result<()> {
            runs.fetch_add(1, Ordering::Relaxed);
            uow.save(Parcel::register("never"))?;
            Err(TooHeavy { grams: 9 })?;
            Ok(())
        })
        .await);
    assert_eq!(runs.into_inner(), 1);
    assert_eq!(error.domain::<TooHeavy>(), Some(&TooHeavy { grams: 9 }));
    assert_eq!(error.to_string(), "9 g is too heavy");
    assert!(!error.is_retryable() && !error.is_conflict() && !error.is_not_found());
    assert!(bench.log().await.is_empty());
}

async fn runs_until_error<H: Harness>(bench: &Bench<'_, H>, save: bool) -> (u32, Error) {
    let runs = AtomicU32::new(0);
    let error = err(bench
        .store
        .execute(&system(), async |uow| {
            runs.fetch_add(1, Ordering::Relaxed);
            if save {
                uow.save(Counter::new(1))?;
            } else {
                uow.get::<Counter>(404).await?;
            }
            Ok(())
        })
        .await);
    (runs.into_inner(), error)
}

/// What would fail again is not tried again: an id that is taken, an aggregate that is not there.
pub async fn what_is_not_retryable_is_not_retried<H: Harness>(h: &H) {
    let bench = begin(h).await;
    bench.counter(1).await;
    let (runs, error) = runs_until_error(&bench, true).await;
    assert_eq!(runs, 1);
    assert_already_exists::<Counter>(&error, &1);
    let (runs, error) = runs_until_error(&bench, false).await;
    assert_eq!(runs, 1);
    assert_not_found::<Counter>(&error, &404);
}

#[track_caller]
fn assert_unexpected<A: AggregateRoot>(error: &Error, wanted: &A::Id, seen: u64, at: u64) {
    match error {
        Error::UnexpectedVersion {
            aggregate,
            id,
            expected,
            found,
        } => assert_eq!(
            (*aggregate, id.clone(), *expected, *found),
            (A::TYPE, wanted.to_string(), seen, at)
        ),
        other => panic!("expected that the version is another, got {other:?}"),
    }
    assert!(error.is_conflict());
    assert!(!error.is_retryable());
}

/// An aggregate that is not at the version which the caller has seen is a conflict with both
/// versions, which is not retried, stored or event-sourced; at that version the work is done.
pub async fn a_version_that_the_caller_has_not_seen_is_not_retried<H: Harness>(h: &H) {
    let bench = begin(h).await;
    bench.counter(1).await;
    ok(add(&bench.store, 1, 10).await);
    let mut ledger = Ledger::unopened("L1");
    ledger.open("ann");
    bench.save(&north(), ledger).await;
    let add_to = async |seen: u64| {
        let runs = AtomicU32::new(0);
        let everyone = system();
        let done = bench.store.execute(&everyone, async |uow| {
            runs.fetch_add(1, Ordering::Relaxed);
            let mut counter: Counter = uow.get(1).await?;
            counter.add(100);
            counter.expect_version(seen)?;
            uow.save(counter)
        });
        let done = done.await;
        assert_eq!(runs.into_inner(), 1);
        done
    };
    for seen in [0, 1, 3, u64::MAX] {
        assert_unexpected::<Counter>(&err(add_to(seen).await), &1, seen, 2);
    }
    assert_eq!(bench.load::<Counter>(&system(), 1).await.value, 11);
    ok(add_to(2).await);
    assert_eq!(bench.load::<Counter>(&system(), 1).await.value, 111);

    let ledger: Ledger = bench.load(&north(), "L1".to_owned()).await;
    let error = err(ledger.expect_version(7));
    assert_unexpected::<Ledger>(&error, &"L1".to_owned(), 7, 1);
    ok(ledger.expect_version(1));
    ok(Counter::new(2).expect_version(0));
}

/// Where another commit comes between the load and the commit, the work runs again, and finds that
/// the version is no longer the one which the caller has seen.
pub async fn a_conflict_behind_the_expected_version_is_told_as_one<H: Harness>(h: &H) {
    let bench = begin(h).await;
    bench.counter(1).await;
    let runs = AtomicU32::new(0);
    let store = &bench.store;
    let error = err(store
        .execute(&system(), async |uow| {
            let run = runs.fetch_add(1, Ordering::Relaxed);
            let mut counter: Counter = uow.get(1).await?;
            counter.expect_version(1)?;
            if run == 0 {
                add(store, 1, 10).await?;
            }
            counter.add(100);
            uow.save(counter)
        })
        .await);
    assert_eq!(runs.into_inner(), 2);
    assert_unexpected::<Counter>(&error, &1, 1, 2);
    assert_eq!(bench.load::<Counter>(&system(), 1).await.value, 11);
}

/// Where the work fails, nothing of what it staged is written, also not what its reads have sent.
pub async fn an_error_rolls_back<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut parcel = bench.parcel(&north(), "kept").await;
    parcel.relabel("lost");
    let id = parcel.id;
    let error = err(bench
        .store
        .execute(&north(), async |uow| -> Result<()> {
            uow.save(parcel.clone())?;
            uow.save(Counter::new(1))?;
            let counters = uow.repository::<Counter>();
            let count = { counters }.count(Specification::all()).await?;
            Err(Error::other(format!("{count} counters")))
        })
        .await);
    assert_eq!(error.to_string(), "1 counters");
    let parcel: Parcel = bench.load(&north(), id).await;
    assert_eq!((parcel.label.as_str(), parcel.root.version()), ("kept", 1));
    assert!(bench.find::<Counter>(&system(), 1).await.is_none());
    assert_eq!(bench.log().await.len(), 1);
}

#[derive(Clone)]
struct AddTo {
    counter: i64,
    by: i64,
}

struct Adder {
    runs: AtomicU32,
}

impl<U: UnitOfWork> CommandHandler<U, AddTo> for Adder {
    type Output = i64;

    async fn handle(&self, uow: &mut U, command: AddTo) -> Result<i64> {
        self.runs.fetch_add(1, Ordering::Relaxed);
        let mut counter: Counter = uow.get(command.counter).await?;
        counter.add(command.by);
        let value = counter.value;
        uow.save(counter)?;
        Ok(value)
    }
}

struct CountLabels;

impl<M: ReadModels> QueryHandler<M, &'static str> for CountLabels {
    type Output = u64;

    async fn handle(&self, read_models: &M, label: &'static str) -> Result<u64> {
        read_models
            .count::<LabelUse>(LabelUse::fields().label.eq(label))
            .await
    }
}

/// Command and query handlers run as the closures do.
pub async fn handlers_run<H: Harness>(h: &H) {
    let bench = begin(h).await;
    bench.counter(1).await;
    let adder = Adder {
        runs: AtomicU32::new(0),
    };
    let command = AddTo { counter: 1, by: 41 };
    let receipt = ok(bench.store.dispatch(&system(), &adder, command).await);
    assert_eq!(receipt.output(), &42);
    assert_eq!(receipt.events().len(), 1);
    let command = AddTo { counter: 2, by: 1 };
    let error = err(bench.store.dispatch(&system(), &adder, command).await);
    assert_not_found::<Counter>(&error, &2);
    assert_eq!(adder.runs.into_inner(), 2);

    bench.parcel(&north(), "asked").await;
    bench.project().await;
    let count = bench.store.ask(&north(), &CountLabels, "asked").await;
    assert_eq!(ok(count), 1);
}
