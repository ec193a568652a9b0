//! Event-sourced aggregates in a database: what the conformance suite cannot see.

use std::sync::Arc;
use std::time::Duration;

use chrono::{TimeZone, Utc};
use cqrs_core::conformance::fixtures::{
    AccountForm, ForgetfulLetterEvent, Ledger, Letter, LetterEvent, OldLetter, OldLetterEvent,
};
use cqrs_core::{
    Aggregate, AsOf, DomainEvent, Entity, Error, EventHistory, Maintain, ManualClock,
    RequestContext, Root, Sourced, SourcedState, Specification, Store, StoreErrorKind, UnitOfWork,
};
use cqrs_integration::database::generic_plan;
use cqrs_integration::stores;
use cqrs_sqlx::{Postgres, Retention, SqlStore, StoreOptions};
use serde::{Deserialize, Serialize};
use tokio::sync::{Barrier, oneshot};

use cqrs_integration::each::{Fresh, Kind, kind, on_each};

on_each!(
    a_snapshot_stands_for_the_events_before,
    as_it_was_is_folded_from_the_snapshot,
    a_snapshot_that_cannot_be_read_is_replaced,
    a_snapshot_of_another_shape_is_ignored,
    a_snapshot_comes_with_age,
    a_snapshot_ahead_of_the_log_is_replaced,
    a_snapshot_of_other_events_is_replaced,
    a_snapshot_that_names_no_event_is_replaced,
    a_snapshot_holds_what_was_applied,
    a_snapshot_is_of_one_meaning,
    a_snapshot_of_an_older_field_is_ignored,
    a_state_that_is_no_json_has_no_snapshot,
    events_that_are_lacking_are_an_error,
    retention_leaves_streams_alone,
    retention_leaves_streams_that_were_rows,
    a_type_that_retention_has_thinned_is_refused,
    a_row_that_was_removed_stays_removed,
    racing_appends_are_conflicts,
    what_the_code_cannot_read_is_found_before,
    a_type_that_cannot_be_noted_takes_no_hook,
);

fn north() -> RequestContext {
    stores::tenant("north").with_actor("ann")
}

fn number() -> String {
    "L1".to_owned()
}

/// Commits one with so many events.
async fn ledger<K: Kind>(store: &SqlStore<K>, events: usize) {
    let mut ledger = Ledger::unopened("L1");
    ledger.open("ann");
    (1..events).for_each(|_| ledger.transfer(1));
    save(store, ledger).await;
}

async fn save<K: Kind>(store: &SqlStore<K>, ledger: Ledger) {
    let mut uow = store.unit_of_work(&north());
    uow.save(ledger).unwrap();
    let _ = uow.commit().await.unwrap();
    store.snapshots_written().await;
}

async fn load<K: Kind>(store: &SqlStore<K>) -> cqrs_core::Result<Ledger> {
    store.unit_of_work(&north()).get::<Ledger>(number()).await
}

/// Also before the log was analysed: the events before a snapshot are many, and cost nothing.
#[tokio::test]
async fn events_before_a_snapshot_are_not_read() {
    let (_fresh, store) = Fresh::<Postgres>::with_store().await;
    ledger(&store, 200).await;
    let mut uow = store.unit_of_work(&north());
    // From now on all is asked on this connection.
    uow.connection().await.unwrap();
    let loaded: Ledger = uow.get(number()).await.unwrap();
    assert_eq!(loaded.root.version(), 200);
    let connection = uow.connection().await.unwrap();
    let arguments = "'ledger', 'L1', 'north', 'shape'";
    let plan = generic_plan(connection, "WITH last AS%s.shape = $4%", arguments).await;
    let exact = "(aggregate_version = s.version)";
    assert!(plan.contains(exact) && !plan.contains("Join"), "{plan}");
    let after = "(aggregate_version > COALESCE(";
    assert!(plan.contains(after), "{plan}");
}

const VERSION: &str = "SELECT version FROM cqrs_snapshot";

