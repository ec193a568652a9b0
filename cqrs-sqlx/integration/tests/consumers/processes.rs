//! Process managers in a database: replicas, restarts, and what operators do.

use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use cqrs_core::conformance::fixtures::{
    Account, AccountEvent, AccountForm, Dunning, Ledger, LedgerEvent,
};
use cqrs_core::process::{
    Instance, Next, ProcessManager, ProcessStore as _, ProcessSubscription, Tried, try_task,
};
use cqrs_core::{
    AggregateRoot as _, Clock, Entity, Envelope, Error, EventHistory, FailurePolicy, ManualClock,
    Parking, RequestContext, RetryPolicy, Store, StoreErrorKind, UnitOfWork,
};
use cqrs_integration::each::{Fresh, Kind, on_each};
use cqrs_integration::stores;
use cqrs_integration::ticking::{Ticking, Ticks};
use cqrs_integration::wire::WireProxy;
use cqrs_sqlx::{
    HealthLimits, PgStore, Postgres, Problem, ProjectorBuilder, ProjectorHandle, Retention,
    SqlStore, Stopped, StoreOptions,
};
use sqlx::postgres::PgConnectOptions;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::projector::support;

on_each!(
    each_command_counts_once_among_replicas_that_die,
    each_deadline_passes_once_among_replicas_that_die,
    a_deadline_that_has_passed_behind_its_end_does_not_count,
    a_parked_command_is_retried_or_discarded,
    a_command_is_tried_again_by_the_clock_of_the_store,
    a_paused_manager_does_nothing,
    a_command_that_was_due_before_the_pause_waits,
    stopping_begins_no_further_command,
    an_error_that_may_pass_holds_up_no_other_instance,
    refused_commands_make_room_for_those_behind,
    a_manager_with_the_name_of_an_aggregate_says_so,
    a_clock_that_panics_ends_no_manager,
    commands_that_are_parked_are_a_problem,
    deadlines_that_have_passed_leave_the_log,
    a_command_and_its_effect_are_one_transaction,
    deadlines_of_any_time_are_kept,
);

const ACCOUNTS: i64 = 6;
const MOVES: i64 = 15;

fn north() -> RequestContext {
    stores::tenant("north")
}

async fn with_accounts<K: Kind>() -> (Fresh<K>, SqlStore<K>) {
    let (fresh, store) = Fresh::<K>::with_store().await;
    store.create_tables(&[Account::table()]).await.unwrap();
    (fresh, store)
}

fn projector<K: Kind>(store: &SqlStore<K>) -> ProjectorBuilder<K> {
    let projector = store.projector().process(Dunning).page_size(4);
    projector
        .poll_interval(Duration::from_millis(2))
        .retry_delays([])
}

async fn open<K: Kind>(store: &SqlStore<K>, number: &str, moves: &[i64]) {
    let mut account = Account::unopened(number);
    account.open("ann");
    moves.iter().for_each(|cents| account.transfer(*cents));
    let mut uow = store.unit_of_work(&north());
    uow.save(account).unwrap();
    let _ = uow.commit().await.unwrap();
}

async fn booked<K: Kind>(store: &SqlStore<K>, account: &str) -> Vec<i64> {
    booked_in(store, Dunning::ledger(account)).await
}

async fn booked_in<K: Kind>(store: &SqlStore<K>, ledger: String) -> Vec<i64> {
    let mut uow = store.unit_of_work(&north());
    let mut ledgers = uow.repository::<Ledger>();
    let events = ledgers.events(ledger).await.unwrap();
    let cents = events.iter().filter_map(|event| match event.payload() {
        Some(LedgerEvent::Moved { cents }) => Some(*cents),
        _ => None,
    });
    cents.collect()
}

/// Opens accounts and moves money on each, in tasks of their own.
fn work<K: Kind>(store: &SqlStore<K>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for number in 0..ACCOUNTS {
        let store = store.clone();
        tasks.spawn(async move {
            open(&store, &number.to_string(), &[]).await;
            for cents in 1..=MOVES {
                store
                    .execute(&north(), async |uow| {
                        let mut account: Account = uow.get(number.to_string()).await?;
                        account.transfer(100 + cents);
                        uow.save(account)
                    })
                    .await
                    .unwrap();
            }
        });
    }
    tasks
}

const BOOKED: &str = "SELECT count(*) FROM cqrs_event WHERE event_type = 'ledger.moved'";

/// Waits until so much more is booked, or nothing more will be.
async fn progress<K: Kind>(fresh: &Fresh<K>, more: i64) {
    let wanted = (fresh.number(BOOKED).await + more).min(ACCOUNTS * MOVES);
    while fresh.number(BOOKED).await < wanted {
        tokio::task::yield_now().await;
    }
}

