//! Process managers: once per instance and step, in order, and in time.

use super::Harness;
use super::fixtures::{Account, AccountForm, Dunning, Ledger, LedgerEvent, Moves};
use super::support::{Bench, begin, north, ok, south, time};
use crate::context::RequestContext;
use crate::envelope::Envelope;
use crate::process::ProcessInstance;
use crate::repository::EventHistory;
use crate::store::Store;
use crate::unit_of_work::UnitOfWork;

const NOTHING: [i64; 0] = [];

/// Opens an account, with these movements.
async fn open<H: Harness>(bench: &Bench<'_, H>, at: &RequestContext, number: &str, moves: &[i64]) {
    let mut account = Account::unopened(number);
    account.open("ann");
    moves.iter().for_each(|cents| account.transfer(*cents));
    bench.save(at, account).await;
}

async fn change<H: Harness>(bench: &Bench<'_, H>, number: &str, change: impl FnOnce(&mut Account)) {
    let mut account: Account = bench.load(&north(), number.to_owned()).await;
    change(&mut account);
    bench.save(&north(), account).await;
}

async fn run<H: Harness>(bench: &Bench<'_, H>) {
    bench.harness.run_process(&bench.store, Dunning).await;
}

/// What is booked in the ledger of an account.
async fn booked<H: Harness>(bench: &Bench<'_, H>, at: &RequestContext, account: &str) -> Vec<i64> {
    let mut uow = bench.unit_of_work(at);
    let mut ledgers = uow.repository::<Ledger>();
    let events = ok(ledgers.events(Dunning::ledger(account)).await);
    let cents = events.iter().filter_map(|event| match event.payload() {
        Some(LedgerEvent::Moved { cents }) => Some(*cents),
        _ => None,
    });
    cents.collect()
}

async fn instance<H: Harness>(
    bench: &Bench<'_, H>,
    at: &RequestContext,
    account: &str,
) -> Option<ProcessInstance<Moves>> {
    ok(bench.store.process::<Dunning>(at, account).await)
}

