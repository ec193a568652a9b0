//! Deadlines that pass, and those that are overtaken.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use cqrs_core::conformance::fixtures::{Account, AccountEvent, AccountForm, Dunning};
use cqrs_core::process::{Instance, Next, ProcessManager, ProcessStore as _, Tried, try_task};
use cqrs_core::{Entity, Envelope, ManualClock, RequestContext, Store, UnitOfWork};
use cqrs_integration::each::{Fresh, Kind, on_each};
use cqrs_integration::ticking::{Ticking, Ticks};
use cqrs_sqlx::{Postgres, ProjectorBuilder, Retention, SqlStore, StoreOptions};

use super::{
    ACCOUNTS, MOVES, booked, booked_in, north, open, processes_are_killed, projector, replicas_die,
    with_accounts,
};

on_each!(
    each_deadline_passes_once_among_replicas_that_die,
    a_deadline_that_has_passed_behind_its_end_does_not_count,
    deadlines_that_have_passed_leave_the_log,
    deadlines_of_any_time_are_kept,
);

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_deadline_passes_once_among_processes_that_are_killed() {
    let (fresh, store) = with_accounts::<Postgres>().await;
    for number in 0..ACCOUNTS {
        open(&store, &number.to_string(), &[]).await;
    }
    processes_are_killed(&fresh, Some("ticking")).await;
    assert_ticked_once(&fresh, &store).await;
}