async fn assert_booked_once<K: Kind>(fresh: &Fresh<K>, store: &SqlStore<K>) {
    projector(store).run_until_idle().await.unwrap();
    let expected: Vec<i64> = (1..=MOVES).map(|cents| 100 + cents).collect();
    for number in 0..ACCOUNTS {
        let booked = booked(store, &number.to_string()).await;
        assert_eq!(booked, expected, "account {number}");
    }
    let left = "SELECT count(*) FROM cqrs_process_task WHERE command IS NOT NULL";
    assert_eq!(fresh.number(left).await, 0);
    let instances = "SELECT count(*) FROM cqrs_process";
    assert_eq!(fresh.number(instances).await, ACCOUNTS);
}

/// Replicas are cancelled in the middle of whatever they do, and others take over, until all is booked.
async fn replicas_die<K: Kind>(
    fresh: &Fresh<K>,
    projector: impl Fn(&SqlStore<K>) -> ProjectorBuilder<K>,
) {
    let start = async || -> (SqlStore<K>, ProjectorHandle) {
        let store = fresh.open(StoreOptions::default()).await;
        let handle = projector(&store).start().await.unwrap();
        (store, handle)
    };
    let mut replicas = vec![start().await, start().await];
    for _ in 0..8 {
        progress(fresh, 7).await;
        let (dying, handle) = replicas.remove(0);
        drop(handle);
        dying.close();
        replicas.push(start().await);
    }
    progress(fresh, ACCOUNTS * MOVES).await;
    for (store, handle) in replicas {
        handle.stop(Duration::from_secs(60)).await;
        store.close();
    }
}

async fn each_command_counts_once_among_replicas_that_die<K: Kind>() {
    let (fresh, store) = with_accounts::<K>().await;
    let mut writers = work(&store);
    replicas_die(&fresh, projector).await;
    while let Some(written) = writers.join_next().await {
        written.unwrap();
    }
    assert_booked_once(&fresh, &store).await;
}

fn ticking<K: Kind>(store: &SqlStore<K>) -> ProjectorBuilder<K> {
    let projector = store.projector().process(Ticking).page_size(4);
    projector
        .poll_interval(Duration::from_millis(2))
        .retry_delays([])
}

/// Each deadline of each instance is one event of the log, was handled once, and has one command.
async fn assert_ticked_once<K: Kind>(fresh: &Fresh<K>, store: &SqlStore<K>) {
    ticking(store).run_until_idle().await.unwrap();
    let expected: Vec<i64> = (1..=Ticking::STEPS).collect();
    for number in 0..ACCOUNTS {
        let account = number.to_string();
        let booked = booked_in(store, Ticking::ledger(&account)).await;
        assert_eq!(booked, expected, "account {account}");
        let instance = store.process::<Ticking>(&north(), &account).await.unwrap();
        let instance = instance.unwrap();
        let passed = Ticking::STEPS;
        assert_eq!(instance.state, Ticks { passed }, "account {account}");
        assert!(instance.deadlines.is_empty(), "account {account}");
    }
    let passed = "SELECT count(*) FROM cqrs_event WHERE event_type = 'cqrs.deadline_passed'";
    assert_eq!(fresh.number(passed).await, ACCOUNTS * Ticking::STEPS);
    assert_eq!(
        fresh.number("SELECT count(*) FROM cqrs_process_task").await,
        0
    );
}

/// Deadlines fall due while replicas die, each a moment after the one before.
async fn each_deadline_passes_once_among_replicas_that_die<K: Kind>() {
    assert_eq!(Ticking::STEPS, MOVES, "so much is waited for");
    let (fresh, store) = with_accounts::<K>().await;
    for number in 0..ACCOUNTS {
        open(&store, &number.to_string(), &[]).await;
    }
    replicas_die(&fresh, ticking).await;
    assert_ticked_once(&fresh, &store).await;
}

async fn a_parked_command_is_retried_or_discarded<K: Kind>() {
    let (_fresh, store) = with_accounts::<K>().await;
    open(&store, "A1", &[1, Dunning::REFUSED, 2]).await;
    projector(&store).run_until_idle().await.unwrap();
    assert_eq!(booked(&store, "A1").await, [1]);

    let context = RequestContext::system().with_actor("kim");
    let operations = store.operations(&context).unwrap();
    let parked = async || {
        let name = "conformance_dunning";
        operations.parked_commands(name, 10).await.unwrap()
    };
    let [command] = parked().await.try_into().unwrap();
    assert_eq!(
        (command.instance.as_str(), command.attempts),
        ("A1", 1),
        "no delays, one try"
    );
    assert_eq!(command.error.as_deref(), Some("refused"));
    assert!(operations.retry_command(&command).await.unwrap());
    assert!(parked().await.is_empty());
    projector(&store).run_until_idle().await.unwrap();
    assert_eq!(booked(&store, "A1").await, [1], "it is refused again");

    let [command] = parked().await.try_into().unwrap();
    assert!(operations.discard_command(&command).await.unwrap());
    assert!(!operations.discard_command(&command).await.unwrap());
    projector(&store).run_until_idle().await.unwrap();
    assert_eq!(booked(&store, "A1").await, [1, 2]);
    let records = operations.records(10).await.unwrap();
    let done: Vec<_> = records
        .iter()
        .map(|record| (record.operation.as_str(), record.actor.as_deref()))
        .collect();
    let kim = Some("kim");
    assert_eq!(done, [("discard_command", kim), ("retry_command", kim)]);
}