async fn a_snapshot_stands_for_the_events_before<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    ledger(&store, 3).await;
    assert_eq!(fresh.number("SELECT count(*) FROM cqrs_snapshot").await, 0);
    let mut changed = load(&store).await.unwrap();
    changed.transfer(5);
    save(&store, changed).await;
    assert_eq!(fresh.number(VERSION).await, 4);
    let mut changed = load(&store).await.unwrap();
    changed.transfer(7);
    save(&store, changed).await;
    assert_eq!(fresh.number(VERSION).await, 4, "one event is not enough");

    // Whoever has the snapshot does not miss what is before it.
    fresh
        .run("DELETE FROM cqrs_event WHERE aggregate_version < 4")
        .await;
    let loaded = load(&store).await.unwrap();
    assert_eq!((loaded.cents, loaded.root.version()), (14, 5));
    assert_eq!(loaded.root.stamps().created_by.as_deref(), Some("ann"));
    let mut changed = loaded;
    (0..3).for_each(|_| changed.transfer(1));
    save(&store, changed).await;
    assert_eq!(fresh.number(VERSION).await, 8);
    assert_eq!(load(&store).await.unwrap().cents, 17);
}

/// As of each version and time it is what its events up to there make of it, and events before the
/// snapshot are read for what was before it alone.
async fn as_it_was_is_folded_from_the_snapshot<K: Kind>() {
    // The clock goes back, and stands still. There is a snapshot at version 8.
    const MINUTES: [i64; 10] = [0, 5, 3, 9, 7, 7, 20, 8, 21, 22];
    let minute = |minute: i64| Utc.timestamp_opt(1_767_323_040 + 60 * minute, 0).unwrap();
    let clock = Arc::new(ManualClock::new(minute(0)));
    let (fresh, store) = Fresh::<K>::with(StoreOptions::default().clock(clock.clone())).await;
    ledger(&store, 1).await;
    for at in &MINUTES[1..] {
        clock.set(minute(*at));
        let mut changed = load(&store).await.unwrap();
        changed.transfer(*at);
        save(&store, changed).await;
    }
    assert_eq!(fresh.number(VERSION).await, 8);

    let last_by = |time: i64| {
        let last = MINUTES.iter().rposition(|at| *at <= time);
        last.map_or(0, |last| last + 1)
    };
    let of_versions = (0..12).map(|version| (AsOf::Version(version as u64), version.min(10)));
    let of_times = (-1..24).map(|at| (AsOf::Time(minute(at)), last_by(at)));
    let moments: Vec<(AsOf, usize)> = of_versions.chain(of_times).collect();
    let check = async |context: &RequestContext, least: usize| {
        let mut uow = store.unit_of_work(context);
        for (at, last) in moments.iter().filter(|(_, last)| *last >= least) {
            let found = uow.repository::<Ledger>().find_as_of(number(), *at).await;
            let found = found.unwrap().map(|found| {
                let stamps = found.root.stamps();
                let times = (stamps.created_at, stamps.updated_at);
                (found.cents, found.root.version(), times)
            });
            let expected = last.checked_sub(1).map(|latest| {
                let sum: i64 = MINUTES[..=latest].iter().sum();
                let times = (Some(minute(0)), Some(minute(MINUTES[latest])));
                (sum, *last as u64, times)
            });
            assert_eq!(found, expected, "{at:?}");
        }
    };
    let contexts = [north(), RequestContext::system()];
    for context in &contexts {
        check(context, 0).await;
    }
    fresh
        .run("DELETE FROM cqrs_event WHERE aggregate_version < 8")
        .await;
    for context in &contexts {
        check(context, 8).await;
    }
}

async fn a_snapshot_that_cannot_be_read_is_replaced<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    for state in ["", "{", "[]", "{\"state\":{}}", "{\"taken_at\":0}"] {
        fresh
            .run("DELETE FROM cqrs_snapshot; DELETE FROM cqrs_event")
            .await;
        ledger(&store, 4).await;
        assert_eq!(fresh.number(VERSION).await, 4);
        fresh
            .run(format!("UPDATE cqrs_snapshot SET state = '{state}'"))
            .await;
        let mut loaded = load(&store).await.unwrap();
        assert_eq!((loaded.cents, loaded.root.version()), (3, 4), "{state}");
        loaded.transfer(1);
        save(&store, loaded).await;
        assert_eq!(fresh.number(VERSION).await, 5, "{state}");
        assert_eq!(load(&store).await.unwrap().cents, 4);
    }
}

