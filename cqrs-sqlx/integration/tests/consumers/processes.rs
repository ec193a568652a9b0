//! Process managers in a database: replicas, restarts, and what operators do.

mod commands;
mod deadlines;

use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use cqrs_core::conformance::fixtures::{Account, AccountForm, Dunning, Ledger, LedgerEvent};
use cqrs_core::process::{ProcessManager, ProcessStore as _, ProcessSubscription, Tried, try_task};
use cqrs_core::{Clock, Entity, EventHistory, ManualClock, RequestContext, Store, UnitOfWork};
use cqrs_integration::each::{Fresh, Kind, on_each};
use cqrs_integration::stores;
use cqrs_integration::wire::WireProxy;
use cqrs_sqlx::{
    HealthLimits, Postgres, Problem, ProjectorBuilder, ProjectorHandle, SqlStore, Stopped,
    StoreOptions,
};
use tokio::task::JoinSet;

use crate::projector::support;

on_each!(
    each_command_counts_once_among_replicas_that_die,
    a_parked_command_is_retried_or_discarded,
    a_command_is_tried_again_by_the_clock_of_the_store,
    a_paused_manager_does_nothing,
    a_command_that_was_due_before_the_pause_waits,
    a_clock_that_panics_ends_no_manager,
    commands_that_are_parked_are_a_problem,
    a_command_and_its_effect_are_one_transaction,
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
