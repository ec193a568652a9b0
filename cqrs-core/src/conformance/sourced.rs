//! Event-sourced aggregates: the same repository, unit of work and log.

use serde::{Deserialize, Serialize};

use super::Harness;
use super::fixtures::{AccountForm, Counter, Ledger, LedgerEvent, Recorder};
use super::support::{
    Bench, assert_already_exists, assert_conflict, assert_not_found, assert_usage, begin, err,
    join_all, north, ok, south, system, tenant, time,
};
use crate::error::{DomainError, Error, Result};
use crate::sourced::Decide;
use crate::store::Store;
use crate::unit_of_work::UnitOfWork;
use crate::{Aggregate, DomainEvent, Root, Sourced, SourcedState};

pub(super) fn opened(number: &str) -> Ledger {
    let mut ledger = Ledger::unopened(number);
    ledger.open("ann");
    ledger
}

pub(super) async fn ledger<H: Harness>(bench: &Bench<'_, H>, number: &str) -> Ledger {
    bench.save(&north(), opened(number)).await;
    bench.load(&north(), number.to_owned()).await
}

/// What the events made of it comes back, with its version, its tenant, and who and when.
pub async fn a_sourced_aggregate_comes_back<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut new = opened("L1");
    new.transfer(250);
    bench.save(&north(), new).await;
    bench.clock.set(time(60));
    let mut loaded: Ledger = bench.load(&north(), "L1".to_owned()).await;
    assert_eq!(loaded.contents(), ("ann", 250, false));
    assert_eq!(loaded.root.version(), 2);
    loaded.transfer(-50);
    loaded.close();
    bench.save(&north().with_actor("cleo"), loaded).await;

    let loaded: Ledger = bench.load(&north(), "L1".to_owned()).await;
    assert_eq!(loaded.contents(), ("ann", 200, true));
    assert_eq!(loaded.root.version(), 4);
    assert_eq!(loaded.root.tenant(), Some(&tenant("north")));
    assert!(loaded.root.raised().is_empty());
    let stamps = loaded.root.stamps();
    assert_eq!(
        (stamps.created_at, stamps.created_by.as_deref()),
        (Some(time(0)), Some("ann"))
    );
    assert_eq!(
        (stamps.updated_at, stamps.updated_by.as_deref()),
        (Some(time(60)), Some("cleo"))
    );
}

/// The log holds its events, and nothing is stored besides.
pub async fn its_events_are_the_log<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut new = opened("L1");
    new.transfer(1);
    let receipt = bench.saved(&north(), new).await;
    let mut loaded: Ledger = bench.load(&north(), "L1".to_owned()).await;
    loaded.close();
    bench.save(&north(), loaded).await;
    let stream = bench.stream::<Ledger>(&"L1".to_owned()).await;
    let names = ["ledger.opened", "ledger.moved", "ledger.closed"];
    let expected: Vec<(u64, String)> = (1..).zip(names.map(str::to_owned)).collect();
    assert_eq!(stream, expected);
    let log = bench.log().await;
    let ids: Vec<_> = log[..2].iter().map(crate::Envelope::event_id).collect();
    assert_eq!(receipt.events(), ids);
    assert_eq!(receipt.position(), Some(log[1].position()));
    assert_eq!(log[1].payload().as_str(), r#"{"cents":1}"#);
    assert_eq!(log[1].tenant(), Some(&tenant("north")));
    assert_eq!(log[1].metadata().actor.as_deref(), Some("ann"));
}

/// An append on an old version is a conflict that names both versions, and adds nothing.
pub async fn a_stale_append_is_a_conflict<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut fresh = ledger(&bench, "L1").await;
    let (mut one, mut several, removed) = (fresh.clone(), fresh.clone(), fresh.clone());
    fresh.transfer(1);
    fresh.transfer(2);
    bench.save(&north(), fresh).await;
    one.transfer(10);
    several.transfer(10);
    several.transfer(20);
    several.transfer(40);
    let number = "L1".to_owned();
    let error = err(bench.try_save(&north(), one).await);
    assert_conflict::<Ledger>(&error, &number, 1, 3);
    let error = err(bench.try_save(&north(), several).await);
    assert_conflict::<Ledger>(&error, &number, 1, 3);
    let error = err(bench.try_remove(&north(), removed).await);
    assert_conflict::<Ledger>(&error, &number, 1, 3);
    let loaded: Ledger = bench.load(&north(), number).await;
    assert_eq!((loaded.cents, loaded.root.version()), (3, 3));
    assert_eq!(bench.log().await.len(), 3);
}