async fn a_snapshot_of_another_shape_is_ignored<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    ledger(&store, 4).await;
    fresh
        .run("UPDATE cqrs_snapshot SET shape = 'older', version = 99")
        .await;
    let mut loaded = load(&store).await.unwrap();
    assert_eq!((loaded.cents, loaded.root.version()), (3, 4));
    loaded.transfer(1);
    save(&store, loaded).await;
    assert_eq!(fresh.number(VERSION).await, 5);
    assert_eq!(load(&store).await.unwrap().root.version(), 5);
}

#[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "note")]
enum NoteEvent {
    Written { text: String },
}

/// It has a snapshot after an hour.
#[derive(Debug, Clone, Aggregate)]
#[aggregate(sourced, event = NoteEvent, snapshot(every = 1000, max_age = Duration::from_secs(3600)))]
struct Note {
    #[aggregate(id)]
    id: i64,
    #[aggregate(root)]
    root: Root<NoteEvent>,
    texts: Vec<String>,
}

impl Sourced for Note {
    fn apply(&mut self, event: &NoteEvent) {
        let NoteEvent::Written { text } = event;
        self.texts.push(text.clone());
    }
}

async fn a_snapshot_comes_with_age<K: Kind>() {
    let start = Utc.timestamp_opt(1_767_323_045, 0).unwrap();
    let clock = Arc::new(ManualClock::new(start));
    let (fresh, store) = Fresh::<K>::with(StoreOptions::default().clock(clock.clone())).await;
    let context = RequestContext::system();
    let write = async |minutes: i64| {
        clock.set(start + chrono::TimeDelta::minutes(minutes));
        let work = async |uow: &mut cqrs_sqlx::SqlUnitOfWork<K>| {
            let found = cqrs_core::Repository::find(&mut uow.repository::<Note>(), 1).await?;
            let mut note = found.unwrap_or_else(|| Note::blank(1));
            let text = minutes.to_string();
            note.raise(NoteEvent::Written { text });
            uow.save(note)
        };
        let mut uow = store.unit_of_work(&context);
        work(&mut uow).await.unwrap();
        let _ = uow.commit().await.unwrap();
        store.snapshots_written().await;
        let version = "SELECT coalesce(max(version), 0) FROM cqrs_snapshot";
        fresh.number(version).await
    };
    for (minutes, snapshot) in [(0, 0), (59, 0), (60, 3), (119, 3), (121, 5), (122, 5)] {
        assert_eq!(write(minutes).await, snapshot, "after {minutes} minutes");
    }
    let note = store.unit_of_work(&context).get::<Note>(1).await.unwrap();
    assert_eq!(note.texts, ["0", "59", "60", "119", "121", "122"]);
}

/// As where the log was restored from a backup, and the snapshots were not.
async fn a_snapshot_ahead_of_the_log_is_replaced<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    ledger(&store, 8).await;
    assert_eq!(fresh.number(VERSION).await, 8);
    fresh
        .run("DELETE FROM cqrs_event WHERE aggregate_version > 5")
        .await;
    let mut loaded = load(&store).await.unwrap();
    assert_eq!((loaded.cents, loaded.root.version()), (4, 5));
    loaded.transfer(1);
    save(&store, loaded).await;
    assert_eq!(fresh.number(VERSION).await, 6);
    assert_eq!(load(&store).await.unwrap().cents, 5);
}

/// As where such a log has grown again, to the version of the snapshot or past it.
async fn a_snapshot_of_other_events_is_replaced<K: Kind>() {
    for events in [8, 10] {
        let (fresh, store) = Fresh::<K>::with_store().await;
        ledger(&store, 8).await;
        assert_eq!(fresh.number(VERSION).await, 8);
        fresh.run("DELETE FROM cqrs_event").await;
        let mut other = Ledger::unopened("L1");
        other.open("ben");
        (1..events).for_each(|_| other.transfer(100));
        // What is loaded is right before the snapshot is replaced, and after it.
        let mut uow = store.unit_of_work(&north());
        uow.save(other).unwrap();
        let loaded: Ledger = uow.get(number()).await.unwrap();
        assert_eq!(loaded.cents, 100 * (events - 1));
        let at = AsOf::Version(8);
        let as_of = uow.repository::<Ledger>().find_as_of(number(), at).await;
        assert_eq!(as_of.unwrap().unwrap().cents, 700);
        let _ = uow.commit().await.unwrap();
        store.snapshots_written().await;
        assert_eq!(fresh.number(VERSION).await, events);
        let loaded = load(&store).await.unwrap();
        assert_eq!(
            (loaded.owner.as_str(), loaded.cents),
            ("ben", 100 * (events - 1))
        );
    }
}

