//! Interceptors: what they see, refuse and change.

use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use super::Harness;
use super::fixtures::{Account, AccountForm, Counter, Ledger, Parcel};
use super::support::{Bench, assert_conflict, begin_with, err, north, ok, system};
use crate::envelope::Envelope;
use crate::error::{DomainError, Error, Result};
use crate::interceptor::{Change, Intercepted, InterceptedCommit, Interceptor, Interceptors};
use crate::repository::Repository;
use crate::specification::Specification;
use crate::staging::Operation;
use crate::unit_of_work::{CommitReceipt, UnitOfWork};

#[derive(Debug, Clone, Default)]
struct Journal(Arc<Mutex<Vec<String>>>);

impl Journal {
    fn write(&self, line: String) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(line);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Writes down what it sees.
struct Recorder {
    name: &'static str,
    journal: Journal,
}

impl Recorder {
    fn before(&self, step: &str, write: &Intercepted<'_>) -> Result<()> {
        let tenant = write.tenant().map_or("-", |tenant| tenant.as_str());
        self.journal.write(format!(
            "{} before {step} {} v{} {tenant} {} {:?}",
            self.name,
            write.aggregate_type(),
            write.version(),
            write.context().actor().unwrap_or("-"),
            write.event_types(),
        ));
        Ok(())
    }

    fn after(&self, step: &str, change: &Change<'_>) {
        let events = change.events().iter();
        let events: Vec<_> = events.map(|event| event.event_type).collect();
        self.journal.write(format!(
            "{} after {step} {} v{}-{} {} {events:?}",
            self.name,
            change.aggregate_type(),
            change.old_version(),
            change.new_version(),
            change.tenant().map_or("-", |tenant| tenant.as_str()),
        ));
    }
}

impl Interceptor for Recorder {
    fn before_insert(&self, write: &mut Intercepted<'_>) -> Result<()> {
        assert_eq!(write.operation(), Operation::Insert);
        self.before("insert", write)
    }

    fn before_update(&self, write: &mut Intercepted<'_>) -> Result<()> {
        self.before("update", write)
    }

    fn before_remove(&self, write: &mut Intercepted<'_>) -> Result<()> {
        self.before("remove", write)
    }

    fn before_commit(&self, commit: &InterceptedCommit<'_>) -> Result<()> {
        let changes = commit.changes().count();
        self.journal
            .write(format!("{} before commit of {changes}", self.name));
        Ok(())
    }

    fn after_insert(&self, change: &Change<'_>) {
        self.after("insert", change);
    }

    fn after_update(&self, change: &Change<'_>) {
        self.after("update", change);
    }

    fn after_remove(&self, change: &Change<'_>) {
        self.after("remove", change);
    }