/// Where one of several is stale, nothing of the commit is written.
pub async fn a_stale_append_takes_the_whole_commit_with_it<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut stale = ledger(&bench, "L1").await;
    let other = ledger(&bench, "L2").await;
    let mut fresh = stale.clone();
    fresh.transfer(1);
    bench.save(&north(), fresh).await;
    stale.transfer(10);
    stale.transfer(20);
    for last in [true, false] {
        let mut uow = bench.unit_of_work(&north());
        let mut other = other.clone();
        other.transfer(5);
        if last {
            ok(uow.save(other));
            ok(uow.save(Counter::new(1)));
            ok(uow.save(stale.clone()));
        } else {
            ok(uow.save(stale.clone()));
            ok(uow.save(Counter::new(1)));
            ok(uow.save(other));
        }
        let error = err(uow.commit().await);
        assert_conflict::<Ledger>(&error, &"L1".to_owned(), 1, 2);
    }
    assert_eq!(bench.log().await.len(), 3);
    assert!(bench.find::<Counter>(&north(), 1).await.is_none());
}

/// Many commands at once, each run again after a conflict: every one counts.
pub async fn an_append_is_lost_to_nobody<H: Harness>(h: &H) {
    let bench = begin(h).await;
    ledger(&bench, "L1").await;
    let writers = (0..6).map(|writer| {
        let bench = &bench;
        async move {
            let add = async || {
                bench
                    .store
                    .execute(&north(), async |uow| {
                        let mut ledger = uow.get::<Ledger>("L1".to_owned()).await?;
                        ledger.transfer(1 << writer);
                        uow.save(ledger)
                    })
                    .await
            };
            while let Err(error) = add().await {
                assert!(error.is_conflict(), "{error:?}");
            }
        }
    });
    join_all(writers).await;
    let loaded: Ledger = bench.load(&north(), "L1".to_owned()).await;
    assert_eq!((loaded.cents, loaded.root.version()), (63, 7));
}

/// An id is used once: by two, by two in one commit, over all tenants, and after a removal.
pub async fn a_number_is_used_once<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let number = "L1".to_owned();
    let first = ledger(&bench, "L1").await;
    let error = err(bench.try_save(&north(), opened("L1")).await);
    assert_already_exists::<Ledger>(&error, &number);
    let error = err(bench.try_save(&south(), opened("L1")).await);
    assert_already_exists::<Ledger>(&error, &number);
    bench.remove(&north(), first).await;
    let error = err(bench.try_save(&north(), opened("L1")).await);
    assert_already_exists::<Ledger>(&error, &number);

    let mut uow = bench.unit_of_work(&north());
    ok(uow.save(opened("L2")));
    ok(uow.save(Counter::new(1)));
    ok(uow.save(opened("L1")));
    let error = err(uow.commit().await);
    if H::NAMES_USED_ID {
        assert_already_exists::<Ledger>(&error, &number);
    } else {
        assert!(error.is_conflict() && !error.is_retryable(), "{error:?}");
    }
    let mut uow = bench.unit_of_work(&north());
    ok(uow.save(opened("L3")));
    ok(uow.save(opened("L3")));
    let error = err(uow.commit().await);
    assert_already_exists::<Ledger>(&error, &"L3".to_owned());
    assert_eq!(bench.log().await.len(), 2);
}

/// A removal is the last event, behind those that were raised. What is removed is not found, by
/// whoever loads it, and by whoever saves it.
pub async fn a_removal_is_the_last_event<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let number = "L1".to_owned();
    let mut removed = ledger(&bench, "L1").await;
    let mut stale = removed.clone();
    removed.close();
    bench.remove(&north(), removed).await;
    let stream = bench.stream::<Ledger>(&number).await;
    let names = ["ledger.opened", "ledger.closed", "cqrs.removed"];
    let expected: Vec<(u64, String)> = (1..).zip(names.map(str::to_owned)).collect();
    assert_eq!(stream, expected);
    assert!(
        bench
            .find::<Ledger>(&north(), number.clone())
            .await
            .is_none()
    );
    stale.transfer(1);
    let error = err(bench.try_save(&north(), stale.clone()).await);
    assert_not_found::<Ledger>(&error, &number);
    let error = err(bench.try_remove(&north(), stale).await);
    assert_not_found::<Ledger>(&error, &number);
    let error = err(bench.unit_of_work(&north()).remove(opened("L2")));
    assert_not_found::<Ledger>(&error, &"L2".to_owned());
    assert_eq!(bench.log().await.len(), 3);
}

