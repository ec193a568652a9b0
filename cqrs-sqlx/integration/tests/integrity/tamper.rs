//! What others change in the database is found, with its position.

mod domain;
mod random;

use std::sync::Arc;

use chrono::{DateTime, TimeDelta};
use cqrs_core::conformance::fixtures::{Account, AccountForm, Dunning, Ledger, LedgerEvent};
use cqrs_core::integrity::{BreakKind, LogCheck, LogCheckReport};
use cqrs_core::{
    AsOf, ContentHash, Entity, Error, EventHistory, HashKey, HashKeys, InMemoryStore, Maintain,
    ManualClock, PayloadError, Position, Repository, RequestContext, Root, SourcedState, Store,
    UnitOfWork,
};
use cqrs_integration::database::TestDatabase;
use cqrs_integration::domain::Parcel;
use cqrs_integration::random::Random;
use cqrs_integration::stores;
use cqrs_integration::wire::WireProxy;
use cqrs_sqlx::{PgStore, Postgres, SqlStore, StoreOptions};

use self::domain::{Forgery, Till, Vault, VaultEvent, north, work};
use cqrs_integration::each::{Fresh, Kind, on_each};

on_each!(
    tampering_that_is_random,
    an_intact_log_is_intact,
    bulk_work_keeps_the_chain,
    a_removal_ends_the_chain_with_a_marker,
    a_stream_that_goes_with_its_head_needs_an_anchor,
    altered_payloads_are_not_read,
    keys_are_rotated,
    retention_leaves_chains_alone,
    chains_begin_late,
    chains_begin_late_behind_events_that_left,
    no_position_excuses_a_plain_hash,
    events_without_an_id_are_found,
    an_id_that_is_written_in_another_way_is_found,
    writers_that_do_not_end_leave_no_anchor,
    deadlines_have_hashes_as_all_events,
);

fn check() -> LogCheck {
    LogCheck::new().chained::<Vault>().chained::<Till>()
}

async fn checked<K: Kind>(store: &SqlStore<K>, check: &LogCheck) -> LogCheckReport {
    let system = RequestContext::system();
    store.check_log(&system, check).await.unwrap()
}

async fn with<K: Kind>(options: StoreOptions) -> (Fresh<K>, SqlStore<K>) {
    let (fresh, store) = Fresh::<K>::with(options).await;
    store.create_tables(&[Vault::table()]).await.unwrap();
    store.verify(&[Vault::table()]).await.unwrap();
    (fresh, store)
}

fn keys() -> HashKeys {
    HashKeys::new(HashKey::new(7, [7; 32]))
}

async fn tampering_that_is_random<K: Kind>() {
    random::tampering::<K>().await;
}

async fn an_intact_log_is_intact<K: Kind>() {
    for options in [
        StoreOptions::default(),
        StoreOptions::default().hash_keys(keys()),
    ] {
        let (_fresh, store) = with::<K>(options.verify_hashes()).await;
        let empty = checked(&store, &check()).await;
        assert!(empty.is_intact() && empty.anchor().unwrap().events() == 0);
        work(&store, &mut Random::new(1), 30).await;
        let first = checked(&store, &check().anchored(empty.anchor().unwrap())).await;
        assert!(first.is_intact(), "{first:?}");
        work(&store, &mut Random::new(2), 10).await;
        let second = checked(&store, &check().anchored(first.anchor().unwrap())).await;
        assert!(second.is_intact(), "{second:?}");
        assert!(second.events() > first.events() && second.streams() == 8);
        assert_eq!(second.anchor().unwrap().events(), second.events());
        // The other store has another anchor at the same place.
        let other = second.anchor().unwrap().to_string().replace(":", ":1");
        assert!(other.parse::<cqrs_core::integrity::Anchor>().is_err());
    }
}