    fn after_commit(&self, commit: &InterceptedCommit<'_>, receipt: &CommitReceipt) {
        self.journal.write(format!(
            "{} after commit of {} with {} events",
            self.name,
            commit.changes().count(),
            receipt.events().len(),
        ));
    }
}

async fn recorded<H: Harness>(h: &H) -> (Bench<'_, H>, Journal) {
    let journal = Journal::default();
    let recorder = Recorder {
        name: "a",
        journal: journal.clone(),
    };
    (
        begin_with(h, Interceptors::default().with(recorder)).await,
        journal,
    )
}

/// They see each write as the work left it, then the whole commit; after it each write that was
/// made, in the order of staging.
pub async fn interceptors_see_every_write<H: Harness>(h: &H) {
    let (bench, journal) = recorded(h).await;
    let mut changed = bench.parcel(&north(), "changed").await;
    assert_eq!(
        journal.take(),
        [
            "a before insert parcel v0 north ann [\"parcel.registered\"]",
            "a before commit of 1",
            "a after insert parcel v0-1 north [\"parcel.registered\"]",
            "a after commit of 1 with 1 events",
        ]
    );
    let unchanged = bench.parcel(&north(), "unchanged").await;
    let mut silent = bench.parcel(&north(), "silent").await;
    let removed = bench.parcel(&north(), "removed").await;
    journal.take();
    changed.weigh(1);
    changed.open();
    silent.label = "other".to_owned();
    let mut uow = bench.unit_of_work(&north());
    ok(uow.save(changed));
    ok(uow.save(unchanged));
    let parcels = uow.repository::<Parcel>().count(Specification::all()).await;
    assert_eq!(ok(parcels), 4);
    ok(uow.save(silent));
    ok(uow.remove(removed));
    let _ = ok(uow.commit().await);
    assert_eq!(
        journal.take(),
        [
            "a before update parcel v1 north ann [\"parcel.weighed_again\", \"parcel.opened\"]",
            "a before update parcel v1 north ann []",
            "a before update parcel v1 north ann []",
            "a before remove parcel v1 north ann []",
            "a before commit of 4",
            "a after update parcel v1-3 north [\"parcel.weighed_again\", \"parcel.opened\"]",
            "a after update parcel v1-2 north [\"cqrs.changed\"]",
            "a after remove parcel v1-2 north [\"cqrs.removed\"]",
            "a after commit of 3 with 4 events",
        ]
    );
    // Nothing is written: nothing to see.
    let _ = ok(bench.unit_of_work(&north()).commit().await);
    assert!(journal.take().is_empty());
}

/// The tenant of the context is not that of an aggregate that is everyone's.
pub async fn an_interceptor_is_told_whose_an_aggregate_is<H: Harness>(h: &H) {
    let (bench, journal) = recorded(h).await;
    let mut uow = bench.unit_of_work(&north());
    ok(uow.save(Counter::new(1)));
    let _ = ok(uow.commit().await);
    let lines = journal.take();
    let of_nobody = |line: &&String| line.contains(" counter v0") && line.contains(" - ");
    assert_eq!(lines.iter().filter(of_nobody).count(), 2, "{lines:?}");
}

/// They run in the order in which they were registered, each step for all before the next.
pub async fn interceptors_run_in_their_order<H: Harness>(h: &H) {
    let journal = Journal::default();
    let recorder = |name| Recorder {
        name,
        journal: journal.clone(),
    };
    let interceptors = Interceptors::default()
        .with(recorder("a"))
        .with(recorder("b"));
    let bench = begin_with(h, interceptors).await;
    let mut uow = bench.unit_of_work(&system());
    ok(uow.save(Counter::new(1)));
    ok(uow.save(Counter::new(2)));
    let hook = journal.clone();
    uow.before_commit(async move |_| {
        hook.write("hook before".to_owned());
        Ok(())
    });
    let hook = journal.clone();
    uow.after_commit(move |_| hook.write("hook after".to_owned()));
    let _ = ok(uow.commit().await);
    let steps: Vec<String> = journal
        .take()
        .iter()
        .map(|line| line.split(' ').take(3).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(
        steps,
        [
            "a before insert",
            "b before insert",
            "a before insert",
            "b before insert",
            "hook before",
            "a before commit",
            "b before commit",
            "a after insert",
            "b after insert",
            "a after insert",
            "b after insert",
            "a after commit",
            "b after commit",
            "hook after",
        ]
    );
}

#[derive(Debug, PartialEq)]
struct Forbidden(&'static str);

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is forbidden", self.0)
    }
}

impl std::error::Error for Forbidden {}
impl DomainError for Forbidden {}

/// Forbids parcels by their label, at three steps; writes others in capitals, and says so.
struct Labels;

impl Interceptor for Labels {
    fn before_insert(&self, write: &mut Intercepted<'_>) -> Result<()> {
        let Some(parcel) = write.aggregate_mut::<Parcel>() else {
            return Ok(());
        };
        if parcel.label == "no insert" {
            return Err(Forbidden("insert").into());
        }
        if parcel.label.starts_with("shout") {
            let label = parcel.label.to_uppercase();
            parcel.relabel(&label);
        }
        Ok(())
    }

    fn before_remove(&self, write: &mut Intercepted<'_>) -> Result<()> {
        match write.aggregate::<Parcel>() {
            Some(parcel) if parcel.label == "no removal" => Err(Forbidden("removal").into()),
            _ => Ok(()),
        }
    }