/// As one of a release that did not write down the event.
async fn a_snapshot_that_names_no_event_is_replaced<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    ledger(&store, 4).await;
    fresh
        .run("UPDATE cqrs_snapshot SET event_id = NULL, state = ''")
        .await;
    let mut loaded = load(&store).await.unwrap();
    assert_eq!((loaded.cents, loaded.root.version()), (3, 4));
    loaded.transfer(1);
    save(&store, loaded).await;
    assert_eq!(fresh.number(VERSION).await, 5);
    let named = "SELECT count(*) FROM cqrs_snapshot AS s JOIN cqrs_event AS e \
                 ON e.event_id = s.event_id AND e.aggregate_version = 5";
    assert_eq!(fresh.number(named).await, 1);
}

#[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "purse")]
enum PurseEvent {
    Filled { cents: i64, gift: Option<i64> },
}

/// Forms of one stream, each in a module so that they may have the same name.
macro_rules! purse {
    ($module:ident, $purse:ident, $version:literal, $($field:ident: $type:ty)?, |$self:ident, $cents:ident, $gift:ident| $apply:expr) => {
        mod $module {
            use super::PurseEvent;
            use cqrs_core::{Aggregate, Root, Sourced};

            #[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
            pub(super) struct Line {
                pub cents: i64,
                $(pub $field: $type,)?
            }

            #[derive(Debug, Clone, Aggregate)]
            #[aggregate(sourced, event = PurseEvent, snapshot(every = 2, version = $version))]
            pub(super) struct $purse {
                #[aggregate(id)]
                pub id: i64,
                #[aggregate(root)]
                pub root: Root<PurseEvent>,
                pub total: i64,
                pub lines: Vec<Line>,
            }

            impl Sourced for $purse {
                fn apply(&mut $self, event: &PurseEvent) {
                    let PurseEvent::Filled { cents: $cents, gift: $gift } = event;
                    $apply
                }
            }
        }
    };
}

purse!(sums, Purse, 1, , |self, cents, _gift| {
    self.total += cents;
    self.lines.push(Line { cents: *cents });
});
purse!(counts, Purse, 2, , |self, cents, _gift| {
    self.total += 1;
    self.lines.push(Line { cents: *cents });
});
purse!(others, Other, 1, , |self, cents, _gift| {
    self.total += 1;
    self.lines.push(Line { cents: *cents });
});
purse!(gifts, Purse, 1, gift: Option<i64>, |self, cents, gift| {
    self.total += cents;
    self.lines.push(Line { cents: *cents, gift: *gift });
});

/// A purse that was filled twice, so that it has a snapshot.
async fn purse<K: Kind>(change: impl Fn(&mut sums::Purse)) -> (Fresh<K>, SqlStore<K>) {
    let (fresh, store) = Fresh::<K>::with_store().await;
    let mut purse = sums::Purse::blank(1);
    for cents in [3, 4] {
        let gift = Some(cents);
        purse.raise(PurseEvent::Filled { cents, gift });
    }
    change(&mut purse);
    let mut uow = store.unit_of_work(&RequestContext::system());
    uow.save(purse).unwrap();
    let _ = uow.commit().await.unwrap();
    store.snapshots_written().await;
    assert_eq!(fresh.number(VERSION).await, 2);
    (fresh, store)
}

async fn get<K: Kind, A: cqrs_core::AggregateRoot<Id = i64>>(store: &SqlStore<K>) -> A {
    let mut uow = store.unit_of_work(&RequestContext::system());
    uow.get::<A>(1).await.unwrap()
}

/// What was changed past `apply` is in no event, and so in no snapshot.
async fn a_snapshot_holds_what_was_applied<K: Kind>() {
    let (_fresh, store) = purse::<K>(|purse| purse.total = 99).await;
    assert_eq!(get::<K, sums::Purse>(&store).await.total, 7);
}