/// A save without an event writes nothing; a new one without an event is refused.
pub async fn what_raised_nothing_is_not_written<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let unchanged = ledger(&bench, "L1").await;
    let receipt = bench.saved(&north(), unchanged.clone()).await;
    assert!(receipt.events().is_empty() && receipt.position().is_none());
    let mut uow = bench.unit_of_work(&north());
    let mut changed = unchanged.clone();
    changed.transfer(1);
    ok(uow.save(unchanged));
    assert_usage(&err(uow.save(changed.clone())));
    // After a read it may be saved again.
    let _: Ledger = ok(uow.get("L1".to_owned()).await);
    ok(uow.save(changed));
    assert_eq!(ok(uow.commit().await).events().len(), 1);
    let error = err(bench.unit_of_work(&north()).save(Ledger::unopened("L2")));
    assert_usage(&error);
    assert_eq!(bench.log().await.len(), 2);
}

/// An event that was recorded past `apply` is refused: the state would not be what loading makes.
pub async fn an_event_that_was_not_applied_is_refused<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut past = ledger(&bench, "L1").await;
    past.root.raise(LedgerEvent::Closed);
    let error = err(bench.unit_of_work(&north()).save(past));
    assert_usage(&error);
    assert!(error.to_string().contains("Sourced::raise"), "{error}");
}

/// Other tenants neither see nor change it; the system does, and keeps its tenant.
pub async fn streams_belong_to_their_tenant<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let number = "L1".to_owned();
    ledger(&bench, "L1").await;
    // Also where it is loaded from a snapshot.
    for loaded in [1, 4] {
        assert!(
            bench
                .find::<Ledger>(&south(), number.clone())
                .await
                .is_none()
        );
        let mut own: Ledger = bench.load(&north(), number.clone()).await;
        assert_eq!(own.root.version(), loaded);
        own.transfer(1);
        let error = err(bench.unit_of_work(&south()).save(own.clone()));
        assert_not_found::<Ledger>(&error, &number);
        let error = err(bench.unit_of_work(&south()).remove(own.clone()));
        assert_not_found::<Ledger>(&error, &number);
        own.transfer(1);
        own.transfer(1);
        bench.save(&north(), own.clone()).await;
    }
    let mut seen: Ledger = bench.load(&system(), number.clone()).await;
    assert_eq!(seen.root.tenant(), Some(&tenant("north")));
    seen.close();
    bench.save(&system(), seen).await;
    assert!(bench.load::<Ledger>(&north(), number).await.closed);

    let error = err(bench.unit_of_work(&system()).save(opened("L2")));
    assert!(matches!(error, Error::TenantRequired { .. }), "{error:?}");
    let mut made = Ledger::unopened("L2");
    made.root = Root::for_tenant(tenant("south"));
    made.open("ben");
    bench.save(&system(), made).await;
    let loaded: Ledger = bench.load(&south(), "L2".to_owned()).await;
    assert_eq!(loaded.owner, "ben");
}

struct Withdraw(i64);

#[derive(Debug)]
struct Overdrawn;

impl std::fmt::Display for Overdrawn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("overdrawn")
    }
}

impl std::error::Error for Overdrawn {}
impl DomainError for Overdrawn {}

impl Decide<Withdraw> for Ledger {
    type Error = Overdrawn;

    fn decide(&self, Withdraw(cents): Withdraw) -> Result<Vec<LedgerEvent>, Overdrawn> {
        if cents > self.cents {
            return Err(Overdrawn);
        }
        let cents = -cents;
        Ok(vec![LedgerEvent::Moved { cents }])
    }
}

