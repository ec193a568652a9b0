//! Futures that are dropped at any await point: everything happened or nothing did, no lock and no
//! connection is kept, and the next command works.

use std::time::Duration;

use cqrs_core::conformance::fixtures::{OldLetter, OldLetterEvent};
use cqrs_core::{
    Query, Repository, RequestContext, Result, RetryPolicy, Sourced, SourcedState, Store,
    UnitOfWork,
};
use cqrs_integration::domain::{self, Parcel, ParcelId, ParcelViews, Parcels};
use cqrs_integration::stores;
use cqrs_sqlx::{SqlStore, SqlUnitOfWork, Stopped, StoreOptions};

use crate::concurrency::{assert_dense, with_ids};
use cqrs_integration::each::{Fresh, Kind, on_each, poll_up_to};

on_each!(
    a_command_is_dropped_at_each_await,
    a_commit_is_dropped_at_each_await,
    an_append_is_dropped_at_each_await,
    a_unit_of_work_goes_on_after_a_dropped_read,
    a_dropped_flush_is_a_failure,
    a_dropped_unit_of_work_releases_its_locks,
    a_dropped_rollback_releases_its_locks,
    a_dropped_migration_can_be_repeated,
    a_dropped_wait_harms_nobody,
    a_dropped_stop_still_stops,
    a_dropped_run_until_idle_applies_nothing_twice,
);

/// One connection: whoever keeps it, keeps it from the next command. And no retries: each error is
/// one to look at.
fn options() -> StoreOptions {
    StoreOptions::default()
        .max_connections(1)
        .acquire_timeout(Duration::from_secs(20))
        .retry_policy(RetryPolicy {
            attempts: 1,
            first_delay: Duration::ZERO,
            max_delay: Duration::ZERO,
        })
}

/// The ways to commit.
#[derive(Debug, Clone, Copy)]
enum Command {
    /// One statement.
    Create,
    /// A load, then one statement.
    Change,
    /// A transaction that the commit opens itself.
    Several,
    /// A transaction that a read after a write opened.
    ReadAfterWrite,
    /// A savepoint that stays, with one within that is undone.
    Savepoints,
    /// A transaction with SQL of the user's own.
    OwnSql,
}

const COMMANDS: [Command; 6] = [
    Command::Create,
    Command::Change,
    Command::Several,
    Command::ReadAfterWrite,
    Command::Savepoints,
    Command::OwnSql,
];

/// Runs a command; each changes the known parcel by 5 grams per event but `Create`.
async fn run<K: Kind>(command: Command, known: ParcelId, uow: &mut SqlUnitOfWork<K>) -> Result<()> {
    match command {
        Command::Create => uow.save(Parcel::register("new")),
        Command::Change => change(known, uow).await,
        Command::Several => {
            change(known, uow).await?;
            uow.save(Parcel::register("new"))
        }
        Command::ReadAfterWrite => {
            uow.save(Parcel::register("new"))?;
            uow.repository::<Parcel>().find_open(3).await?;
            change(known, uow).await
        }
        Command::Savepoints => {
            uow.savepoint(async |uow| {
                uow.save(Parcel::register("new"))?;
                let undone = uow
                    .savepoint(async |uow| {
                        change(known, uow).await?;
                        uow.repository::<Parcel>().find_open(3).await?;
                        Err::<(), _>(cqrs_core::Error::other("undone"))
                    })
                    .await;
                match undone {
                    Err(cqrs_core::Error::Other(_)) => Ok(()),
                    result => result,
                }
            })
            .await?;
            change(known, uow).await
        }
        Command::OwnSql => {
            change(known, uow).await?;
            let update = "UPDATE tally SET commits = commits + 1".to_owned();
            let connection = uow.connection().await?;
            K::run_on(connection, update)
                .await
                .map_err(cqrs_core::Error::other)
        }
    }
}