/// Imports, changes by condition and removals, with rows that one statement changes.
async fn bulk_work_keeps_the_chain<K: Kind>() {
    let (_fresh, store) = with::<K>(StoreOptions::default().hash_keys(keys())).await;
    let context = north();
    let vaults = store.maintenance::<Vault>(&context).batch_size(3);
    let _ = vaults.insert((0..10).map(Vault::new)).await.unwrap();
    let _ = vaults
        .update(Vault::fields().id.ge(3), [Vault::fields().coins.set(5)])
        .await
        .unwrap();
    let _ = vaults.remove(Vault::fields().id.lt(2)).await.unwrap();
    let refused = store
        .maintenance::<Vault>(&context)
        .raising(domain::VaultEvent::Filled { coins: 1 })
        .purge(Vault::fields().id.lt(5))
        .await;
    let _ = refused.unwrap_err();
    let mut uow = store.unit_of_work(&context);
    let mut vault = uow.get::<Vault>(9).await.unwrap();
    vault.fill(1);
    uow.save(vault).unwrap();
    let _ = uow.commit().await.unwrap();
    let report = checked(&store, &check()).await;
    assert!(report.is_intact(), "{report:?}");
    assert_eq!((report.streams(), report.events()), (10, 10 + 7 + 2 + 1));
}

async fn a_removal_ends_the_chain_with_a_marker<K: Kind>() {
    let (fresh, store) = with::<K>(StoreOptions::default()).await;
    let mut uow = store.unit_of_work(&north());
    uow.save(Vault::new(1)).unwrap();
    let mut till = Till::blank("T1".to_owned());
    till.pay(1);
    uow.save(till).unwrap();
    let _ = uow.commit().await.unwrap();
    let mut uow = store.unit_of_work(&north());
    let mut vault = uow.get::<Vault>(1).await.unwrap();
    vault.fill(1);
    uow.repository().remove(vault).unwrap();
    let till = uow.get::<Till>("T1".to_owned()).await.unwrap();
    uow.repository().remove(till).unwrap();
    let receipt = uow.commit().await.unwrap();
    assert_eq!(receipt.events().len(), 3);
    assert!(checked(&store, &check()).await.is_intact());

    // Without its end it is a stream that has lost its row.
    fresh
        .run(
            "DELETE FROM cqrs_event WHERE event_type = 'cqrs.removed' AND aggregate_type = 'vault'",
        )
        .await;
    let report = checked(&store, &check()).await;
    assert_eq!(report.found(), 1);
    assert_eq!(report.breaks()[0].kind, BreakKind::Head { version: None });
}

/// The check cannot know of what has left no trace. That is said in the documentation.
async fn a_stream_that_goes_with_its_head_needs_an_anchor<K: Kind>() {
    let (fresh, store) = with::<K>(StoreOptions::default().hash_keys(keys())).await;
    work(&store, &mut Random::new(3), 20).await;
    let anchor = checked(&store, &check()).await.anchor().unwrap();
    fresh.run("DELETE FROM vault WHERE id = 2; DELETE FROM cqrs_event WHERE aggregate_type = 'vault' AND aggregate_id = '2'").await;
    fresh.run("DELETE FROM cqrs_chain_head WHERE aggregate_id = 'T1'; DELETE FROM cqrs_event WHERE aggregate_id = 'T1'").await;
    assert!(checked(&store, &check()).await.is_intact());
    let report = checked(&store, &check().anchored(anchor)).await;
    let kind = BreakKind::Anchor {
        after: Position::START,
    };
    assert_eq!(report.breaks().len(), 1);
    assert_eq!(report.breaks()[0].kind, kind);
    assert_eq!(report.first().unwrap().position, Some(anchor.position()));
}

async fn altered_payloads_are_not_read<K: Kind>() {
    let options = || StoreOptions::default().verify_hashes();
    let (fresh, store) = with::<K>(options()).await;
    let mut till = Till::blank("T1".to_owned());
    till.pay(1);
    let mut uow = store.unit_of_work(&north());
    uow.save(till).unwrap();
    let _ = uow.commit().await.unwrap();
    fresh
        .run("UPDATE cqrs_event SET payload = '{\"coins\":2}'")
        .await;
    let system = RequestContext::system();
    let mut uow = store.unit_of_work(&system);
    let is_altered = |error: &Error| {
        let altered = |reason: &PayloadError| matches!(reason, PayloadError::Altered { .. });
        matches!(error, Error::Undecodable { position, reason } if position.0 == 1 && altered(reason))
    };
    let id = || "T1".to_owned();
    let error = uow.get::<Till>(id()).await.unwrap_err();
    assert!(is_altered(&error), "{error}");
    let mut tills = uow.repository::<Till>();
    let error = tills.events(id()).await.unwrap_err();
    assert!(is_altered(&error), "{error}");
    let error = store.events(&system, Position::START, 9).await.unwrap_err();
    assert!(is_altered(&error), "{error}");
    let told = fresh.open(StoreOptions::default()).await;
    let till = told.unit_of_work(&system).get::<Till>(id()).await.unwrap();
    assert_eq!(till.coins, 2, "who does not ask is not told");
}

