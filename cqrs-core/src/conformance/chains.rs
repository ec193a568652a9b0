//! Chains of events: whatever is done through the store continues them.

use std::cell::Cell;
use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;

use super::Harness;
use super::fixtures::{ChainedForm, Counter, Purse, Safe, SafeEvent};
use super::support::{Bench, assert_conflict, begin, err, join_all, north, ok, south};
use crate::aggregate::AggregateRoot;
use crate::envelope::Position;
use crate::error::Error;
use crate::integrity::{BreakKind, LogCheck};
use crate::maintenance::Maintain;
use crate::repository::Repository;
use crate::store::Store;
use crate::unit_of_work::UnitOfWork;

fn check() -> LogCheck {
    LogCheck::new().chained::<Safe>().chained::<Purse>()
}

/// The log is as it was written: so many streams with so many events, each with a link of its own.
async fn assert_intact<H: Harness>(bench: &Bench<'_, H>, streams: u64, events: usize) {
    let report = bench.harness.check_log(&bench.store, &check()).await;
    assert!(report.is_intact(), "{:?}", report.breaks());
    let log = bench.log().await;
    let chained = [Safe::TYPE, Purse::TYPE];
    let links = log
        .iter()
        .filter(|event| chained.contains(&event.aggregate_type()))
        .map(|event| {
            let link = event.content_hash().link();
            link.unwrap_or_else(|| panic!("position {} has no link", event.position()))
        });
    let links: Vec<_> = links.collect();
    assert_eq!((report.streams(), links.len()), (streams, events));
    assert_eq!(
        report.anchor().map(|anchor| anchor.events()),
        Some(events as u64)
    );
    assert_eq!(links.iter().collect::<HashSet<_>>().len(), events);
}

/// Saves a new one with so many events, and loads it back.
async fn filled<H: Harness, A: ChainedForm>(
    bench: &Bench<'_, H>,
    number: &str,
    events: usize,
) -> A {
    let mut new = A::empty(number);
    (0..events).for_each(|_| new.fill(1));
    bench.save(&north(), new).await;
    bench.load(&north(), number.to_owned()).await
}

/// A chain goes on from commit to commit, with one event or several, alone or beside others, and
/// ends with a removal.
pub async fn a_chain_goes_on_over_commits<H: Harness>(h: &H) {
    async fn alone<H: Harness, A: ChainedForm>(bench: &Bench<'_, H>) {
        let mut loaded: A = filled(bench, "C1", 1).await;
        for events in [1, 3, 2, 1] {
            (0..events).for_each(|_| loaded.fill(1));
            bench.save(&north(), loaded).await;
            loaded = bench.load(&north(), "C1".to_owned()).await;
        }
        assert_eq!((loaded.coins(), loaded.root().version()), (8, 8));
    }
    let bench = begin(h).await;
    assert_intact(&bench, 0, 0).await;
    alone::<H, Safe>(&bench).await;
    alone::<H, Purse>(&bench).await;
    assert_intact(&bench, 2, 16).await;

    let mut uow = bench.unit_of_work(&north());
    let mut safe: Safe = ok(uow.get("C1".to_owned()).await);
    safe.fill(1);
    safe.fill(2);
    ok(uow.save(safe));
    let mut purse: Purse = ok(uow.get("C1".to_owned()).await);
    purse.fill(1);
    ok(uow.save(purse));
    for number in ["C2", "C3"] {
        let (mut safe, mut purse) = (Safe::empty(number), Purse::empty(number));
        safe.fill(1);
        purse.fill(1);
        ok(uow.save(safe));
        ok(uow.save(purse));
    }
    ok(uow.save(Counter::new(1)));
    let _ = ok(uow.commit().await);
    assert_intact(&bench, 6, 16 + 3 + 4).await;

    let mut of_south = Safe::empty("S1");
    of_south.fill(1);
    bench.save(&south(), of_south).await;
    let safe: Safe = bench.load(&north(), "C1".to_owned()).await;
    bench.remove(&north(), safe).await;
    let purse: Purse = bench.load(&north(), "C1".to_owned()).await;
    bench.remove(&north(), purse).await;
    assert_intact(&bench, 7, 23 + 1 + 2).await;
}

/// A change without an event is a marker in the chain.
pub async fn a_change_without_an_event_is_in_the_chain<H: Harness>(h: &H) {
    let bench = begin(h).await;
    bench.save(&north(), Safe::empty("C1")).await;
    let mut safe: Safe = bench.load(&north(), "C1".to_owned()).await;
    safe.coins = 5;
    bench.save(&north(), safe).await;
    assert_intact(&bench, 1, 2).await;
}