    fn before_commit(&self, commit: &InterceptedCommit<'_>) -> Result<()> {
        let label = Parcel::fields().label;
        let mut labels = commit.changes().filter_map(|change| change.field(&label));
        if labels.any(|label| label == "no commit") {
            return Err(Forbidden("commit").into());
        }
        Ok(())
    }
}

#[track_caller]
fn assert_forbidden(error: &Error, what: &'static str) {
    assert_eq!(error.domain::<Forbidden>(), Some(&Forbidden(what)));
    assert!(!error.is_retryable());
}

/// One that refuses is the error of the save, removal or commit, and nothing is committed.
pub async fn an_interceptor_refuses<H: Harness>(h: &H) {
    let bench = begin_with(h, Interceptors::default().with(Labels)).await;
    let kept = bench.parcel(&north(), "no removal").await;
    let log = bench.log().await.len();

    let error = err(bench
        .try_save(&north(), Parcel::register("no insert"))
        .await);
    assert_forbidden(&error, "insert");
    let error = err(bench.try_remove(&north(), kept.clone()).await);
    assert_forbidden(&error, "removal");
    let error = err(bench
        .try_save(&north(), Parcel::register("no commit"))
        .await);
    assert_forbidden(&error, "commit");
    for flushed in [false, true] {
        let mut uow = bench.unit_of_work(&north());
        ok(uow.save(Counter::new(1)));
        ok(uow.save(Parcel::register("no commit")));
        if flushed {
            let _: Counter = ok(uow.get(1).await);
            ok(uow.save(Counter::new(2)));
        }
        assert_forbidden(&err(uow.commit().await), "commit");
    }
    assert_eq!(bench.log().await.len(), log);
    assert!(bench.find::<Counter>(&system(), 1).await.is_none());
    let _: Parcel = bench.load(&north(), kept.id).await;
}

/// One that changes the aggregate before it is staged changes what is written, with its events.
pub async fn an_interceptor_changes_the_aggregate<H: Harness>(h: &H) {
    let bench = begin_with(h, Interceptors::default().with(Labels)).await;
    let parcel = bench.parcel(&north(), "shout it").await;
    assert_eq!(
        (parcel.label.as_str(), parcel.root.version()),
        ("SHOUT IT", 2)
    );
    let log = bench.log().await;
    let types: Vec<&str> = log.iter().map(Envelope::event_type).collect();
    assert_eq!(types, ["parcel.registered", "parcel.relabelled"]);
}

/// What is refused, rolled back, or undone by a savepoint has no after.
pub async fn what_is_not_committed_has_no_after<H: Harness>(h: &H) {
    let (bench, journal) = recorded(h).await;
    let mut fresh = bench.counter(1).await;
    let mut stale = fresh.clone();
    fresh.add(1);
    bench.save(&system(), fresh).await;
    journal.take();
    let after = || {
        let lines = journal.take().into_iter();
        lines
            .filter(|line| line.contains(" after "))
            .collect::<Vec<_>>()
    };

    stale.add(1);
    let error = err(bench.try_save(&system(), stale).await);
    assert_conflict::<Counter>(&error, &1, 1, 2);
    assert!(after().is_empty());

    let mut uow = bench.unit_of_work(&system());
    ok(uow.save(Counter::new(2)));
    uow.rollback().await;
    assert!(after().is_empty());

    let mut uow = bench.unit_of_work(&system());
    ok(uow.save(Counter::new(3)));
    let undone = uow
        .savepoint(async |uow| {
            uow.save(Counter::new(4))?;
            let _: Counter = uow.get(4).await?;
            Err::<(), _>(Error::other("undone"))
        })
        .await;
    assert!(undone.is_err());
    let _ = ok(uow.commit().await);
    assert_eq!(
        after(),
        [
            "a after insert counter v0-1 - [\"cqrs.created\"]",
            "a after commit of 1 with 1 events",
        ]
    );
}

/// Panics at a step.
struct Panics(&'static str);

impl Panics {
    fn at(&self, step: &str, id: &str) {
        assert!(
            self.0 != step || id != "13",
            "an interceptor's own panic, which is meant"
        );
    }
}

impl Interceptor for Panics {
    fn before_insert(&self, write: &mut Intercepted<'_>) -> Result<()> {
        self.at("before insert", &write.id());
        Ok(())
    }

    fn before_commit(&self, commit: &InterceptedCommit<'_>) -> Result<()> {
        for change in commit.changes() {
            self.at("before commit", change.id());
        }
        Ok(())
    }

    fn after_insert(&self, change: &Change<'_>) {
        self.at("after insert", change.id());
    }

    fn after_commit(&self, commit: &InterceptedCommit<'_>, _: &CommitReceipt) {
        for change in commit.changes() {
            self.at("after commit", change.id());
        }
    }
}

/// The result of a future, or `None` where it panics.
async fn caught<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
        match polled {
            Ok(Poll::Ready(output)) => Poll::Ready(Some(output)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(_) => Poll::Ready(None),
        }
    })
    .await
}