async fn commands_that_are_parked_are_a_problem<K: Kind>() {
    let clock = Arc::new(ManualClock::new(DateTime::UNIX_EPOCH));
    let options = StoreOptions::default().clock(clock.clone());
    let (_fresh, store) = Fresh::<K>::with(options).await;
    store.create_tables(&[Account::table()]).await.unwrap();
    open(&store, "A1", &[1, Dunning::REFUSED, 2]).await;
    projector(&store).run_until_idle().await.unwrap();
    clock.set(DateTime::UNIX_EPOCH + Duration::from_secs(1));
    open(&store, "A2", &[Dunning::REFUSED]).await;
    projector(&store).run_until_idle().await.unwrap();

    let health = store.health(&HealthLimits::default()).await.unwrap();
    let process = "conformance_dunning".to_owned();
    let problem = Problem::ParkedCommands {
        process: process.clone(),
        commands: 2,
        oldest: Some(DateTime::UNIX_EPOCH),
    };
    assert_eq!(
        problem.to_string(),
        "process manager \"conformance_dunning\" has parked 2 commands, the oldest since \
         1970-01-01 00:00:00 UTC"
    );
    assert_eq!(health.problems, [problem]);
    let [status] = &health.subscriptions[..] else {
        panic!("{:?}", health.subscriptions);
    };
    assert_eq!((status.parked, status.parked_commands), (0, 2));
    let health = store.health(&HealthLimits::default().parked(2)).await;
    assert!(health.unwrap().is_healthy());

    let operations = store.operations(&RequestContext::system()).unwrap();
    for command in operations.parked_commands(&process, 10).await.unwrap() {
        assert!(operations.discard_command(&command).await.unwrap());
    }
    projector(&store).run_until_idle().await.unwrap();
    let health = store.health(&HealthLimits::default()).await.unwrap();
    assert!(health.is_healthy(), "{health:?}");
    assert_eq!(health.subscriptions[0].oldest_parked_command, None);
}

/// Their events are streams of their own, which nobody loads: retention takes them when the manager
/// has passed them, and what goes on is as if they were there.
async fn deadlines_that_have_passed_leave_the_log<K: Kind>() {
    let clock = Arc::new(ManualClock::new(DateTime::UNIX_EPOCH));
    let options = StoreOptions::default().clock(clock.clone());
    let (fresh, store) = Fresh::<K>::with(options).await;
    store.create_tables(&[Account::table()]).await.unwrap();
    open(&store, "A1", &[]).await;
    projector(&store).run_until_idle().await.unwrap();
    clock.set(DateTime::UNIX_EPOCH + Duration::from_secs(60));
    projector(&store).run_until_idle().await.unwrap();
    assert_eq!(booked(&store, "A1").await, [Dunning::FEE]);

    let retention = Retention::older_than(Duration::from_secs(3600));
    let remove = async |retention: &Retention| {
        let system = RequestContext::system();
        let removed = store.remove_events(&system, retention);
        removed.await.unwrap().events
    };
    assert_eq!(remove(&retention).await, 0, "they are young");
    fresh.age().await;
    let kept = retention.clone().keep("conformance_dunning");
    assert_eq!(remove(&kept).await, 0, "what a policy keeps stays");
    let of_deadlines = "SELECT count(*) FROM cqrs_event WHERE event_type = 'cqrs.deadline_passed'";
    let all = "SELECT count(*) FROM cqrs_event";
    let (before, deadlines) = (fresh.number(all).await, fresh.number(of_deadlines).await);
    assert_eq!((deadlines, remove(&retention).await), (1, 1));
    assert_eq!(fresh.number(of_deadlines).await, 0);
    assert_eq!(fresh.number(all).await, before - 1, "and nothing else");

    store
        .execute(&north(), async |uow| {
            let mut account: Account = uow.get("A1".to_owned()).await?;
            account.transfer(7);
            uow.save(account)
        })
        .await
        .unwrap();
    projector(&store).run_until_idle().await.unwrap();
    assert_eq!(booked(&store, "A1").await, [Dunning::FEE, 7]);
    clock.set(DateTime::UNIX_EPOCH + Duration::from_secs(120));
    projector(&store).run_until_idle().await.unwrap();
    assert_eq!(booked(&store, "A1").await, [Dunning::FEE, 7, Dunning::FEE]);
}