async fn keys_are_rotated<K: Kind>() {
    let (fresh, plain) = with::<K>(StoreOptions::default()).await;
    work(&plain, &mut Random::new(4), 5).await;
    let until = Position(fresh.number("SELECT max(position) FROM cqrs_event").await);
    let (one, two) = (HashKey::new(1, [1; 32]), HashKey::new(2, [2; 32]));
    let first = HashKeys::new(one.clone()).unkeyed_until(until);
    let options = |keys| StoreOptions::default().verify_hashes().hash_keys(keys);
    work(&fresh.open(options(first)).await, &mut Random::new(5), 5).await;
    let both = HashKeys::new(two.clone()).and(one).unwrap();
    let both = both.unkeyed_until(until);
    let rotated = fresh.open(options(both)).await;
    work(&rotated, &mut Random::new(6), 5).await;
    let report = checked(&rotated, &check()).await;
    assert!(report.is_intact(), "{report:?}");

    // Whoever has learned the old key makes no event behind its end.
    let (one, two) = (HashKey::new(1, [1; 32]), HashKey::new(2, [2; 32]));
    let sealed = HashKeys::new(two.clone()).unkeyed_until(until);
    let leaked = HashKeys::new(one.clone()).and(two.clone()).unwrap();
    let leaked = leaked.unkeyed_until(until);
    let end = Position(fresh.number("SELECT max(position) FROM cqrs_event").await);
    let bounded = sealed.and_until(one, end).unwrap();
    let bounded = fresh.open(options(bounded)).await;
    let report = checked(&bounded, &check()).await;
    assert!(report.is_intact(), "{report:?}");
    work(&fresh.open(options(leaked)).await, &mut Random::new(8), 5).await;
    let report = checked(&bounded, &check()).await;
    let forged = report.first().unwrap();
    assert_eq!(forged.position, Some(Position(end.0 + 1)), "{report:?}");
    assert!(checked(&rotated, &check()).await.is_intact());

    // Without the old key its events cannot be trusted, and plain ones only up to a position.
    let lost = fresh.open(options(HashKeys::new(two))).await;
    let report = checked(&lost, &check()).await;
    let first = &report.first().unwrap();
    assert_eq!(first.position, Some(Position(1)), "{report:?}");
    // Nobody makes a keyed hash without the key.
    let forged = bytes::<K>(&ContentHash::of("{\"coins\":0}").to_bytes());
    let last = fresh.number("SELECT max(position) FROM cqrs_event").await;
    fresh
        .run(format!(
            "UPDATE cqrs_event SET payload = '{{\"coins\":0}}', content_hash = {forged} \
             WHERE position = {last}"
        ))
        .await;
    let report = checked(&rotated, &check()).await;
    assert_eq!(report.first().unwrap().position, Some(Position(last)));
}

/// Whoever reads the id takes the event for one of another stream, whose head fits.
async fn an_id_that_is_written_in_another_way_is_found<K: Kind>() {
    let (fresh, store) = with::<K>(StoreOptions::default()).await;
    store.create_tables(&[Forgery::table()]).await.unwrap();
    let mut uow = store.unit_of_work(&north());
    uow.save(Vault::new(1)).unwrap();
    let mut root = Root::new();
    root.raise(VaultEvent::Filled { coins: 1_000 });
    let id = "01".to_owned();
    uow.save(Forgery { id, root }).unwrap();
    let _ = uow.commit().await.unwrap();
    fresh.run("DELETE FROM forgery").await;
    let forged = "SELECT position FROM cqrs_event WHERE aggregate_id = '01'";
    let forged = Position(fresh.number(forged).await);
    let report = checked(&store, &check()).await;
    let found = report.breaks().iter();
    let found: Vec<_> = found.map(|found| (found.position, &found.kind)).collect();
    let head = BreakKind::Head { version: Some(1) };
    assert_eq!(found, [(Some(forged), &head)]);
}