/// A panic before the commit commits nothing; one after it changes nothing: the receipt comes, and
/// the others run.
pub async fn an_interceptor_that_panics_loses_nothing<H: Harness>(h: &H) {
    for (step, committed) in [
        ("before insert", false),
        ("before commit", false),
        ("after insert", true),
        ("after commit", true),
    ] {
        for flushed in [false, true] {
            let journal = Journal::default();
            let recorder = Recorder {
                name: "a",
                journal: journal.clone(),
            };
            let interceptors = Interceptors::default().with(Panics(step)).with(recorder);
            let bench = begin_with(h, interceptors).await;
            let done = caught(async {
                let mut uow = bench.unit_of_work(&system());
                uow.save(Counter::new(1))?;
                if flushed {
                    let _: Counter = uow.get(1).await?;
                }
                uow.save(Counter::new(13))?;
                uow.commit().await
            })
            .await;
            let receipt = done.map(ok);
            assert_eq!(receipt.is_some(), committed, "{step}");
            let events = bench.log().await.len();
            assert_eq!(events, if committed { 2 } else { 0 }, "{step}");
            assert_eq!(receipt.map_or(0, |receipt| receipt.events().len()), events);
            let lines = journal.take();
            let after = lines.iter().filter(|line| line.contains(" after "));
            assert_eq!(after.count(), if committed { 3 } else { 0 }, "{lines:?}");
            bench.counter(2).await;
        }
    }
}

/// They see of a stream what they see of a row.
pub async fn interceptors_see_either_form<H: Harness>(h: &H) {
    async fn seen<H: Harness, A: AccountForm>(h: &H) -> Vec<String> {
        let (bench, journal) = recorded(h).await;
        let number = || "A1".to_owned();
        let mut new = A::unopened("A1");
        new.open("ann");
        new.transfer(5);
        bench.save(&north(), new).await;
        let mut stale: A = bench.load(&north(), number()).await;
        let mut uow = bench.unit_of_work(&system());
        for _ in 0..2 {
            let mut account: A = ok(uow.get(number()).await);
            account.transfer(1);
            ok(uow.save(account));
        }
        ok(uow.commit().await);
        stale.close();
        let error = err(bench.try_save(&north(), stale).await);
        assert_conflict::<A>(&error, &number(), 2, 4);
        // Nothing changes, which the commit does not know yet.
        let unchanged: A = bench.load(&north(), number()).await;
        bench.save(&north(), unchanged).await;
        let account: A = bench.load(&north(), number()).await;
        bench.remove(&north(), account).await;
        let lines = journal.take().into_iter();
        lines
            .map(|line| line.replace("ledger", "account"))
            .collect()
    }
    let of_streams = seen::<H, Ledger>(h).await;
    assert_eq!(of_streams, seen::<H, Account>(h).await);
    let unchanged = "a before update account v4 north ann []";
    let place = of_streams.iter().position(|line| line == unchanged);
    let after = place.and_then(|place| of_streams.get(place + 1..place + 3));
    assert!(
        after.is_some_and(|after| {
            after[0] == "a before commit of 1" && after[1].starts_with("a before remove")
        }),
        "{of_streams:?}"
    );
    assert!(of_streams.contains(
        &r#"a after insert account v0-2 north ["account.opened", "account.moved"]"#.to_owned()
    ));
}

/// What an interceptor refuses is not appended either.
pub async fn an_interceptor_refuses_either_form<H: Harness>(h: &H) {
    struct StaysOpen;

    impl Interceptor for StaysOpen {
        fn before_update(&self, write: &mut Intercepted<'_>) -> Result<()> {
            if write
                .event_types()
                .iter()
                .any(|name| name.ends_with(".closed"))
            {
                return Err(Error::other("accounts stay open"));
            }
            Ok(())
        }
    }

    async fn rule<H: Harness, A: AccountForm>(h: &H) {
        let bench = begin_with(h, Interceptors::default().with(StaysOpen)).await;
        let mut account = A::unopened("A1");
        account.open("ann");
        bench.save(&north(), account).await;
        let mut account: A = bench.load(&north(), "A1".to_owned()).await;
        account.transfer(1);
        bench.save(&north(), account).await;
        let mut account: A = bench.load(&north(), "A1".to_owned()).await;
        account.close();
        let mut uow = bench.unit_of_work(&north());
        let refused = uow.save(account);
        let error = match refused {
            Ok(()) => err(uow.commit().await),
            Err(error) => error,
        };
        assert!(matches!(error, Error::Other(_)), "{error:?}");
        let account: A = bench.load(&north(), "A1".to_owned()).await;
        assert_eq!(account.contents(), ("ann", 1, false));
        assert_eq!(bench.log().await.len(), 2);
    }
    rule::<H, Account>(h).await;
    rule::<H, Ledger>(h).await;
}