/// Another version, or another aggregate on the same stream, with fields of the same names and types.
async fn a_snapshot_is_of_one_meaning<K: Kind>() {
    let (_fresh, store) = purse::<K>(|_| {}).await;
    assert_eq!(get::<K, sums::Purse>(&store).await.total, 7);
    assert_eq!(get::<K, counts::Purse>(&store).await.total, 2);
    assert_eq!(get::<K, others::Other>(&store).await.total, 2);
}

/// serde would read the field that the type has got since as `None`.
async fn a_snapshot_of_an_older_field_is_ignored<K: Kind>() {
    let (fresh, store) = purse::<K>(|_| {}).await;
    let mut purse: gifts::Purse = get(&store).await;
    let gifts =
        |purse: &gifts::Purse| -> Vec<_> { purse.lines.iter().map(|line| line.gift).collect() };
    assert_eq!(gifts(&purse), [Some(3), Some(4)]);
    let cents = 5;
    purse.raise(PurseEvent::Filled { cents, gift: None });
    let mut uow = store.unit_of_work(&RequestContext::system());
    uow.save(purse).unwrap();
    let _ = uow.commit().await.unwrap();
    store.snapshots_written().await;
    assert_eq!(fresh.number(VERSION).await, 3);
    fresh
        .run("DELETE FROM cqrs_event WHERE aggregate_version < 3")
        .await;
    assert_eq!(gifts(&get(&store).await), [Some(3), Some(4), None]);
}

#[derive(Debug, Clone, Aggregate)]
#[aggregate(sourced, event = NoteEvent, snapshot(every = 1))]
struct Pairs {
    #[aggregate(id)]
    id: i64,
    #[aggregate(root)]
    root: Root<NoteEvent>,
    by_pair: std::collections::HashMap<(i64, i64), String>,
}

impl Sourced for Pairs {
    fn apply(&mut self, event: &NoteEvent) {
        let NoteEvent::Written { text } = event;
        self.by_pair.insert((1, 2), text.clone());
    }
}

/// It is loaded from its events, and nobody hears of it but the log of the process.
async fn a_state_that_is_no_json_has_no_snapshot<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    let mut pairs = Pairs::blank(1);
    let text = "a".to_owned();
    pairs.raise(NoteEvent::Written { text });
    let mut uow = store.unit_of_work(&RequestContext::system());
    uow.save(pairs).unwrap();
    let _ = uow.commit().await.unwrap();
    store.snapshots_written().await;
    assert_eq!(fresh.number("SELECT count(*) FROM cqrs_snapshot").await, 0);
    assert_eq!(get::<K, Pairs>(&store).await.by_pair[&(1, 2)], "a");
}

async fn events_that_are_lacking_are_an_error<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    ledger(&store, 3).await;
    fresh
        .run("DELETE FROM cqrs_event WHERE aggregate_version = 2")
        .await;
    let error = load(&store).await.unwrap_err();
    assert_eq!(kind(&error), &StoreErrorKind::Database);
    assert_eq!(
        error.to_string(),
        "the log lacks events of ledger L1: expected version 2, found 3"
    );
}

async fn retention_leaves_streams_alone<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    ledger(&store, 3).await;
    fresh
        .run("UPDATE cqrs_event SET recorded_at = '2001-02-03T04:05:06.000000Z'")
        .await;
    let retention = Retention::older_than(Duration::from_secs(3600)).forget_first_events();
    let system = RequestContext::system();
    let removed = store.remove_events(&system, &retention).await.unwrap();
    assert_eq!(removed.events, 0);
    assert_eq!(load(&store).await.unwrap().root.version(), 3);
}

#[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "wallet")]
enum WalletEvent {
    Filled { cents: i64 },
    Discarded,
}

/// A wallet before the team moved it over.
#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "wallet_row", event = WalletEvent)]
struct WalletRow {
    #[aggregate(id)]
    id: i64,
    #[aggregate(root)]
    root: Root<WalletEvent>,
    cents: i64,
}

/// And after.
#[derive(Debug, Clone, Aggregate)]
#[aggregate(sourced, event = WalletEvent)]
struct Wallet {
    #[aggregate(id)]
    id: i64,
    #[aggregate(root)]
    root: Root<WalletEvent>,
    cents: i64,
}

impl Sourced for Wallet {
    fn apply(&mut self, event: &WalletEvent) {
        match event {
            WalletEvent::Filled { cents } => self.cents += cents,
            WalletEvent::Discarded => {}
        }
    }