/// A chain goes on within a unit of work: through what a savepoint undoes, and what it keeps.
pub async fn a_chain_goes_on_over_savepoints<H: Harness>(h: &H) {
    async fn rule<H: Harness, A: ChainedForm>(bench: &Bench<'_, H>) {
        let _: A = filled(bench, "C1", 1).await;
        let mut uow = bench.unit_of_work(&north());
        let undone = uow
            .savepoint(async move |uow| {
                let mut lost: A = uow.get("C1".to_owned()).await?;
                lost.fill(100);
                uow.save(lost)?;
                // To look is to write what is staged.
                let _: A = uow.get("C1".to_owned()).await?;
                Err::<(), _>(Error::other("undone"))
            })
            .await;
        let _ = err(undone);
        ok(uow
            .savepoint(async move |uow| {
                let mut kept: A = uow.get("C1".to_owned()).await?;
                kept.fill(1);
                uow.save(kept)?;
                uow.get::<A>("C1".to_owned()).await.map(drop)
            })
            .await);
        let mut again: A = ok(uow.get("C1".to_owned()).await);
        again.fill(1);
        ok(uow.save(again));
        let _ = ok(uow.commit().await);
        let loaded: A = bench.load(&north(), "C1".to_owned()).await;
        assert_eq!((loaded.coins(), loaded.root().version()), (3, 3));
    }
    let bench = begin(h).await;
    rule::<H, Safe>(&bench).await;
    rule::<H, Purse>(&bench).await;
    assert_intact(&bench, 2, 6).await;
}

/// Batches continue chains, within a batch and from one to the next.
pub async fn a_chain_goes_on_over_batches<H: Harness>(h: &H) {
    async fn rule<H: Harness, A: ChainedForm>(bench: &Bench<'_, H>) {
        let items = 1..=7;
        let done = bench
            .store
            .execute_in_batches(&north(), 3, items, async |uow, coins| {
                let number = format!("C{}", coins % 2);
                let found = uow.repository::<A>().find(number.clone()).await?;
                let mut of = found.unwrap_or_else(|| A::empty(&number));
                of.fill(coins);
                uow.save(of)
            })
            .await
            .unwrap_or_else(|error| panic!("{error:?}"));
        assert_eq!((done.items(), done.commits()), (7, 3));
        let even: A = bench.load(&north(), "C0".to_owned()).await;
        assert_eq!(even.coins(), 2 + 4 + 6);
    }
    let bench = begin(h).await;
    rule::<H, Safe>(&bench).await;
    rule::<H, Purse>(&bench).await;
    assert_intact(&bench, 4, 14).await;
}

/// A commit that is refused leaves the chain as it was, and the next one continues it.
pub async fn a_conflict_leaves_the_chain<H: Harness>(h: &H) {
    async fn rule<H: Harness, A: ChainedForm>(bench: &Bench<'_, H>) {
        let mut stale: A = filled(bench, "C1", 2).await;
        let mut first = stale.clone();
        first.fill(1);
        bench.save(&north(), first).await;
        stale.fill(10);
        let error = err(bench.try_save(&north(), stale.clone()).await);
        assert_conflict::<A>(&error, stale.id(), 2, 3);
        // With others, none of which is written then.
        let mut uow = bench.unit_of_work(&north());
        let mut other = A::empty("C2");
        other.fill(1);
        ok(uow.save(other));
        ok(uow.save(stale));
        let error = err(uow.commit().await);
        assert!(matches!(error, Error::Conflict { .. }), "{error:?}");
        let mut taken = A::empty("C1");
        taken.fill(1);
        let error = err(bench.try_save(&north(), taken).await);
        assert!(matches!(error, Error::AlreadyExists { .. }), "{error:?}");
        let mut again: A = bench.load(&north(), "C1".to_owned()).await;
        again.fill(1);
        bench.save(&north(), again).await;
    }
    let bench = begin(h).await;
    rule::<H, Safe>(&bench).await;
    rule::<H, Purse>(&bench).await;
    assert_intact(&bench, 2, 8).await;
}

/// A guard adds nothing to the chain of what is only read, whether it holds or not.
pub async fn a_guard_leaves_the_chain<H: Harness>(h: &H) {
    async fn rule<H: Harness, R: ChainedForm, W: ChainedForm>(bench: &Bench<'_, H>, case: &str) {
        let read: R = filled(bench, &format!("{case}1"), 1).await;
        let mut written: W = filled(bench, &format!("{case}2"), 1).await;
        written.fill(1);
        let mut uow = bench.unit_of_work(&north());
        ok(uow.guard(&read));
        ok(uow.save(written));
        let _ = ok(uow.commit().await);
        let mut moved = read.clone();
        moved.fill(1);
        bench.save(&north(), moved).await;
        let mut written: W = bench.load(&north(), format!("{case}2")).await;
        written.fill(1);
        let mut uow = bench.unit_of_work(&north());
        ok(uow.guard(&read));
        ok(uow.save(written));
        let error = err(uow.commit().await);
        assert_conflict::<R>(&error, read.id(), 1, 2);
    }
    let bench = begin(h).await;
    rule::<H, Safe, Safe>(&bench, "ss").await;
    rule::<H, Safe, Purse>(&bench, "sp").await;
    rule::<H, Purse, Safe>(&bench, "ps").await;
    rule::<H, Purse, Purse>(&bench, "pp").await;
    assert_intact(&bench, 8, 16).await;
}