async fn change<K: Kind>(known: ParcelId, uow: &mut SqlUnitOfWork<K>) -> Result<()> {
    let mut parcel = uow.get::<Parcel>(known).await?;
    parcel.weigh(2);
    parcel.weigh(3);
    uow.save(parcel)
}

/// How many events a command writes.
fn events(command: Command) -> i64 {
    match command {
        Command::Create => 1,
        Command::Change | Command::OwnSql => 2,
        Command::Several | Command::ReadAfterWrite | Command::Savepoints => 3,
    }
}

struct Fixture<K: Kind> {
    fresh: Fresh<K>,
    store: SqlStore<K>,
    known: ParcelId,
}

impl<K: Kind> Fixture<K> {
    async fn new() -> Self {
        let (fresh, store) = Fresh::<K>::with(options()).await;
        with_ids(&fresh).await;
        fresh
            .run("CREATE TABLE tally (commits bigint NOT NULL); INSERT INTO tally VALUES (0)")
            .await;
        let parcel = Parcel::register("known");
        let known = domain::id(&parcel);
        let mut unit_of_work = store.unit_of_work(&stores::tenant("north"));
        unit_of_work.save(parcel).unwrap();
        let _ = unit_of_work.commit().await.unwrap();
        Self {
            fresh,
            store,
            known,
        }
    }

    /// How many events the log has of the work of this context.
    async fn written(&self, context: &RequestContext) -> i64 {
        let correlation = K::uuid(context.metadata().correlation_id);
        let sql = format!("SELECT count(*) FROM cqrs_event WHERE correlation_id = {correlation}");
        self.fresh.number(sql).await
    }

    /// A command that must work, whatever was dropped before; but a commit that was dropped may
    /// still come in between.
    async fn usable(&self, name: &str) {
        let context = stores::tenant("north");
        let command = async || {
            let mut uow = self.store.unit_of_work(&context);
            change(self.known, &mut uow).await?;
            uow.commit().await
        };
        let mut outcome = command().await;
        if outcome.as_ref().is_err_and(cqrs_core::Error::is_conflict) {
            outcome = command().await;
        }
        let receipt = outcome.unwrap_or_else(|error| panic!("after {name}: {error:?}"));
        assert_eq!(self.written(&context).await, 2, "{name}");
        assert_eq!(receipt.events().len(), 2, "{name}");
    }

    /// Rows, events and the user's own table agree.
    async fn consistent(&self) {
        assert_dense(&self.fresh).await;
        let wrong = self
            .fresh
            .number(
                "SELECT count(*) FROM parcel_ids AS p WHERE 2 * grams <> 5 * (
                     SELECT count(*) FROM cqrs_event AS e
                     WHERE e.aggregate_id = p.id AND e.event_type = 'parcel.weighed')",
            )
            .await;
        assert_eq!(wrong, 0, "rows that are not the sum of their events");
    }

    /// Waits until the server works on nothing any more, and looks once more.
    async fn end(self, committed: i64) {
        self.store.close();
        K::deserted(&self.fresh.url).await;
        self.consistent().await;
        let own = "SELECT count(DISTINCT correlation_id) FROM cqrs_event WHERE correlation_id IN \
                   (SELECT correlation_id FROM own_command)";
        let tally = self.fresh.number("SELECT commits FROM tally").await;
        assert_eq!(tally, self.fresh.number(own).await, "own SQL and events");
        assert!(tally >= committed);
    }
}