    fn is_removal(event: &WalletEvent) -> bool {
        matches!(event, WalletEvent::Discarded)
    }
}

/// A wallet of three old events, written as a row.
async fn old_wallet<K: Kind>() -> (Fresh<K>, SqlStore<K>) {
    let (fresh, store) = Fresh::<K>::with_store().await;
    store.create_tables(&[WalletRow::table()]).await.unwrap();
    let mut wallet = WalletRow {
        id: 1,
        root: Root::new(),
        cents: 6,
    };
    (1..=3).for_each(|cents| wallet.root.raise(WalletEvent::Filled { cents }));
    let mut uow = store.unit_of_work(&RequestContext::system());
    uow.save(wallet).unwrap();
    let _ = uow.commit().await.unwrap();
    (fresh, store)
}

/// What a job removes that knows nothing of the aggregates.
async fn thin<K: Kind>(fresh: &Fresh<K>, store: &SqlStore<K>) -> u64 {
    fresh
        .run("UPDATE cqrs_event SET recorded_at = '2001-02-03T04:05:06.000000Z'")
        .await;
    let retention = Retention::older_than(Duration::from_secs(3600));
    let system = RequestContext::system();
    store
        .remove_events(&system, &retention)
        .await
        .unwrap()
        .events
}

/// Whichever of them a process does first, says that the type is sourced.
async fn retention_leaves_streams_that_were_rows<K: Kind>() {
    let (fresh, store) = old_wallet::<K>().await;
    store.verify(&[Wallet::table()]).await.unwrap();
    assert_eq!(thin(&fresh, &store).await, 0);

    let (fresh, store) = old_wallet::<K>().await;
    let mut other = Wallet::blank(2);
    other.raise(WalletEvent::Filled { cents: 1 });
    let mut uow = store.unit_of_work(&RequestContext::system());
    uow.save(other).unwrap();
    let _ = uow.commit().await.unwrap();
    assert_eq!(thin(&fresh, &store).await, 0);
    let mut uow = store.unit_of_work(&RequestContext::system());
    assert_eq!(uow.get::<Wallet>(1).await.unwrap().cents, 6);
}

/// Where that was done in bulk, or long ago, the event of the domain is all that tells of it.
async fn a_row_that_was_removed_stays_removed<K: Kind>() {
    let (fresh, store) = old_wallet::<K>().await;
    let mut uow = store.unit_of_work(&RequestContext::system());
    let mut row: WalletRow = uow.get(1).await.unwrap();
    row.root.raise(WalletEvent::Discarded);
    uow.remove(row).unwrap();
    let _ = uow.commit().await.unwrap();
    fresh
        .run("DELETE FROM cqrs_event WHERE event_type = 'cqrs.removed'")
        .await;
    let error = no_wallet(&store).await;
    assert!(error.is_not_found(), "{error:?}");

    let (_fresh, store) = old_wallet::<K>().await;
    let wallets = store.maintenance::<WalletRow>(&RequestContext::system());
    let wallets = wallets.raising(WalletEvent::Discarded);
    let removed = wallets.remove(Specification::all()).await.unwrap();
    assert_eq!(removed.items(), 1);
    let error = no_wallet(&store).await;
    assert!(error.is_not_found(), "{error:?}");
}

async fn no_wallet<K: Kind>(store: &SqlStore<K>) -> Error {
    let mut uow = store.unit_of_work(&RequestContext::system());
    uow.get::<Wallet>(1).await.unwrap_err()
}

async fn a_type_that_retention_has_thinned_is_refused<K: Kind>() {
    let (fresh, store) = old_wallet::<K>().await;
    assert_eq!(thin(&fresh, &store).await, 2);
    let error = store.verify(&[Wallet::table()]).await.unwrap_err();
    assert_eq!(kind(&error), &StoreErrorKind::Schema);
    assert_eq!(
        error.to_string(),
        "the log is not whole:\nevents of \"wallet\" up to position 3 have left the log, and an \
         event-sourced aggregate is made of all"
    );
}