/// A command that has failed is tried again when the clock says so, and nobody waits for a clock that
/// stands still.
async fn a_command_is_tried_again_by_the_clock_of_the_store<K: Kind>() {
    let clock = Arc::new(ManualClock::new(DateTime::UNIX_EPOCH));
    let options = StoreOptions::default().clock(clock.clone());
    let (_fresh, store) = Fresh::<K>::with(options).await;
    store.create_tables(&[Account::table()]).await.unwrap();
    open(&store, "A1", &[Dunning::REFUSED]).await;
    let parked = async || {
        let operations = store.operations(&RequestContext::system()).unwrap();
        let parked = operations.parked_commands("conformance_dunning", 10).await;
        parked.unwrap().len()
    };
    let delay = Duration::from_millis(20);
    projector(&store)
        .retry_delays([delay])
        .run_until_idle()
        .await
        .unwrap();
    assert_eq!(parked().await, 0, "it waits for its second try");
    // Later than any jitter.
    clock.set(DateTime::UNIX_EPOCH + 2 * delay);
    projector(&store)
        .retry_delays([delay])
        .run_until_idle()
        .await
        .unwrap();
    assert_eq!(parked().await, 1);
}

async fn a_paused_manager_does_nothing<K: Kind>() {
    let (_fresh, store) = with_accounts::<K>().await;
    let operations = store.operations(&RequestContext::system()).unwrap();
    open(&store, "A1", &[1]).await;
    // Events are handled, and then no command is executed.
    let handled = store
        .projector()
        .subscribe(cqrs_core::process::ProcessSubscription::of(Dunning).subscription());
    handled.run_until_idle().await.unwrap();
    operations.pause("conformance_dunning").await.unwrap();
    let paused = projector(&store).run_until_idle().await;
    drop(paused);
    assert!(booked(&store, "A1").await.is_empty());
    operations.resume("conformance_dunning").await.unwrap();
    projector(&store).run_until_idle().await.unwrap();
    assert_eq!(booked(&store, "A1").await, [1]);
}

async fn a_command_that_was_due_before_the_pause_waits<K: Kind>() {
    let (_fresh, store) = with_accounts::<K>().await;
    open(&store, "A1", &[1]).await;
    let handled = store
        .projector()
        .subscribe(ProcessSubscription::of(Dunning).subscription());
    handled.run_until_idle().await.unwrap();
    let due = store.due_tasks(Dunning::NAME, store.now(), 10).await;
    let [task] = due.unwrap().try_into().unwrap();
    let operations = store.operations(&RequestContext::system()).unwrap();
    operations.pause(Dunning::NAME).await.unwrap();
    let tried = try_task(&store, &Dunning, &task).await.unwrap();
    assert!(matches!(tried, Tried::Taken), "{tried:?}");
    operations.resume(Dunning::NAME).await.unwrap();
    let tried = try_task(&store, &Dunning, &task).await.unwrap();
    assert!(matches!(tried, Tried::Done), "{tried:?}");
    assert_eq!(booked(&store, "A1").await, [1]);
}

/// Has a command for each account that is opened.
#[derive(Clone, Default)]
struct Opened(Arc<OpenedState>);

struct OpenedState {
    /// Gets a permit for each command that begins.
    begun: Semaphore,
    /// Gives a permit to each that may go on.
    go_on: Semaphore,
    /// Why the command of an account fails.
    fails: fn(&str) -> Option<Error>,
    done: Mutex<Vec<String>>,
}

impl Default for OpenedState {
    fn default() -> Self {
        Self {
            begun: Semaphore::new(0),
            go_on: Semaphore::new(0),
            fails: |_| None,
            done: Mutex::default(),
        }
    }
}

impl ProcessManager for Opened {
    type Event = AccountEvent;
    type State = ();
    type Command = String;

    const NAME: &'static str = "opened";

    fn instance(&self, event: &Envelope<AccountEvent>) -> Option<Instance> {
        Some(Instance::starting(event.aggregate_id_str()))
    }

    fn on_event(
        &self,
        (): &mut (),
        _: &Envelope<AccountEvent>,
        next: &mut Next<'_, String>,
    ) -> cqrs_core::Result<()> {
        let account = next.instance().to_owned();
        next.command(account);
        Ok(())
    }

    fn on_deadline(&self, (): &mut (), _: &str, _: &mut Next<'_, String>) -> cqrs_core::Result<()> {
        Ok(())
    }

    async fn execute<U: UnitOfWork>(&self, account: String, _: &mut U) -> cqrs_core::Result<()> {
        if let Some(error) = (self.0.fails)(&account) {
            return Err(error);
        }
        self.0.begun.add_permits(1);
        self.0.go_on.acquire().await.unwrap().forget();
        self.0.done.lock().unwrap().push(account);
        Ok(())
    }
}