/// Drops a command of each kind at its first, second, third await and so on, until it has no
/// such await; `commit_only` leaves what comes before the commit alone.
async fn drop_at_each_await<K: Kind>(commit_only: bool) {
    let fixture = Fixture::<K>::new().await;
    let column = K::either("uuid", "blob");
    let table = format!("CREATE TABLE own_command (correlation_id {column} NOT NULL)");
    fixture.fresh.run(table).await;
    let (mut own, mut dropped) = (0, 0);
    for command in COMMANDS {
        // An answer that is there at once is not waited for, so that there are fewer awaits one
        // time than another.
        let mut completed = 0;
        for limit in 0.. {
            let name = format!("{command:?} dropped at await {limit}");
            let context = stores::tenant("north");
            if matches!(command, Command::OwnSql) {
                let correlation = K::uuid(context.metadata().correlation_id);
                let insert = format!("INSERT INTO own_command VALUES ({correlation})");
                fixture.fresh.run(insert).await;
            }
            let outcome = if commit_only {
                let mut uow = fixture.store.unit_of_work(&context);
                run(command, fixture.known, &mut uow).await.unwrap();
                poll_up_to(limit, uow.commit()).await
            } else {
                let work = fixture
                    .store
                    .execute(&context, async |uow| run(command, fixture.known, uow).await);
                poll_up_to(limit, work).await
            };
            fixture.usable(&name).await;
            fixture.consistent().await;
            let written = fixture.written(&context).await;
            match outcome {
                None => {
                    dropped += 1;
                    assert!([0, events(command)].contains(&written), "{name}: {written}");
                }
                Some(outcome) => {
                    let _ = outcome.unwrap_or_else(|error| panic!("{name}: {error:?}"));
                    assert_eq!(written, events(command), "{name}");
                    own += i64::from(matches!(command, Command::OwnSql));
                    completed += 1;
                }
            }
            if completed == 3 {
                break;
            }
        }
    }
    assert!(dropped > 0, "nothing was dropped");
    fixture.end(own).await;
}

async fn a_command_is_dropped_at_each_await<K: Kind>() {
    drop_at_each_await::<K>(false).await;
}

async fn a_commit_is_dropped_at_each_await<K: Kind>() {
    drop_at_each_await::<K>(true).await;
}

/// What is appended to a stream is there whole or not at all.
async fn an_append_is_dropped_at_each_await<K: Kind>() {
    let fixture = Fixture::<K>::new().await;
    let append = async |context: &RequestContext| {
        let mut uow = fixture.store.unit_of_work(context);
        let found = uow.repository::<OldLetter>().find(1).await?;
        let mut letter = found.unwrap_or_else(|| OldLetter::blank(1));
        letter.raise(OldLetterEvent::Stamped { euros: 1 });
        letter.raise(OldLetterEvent::Stamped { euros: 2 });
        uow.save(letter)?;
        uow.commit().await
    };
    // An answer that is there at once is not waited for, so that there are fewer awaits one time than
    // another, and sometimes none.
    let (mut dropped, mut completed, mut limit) = (0, 0, 0);
    while completed < 3 || dropped == 0 {
        assert!(completed < 200, "nothing was dropped");
        let context = stores::tenant("north");
        let outcome = poll_up_to(limit, append(&context)).await;
        let next = stores::tenant("north");
        let mut after = append(&next).await;
        // What was dropped may have come in between.
        if after.as_ref().is_err_and(cqrs_core::Error::is_conflict) {
            after = append(&next).await;
        }
        let _ = after.unwrap_or_else(|error| panic!("after await {limit}: {error:?}"));
        assert_eq!(fixture.written(&next).await, 2, "after await {limit}");
        let written = fixture.written(&context).await;
        match outcome {
            None => {
                dropped += 1;
                assert!([0, 2].contains(&written), "await {limit}: {written}");
                limit += 1;
            }
            Some(outcome) => {
                let _ = outcome.unwrap();
                assert_eq!(written, 2, "await {limit}");
                completed += 1;
                limit = 0;
            }
        }
    }
    let mut uow = fixture.store.unit_of_work(&stores::tenant("north"));
    let letter: OldLetter = uow.get(1).await.unwrap();
    let sql = "SELECT count(*) FROM cqrs_event WHERE aggregate_type = 'letter'";
    let events = fixture.fresh.number(sql).await;
    assert_eq!(i64::try_from(letter.root.version()).unwrap(), events);
}

