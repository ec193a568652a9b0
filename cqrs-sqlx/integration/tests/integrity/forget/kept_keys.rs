//! Where keys are kept, under what, and what becomes of those that cannot be read.

use std::sync::Arc;

use cqrs_core::memory::InMemoryKeyStore;
use cqrs_core::sealed::{Forgotten, KeyStore, MasterKey, MasterKeys, SealedError, Sealing};
use cqrs_core::{
    Error, FailurePolicy, Parking, Position, RequestContext, StoreErrorKind, Subscription,
};
use cqrs_integration::each::{Fresh, Kind, kind, on_each};
use cqrs_integration::stores;
use cqrs_sqlx::{Rewrapped, StoreOptions};

use super::domain::Greeter;
use super::{FORMER, NAME, forget, north, opened, registered, sealed, subject, with};

on_each!(
    forgetting_needs_no_master_key,
    forgetting_in_a_key_service,
    a_key_that_cannot_be_read_holds_up_its_events_alone,
    a_master_key_is_exchanged,
    master_keys_are_exchanged_within_the_tenant,
    keys_are_rewrapped_in_batches,
    where_there_is_no_master_key_nothing_is_rewrapped,
);

async fn forgetting_needs_no_master_key<K: Kind>() {
    let master = |id, secret| MasterKeys::new(MasterKey::new(id, [secret; 32]));
    let options = |keys| StoreOptions::default().master_keys(keys);
    let (fresh, store) = with::<K>(options(master(1, 1))).await;
    let keys = store.subject_keys(&north());
    let name = registered(&store, "ada").await.unwrap();
    assert_eq!(opened(&keys, &name).await.unwrap(), Ok(NAME.to_owned()));

    let read = async |options| {
        let store = fresh.open(options).await;
        opened(&store.subject_keys(&north()), &name).await
    };
    let rotated = master(2, 2).and(MasterKey::new(1, [1; 32])).unwrap();
    assert_eq!(read(options(rotated)).await.unwrap(), Ok(NAME.to_owned()));
    for (options, expected) in [
        (
            StoreOptions::default(),
            SealedError::NoMasterKey {
                subject: subject("ada"),
                id: 1,
            },
        ),
        (
            options(master(2, 2)),
            SealedError::NoMasterKey {
                subject: subject("ada"),
                id: 1,
            },
        ),
        (options(master(1, 2)), SealedError::Key(subject("ada"))),
    ] {
        let store = fresh.open(options.clone()).await;
        let refused = store.subject_keys(&north()).key(&subject("ada")).await;
        for error in [read(options).await.unwrap_err(), refused.unwrap_err()] {
            assert!(
                matches!(&error, Error::Sealed(found) if *found == expected),
                "{error:?}"
            );
            assert!(!error.is_retryable());
        }
    }
    // The row of another subject is no key for this one.
    let _ = sealed(&keys, "eve", NAME).await.unwrap();
    let exchanged = "UPDATE cqrs_subject_key SET secret = \
                     (SELECT secret FROM cqrs_subject_key AS e WHERE e.subject = 'eve') \
                     WHERE subject = 'ada'";
    fresh.run(exchanged).await;
    let error = opened(&keys, &name).await.unwrap_err();
    let altered = SealedError::Key(subject("ada"));
    assert!(
        matches!(&error, Error::Sealed(found) if *found == altered),
        "{error:?}"
    );

    let without = fresh.open(StoreOptions::default()).await;
    forget(&without.subject_keys(&north()), "ada").await;
    let forgotten = Err(Forgotten::of(subject("ada")));
    assert_eq!(opened(&keys, &name).await.unwrap(), forgotten);
}

async fn forgetting_in_a_key_service<K: Kind>() {
    let service: Arc<dyn KeyStore> = Arc::new(InMemoryKeyStore::new());
    let options = || StoreOptions::default().key_store(Arc::clone(&service));
    let (fresh, store) = with::<K>(options()).await;
    let name = registered(&store, "ada").await.unwrap();
    assert_eq!(
        fresh.number("SELECT count(*) FROM cqrs_subject_key").await,
        0
    );
    let other = fresh.open(options()).await.subject_keys(&north());
    assert_eq!(opened(&other, &name).await.unwrap(), Ok(NAME.to_owned()));
    forget(&store.subject_keys(&north()), "ada").await;
    let forgotten = Err(Forgotten::of(subject("ada")));
    assert_eq!(opened(&other, &name).await.unwrap(), forgotten);
    // A store that asks elsewhere knows nothing, and does not take that for forgotten.
    let elsewhere = fresh.open(StoreOptions::default()).await;
    let error = opened(&elsewhere.subject_keys(&north()), &name).await;
    let no_key = SealedError::NoKey(subject("ada"));
    assert!(matches!(error, Err(Error::Sealed(found)) if found == no_key));
}