async fn stopping_begins_no_further_command<K: Kind>() {
    let (_fresh, store) = with_accounts::<K>().await;
    for account in ["A1", "A2", "A3"] {
        open(&store, account, &[]).await;
    }
    let opened = Opened::default();
    let handled = ProcessSubscription::of(opened.clone()).subscription();
    let handled = store.projector().subscribe(handled);
    handled.run_until_idle().await.unwrap();
    let projector = store.projector().process(opened.clone());
    let handle = projector.start().await.unwrap();
    opened.0.begun.acquire().await.unwrap().forget();
    let (stopped, ()) = tokio::join!(handle.stop(Duration::from_secs(60)), async {
        opened.0.go_on.add_permits(3);
    });
    assert_eq!(stopped, Stopped::Drained);
    assert_eq!(opened.0.done.lock().unwrap().len(), 1);
}

async fn an_error_that_may_pass_holds_up_no_other_instance<K: Kind>() {
    let (_fresh, store) = with_accounts::<K>().await;
    // More than are looked for at once.
    for number in 0..40 {
        open(&store, &format!("A{number}"), &[]).await;
    }
    open(&store, "B", &[]).await;
    open(&store, "C", &[]).await;
    let opened = Opened(Arc::new(OpenedState {
        go_on: Semaphore::new(2),
        fails: |account| {
            let away = || Error::store(StoreErrorKind::Unavailable, "the bank is away");
            account.starts_with('A').then(away)
        },
        ..OpenedState::default()
    }));
    let projector = store.projector().process(opened.clone());
    let handle = projector.start().await.unwrap();
    let begun = opened.0.begun.acquire_many(2);
    let begun = tokio::time::timeout(Duration::from_secs(20), begun).await;
    drop(begun.expect("they wait for nobody"));
    handle.stop(Duration::from_secs(60)).await;
    let done = opened.0.done.lock().unwrap().clone();
    assert_eq!(done, ["B", "C"]);
}

async fn refused_commands_make_room_for_those_behind<K: Kind>() {
    for delays in [Vec::new(), vec![Duration::from_millis(1)]] {
        let (fresh, store) = with_accounts::<K>().await;
        // More than are looked for at once, and before the other in their order.
        for number in 0..40 {
            open(&store, &format!("A{number}"), &[]).await;
        }
        open(&store, "B", &[]).await;
        let opened = Opened(Arc::new(OpenedState {
            go_on: Semaphore::new(1),
            fails: |account| account.starts_with('A').then(|| Error::other("no")),
            ..OpenedState::default()
        }));
        let projector = store.projector().process(opened.clone());
        let done = projector.retry_delays(delays).run_until_idle().await;
        assert_eq!(done.unwrap(), 41, "events");
        assert_eq!(*opened.0.done.lock().unwrap(), ["B"]);
        let parked = "SELECT count(*) FROM cqrs_process_task WHERE parked_at IS NOT NULL";
        assert_eq!(fresh.number(parked).await, 40);
    }
}

/// Moves money on each account that is opened.
struct Moving;

impl ProcessManager for Moving {
    type Event = AccountEvent;
    type State = ();
    type Command = String;

    const NAME: &'static str = "moving";

    fn instance(&self, event: &Envelope<AccountEvent>) -> Option<Instance> {
        let is_opened = matches!(event.payload(), AccountEvent::Opened { .. });
        is_opened.then(|| Instance::starting(event.aggregate_id_str()))
    }

    fn on_event(
        &self,
        (): &mut (),
        _: &Envelope<AccountEvent>,
        next: &mut Next<'_, String>,
    ) -> cqrs_core::Result<()> {
        let account = next.instance().to_owned();
        next.command(account);
        Ok(())
    }

    fn on_deadline(&self, (): &mut (), _: &str, _: &mut Next<'_, String>) -> cqrs_core::Result<()> {
        Ok(())
    }

    async fn execute<U: UnitOfWork>(&self, account: String, uow: &mut U) -> cqrs_core::Result<()> {
        let mut found: Account = uow.get(account).await?;
        found.transfer(1);
        uow.save(found)
    }
}

/// The server does not see that nobody waits for it any more, and has the lock of the task.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_hangs_in_a_statement_is_ended_and_parked() {
    let (fresh, store) = with_accounts::<Postgres>().await;
    fresh
        .run(
            "CREATE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             PERFORM pg_sleep(600); RETURN NEW; END $$; \
             CREATE TRIGGER hang BEFORE UPDATE ON conformance_account FOR EACH ROW \
             WHEN (OLD.number = 'A') EXECUTE FUNCTION hang()",
        )
        .await;
    open(&store, "A", &[]).await;
    open(&store, "B", &[]).await;
    let projector = store.projector().process(Moving).retry_delays([]);
    let projector = projector.deadline(Duration::from_secs(8));
    let ran = tokio::time::timeout(Duration::from_secs(120), projector.run_until_idle());
    ran.await.expect("it is ended").unwrap();
    let parked = "SELECT count(*) FROM cqrs_process_task WHERE parked_at IS NOT NULL \
                  AND error LIKE '%longer than 8s%'";
    assert_eq!(fresh.number(parked).await, 1);
    let moved =
        "SELECT count(*) FROM cqrs_event WHERE aggregate_id = 'B' AND aggregate_version = 2";
    assert_eq!(fresh.number(moved).await, 1);
    let hanging = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                   AND wait_event = 'PgSleep'";
    assert_eq!(fresh.number(hanging).await, 0);
}