/// Each command is executed once and in order, in the tenant of its instance, and says where it comes
/// from; however often the manager runs.
pub async fn commands_are_executed_once_and_in_order<H: Harness>(h: &H) {
    let bench = begin(h).await;
    open(&bench, &north(), "A1", &[1, 2, 3]).await;
    open(&bench, &south(), "A2", &[4]).await;
    run(&bench).await;
    run(&bench).await;
    change(&bench, "A1", |account| account.transfer(5)).await;
    run(&bench).await;
    assert_eq!(booked(&bench, &north(), "A1").await, [1, 2, 3, 5]);
    assert_eq!(booked(&bench, &south(), "A2").await, [4]);
    assert_eq!(booked(&bench, &north(), "A2").await, NOTHING);

    let log = bench.log().await;
    let of = |kind: &'static str| {
        let own = move |event: &&Envelope<_>| event.aggregate_type() == kind;
        log.iter().filter(own)
    };
    let first = of("ledger").find(|event| event.payload().as_str() == r#"{"cents":1}"#);
    let cause = of("account").find(|event| event.payload().as_str() == r#"{"cents":1}"#);
    let (Some(first), Some(cause)) = (first, cause) else {
        panic!("it is not in the log");
    };
    let metadata = first.metadata();
    assert_eq!(metadata.causation_id, Some(cause.event_id()));
    assert_eq!(metadata.correlation_id, cause.metadata().correlation_id);
    assert_eq!(metadata.actor.as_deref(), Some("conformance_dunning"));

    let state = instance(&bench, &north(), "A1").await.map(|one| one.state);
    assert_eq!(state, Some(Moves { moves: 4 }));
    assert!(instance(&bench, &south(), "A1").await.is_none());
}

/// A deadline passes once, when its time has come and not before, as an event of the tenant.
pub async fn a_deadline_passes_once<H: Harness>(h: &H) {
    let bench = begin(h).await;
    open(&bench, &north(), "A1", &[]).await;
    run(&bench).await;
    bench.clock.set(time(59));
    run(&bench).await;
    assert_eq!(booked(&bench, &north(), "A1").await, NOTHING);
    let deadlines = instance(&bench, &north(), "A1")
        .await
        .map(|one| one.deadlines);
    assert_eq!(
        deadlines.and_then(|all| all.get("quiet").copied()),
        Some(time(60))
    );

    bench.clock.set(time(60));
    run(&bench).await;
    run(&bench).await;
    assert_eq!(booked(&bench, &north(), "A1").await, [Dunning::FEE]);
    let log = bench.log().await;
    let passed: Vec<_> = log
        .iter()
        .filter(|event| event.aggregate_type() == "conformance_dunning")
        .collect();
    assert_eq!(passed.len(), 1);
    assert_eq!(passed[0].event_type(), "cqrs.deadline_passed");
    assert_eq!(passed[0].tenant(), north().scope().tenant());
    assert_eq!(passed[0].occurred_at(), time(60));
    let left = instance(&bench, &north(), "A1").await;
    assert!(left.is_some_and(|one| one.deadlines.is_empty() && one.completed_at.is_none()));
}

/// A deadline that is set again passes at the later time alone, also where its time has come before
/// the event was handled.
pub async fn a_deadline_is_replaced<H: Harness>(h: &H) {
    let bench = begin(h).await;
    open(&bench, &north(), "A1", &[]).await;
    run(&bench).await;
    bench.clock.set(time(30));
    change(&bench, "A1", |account| account.transfer(7)).await;
    bench.clock.set(time(70));
    run(&bench).await;
    assert_eq!(booked(&bench, &north(), "A1").await, [7]);
    bench.clock.set(time(90));
    run(&bench).await;
    assert_eq!(booked(&bench, &north(), "A1").await, [7, Dunning::FEE]);
}

/// When an instance ends, its deadlines are cancelled and later events are skipped. What was issued
/// is executed.
pub async fn completion_ends_an_instance<H: Harness>(h: &H) {
    let bench = begin(h).await;
    open(&bench, &north(), "A1", &[1]).await;
    change(&bench, "A1", AccountForm::close).await;
    change(&bench, "A1", |account| account.transfer(2)).await;
    run(&bench).await;
    bench.clock.set(time(1000));
    run(&bench).await;
    assert_eq!(booked(&bench, &north(), "A1").await, [1]);
    let ended = instance(&bench, &north(), "A1").await;
    assert!(ended.is_some_and(|one| one.completed_at == Some(time(0)) && one.deadlines.is_empty()));
}

/// An event that may not start an instance is skipped where there is none.
pub async fn only_some_events_start_an_instance<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut account = Account::unopened("A1");
    account.transfer(1);
    bench.save(&north(), account).await;
    run(&bench).await;
    assert!(instance(&bench, &north(), "A1").await.is_none());
    change(&bench, "A1", |account| account.open("ben")).await;
    change(&bench, "A1", |account| account.transfer(2)).await;
    run(&bench).await;
    assert_eq!(booked(&bench, &north(), "A1").await, [2]);
}

/// A command that fails is parked, and those of its instance behind it wait; others go on.
pub async fn a_failing_command_holds_up_its_instance_alone<H: Harness>(h: &H) {
    let bench = begin(h).await;
    open(&bench, &north(), "A1", &[1, Dunning::REFUSED, 2]).await;
    open(&bench, &north(), "A2", &[3, 4]).await;
    run(&bench).await;
    run(&bench).await;
    assert_eq!(booked(&bench, &north(), "A1").await, [1]);
    assert_eq!(booked(&bench, &north(), "A2").await, [3, 4]);
    // Events of the instance are handled all the same, and its deadlines pass.
    bench.clock.set(time(60));
    run(&bench).await;
    assert_eq!(booked(&bench, &north(), "A1").await, [1]);
    let state = instance(&bench, &north(), "A1").await.map(|one| one.state);
    assert_eq!(state, Some(Moves { moves: 3 }));
}

/// An event that cannot be handled changes nothing, and halts the manager.
pub async fn an_event_that_fails_changes_nothing<H: Harness>(h: &H) {
    let bench = begin(h).await;
    open(&bench, &north(), "A1", &[1]).await;
    open(&bench, &north(), "A2", &[Dunning::UNLUCKY]).await;
    open(&bench, &north(), "A3", &[2]).await;
    run(&bench).await;
    assert_eq!(booked(&bench, &north(), "A1").await, [1]);
    for account in ["A2", "A3"] {
        assert_eq!(
            booked(&bench, &north(), account).await,
            NOTHING,
            "{account}"
        );
    }
    let state = instance(&bench, &north(), "A2").await.map(|one| one.state);
    assert_eq!(state, Some(Moves::default()), "it was opened");
    let halted = h.halted_at(&bench.store, "conformance_dunning").await;
    let unlucky = bench.log().await[3].position();
    assert_eq!(halted, Some(unlucky));
}