/// An anchor that covers nothing would look like one that covers all. In one file there is one writer,
/// and who reads sees nothing of it.
async fn writers_that_do_not_end_leave_no_anchor<K: Kind>() {
    let (_fresh, store) = with::<K>(StoreOptions::default()).await;
    work(&store, &mut Random::new(9), 3).await;
    let mut held = store.unit_of_work(&north());
    held.save(Vault::new(77)).unwrap();
    // A read sends what is staged.
    let _ = held.get::<Vault>(77).await.unwrap();
    let report = checked(&store, &check()).await;
    assert!(report.is_intact(), "{report:?}");
    assert_eq!(report.anchor().is_some(), K::either(false, true));
    let _ = held.commit().await.unwrap();
    let report = checked(&store, &check()).await;
    assert_eq!(report.anchor().unwrap().events(), report.events());
}

async fn retention_leaves_chains_alone<K: Kind>() {
    let (fresh, store) = with::<K>(StoreOptions::default()).await;
    work(&store, &mut Random::new(7), 10).await;
    let mut uow = store.unit_of_work(&north());
    let mut parcel = Parcel::register("a");
    parcel.weigh(1);
    uow.save(parcel).unwrap();
    let _ = uow.commit().await.unwrap();
    age::<K>(&fresh).await;
    let retention = cqrs_sqlx::Retention::older_than(std::time::Duration::from_secs(3_600));
    let system = RequestContext::system();
    let removed = store.remove_events(&system, &retention).await.unwrap();
    assert_eq!(removed.events, 1);
    assert!(checked(&store, &check()).await.is_intact());
}

/// Lets all events be old.
async fn age<K: Kind>(fresh: &Fresh<K>) {
    let old = K::either(
        "UPDATE cqrs_event SET recorded_at = recorded_at - interval '1 year'",
        "UPDATE cqrs_event SET recorded_at = '2020-01-01T00:00:00.000000Z'",
    );
    fresh.run(old).await;
}

/// Makes the log one of aggregates that were not chained.
async fn strip_links<K: Kind>(fresh: &Fresh<K>) {
    let plain = ContentHash::of("").to_bytes().len();
    fresh
        .run(format!(
            "UPDATE vault SET chain_head = NULL; DELETE FROM cqrs_chain_head; \
             UPDATE cqrs_event SET content_hash = substr(content_hash, 2, {plain})"
        ))
        .await;
}

/// Bytes in SQL.
fn bytes<K: Kind>(bytes: &[u8]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    K::either(format!("'\\x{hex}'::bytea"), format!("x'{hex}'"))
}

/// An aggregate that was there before it was chained.
async fn chains_begin_late<K: Kind>() {
    let (fresh, store) = with::<K>(StoreOptions::default()).await;
    work(&store, &mut Random::new(8), 10).await;
    strip_links(&fresh).await;
    let until = Position(fresh.number("SELECT max(position) FROM cqrs_event").await);
    work(&store, &mut Random::new(9), 20).await;
    let report = checked(&store, &check()).await;
    assert!(
        report
            .breaks()
            .iter()
            .any(|found| found.kind == BreakKind::Unchained)
    );
    let report = checked(&store, &check().unchained_until(until)).await;
    assert!(report.is_intact(), "{report:?}");
}

/// Retention may have removed what was written before an aggregate was chained. What is linked may not
/// be missing.
async fn chains_begin_late_behind_events_that_left<K: Kind>() {
    let (fresh, store) = with::<K>(StoreOptions::default()).await;
    work(&store, &mut Random::new(8), 10).await;
    strip_links(&fresh).await;
    let until = Position(fresh.number("SELECT max(position) FROM cqrs_event").await);
    age::<K>(&fresh).await;
    let retention = cqrs_sqlx::Retention::older_than(std::time::Duration::from_secs(3_600));
    let system = RequestContext::system();
    let removed = store.remove_events(&system, &retention).await.unwrap();
    assert!(removed.events > 0);
    work(&store, &mut Random::new(9), 20).await;
    let late = check().unchained_until(until);
    let report = checked(&store, &late).await;
    assert!(report.is_intact(), "{report:?}");

    let first = format!(
        "SELECT min(position) FROM cqrs_event WHERE aggregate_type = 'vault' AND position > {until}"
    );
    let first = fresh.number(first).await;
    let sql = format!("DELETE FROM cqrs_event WHERE position = {first}");
    fresh.run(sql).await;
    let report = checked(&store, &late).await;
    assert_eq!(report.found(), 1, "{report:?}");
}