/// A read that is given up, as with a deadline, does not spoil the transaction it was in.
async fn a_unit_of_work_goes_on_after_a_dropped_read<K: Kind>() {
    let fixture = Fixture::<K>::new().await;
    for limit in 0.. {
        let context = stores::tenant("north");
        let mut uow = fixture.store.unit_of_work(&context);
        uow.save(Parcel::register("new")).unwrap();
        assert!(
            !uow.repository::<Parcel>()
                .find_open(3)
                .await
                .unwrap()
                .is_empty()
        );
        let mut parcels = uow.repository::<Parcel>();
        let read = poll_up_to(limit, parcels.query(Query::all())).await;
        let done = read.is_some();
        change(fixture.known, &mut uow).await.unwrap();
        let receipt = uow.commit().await.unwrap();
        assert_eq!(receipt.events().len(), 3);
        assert_eq!(fixture.written(&context).await, 3);
        if done {
            break;
        }
    }
    fixture.consistent().await;
}

async fn a_dropped_flush_is_a_failure<K: Kind>() {
    let fixture = Fixture::<K>::new().await;
    for limit in 0.. {
        let before = fixture.fresh.state().await;
        let mut uow = fixture.store.unit_of_work(&stores::tenant("north"));
        change(fixture.known, &mut uow).await.unwrap();
        uow.save(Parcel::register("new")).unwrap();
        if poll_up_to(limit, uow.connection()).await.is_some() {
            uow.rollback().await;
            break;
        }
        let error = uow
            .repository::<Parcel>()
            .find(fixture.known)
            .await
            .unwrap_err();
        assert_eq!(
            *cqrs_integration::each::kind(&error),
            cqrs_core::StoreErrorKind::Usage,
            "{limit}: {error}"
        );
        let error = uow.commit().await.unwrap_err();
        assert_eq!(
            *cqrs_integration::each::kind(&error),
            cqrs_core::StoreErrorKind::Usage
        );
        assert_eq!(fixture.fresh.state().await, before);
        fixture.usable(&format!("flush dropped at {limit}")).await;
    }
    fixture.consistent().await;
}

async fn a_dropped_unit_of_work_releases_its_locks<K: Kind>() {
    let fixture = Fixture::<K>::new().await;
    let before = fixture.fresh.state().await;
    let other = fixture.fresh.open(options()).await;

    let mut holder = fixture.store.unit_of_work(&stores::tenant("north"));
    change(fixture.known, &mut holder).await.unwrap();
    let open = holder.repository::<Parcel>().find_open(3).await.unwrap();
    assert_eq!(open[0].grams(), 5, "it sees what it wrote");

    // The other writer waits for the holder's lock, and gets it.
    let known = fixture.known;
    let writer = tokio::spawn(async move {
        let mut uow = other.unit_of_work(&stores::tenant("north"));
        change(known, &mut uow).await?;
        uow.commit().await
    });
    if K::either(true, false) {
        let waiting = "SELECT count(*) FROM pg_stat_activity
                       WHERE datname = current_database() AND wait_event_type = 'Lock'";
        while fixture.fresh.number(waiting).await == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert!(!writer.is_finished());
    assert_eq!(fixture.fresh.state().await, before);
    drop(holder);
    assert_eq!(writer.await.unwrap().unwrap().events().len(), 2);
    fixture.usable("a dropped unit of work").await;
    assert_eq!(fixture.fresh.number("SELECT grams FROM parcel").await, 10);
    fixture.consistent().await;
}

async fn a_dropped_rollback_releases_its_locks<K: Kind>() {
    let fixture = Fixture::<K>::new().await;
    for limit in 0.. {
        let before = fixture.fresh.state().await;
        let mut uow = fixture.store.unit_of_work(&stores::tenant("north"));
        change(fixture.known, &mut uow).await.unwrap();
        uow.connection().await.unwrap();
        let done = poll_up_to(limit, uow.rollback()).await.is_some();
        assert_eq!(fixture.fresh.state().await, before);
        fixture.usable("a dropped rollback").await;
        if done {
            break;
        }
    }
    fixture.consistent().await;
}

async fn a_dropped_migration_can_be_repeated<K: Kind>() {
    let fresh = Fresh::<K>::empty().await;
    let store = fresh.open(options()).await;
    for limit in 0.. {
        let done = poll_up_to(limit, store.migrate()).await;
        if let Some(outcome) = done {
            outcome.unwrap();
            break;
        }
    }
    store.migrate().await.unwrap();
    store.create_tables(&domain::tables()).await.unwrap();
    let mut uow = store.unit_of_work(&stores::tenant("north"));
    uow.save(Parcel::register("a")).unwrap();
    let _ = uow.commit().await.unwrap();
}

const LONG: Duration = Duration::from_secs(60);

async fn a_dropped_wait_harms_nobody<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    let handle = store.projector().rows(ParcelViews).start().await.unwrap();
    for limit in 0..20 {
        let mut uow = store.unit_of_work(&stores::tenant("north"));
        uow.save(Parcel::register("a")).unwrap();
        let receipt = uow.commit().await.unwrap();
        if let Some(outcome) = poll_up_to(limit, store.wait_for(&receipt, "parcel_view")).await {
            outcome.unwrap();
        }
        store.wait_for(&receipt, "parcel_view").await.unwrap();
    }
    assert_eq!(handle.stop(LONG).await, Stopped::Drained);
    let views = "SELECT count(*) FROM parcel_view WHERE events = 1 AND version = 1";
    assert_eq!(fresh.number(views).await, 20);
}