/// Appends that begin at one moment: one of them is there, each other one is told the version.
async fn racing_appends_are_conflicts<K: Kind>() {
    let (_fresh, store) = Fresh::<K>::with_store().await;
    ledger(&store, 1).await;
    for round in 1..=20_u64 {
        let barrier = Arc::new(Barrier::new(4));
        let mut tasks = tokio::task::JoinSet::new();
        for writer in 0..4 {
            let (store, barrier) = (store.clone(), Arc::clone(&barrier));
            tasks.spawn(async move {
                let mut ledger = load(&store).await.unwrap();
                ledger.transfer(1);
                let mut uow = store.unit_of_work(&north());
                uow.save(ledger).unwrap();
                if writer % 2 == 1 {
                    // In a transaction with another.
                    let mut other = Ledger::unopened(&format!("other {round} {writer}"));
                    other.open("ben");
                    uow.save(other).unwrap();
                }
                barrier.wait().await;
                uow.commit().await.map(|receipt| receipt.events().len())
            });
        }
        let mut done = 0;
        while let Some(result) = tasks.join_next().await {
            match result.unwrap() {
                Ok(_) => done += 1,
                Err(Error::Conflict {
                    expected, found, ..
                }) => assert_eq!((expected, found), (round, round + 1)),
                Err(error) => panic!("{error:?}"),
            }
        }
        assert_eq!(done, 1);
        assert_eq!(load(&store).await.unwrap().root.version(), round + 1);
    }
}

/// The log is compared with the code without reading a payload.
async fn what_the_code_cannot_read_is_found_before<K: Kind>() {
    let (_fresh, store) = Fresh::<K>::with_store().await;
    store.verify_events::<ForgetfulLetterEvent>().await.unwrap();
    let mut old = OldLetter::blank(1);
    let to = "ann".to_owned();
    old.raise(OldLetterEvent::Written { to });
    old.raise(OldLetterEvent::Stamped { euros: 1 });
    let mut uow = store.unit_of_work(&north());
    uow.save(old).unwrap();
    let _ = uow.commit().await.unwrap();
    let mut uow = store.unit_of_work(&north());
    let letter = uow.get::<Letter>(1).await.unwrap();
    uow.remove(letter).unwrap();
    let _ = uow.commit().await.unwrap();

    store.verify_events::<LetterEvent>().await.unwrap();
    store.verify_events::<OldLetterEvent>().await.unwrap();
    let error = store.verify_events::<ForgetfulLetterEvent>().await;
    let error = error.unwrap_err();
    assert_eq!(kind(&error), &StoreErrorKind::Schema);
    assert_eq!(
        error.to_string(),
        "the log holds events that the code cannot read:\n\
         unknown event type \"letter.stamped\" of aggregate \"letter\"\n\
         event type \"letter.written\" has schema version 1, the code has 2, and nothing lifts it: \
         write `#[event(upcast(1 = ...))]`"
    );
}