fn master(id: u32) -> MasterKey {
    let byte = u8::try_from(id).unwrap();
    MasterKey::new(id, [byte; 32])
}

fn under(keys: MasterKeys) -> StoreOptions {
    StoreOptions::default().master_keys(keys)
}

async fn a_key_that_cannot_be_read_holds_up_its_events_alone<K: Kind>() {
    let (fresh, store) = with::<K>(StoreOptions::default()).await;
    for id in ["ada", "eve", "zoe"] {
        registered(&store, id).await.unwrap();
    }
    let damaged = K::either("'\\x07'", "x'07'");
    let damaged = format!("UPDATE cqrs_subject_key SET secret = {damaged} WHERE subject = 'eve'");
    fresh.run(&damaged).await;

    let greeter = Greeter::new(store.subject_keys(&north()));
    let parking = FailurePolicy::Park(Parking::at_most(10));
    let subscription = Subscription::new(greeter.clone()).on_failure(parking);
    let projector = store.projector().subscribe(subscription).retry_delays([]);
    projector.run_until_idle().await.unwrap();
    // It hears an event again where a later one of the page fails.
    let mut told = greeter.told();
    told.sort_by_key(|told| format!("{told:?}"));
    told.dedup();
    let read = |who: &str, name: &str| (who.to_owned(), Ok(name.to_owned()));
    let known = ["ada", "zoe"].map(|who| [read(who, FORMER), read(who, NAME)]);
    assert_eq!(told, known.concat());
    let operations = store.operations(&RequestContext::system()).unwrap();
    let parked = operations.dead_letters("greeter", Position::START, 10);
    let parked = parked.await.unwrap();
    let parked: Vec<_> = parked
        .iter()
        .map(|letter| letter.aggregate_id.as_str())
        .collect();
    assert_eq!(parked, ["eve", "eve"]);
}

/// Of the whole table: how many keys there are under the master key of this id.
async fn kept_under<K: Kind>(fresh: &Fresh<K>, id: u32) -> i64 {
    let prefix = K::either(
        "encode(substr(secret, 1, 5), 'hex')",
        "hex(substr(secret, 1, 5))",
    );
    let count = format!("SELECT count(*) FROM cqrs_subject_key WHERE {prefix} = '01{id:08}'");
    fresh.number(&count).await
}

/// From one master key to the next, as the page on sealed fields has it.
async fn a_master_key_is_exchanged<K: Kind>() {
    let (fresh, old) = with::<K>(under(MasterKeys::new(master(1)))).await;
    let system = RequestContext::system();
    let name = registered(&old, "ada").await.unwrap();
    let of_system = sealed(&old.subject_keys(&system), "ada", NAME)
        .await
        .unwrap();
    let gone = registered(&old, "gone").await.unwrap();
    let keys = old.subject_keys(&north());
    forget(&keys, "gone").await;

    // All processes read the new one before any writes it.
    let between = fresh
        .open(under(MasterKeys::new(master(1)).and(master(2)).unwrap()))
        .await;
    let new = fresh
        .open(under(MasterKeys::new(master(2)).and(master(1)).unwrap()))
        .await;
    let eve = registered(&new, "eve").await.unwrap();
    let keys = between.subject_keys(&north());
    assert_eq!(opened(&keys, &eve).await.unwrap(), Ok(NAME.to_owned()));

    assert_eq!(kept_under(&fresh, 1).await, 2);
    let mut seen = Vec::new();
    let done = new.rewrap_subject_keys(&system, |done| seen.push(done.clone()));
    let done = done.await.unwrap();
    assert_eq!((done.keys, done.unreadable, &done.reason), (2, 0, &None));
    assert_eq!(seen, [done]);
    assert_eq!(
        (kept_under(&fresh, 1).await, kept_under(&fresh, 2).await),
        (0, 3)
    );
    let again = new.rewrap_subject_keys(&system, |_| {}).await.unwrap();
    assert_eq!(again, Rewrapped::default());

    // The old one may go.
    let alone = fresh.open(under(MasterKeys::new(master(2)))).await;
    for store in [&alone, &new, &between] {
        let keys = store.subject_keys(&north());
        assert_eq!(opened(&keys, &name).await.unwrap(), Ok(NAME.to_owned()));
        let forgotten = Err(Forgotten::of(subject("gone")));
        assert_eq!(opened(&keys, &gone).await.unwrap(), forgotten);
        let keys = store.subject_keys(&system);
        assert_eq!(
            opened(&keys, &of_system).await.unwrap(),
            Ok(NAME.to_owned())
        );
    }
}