async fn a_dropped_stop_still_stops<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    let handle = store.projector().rows(ParcelViews).start().await.unwrap();
    let first = {
        let mut uow = store.unit_of_work(&stores::tenant("north"));
        uow.save(Parcel::register("a")).unwrap();
        uow.commit().await.unwrap()
    };
    store.wait_for(&first, "parcel_view").await.unwrap();
    // It is told to stop by the first poll, whether or not that is the last.
    let _ = poll_up_to(0, handle.stop(LONG)).await;
    assert_eq!(handle.ended().await, Stopped::Drained);
    assert_eq!(handle.stop(Duration::ZERO).await, Stopped::Drained);

    let mut uow = store.unit_of_work(&stores::tenant("north"));
    uow.save(Parcel::register("b")).unwrap();
    let second = uow.commit().await.unwrap();
    let views = "SELECT count(*) FROM parcel_view";
    assert_eq!(fresh.number(views).await, 1, "nobody projects any more");
    let handle = store.projector().rows(ParcelViews).start().await.unwrap();
    store.wait_for(&second, "parcel_view").await.unwrap();
    assert_eq!(fresh.number(views).await, 2);
    assert_eq!(handle.stop(LONG).await, Stopped::Drained);
}

async fn a_dropped_run_until_idle_applies_nothing_twice<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with(options()).await;
    let total = "SELECT coalesce(sum(events), 0) FROM parcel_view";
    let mut written = 0;
    for limit in 0.. {
        let mut uow = store.unit_of_work(&stores::tenant("north"));
        let mut parcel = Parcel::register("a");
        parcel.weigh(1);
        uow.save(parcel).unwrap();
        let _ = uow.commit().await.unwrap();
        written += 2;
        let projector = store.projector().rows(ParcelViews).page_size(1);
        let run = poll_up_to(limit, projector.run_until_idle()).await;
        assert!(fresh.number(total).await <= written);
        if let Some(run) = run {
            run.unwrap();
            break;
        }
    }
    let projector = store.projector().rows(ParcelViews);
    projector.run_until_idle().await.unwrap();
    assert_eq!(fresh.number(total).await, written);
    let wrong = "SELECT count(*) FROM parcel_view WHERE events <> version";
    assert_eq!(fresh.number(wrong).await, 0);
}
