//! Commands that fail, hang, or wait.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cqrs_core::conformance::fixtures::{
    Account, AccountEvent, AccountForm, Dunning, Ledger, LedgerEvent,
};
use cqrs_core::process::{Instance, Next, ProcessManager, ProcessSubscription};
use cqrs_core::{
    AggregateRoot as _, Envelope, Error, FailurePolicy, Parking, RetryPolicy, Store,
    StoreErrorKind, UnitOfWork,
};
use cqrs_integration::each::{Kind, on_each};
use cqrs_sqlx::{PgStore, Postgres, Stopped, StoreOptions};
use sqlx::postgres::PgConnectOptions;
use tokio::sync::Semaphore;

use super::{booked, north, open, projector, with_accounts};

on_each!(
    stopping_begins_no_further_command,
    an_error_that_may_pass_holds_up_no_other_instance,
    refused_commands_make_room_for_those_behind,
    a_manager_with_the_name_of_an_aggregate_says_so,
);

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
