//! Reading the streams of aggregates: what is staged, at one moment, from snapshots, as they were.

use chrono::{DateTime, Utc};

use super::Harness;
use super::fixtures::{Account, AccountForm, Counter, Ledger, LedgerEvent};
use super::sourced::{ledger, opened};
use super::support::{
    assert_conflict, assert_usage, begin, err, north, ok, south, system, tenant, time,
};
use crate::envelope::Envelope;
use crate::error::Error;
use crate::repository::{EventHistory, Repository};
use crate::sourced::AsOf;
use crate::specification::PageRequest;
use crate::store::Store;
use crate::unit_of_work::UnitOfWork;

/// Reads see what the unit of work has appended, and it can be appended to again.
pub async fn reads_see_what_was_appended<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut uow = bench.unit_of_work(&north());
    ok(uow.save(opened("L1")));
    let mut ledger: Ledger = ok(uow.get("L1".to_owned()).await);
    assert_eq!(ledger.contents(), ("ann", 0, false));
    ledger.transfer(5);
    ok(uow.save(ledger));
    let ledger: Ledger = ok(uow.get("L1".to_owned()).await);
    assert_eq!((ledger.cents, ledger.root.version()), (5, 2));
    assert_eq!(ledger.root.stamps().updated_by.as_deref(), Some("ann"));
    assert_eq!(ok(uow.commit().await).events().len(), 2);

    let mut uow = bench.unit_of_work(&north());
    let ledger: Ledger = ok(uow.get("L1".to_owned()).await);
    ok(uow.remove(ledger));
    let gone = uow.repository::<Ledger>().find("L1".to_owned()).await;
    assert!(ok(gone).is_none());
    uow.rollback().await;

    // What it has appended itself is no conflict with others.
    let mut uow = bench.unit_of_work(&north());
    let mut first: Ledger = ok(uow.get("L1".to_owned()).await);
    let mut second = first.clone();
    first.transfer(1);
    second.transfer(2);
    ok(uow.save(first));
    let _: Ledger = ok(uow.get("L1".to_owned()).await);
    ok(uow.save(second));
    let error = err(uow.commit().await);
    assert_usage(&error);
    assert!(error.to_string().contains("saved before"), "{error}");
    assert_eq!(bench.log().await.len(), 2);
}

/// What a savepoint has appended is undone with it; who goes on from it is told, and leaves no gap.
pub async fn an_undone_append_leaves_no_gap<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let number = || "L1".to_owned();
    ledger(&bench, "L1").await;
    let mut uow = bench.unit_of_work(&north());
    let mut kept = None;
    let error = err(uow
        .savepoint(async |uow| {
            let mut ledger = uow.get::<Ledger>(number()).await?;
            ledger.transfer(1);
            uow.save(ledger)?;
            uow.get::<Ledger>(number()).await.map(drop)?;
            Err::<(), _>(Error::other("refused"))
        })
        .await);
    assert!(matches!(error, Error::Other(_)), "{error:?}");
    let mut ledger: Ledger = ok(uow.get(number()).await);
    assert_eq!(ledger.root.version(), 1);
    ledger.transfer(2);
    ok(uow.save(ledger));
    ok(uow.commit().await);

    // The same past the savepoint.
    let mut uow = bench.unit_of_work(&north());
    let mut ledger: Ledger = ok(uow.get(number()).await);
    ledger.transfer(4);
    ok(uow.save(ledger));
    kept.replace(ok(uow.get::<Ledger>(number()).await));
    uow.rollback().await;
    let mut ahead = kept.unwrap_or_else(|| opened("L1"));
    ahead.transfer(8);
    let error = err(bench.try_save(&north(), ahead.clone()).await);
    assert!(error.is_conflict() || error.is_not_found(), "{error:?}");
    let mut uow = bench.unit_of_work(&north());
    ok(uow.save(ahead));
    ok(uow.save(opened("L2")));
    let error = err(uow.commit().await);
    assert!(error.is_conflict() || error.is_not_found(), "{error:?}");
    let loaded: Ledger = bench.load(&north(), number()).await;
    assert_eq!((loaded.cents, loaded.root.version()), (2, 2));
}

/// A read-only unit of work sees a stream as it was at its first read.
pub async fn streams_are_read_at_one_moment<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut changed = ledger(&bench, "L1").await;
    let mut reading = bench.store.read_only(&north());
    let before: Ledger = ok(reading.get("L1".to_owned()).await);
    assert_eq!(before.cents, 0);
    changed.transfer(1);
    bench.save(&north(), changed).await;
    bench.save(&north(), opened("L2")).await;
    let again: Ledger = ok(reading.get("L1".to_owned()).await);
    assert_eq!((again.cents, again.root.version()), (0, 1));
    let other = reading.repository::<Ledger>().find("L2".to_owned()).await;
    assert!(ok(other).is_none());
    assert_usage(&err(reading.save(again)));
    reading.rollback().await;
    assert_eq!(
        bench.load::<Ledger>(&north(), "L1".to_owned()).await.cents,
        1
    );
}