/// Hashes that anybody can make are excused up to a position, and nothing stands before the first.
async fn no_position_excuses_a_plain_hash<K: Kind>() {
    let options = || StoreOptions::default().hash_keys(keys());
    let (fresh, store) = with::<K>(options()).await;
    work(&store, &mut Random::new(3), 20).await;
    let system = RequestContext::system();
    let log = store.events(&system, Position::START, 1_000).await.unwrap();
    for event in &log {
        let hash = bytes::<K>(&ContentHash::of(event.payload().as_str()).to_bytes());
        fresh
            .run(format!(
                "UPDATE cqrs_event SET position = position - 100000, content_hash = {hash} \
                 WHERE position = {}",
                event.position()
            ))
            .await;
    }
    let plain = bytes::<K>(&ContentHash::of("{}").to_bytes());
    fresh
        .run(format!(
            "UPDATE vault SET chain_head = NULL; UPDATE cqrs_chain_head SET content_hash = {plain}"
        ))
        .await;
    let report = checked(&store, &check()).await;
    assert_eq!((report.found(), report.streams()), (8, 8), "{report:?}");
    let verifying = fresh.open(options().verify_hashes()).await;
    let mut uow = verifying.unit_of_work(&system);
    // Without a snapshot, which may be of the last version.
    let mut tills = uow.repository::<Till>();
    let then = tills.find_as_of("T1".to_owned(), AsOf::Version(1)).await;
    let error = then.unwrap_err();
    assert!(matches!(error, Error::Undecodable { .. }), "{error}");
}

/// Whoever reads the log by position would read them.
async fn events_without_an_id_are_found<K: Kind>() {
    let (fresh, store) = with::<K>(StoreOptions::default()).await;
    work(&store, &mut Random::new(3), 5).await;
    let columns = "tenant_id, event_type, schema_version, payload, content_hash, correlation_id, \
                   occurred_at, sourced";
    let uuid = K::uuid(uuid::Uuid::now_v7());
    fresh
        .run(format!(
            "INSERT INTO cqrs_event \
             (position, event_id, aggregate_type, aggregate_id, aggregate_version, {columns}) \
             SELECT 5000, {uuid}, aggregate_type, '', 0, {columns} FROM cqrs_event \
             WHERE position = 1"
        ))
        .await;
    let report = checked(&store, &check()).await;
    assert_eq!(report.first().unwrap().position, Some(Position(5_000)));
}

/// The check reads streams in pages, between which nothing may be lost. Without the unique key of the
/// log there can be two events of one version.
#[tokio::test]
async fn a_second_event_of_a_version_is_found_on_any_page() {
    let (fresh, store) = with::<Postgres>(StoreOptions::default()).await;
    let mut till = Till::blank("T1".to_owned());
    (0..1_001).for_each(|coins| till.pay(coins));
    let mut uow = store.unit_of_work(&north());
    uow.save(till).unwrap();
    let _ = uow.commit().await.unwrap();
    fresh
        .run("ALTER TABLE cqrs_event DROP CONSTRAINT cqrs_event_stream_key")
        .await;
    let columns = "aggregate_type, aggregate_id, aggregate_version, event_type, schema_version, \
                   payload, content_hash, correlation_id, occurred_at, sourced";
    for version in 999..=1_001 {
        fresh
            .run(format!(
                "INSERT INTO cqrs_event (position, event_id, {columns}) \
                 SELECT 5000, gen_random_uuid(), {columns} FROM cqrs_event \
                 WHERE aggregate_version = {version}"
            ))
            .await;
        let report = checked(&store, &check()).await;
        let first = report.first().map(|found| found.position);
        assert_eq!(first, Some(Some(Position(5_000))), "version {version}");
        fresh
            .run("DELETE FROM cqrs_event WHERE position = 5000")
            .await;
    }
}

/// The framework's own events are made under the key too, or a manager could not read them.
async fn deadlines_have_hashes_as_all_events<K: Kind>() {
    let clock = Arc::new(ManualClock::new(DateTime::UNIX_EPOCH));
    let options = StoreOptions::default().clock(clock.clone());
    let (_fresh, store) = with::<K>(options.verify_hashes().hash_keys(keys())).await;
    store.create_tables(&[Account::table()]).await.unwrap();
    open_account(&store).await;
    for minutes in [0, 1] {
        clock.set(DateTime::UNIX_EPOCH + TimeDelta::minutes(minutes));
        let projector = store.projector().process(Dunning);
        projector.run_until_idle().await.unwrap();
    }
    assert_eq!(booked(&store).await, [Dunning::FEE]);
    let report = checked(&store, &check()).await;
    assert!(report.is_intact(), "{report:?}");
}