async fn master_keys_are_exchanged_within_the_tenant<K: Kind>() {
    let (fresh, old) = with::<K>(under(MasterKeys::new(master(1)))).await;
    let south = stores::tenant("south");
    for context in [&north(), &south, &RequestContext::system()] {
        let _ = sealed(&old.subject_keys(context), "ada", NAME)
            .await
            .unwrap();
    }
    let new = fresh
        .open(under(MasterKeys::new(master(2)).and(master(1)).unwrap()))
        .await;
    let done = new.rewrap_subject_keys(&south, |_| {}).await.unwrap();
    assert_eq!((done.keys, kept_under(&fresh, 1).await), (1, 2));

    // What cannot be read is counted, and holds up nothing.
    let other = MasterKeys::new(master(3)).and(master(2)).unwrap();
    let other = fresh.open(under(other)).await;
    let done = other
        .rewrap_subject_keys(&RequestContext::system(), |_| {})
        .await
        .unwrap();
    assert_eq!((done.keys, done.unreadable), (1, 2));
    let unknown = SealedError::NoMasterKey {
        subject: subject("ada"),
        id: 1,
    };
    assert_eq!(done.reason, Some(unknown));
    assert_eq!(
        (kept_under(&fresh, 1).await, kept_under(&fresh, 3).await),
        (2, 1)
    );
}

/// More keys than a batch has, of which the first cannot be read.
async fn keys_are_rewrapped_in_batches<K: Kind>() {
    const KEYS: u64 = 1_100;
    let (fresh, store) = with::<K>(under(MasterKeys::new(master(1)).and_keys_in_clear())).await;
    let in_clear = K::either(
        "SELECT 'north', 'subject ' || n, decode('00' || repeat('ab', 32), 'hex'), now()
         FROM generate_series(1, 1100) AS n",
        "SELECT 'north', 'subject ' || n, zeroblob(33), '2001-02-03T04:05:06.000000Z'
         FROM (WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r LIMIT 1100)
               SELECT n FROM r)",
    );
    let damaged = K::either("'\\x07'", "x'07'");
    fresh
        .run(&format!(
            "INSERT INTO cqrs_subject_key (scope, subject, secret, created_at) {in_clear}"
        ))
        .await;
    fresh
        .run(&format!(
            "UPDATE cqrs_subject_key SET secret = {damaged} WHERE subject = 'subject 1'"
        ))
        .await;
    let mut seen = Vec::new();
    let context = north();
    let done = store.rewrap_subject_keys(&context, |done| seen.push(done.keys));
    let done = done.await.unwrap();
    assert_eq!((done.keys, done.unreadable), (KEYS - 1, 1));
    assert_eq!(done.reason, Some(SealedError::Key(subject("subject 1"))));
    assert_eq!(seen, [499, 999, 1_099]);
    assert_eq!(kept_under(&fresh, 1).await, 1_099);
    let again = store.rewrap_subject_keys(&north(), |_| {}).await.unwrap();
    assert_eq!((again.keys, again.unreadable), (0, 1));
}

async fn where_there_is_no_master_key_nothing_is_rewrapped<K: Kind>() {
    let (fresh, store) = with::<K>(StoreOptions::default()).await;
    let service = under(MasterKeys::new(master(1))).key_store(Arc::new(InMemoryKeyStore::new()));
    for store in [store, fresh.open(service).await] {
        let error = store.rewrap_subject_keys(&north(), |_| {}).await;
        assert_eq!(kind(&error.unwrap_err()), &StoreErrorKind::Usage);
    }
}