/// With and without a snapshot an aggregate is the same.
pub async fn snapshots_change_nothing<H: Harness>(h: &H) {
    let bench = begin(h).await;
    ledger(&bench, "L1").await;
    for round in 1..=20_i64 {
        bench.clock.set(time(round));
        let mut ledger: Ledger = bench.load(&north(), "L1".to_owned()).await;
        ledger.transfer(round);
        let actor = format!("actor {round}");
        bench.save(&north().with_actor(&actor), ledger).await;
        let loaded: Ledger = bench.load(&north(), "L1".to_owned()).await;
        let sum = round * (round + 1) / 2;
        assert_eq!(loaded.contents(), ("ann", sum, false));
        assert_eq!(loaded.root.version(), u64::try_from(round).unwrap_or(0) + 1);
        let stamps = loaded.root.stamps();
        assert_eq!(stamps.created_at, Some(time(0)));
        assert_eq!(stamps.created_by.as_deref(), Some("ann"));
        assert_eq!(stamps.updated_at, Some(time(round)));
        assert_eq!(stamps.updated_by.as_deref(), Some(actor.as_str()));
        assert_eq!(loaded.root.tenant(), Some(&tenant("north")));
    }
    let loaded: Ledger = bench.load(&north(), "L1".to_owned()).await;
    bench.remove(&north(), loaded).await;
    assert!(
        bench
            .find::<Ledger>(&north(), "L1".to_owned())
            .await
            .is_none()
    );
}

/// Any time may be asked for, and a clock that went back leaves no hole.
pub async fn it_is_loaded_as_of_any_time<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut changed = ledger(&bench, "L1").await;
    for seconds in [60, 30] {
        bench.clock.set(time(seconds));
        changed.transfer(1);
        bench.save(&north(), changed).await;
        changed = bench.load(&north(), "L1".to_owned()).await;
    }
    let mut uow = bench.unit_of_work(&north());
    let mut ledgers = uow.repository::<Ledger>();
    for (at, cents) in [
        (DateTime::<Utc>::MIN_UTC, None),
        (time(29), Some(0)),
        (time(45), Some(2)),
        (DateTime::<Utc>::MAX_UTC, Some(2)),
    ] {
        let found = ok(ledgers.find_as_of("L1".to_owned(), at.into()).await);
        assert_eq!(found.map(|ledger| ledger.cents), cents, "as of {at}");
    }
    drop(ledgers);
    uow.rollback().await;
}

/// An aggregate is loaded as it was at a version, and at a time, also before it was removed; not for
/// other tenants.
pub async fn it_is_loaded_as_it_was<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let number = || "L1".to_owned();
    ledger(&bench, "L1").await;
    for seconds in 1..=6_i64 {
        bench.clock.set(time(seconds * 10));
        let mut ledger: Ledger = bench.load(&north(), number()).await;
        ledger.transfer(seconds);
        if seconds == 6 {
            bench.remove(&north(), ledger).await;
        } else {
            bench.save(&north(), ledger).await;
        }
    }
    let mut uow = bench.unit_of_work(&north());
    let mut ledgers = uow.repository::<Ledger>();
    let sums = [0, 1, 3, 6, 10, 15, 21];
    for (version, sum) in (1..).zip(sums) {
        let found = ledgers.find_as_of(number(), AsOf::Version(version)).await;
        let found = ok(found).unwrap_or_else(|| panic!("version {version}"));
        assert_eq!((found.cents, found.root.version()), (sum, version));
        assert_eq!(found.root.tenant(), Some(&tenant("north")));
    }
    for (seconds, cents) in [
        (-1, None),
        (0, Some(0)),
        (10, Some(1)),
        (19, Some(1)),
        (59, Some(15)),
        (60, None),
    ] {
        let found = ledgers.find_as_of(number(), time(seconds).into()).await;
        let found = ok(found).map(|ledger| ledger.cents);
        assert_eq!(found, cents, "after {seconds} s");
    }
    for version in [0, 8, 9] {
        let found = ledgers.find_as_of(number(), AsOf::Version(version)).await;
        assert!(ok(found).is_none(), "version {version}");
    }
    drop(ledgers);
    uow.rollback().await;
    let mut uow = bench.unit_of_work(&south());
    let mut ledgers = uow.repository::<Ledger>();
    let found = ledgers.find_as_of(number(), AsOf::Version(3)).await;
    assert!(ok(found).is_none());
    let found = ledgers.find_as_of(number(), time(30).into()).await;
    assert!(ok(found).is_none());
    drop(ledgers);
    uow.rollback().await;

    // What was staged counts, and to save what was is a conflict.
    ledger(&bench, "L2").await;
    let mut uow = bench.unit_of_work(&north());
    let mut ledger: Ledger = ok(uow.get("L2".to_owned()).await);
    ledger.transfer(1);
    ok(uow.save(ledger));
    let mut ledgers = uow.repository::<Ledger>();
    let found = ledgers.find_as_of("L2".to_owned(), AsOf::Version(2)).await;
    assert_eq!(ok(found).map(|ledger| ledger.cents), Some(1));
    let found = ledgers.find_as_of("L2".to_owned(), AsOf::Version(1)).await;
    let mut old = ok(found).unwrap_or_else(|| opened("L2"));
    drop(ledgers);
    ok(uow.commit().await);
    old.transfer(2);
    let error = err(bench.try_save(&north(), old).await);
    assert_conflict::<Ledger>(&error, &"L2".to_owned(), 1, 2);
}