#[tokio::test]
async fn in_memory_deadlines_have_hashes_as_all_events() {
    let clock = Arc::new(ManualClock::new(DateTime::UNIX_EPOCH));
    let store = InMemoryStore::new().with_clock(clock.clone());
    let store = store.with_hash_keys(keys());
    store.subscribe_process(Dunning).unwrap();
    open_account(&store).await;
    store.project().await.unwrap();
    clock.set(DateTime::UNIX_EPOCH + TimeDelta::minutes(1));
    store.project().await.unwrap();
    assert_eq!(booked(&store).await, [Dunning::FEE]);
    let report = store.check_log(&check());
    assert!(report.is_intact(), "{report:?}");
}

async fn open_account<S: Store>(store: &S) {
    let mut account = Account::unopened("A1");
    account.open("ann");
    let mut uow = store.unit_of_work(&north());
    uow.save(account).unwrap();
    let _ = uow.commit().await.unwrap();
}

/// What is booked in the ledger of the account.
async fn booked<S: Store>(store: &S) -> Vec<i64> {
    let mut uow = store.unit_of_work(&north());
    let mut ledgers = uow.repository::<Ledger>();
    let events = ledgers.events(Dunning::ledger("A1")).await.unwrap();
    let cents = events.iter().filter_map(|event| match event.payload() {
        Some(LedgerEvent::Moved { cents }) => Some(*cents),
        _ => None,
    });
    cents.collect()
}

#[tokio::test]
async fn in_memory_the_chain_is_the_same() {
    let store = InMemoryStore::new().with_hash_keys(keys());
    work(&store, &mut Random::new(1), 30).await;
    let context = north();
    let vaults = store.maintenance::<Vault>(&context);
    let _ = vaults
        .update(Vault::fields().coins.gt(0), [Vault::fields().coins.set(5)])
        .await
        .unwrap();
    let mut uow = store.unit_of_work(&context);
    let vault = uow.get::<Vault>(1).await.unwrap();
    uow.repository().remove(vault).unwrap();
    let _ = uow.commit().await.unwrap();
    let report = store.check_log(&check());
    assert!(report.is_intact(), "{report:?}");
    assert_eq!(
        report.anchor().unwrap().events(),
        store.events().len() as u64
    );
}

/// A store behind a counting proxy.
async fn counted() -> (TestDatabase, WireProxy, PgStore) {
    let database = TestDatabase::create().await;
    let store = stores::postgres(database.url()).await;
    store.create_tables(&[Vault::table()]).await.unwrap();
    store.close();
    let proxy = WireProxy::start(database.url()).await;
    let store = stores::postgres_with(proxy.url(), StoreOptions::default()).await;
    (database, proxy, store)
}

#[tokio::test]
async fn a_chained_commit_is_one_statement() {
    let (_database, proxy, store) = counted().await;
    let context = north();
    for events in [1, 1, 2] {
        let before = proxy.counts();
        let receipt = store.execute(&context, async |uow| {
            let mut vault = match uow.repository::<Vault>().find(1).await? {
                Some(vault) => vault,
                None => Vault::new(1),
            };
            (0..events).for_each(|_| vault.fill(1));
            uow.save(vault)
        });
        let _ = receipt.await.unwrap();
        let sent = proxy.statements_since(&before);
        assert_eq!(proxy.counts().since(&before).statements, 2, "{sent:#?}");
        let before = proxy.counts();
        let receipt = store.execute(&context, async |uow| {
            let found = uow.repository::<Till>().find("T1".to_owned()).await?;
            let mut till = found.unwrap_or_else(|| Till::blank("T1".to_owned()));
            (0..events).for_each(|_| till.pay(1));
            uow.save(till)
        });
        let _ = receipt.await.unwrap();
        store.snapshots_written().await;
        let sent = proxy.statements_since(&before);
        let with = |part: &str| sent.iter().filter(|sql| sql.contains(part)).count();
        // A snapshot is made of the log, and the type is noted once in a process.
        let aside = 2 * with("INTO cqrs_snapshot") + with("INTO cqrs_sourced_type");
        assert_eq!(sent.len() - aside, 2, "{sent:#?}");
    }
    assert!(checked(&store, &check()).await.is_intact());
}