/// Follows ledgers, under the name of another aggregate.
struct Namesake;

impl ProcessManager for Namesake {
    type Event = LedgerEvent;
    type State = ();
    type Command = ();

    const NAME: &'static str = Account::TYPE;

    fn instance(&self, event: &Envelope<LedgerEvent>) -> Option<Instance> {
        Some(Instance::starting(event.aggregate_id_str()))
    }

    fn on_event(
        &self,
        (): &mut (),
        _: &Envelope<LedgerEvent>,
        _: &mut Next<'_, ()>,
    ) -> cqrs_core::Result<()> {
        Ok(())
    }

    fn on_deadline(&self, (): &mut (), _: &str, _: &mut Next<'_, ()>) -> cqrs_core::Result<()> {
        Ok(())
    }

    async fn execute<U: UnitOfWork>(&self, (): (), _: &mut U) -> cqrs_core::Result<()> {
        Ok(())
    }
}

/// Its mistake is in the code, so that no event is given up for it.
async fn a_manager_with_the_name_of_an_aggregate_says_so<K: Kind>() {
    let policies = [
        FailurePolicy::Halt,
        FailurePolicy::Skip,
        FailurePolicy::Park(Parking::default()),
    ];
    for policy in policies {
        let (fresh, store) = with_accounts::<K>().await;
        open(&store, "A", &[]).await;
        let namesake = ProcessSubscription::of(Namesake).on_failure(policy);
        let projector = store.projector().subscribe_process(namesake);
        let ran = projector.retry_delays([]).run_until_idle().await;
        let error = ran.unwrap_err().to_string();
        assert!(
            error.contains("process manager \"account\" has the name of an aggregate"),
            "{error}"
        );
        let given_up = fresh.number("SELECT count(*) FROM cqrs_dead_letter").await;
        assert_eq!(given_up, 0);
    }
}

/// Panics when it is asked next, if it is armed.
#[derive(Debug)]
struct ArmedClock(AtomicBool);

impl Clock for ArmedClock {
    fn now(&self) -> DateTime<Utc> {
        assert!(!self.0.swap(false, Ordering::Relaxed), "no time");
        Utc::now()
    }
}

async fn a_clock_that_panics_ends_no_manager<K: Kind>() {
    let (fresh, store) = with_accounts::<K>().await;
    let clock = Arc::new(ArmedClock(AtomicBool::new(false)));
    let options = StoreOptions::default().clock(Arc::clone(&clock) as Arc<dyn Clock>);
    let handle = projector(&fresh.open(options).await).start().await.unwrap();
    clock.0.store(true, Ordering::Relaxed);
    while clock.0.load(Ordering::Relaxed) {
        tokio::task::yield_now().await;
    }
    open(&store, "A1", &[7]).await;
    let is_booked = async {
        while booked(&store, "A1").await != [7] {
            tokio::task::yield_now().await;
        }
    };
    let is_booked = tokio::time::timeout(Duration::from_secs(20), is_booked).await;
    is_booked.expect("the manager goes on");
    assert_eq!(handle.stop(Duration::from_secs(60)).await, Stopped::Drained);
}

/// A manager that has nothing to do asks for nothing while others are busy, also where it passes over
/// their events.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_manager_does_not_ask_with_each_page_of_others() {
    let (fresh, store) = with_accounts::<Postgres>().await;
    let store_of_others = support::with_tables(store).await;
    let proxy = WireProxy::start(&fresh.url).await;
    let store = stores::postgres(proxy.url()).await;
    let recorder = support::Recorder::new("recorder");
    let projector = store.projector().process(Dunning).projection(recorder);
    let projector = projector.poll_interval(Duration::from_millis(200));
    let handle = projector.start().await.unwrap();
    let before = proxy.counts();
    for _ in 0..50 {
        let receipt = support::receipt(&store_of_others, 0).await;
        store.wait_for(&receipt, "recorder").await.unwrap();
        store.wait_for(&receipt, Dunning::NAME).await.unwrap();
    }
    let sent = proxy.statements_since(&before);
    handle.stop(Duration::from_secs(60)).await;
    let asked = sent
        .iter()
        .filter(|sql| sql.contains("FROM cqrs_process_task"))
        .count();
    assert!(asked < 50, "{asked}");
}