/// Units of work that append to the same streams, in whatever order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_to_the_same_streams_do_not_deadlock() {
    let (fresh, store) = Fresh::<Postgres>::with_store().await;
    for number in 0..3 {
        let mut ledger = Ledger::unopened(&number.to_string());
        ledger.open("ann");
        save(&store, ledger).await;
    }
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..6_usize {
        let store = store.clone();
        tasks.spawn(async move {
            let mut done = 0;
            while done < 20 {
                let mut loading = store.unit_of_work(&north());
                let mut uow = store.unit_of_work(&north());
                for step in 0..2 {
                    let number = (writer + done + step * (1 + writer % 2)) % 3;
                    let mut ledger: Ledger = loading.get(number.to_string()).await.unwrap();
                    ledger.transfer(1);
                    uow.save(ledger).unwrap();
                }
                match uow.commit().await {
                    Ok(_) => done += 1,
                    Err(Error::Conflict { .. }) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
        });
    }
    while let Some(result) = tasks.join_next().await {
        result.unwrap();
    }
    Postgres::assert_no_deadlock(&fresh.url).await;
    let mut sum = 0;
    for number in 0..3 {
        let mut uow = store.unit_of_work(&north());
        sum += uow.get::<Ledger>(number.to_string()).await.unwrap().cents;
    }
    assert_eq!(sum, 240);
}

/// A batch may begin more streams than the server has room for locks.
#[tokio::test]
async fn new_streams_take_no_locks() {
    let (fresh, store) = Fresh::<Postgres>::with_store().await;
    let mut uow = store.unit_of_work(&north());
    for number in 0..10_000 {
        let mut ledger = Ledger::unopened(&number.to_string());
        ledger.open("ann");
        uow.save(ledger).unwrap();
    }
    let connection = uow.connection().await.unwrap();
    let locks =
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()";
    let locks: i64 = sqlx::query_scalar(locks)
        .fetch_one(connection)
        .await
        .unwrap();
    assert_eq!(locks, 0);
    let receipt = uow.commit().await.unwrap();
    assert_eq!(receipt.events().len(), 10_000);
    let out_of_order = "SELECT count(*) FROM (SELECT aggregate_id::int8 AS number, \
                        lag(aggregate_id::int8) OVER (ORDER BY position) AS before \
                        FROM cqrs_event) AS e WHERE before > number";
    assert_eq!(fresh.number(out_of_order).await, 0, "the order of staging");
}

/// Units of work that begin the same streams, in whatever order: one of them has them all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beginning_the_same_streams_does_not_deadlock() {
    let (fresh, store) = Fresh::<Postgres>::with_store().await;
    for round in 0..10 {
        let barrier = Arc::new(Barrier::new(4));
        let mut tasks = tokio::task::JoinSet::new();
        for writer in 0..4 {
            let (store, barrier) = (store.clone(), Arc::clone(&barrier));
            tasks.spawn(async move {
                let mut numbers: Vec<i32> = (0..300).collect();
                if writer % 2 == 1 {
                    numbers.reverse();
                }
                let mut uow = store.unit_of_work(&north());
                for number in numbers {
                    let mut ledger = Ledger::unopened(&format!("{round} {number}"));
                    ledger.open("ann");
                    uow.save(ledger).unwrap();
                }
                barrier.wait().await;
                uow.commit().await.map(|receipt| receipt.events().len())
            });
        }
        let mut done = 0;
        while let Some(result) = tasks.join_next().await {
            match result.unwrap() {
                Ok(events) => done += events,
                Err(Error::AlreadyExists { .. }) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
        assert_eq!(done, 300);
    }
    Postgres::assert_no_deadlock(&fresh.url).await;
}

/// Whoever goes away while a type is noted has missed no hook, and the next commit notes it.
#[tokio::test]
async fn hooks_do_not_wait_for_the_note_of_a_type() {
    let (fresh, store) = Fresh::<Postgres>::with_store().await;
    let other = fresh.open(StoreOptions::default()).await;
    let mut holder = other.unit_of_work(&RequestContext::system());
    let connection = holder.connection().await.unwrap();
    sqlx::query("LOCK TABLE cqrs_sourced_type IN ACCESS EXCLUSIVE MODE")
        .execute(connection)
        .await
        .unwrap();
    let open = |number: &str| {
        let mut ledger = Ledger::unopened(number);
        ledger.open("ann");
        let mut uow = store.unit_of_work(&north());
        uow.save(ledger).unwrap();
        uow
    };
    let (hook, hooked) = oneshot::channel();
    let mut uow = open("L1");
    uow.after_commit(move |_| hook.send(()).unwrap());
    {
        let mut commit = std::pin::pin!(uow.commit());
        let hooked = tokio::time::timeout(Duration::from_secs(20), hooked);
        tokio::select! {
            biased;
            _ = &mut commit => panic!("the note waits for the lock"),
            hooked = hooked => hooked.expect("the hook does not wait").unwrap(),
        }
    }
    holder.rollback().await;
    let noted = "SELECT count(*) FROM cqrs_sourced_type";
    assert_eq!(fresh.number(noted).await, 0);
    let _ = open("L2").commit().await.unwrap();
    assert_eq!(fresh.number(noted).await, 1);
}

async fn a_type_that_cannot_be_noted_takes_no_hook<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    fresh.run("DROP TABLE cqrs_sourced_type").await;
    let mut ledger = Ledger::unopened("L1");
    ledger.open("ann");
    let mut uow = store.unit_of_work(&north());
    uow.save(ledger).unwrap();
    let (hook, hooked) = oneshot::channel();
    uow.after_commit(move |receipt| hook.send(receipt.events().len()).unwrap());
    let _ = uow.commit().await.unwrap();
    assert_eq!(hooked.await, Ok(1));
}