/// Bulk inserts begin chains; bulk changes, removals and single commits continue them.
pub async fn a_chain_goes_on_over_imports<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let context = north();
    let safes = || bench.store.maintenance::<Safe>(&context).batch_size(3);
    let new = (0..7).map(|number| {
        let mut safe = Safe::empty(&format!("C{number}"));
        safe.fill(1);
        safe.fill(number);
        safe
    });
    assert_eq!(ok(safes().insert(new).await).items(), 7);
    assert_intact(&bench, 7, 14).await;
    let coins = Safe::fields().coins;
    let raised = bench
        .store
        .maintenance::<Safe>(&context)
        .raising(SafeEvent::Filled { coins: 0 });
    assert_eq!(
        ok(raised.update(coins.ge(4), [coins.set(9)]).await).items(),
        4
    );
    assert_eq!(ok(safes().remove(coins.lt(2)).await).items(), 1);
    let mut safe: Safe = bench.load(&context, "C6".to_owned()).await;
    safe.fill(1);
    bench.save(&context, safe).await;
    assert_intact(&bench, 7, 14 + 4 + 1 + 1).await;
}

/// Writers that meet make one chain, and who checks meanwhile finds nothing.
pub async fn many_writers_make_one_chain<H: Harness>(h: &H) {
    const WRITERS: usize = 5;
    async fn rule<H: Harness, A: ChainedForm>(bench: &Bench<'_, H>) {
        let mut checks: Vec<Position> = Vec::new();
        let _: A = filled(bench, "C1", 1).await;
        let (mut waiting, mut rounds) = (WRITERS, 0);
        while waiting > 0 {
            rounds += 1;
            let mut units = Vec::new();
            for _ in 0..waiting {
                let mut uow = bench.unit_of_work(&north());
                let mut of: A = ok(uow.get("C1".to_owned()).await);
                of.fill(1);
                ok(uow.save(of));
                units.push(uow);
            }
            let (lost, looked) = (Cell::new(0), Cell::new(None));
            let (lost, looked) = (&lost, &looked);
            let commits = units
                .into_iter()
                .map(|uow| -> Pin<Box<dyn Future<Output = ()> + '_>> {
                    Box::pin(async move {
                        match uow.commit().await {
                            Ok(_) => {}
                            Err(Error::Conflict { .. }) => lost.set(lost.get() + 1),
                            Err(other) => panic!("{other:?}"),
                        }
                    })
                });
            let look: Pin<Box<dyn Future<Output = ()> + '_>> = Box::pin(async {
                let report = bench.harness.check_log(&bench.store, &check()).await;
                looked.set(Some(report));
            });
            join_all(commits.chain([look])).await;
            let report = looked.take().unwrap_or_else(|| panic!("it was checked"));
            assert!(report.is_intact(), "{:?}", report.breaks());
            // Nothing while one of the commits is under way for long.
            checks.extend(report.anchor().map(|anchor| anchor.position()));
            waiting = lost.get();
        }
        // One of each round wins.
        assert_eq!(rounds, WRITERS);
        assert!(checks.is_sorted(), "{checks:?}");
        let of: A = bench.load(&north(), "C1".to_owned()).await;
        assert_eq!((of.coins(), of.root().version()), (6, 6));
    }
    let bench = begin(h).await;
    rule::<H, Safe>(&bench).await;
    rule::<H, Purse>(&bench).await;
    assert_intact(&bench, 2, 12).await;
}

/// What is not a chain is found: events without a link of aggregates that the check takes for
/// chained, and events with one of those it was not told of.
pub async fn what_is_no_chain_is_found<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let _ = bench.counter(1).await;
    let _: Safe = filled(&bench, "C1", 1).await;
    let told = LogCheck::new().chained::<Counter>();
    let report = bench.harness.check_log(&bench.store, &told).await;
    let log = bench.log().await;
    let found: Vec<_> = report
        .breaks()
        .iter()
        .map(|found| (found.position, found.kind.clone()))
        .collect();
    assert_eq!(
        found,
        [
            (Some(log[0].position()), BreakKind::Unchained),
            (Some(log[1].position()), BreakKind::Unlisted),
        ]
    );
}