/// What a command writes and that it is done are committed together or not at all.
async fn a_command_and_its_effect_are_one_transaction<K: Kind>() {
    let (fresh, store) = with_accounts::<K>().await;
    open(&store, "A1", &[5]).await;
    // The command cannot be taken out.
    fresh
        .run(K::either(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
             $$BEGIN RAISE EXCEPTION 'no'; END$$; \
             CREATE CONSTRAINT TRIGGER refuse AFTER DELETE ON cqrs_process_task \
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()",
            "CREATE TRIGGER refuse AFTER DELETE ON cqrs_process_task \
             BEGIN SELECT RAISE(ABORT, 'no'); END",
        ))
        .await;
    projector(&store).run_until_idle().await.unwrap();
    assert!(booked(&store, "A1").await.is_empty());
    let drop = K::either(
        "DROP TRIGGER refuse ON cqrs_process_task",
        "DROP TRIGGER refuse",
    );
    fresh.run(drop).await;
    let operations = store.operations(&RequestContext::system()).unwrap();
    let parked = operations.parked_commands("conformance_dunning", 1).await;
    for command in parked.unwrap() {
        operations.retry_command(&command).await.unwrap();
    }
    projector(&store).run_until_idle().await.unwrap();
    assert_eq!(booked(&store, "A1").await, [5]);
}

/// Sets deadlines that no store can hold as they are.
struct Extremes;

impl ProcessManager for Extremes {
    type Event = AccountEvent;
    type State = Vec<String>;
    type Command = ();

    const NAME: &'static str = "extremes";

    fn instance(&self, event: &Envelope<AccountEvent>) -> Option<Instance> {
        Some(Instance::starting(event.aggregate_id_str()))
    }

    fn on_event(
        &self,
        _: &mut Vec<String>,
        _: &Envelope<AccountEvent>,
        next: &mut Next<'_, ()>,
    ) -> cqrs_core::Result<()> {
        next.deadline_in("never", TimeDelta::MAX);
        next.deadline("at once", DateTime::<Utc>::MIN_UTC);
        Ok(())
    }

    fn on_deadline(
        &self,
        passed: &mut Vec<String>,
        name: &str,
        _: &mut Next<'_, ()>,
    ) -> cqrs_core::Result<()> {
        passed.push(name.to_owned());
        Ok(())
    }

    async fn execute<U: UnitOfWork>(&self, _: (), _: &mut U) -> cqrs_core::Result<()> {
        Ok(())
    }
}

async fn deadlines_of_any_time_are_kept<K: Kind>() {
    let (_fresh, store) = with_accounts::<K>().await;
    open(&store, "A1", &[]).await;
    let projector = store.projector().process(Extremes).retry_delays([]);
    projector.run_until_idle().await.unwrap();
    let instance = store.process::<Extremes>(&north(), "A1").await.unwrap();
    let instance = instance.unwrap();
    assert_eq!(instance.state, ["at once"]);
    let left: Vec<_> = instance.deadlines.into_iter().collect();
    let last = DateTime::from_timestamp_micros(253_402_300_799_999_999).unwrap();
    assert_eq!(left, [("never".to_owned(), last)]);
}

/// Has a deadline from when an account is opened on. What moves on it says what becomes of that.
struct Patience;

impl Patience {
    const CANCEL: i64 = 1;
    const REPLACE: i64 = 2;
}

impl ProcessManager for Patience {
    type Event = AccountEvent;
    type State = Vec<String>;
    type Command = ();

    const NAME: &'static str = "patience";

    fn instance(&self, event: &Envelope<AccountEvent>) -> Option<Instance> {
        Some(Instance::starting(event.aggregate_id_str()))
    }

    fn on_event(
        &self,
        _: &mut Vec<String>,
        event: &Envelope<AccountEvent>,
        next: &mut Next<'_, ()>,
    ) -> cqrs_core::Result<()> {
        match event.payload() {
            AccountEvent::Moved {
                cents: Self::CANCEL,
            } => next.cancel("first"),
            AccountEvent::Closed => next.complete(),
            AccountEvent::Opened { .. } | AccountEvent::Moved { .. } => {
                next.deadline_in("first", TimeDelta::seconds(60));
            }
        }
        Ok(())
    }

    fn on_deadline(
        &self,
        passed: &mut Vec<String>,
        name: &str,
        next: &mut Next<'_, ()>,
    ) -> cqrs_core::Result<()> {
        passed.push(format!("{name} at {}", next.now().timestamp()));
        Ok(())
    }

    async fn execute<U: UnitOfWork>(&self, (): (), _: &mut U) -> cqrs_core::Result<()> {
        Ok(())
    }
}