/// A command that is decided is loaded, raised and saved; one that is refused changes nothing.
pub async fn a_decision_is_saved<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut new = opened("L1");
    new.transfer(5);
    bench.save(&north(), new).await;
    let withdraw = async |number: &str, cents| {
        let work = async |uow: &mut <H::Store as Store>::UnitOfWork| {
            uow.decide::<Ledger, _>(number.to_owned(), Withdraw(cents))
                .await
        };
        let mut uow = bench.unit_of_work(&north());
        work(&mut uow).await?;
        uow.commit().await
    };
    assert_eq!(ok(withdraw("L1", 3).await).events().len(), 1);
    let error = err(withdraw("L1", 3).await);
    assert!(error.domain::<Overdrawn>().is_some(), "{error:?}");
    assert_not_found::<Ledger>(&err(withdraw("L2", 3).await), &"L2".to_owned());
    let mut uow = bench.unit_of_work(&north());
    ok(uow.decide_new::<Ledger, _>("L3".to_owned(), Withdraw(0)));
    ok(uow.commit().await);
    let loaded: Ledger = bench.load(&north(), "L1".to_owned()).await;
    assert_eq!(loaded.cents, 2);
    assert_eq!(bench.log().await.len(), 4);
}

/// A projection in the commit and one behind it see its events, with their positions.
pub async fn consumers_see_its_events<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let inline = Recorder::default();
    ok(bench.store.inline(inline.clone()));
    let mut changed = ledger(&bench, "L1").await;
    changed.transfer(1);
    changed.transfer(2);
    let mut uow = bench.unit_of_work(&north());
    ok(uow.save(Counter::new(1)));
    ok(uow.save(changed));
    ok(uow.save(opened("L2")));
    ok(uow.commit().await);
    let log = bench.log().await;
    assert_eq!(log.len(), 5);
    assert_eq!(inline.events(), log);
    let positions: Vec<_> = log.iter().map(crate::Envelope::position).collect();
    assert!(positions.is_sorted_by(|a, b| a < b), "{positions:?}");
}

/// Rows and streams of one commit are written together, in the order of staging.
pub async fn rows_and_streams_commit_together<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut uow = bench.unit_of_work(&north());
    ok(uow.save(opened("L1")));
    let mut counter = Counter::new(1);
    counter.add(1);
    ok(uow.save(counter));
    let mut both = opened("L2");
    both.transfer(1);
    ok(uow.save(both));
    let receipt = ok(uow.commit().await);
    let log = bench.log().await;
    let ids: Vec<&str> = log.iter().map(crate::Envelope::aggregate_id_str).collect();
    assert_eq!(ids, ["L1", "1", "L2", "L2"]);
    let events: Vec<_> = log.iter().map(crate::Envelope::event_id).collect();
    assert_eq!(receipt.events(), events);

    // A row that is refused takes the stream with it.
    let mut ledger: Ledger = bench.load(&north(), "L1".to_owned()).await;
    ledger.transfer(1);
    let mut uow = bench.unit_of_work(&north());
    ok(uow.save(ledger));
    ok(uow.save(Counter::new(1)));
    let error = err(uow.commit().await);
    assert_already_exists::<Counter>(&error, &1);
    assert_eq!(bench.log().await.len(), 4);
}

/// What happens to a [`Meddler`].
#[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "meddler")]
enum MeddlerEvent {
    Begun,
    Renumbered { to: i64 },
    Doubled,
}

/// One whose `apply` does more than it may.
#[derive(Debug, Clone, Aggregate)]
#[aggregate(sourced, event = MeddlerEvent)]
struct Meddler {
    #[aggregate(id)]
    id: i64,
    #[aggregate(root)]
    root: Root<MeddlerEvent>,
}

impl Sourced for Meddler {
    fn apply(&mut self, event: &MeddlerEvent) {
        match event {
            MeddlerEvent::Begun => {}
            MeddlerEvent::Renumbered { to } => self.id = *to,
            MeddlerEvent::Doubled => self.raise(MeddlerEvent::Begun),
        }
    }
}

/// An `apply` that raises an event, or changes the id, is refused: streams would mix.
pub async fn applying_changes_the_state_alone<H: Harness>(h: &H) {
    let bench = begin(h).await;
    for id in 1..=2 {
        let mut meddler = Meddler::blank(id);
        meddler.raise(MeddlerEvent::Begun);
        bench.save(&system(), meddler).await;
    }
    for event in [MeddlerEvent::Renumbered { to: 2 }, MeddlerEvent::Doubled] {
        let mut meddler: Meddler = bench.load(&system(), 1).await;
        meddler.raise(event);
        let error = err(bench.try_save(&system(), meddler).await);
        assert_usage(&error);
        assert!(error.to_string().contains("`apply` of meddler"), "{error}");
    }
    assert_eq!(bench.log().await.len(), 2);
}