/// The events of one aggregate, of either form: what, when and by whom, also after its removal.
pub async fn its_events_say_who_and_when<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut ledger = ledger(&bench, "L1").await;
    bench.clock.set(time(7));
    ledger.transfer(3);
    let context = north().with_actor("cleo");
    bench.remove(&context, ledger).await;
    let counter = bench.counter(5).await;
    bench.remove(&system(), counter).await;

    let mut uow = bench.unit_of_work(&north());
    let events = ok(uow.repository::<Ledger>().events("L1".to_owned()).await);
    let payloads: Vec<_> = events.iter().map(|event| event.payload().clone()).collect();
    let owner = "ann".to_owned();
    assert_eq!(
        payloads,
        [
            Some(LedgerEvent::Opened { owner }),
            Some(LedgerEvent::Moved { cents: 3 }),
            None
        ]
    );
    let last = &events[2];
    assert_eq!(last.event_type(), "cqrs.removed");
    assert_eq!(last.aggregate_version(), 3);
    assert_eq!(last.occurred_at(), time(7));
    assert_eq!(last.metadata(), context.metadata());
    assert_eq!(events[0].occurred_at(), time(0));
    assert_eq!(events[0].metadata().actor.as_deref(), Some("ann"));

    let events = ok(uow.repository::<Counter>().events(5).await);
    let types: Vec<_> = events.iter().map(crate::Envelope::event_type).collect();
    assert_eq!(types, ["counter.added", "cqrs.removed"]);
    assert!(ok(uow.repository::<Counter>().events(6).await).is_empty());
    // With what is staged, and without what is undone.
    let mut staged = opened("L2");
    staged.transfer(1);
    ok(uow.save(staged));
    let events = ok(uow.repository::<Ledger>().events("L2".to_owned()).await);
    assert_eq!(events.len(), 2);
    uow.rollback().await;
    let mut uow = bench.unit_of_work(&north());
    let events = ok(uow.repository::<Ledger>().events("L2".to_owned()).await);
    assert!(events.is_empty());
    let mut other = bench.unit_of_work(&south());
    let events = ok(other.repository::<Ledger>().events("L1".to_owned()).await);
    assert!(events.is_empty());
}

/// The events of one aggregate, of either form, come in pages, the youngest first.
pub async fn its_events_come_in_pages<H: Harness>(h: &H) {
    async fn rule<H: Harness, A: AccountForm>(h: &H) {
        let bench = begin(h).await;
        let number = || "A1".to_owned();
        let mut account = A::unopened("A1");
        account.open("ann");
        (1..=3).for_each(|cents| account.transfer(cents));
        bench.save(&north(), account).await;
        let mut uow = bench.unit_of_work(&north());
        let mut account: A = ok(uow.get(number()).await);
        account.close();
        ok(uow.save(account));
        let mut accounts = uow.repository::<A>();
        let mut request = PageRequest::first(2).with_total();
        let mut pages = Vec::new();
        loop {
            let page = ok(accounts.events_page(number(), request).await);
            assert_eq!(page.total, Some(5));
            let versions: Vec<u64> = page.items.iter().map(Envelope::aggregate_version).collect();
            assert!(page.items.iter().all(|event| event.payload().is_some()));
            pages.push(versions);
            match page.next {
                Some(next) => request = PageRequest::after(next, 2).with_total(),
                None => break,
            }
        }
        assert_eq!(pages, [vec![5, 4], vec![3, 2], vec![1]]);
        let skipping = PageRequest::skip(3, 9);
        let page = ok(accounts.events_page(number(), skipping).await);
        let versions: Vec<u64> = page.items.iter().map(Envelope::aggregate_version).collect();
        assert_eq!((versions, page.next, page.total), (vec![2, 1], None, None));
        drop(accounts);
        ok(uow.commit().await);
        let mut other = bench.unit_of_work(&south());
        let mut accounts = other.repository::<A>();
        let request = PageRequest::first(2).with_total();
        let page = ok(accounts.events_page(number(), request).await);
        assert_eq!((page.items.len(), page.total), (0, Some(0)));
        drop(accounts);
        other.rollback().await;
    }
    rule::<H, Account>(h).await;
    rule::<H, Ledger>(h).await;
}