/// A deadline may pass while the event that ends it waits to be handled: then it is behind that in
/// the log.
async fn a_deadline_that_has_passed_behind_its_end_does_not_count<K: Kind>() {
    let at = |seconds: u64| DateTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let clock = Arc::new(ManualClock::new(at(0)));
    let options = StoreOptions::default().clock(clock.clone());
    let (_fresh, store) = Fresh::<K>::with(options).await;
    store.create_tables(&[Account::table()]).await.unwrap();
    let run = async || {
        let projector = store.projector().process(Patience).retry_delays([]);
        projector.run_until_idle().await.unwrap();
    };
    for account in ["kept", "cancelled", "replaced", "both", "completed"] {
        open(&store, account, &[]).await;
    }
    run().await;
    clock.set(at(30));
    let change = async |account: &str, change: &(dyn Fn(&mut Account) + Sync)| {
        let mut uow = store.unit_of_work(&north());
        let mut account: Account = uow.get(account.to_owned()).await.unwrap();
        change(&mut account);
        uow.save(account).unwrap();
        let _ = uow.commit().await.unwrap();
    };
    change("cancelled", &|account| account.transfer(Patience::CANCEL)).await;
    change("replaced", &|account| account.transfer(Patience::REPLACE)).await;
    change("both", &|account| {
        account.transfer(Patience::CANCEL);
        account.transfer(Patience::REPLACE);
    })
    .await;
    change("completed", &AccountForm::close).await;
    clock.set(at(60));
    let due = store.due_tasks(Patience::NAME, store.now(), 10).await;
    let due = due.unwrap();
    assert_eq!(due.len(), 5);
    for task in &due {
        let tried = try_task(&store, &Patience, task).await.unwrap();
        assert!(matches!(tried, Tried::Done), "{tried:?}");
    }
    let passed = async |account: &str| {
        let instance = store.process::<Patience>(&north(), account).await.unwrap();
        instance.unwrap().state
    };
    let nothing: [&str; 0] = [];
    for (time, replaced) in [(60, &nothing[..]), (90, &["first at 90"])] {
        clock.set(at(time));
        run().await;
        assert_eq!(passed("kept").await, ["first at 60"], "at {time}");
        assert_eq!(passed("cancelled").await, nothing, "at {time}");
        assert_eq!(passed("completed").await, nothing, "at {time}");
        for account in ["replaced", "both"] {
            assert_eq!(passed(account).await, replaced, "{account} at {time}");
        }
    }
}

/// A command that meets a lock is tried again, for as long as it is held, and meanwhile the commands of
/// other instances are executed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_waits_for_a_lock_holds_up_no_other_instance() {
    let (fresh, store) = with_accounts::<Postgres>().await;
    open(&store, "A1", &[1]).await;
    projector(&store).run_until_idle().await.unwrap();
    let mut holder = store.unit_of_work(&north());
    let ledger = Dunning::ledger("A1");
    let ledger = holder.get::<Ledger>(ledger).await.unwrap();
    // It writes nothing, so the log can be read meanwhile.
    holder.guard(&ledger).unwrap();
    let _ = holder.connection().await.unwrap();

    let mut uow = store.unit_of_work(&north());
    let mut account = uow.get::<Account>("A1".to_owned()).await.unwrap();
    account.transfer(2);
    uow.save(account).unwrap();
    let _ = uow.commit().await.unwrap();
    open(&store, "A2", &[3]).await;
    let policy = RetryPolicy {
        attempts: 1,
        ..RetryPolicy::default()
    };
    let url: PgConnectOptions = fresh.url.parse().unwrap();
    let url = url.options([("lock_timeout", "10ms")]);
    let options = StoreOptions::default().retry_policy(policy);
    let impatient = PgStore::connect_with(url, options).await;
    let impatient = impatient.unwrap();
    let handle = projector(&impatient).start().await.unwrap();
    let all_booked = async |account: &str, cents: &[i64]| {
        while booked(&store, account).await != cents {
            tokio::task::yield_now().await;
        }
    };
    let limit = Duration::from_secs(20);
    let other = tokio::time::timeout(limit, all_booked("A2", &[3])).await;
    other.expect("A2 waits for nobody");
    assert_eq!(booked(&store, "A1").await, [1]);
    holder.rollback().await;
    let own = tokio::time::timeout(limit, all_booked("A1", &[1, 2])).await;
    own.expect("A1 goes on");
    handle.stop(limit).await;
}

struct Worker(Child);

impl Worker {
    fn start(url: &str, manager: Option<&str>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_process_worker"));
        Self(command.arg(url).args(manager).spawn().unwrap())
    }
}

/// Workers are killed, and others take over, until all is booked.
async fn processes_are_killed(fresh: &Fresh<Postgres>, manager: Option<&str>) {
    let start = || Worker::start(&fresh.url, manager);
    let mut workers = vec![start(), start()];
    for _ in 0..5 {
        progress(fresh, 10).await;
        drop(workers.remove(0));
        workers.push(start());
    }
    progress(fresh, ACCOUNTS * MOVES).await;
}

impl Drop for Worker {
    /// With SIGKILL.
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_command_counts_once_among_processes_that_are_killed() {
    let (fresh, store) = with_accounts::<Postgres>().await;
    let mut writers = work(&store);
    processes_are_killed(&fresh, None).await;
    while let Some(written) = writers.join_next().await {
        written.unwrap();
    }
    assert_booked_once(&fresh, &store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_deadline_passes_once_among_processes_that_are_killed() {
    let (fresh, store) = with_accounts::<Postgres>().await;
    for number in 0..ACCOUNTS {
        open(&store, &number.to_string(), &[]).await;
    }
    processes_are_killed(&fresh, Some("ticking")).await;
    assert_ticked_once(&fresh, &store).await;
}
