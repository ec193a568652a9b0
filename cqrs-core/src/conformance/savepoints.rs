//! Savepoints: what fails within one is undone, the rest stays.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Harness;
use super::fixtures::{Account, AccountForm, Counter, Ledger, Parcel};
use super::support::{
    assert_already_exists, assert_conflict, assert_usage, begin, err, north, ok, system,
};
use crate::error::{Error, Result};
use crate::specification::Query;
use crate::store::Store;
use crate::unit_of_work::UnitOfWork;

async fn refuse_after<U: UnitOfWork>(uow: &mut U, counter: Counter) -> Result<()> {
    uow.save(counter)?;
    Err(Error::other("refused"))
}

fn counter(id: i64) -> Counter {
    let mut counter = Counter::new(id);
    counter.add(id);
    counter
}

/// What succeeds within a savepoint is committed with the rest, in the order of staging.
pub async fn what_succeeds_in_a_savepoint_stays<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut uow = bench.unit_of_work(&system());
    ok(uow.save(counter(1)));
    let output = uow.savepoint(async |uow| {
        uow.save(counter(2))?;
        Ok("done")
    });
    assert_eq!(ok(output.await), "done");
    ok(uow.save(counter(3)));
    let receipt = ok(uow.commit().await);
    let log = bench.log().await;
    let ids: Vec<&str> = log
        .iter()
        .map(super::super::envelope::Envelope::aggregate_id_str)
        .collect();
    assert_eq!(ids, ["1", "2", "3"]);
    let events: Vec<_> = log
        .iter()
        .map(super::super::envelope::Envelope::event_id)
        .collect();
    assert_eq!(receipt.events(), events);
    assert_eq!(receipt.position(), Some(log[2].position()));
}

/// What fails within a savepoint is undone, sent or not; what was staged before and after stays,
/// and no event of it is in the log or in the receipt.
pub async fn what_fails_in_a_savepoint_is_undone<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut uow = bench.unit_of_work(&system());
    ok(uow.save(counter(1)));
    let error = err(uow
        .savepoint(async |uow| {
            uow.save(counter(2))?;
            // Sends it.
            let _: Counter = uow.get(2).await?;
            refuse_after(uow, counter(3)).await
        })
        .await);
    assert!(matches!(error, Error::Other(_)), "{error:?}");
    let counters = uow.query::<Counter>(Query::all()).await;
    assert_eq!(ok(counters).len(), 1);
    // An id that was only used there is free.
    ok(uow.save(counter(2)));
    let receipt = ok(uow.commit().await);
    let log = bench.log().await;
    let ids: Vec<&str> = log
        .iter()
        .map(super::super::envelope::Envelope::aggregate_id_str)
        .collect();
    assert_eq!(ids, ["1", "2"]);
    let events: Vec<_> = log
        .iter()
        .map(super::super::envelope::Envelope::event_id)
        .collect();
    assert_eq!(receipt.events(), events);
    assert_eq!(
        bench.find::<Counter>(&system(), 3).await.map(|c| c.value),
        None
    );
}

/// What a savepoint stages is refused when it ends, not when all is committed.
pub async fn a_refused_write_is_the_error_of_its_savepoint<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let stale = bench.counter(1).await;
    let mut fresh = stale.clone();
    fresh.add(10);
    bench.save(&system(), fresh).await;
    let mut uow = bench.unit_of_work(&system());
    ok(uow.save(counter(2)));
    let error = err(uow
        .savepoint(async |uow| {
            let mut stale = stale.clone();
            stale.add(100);
            uow.save(stale)
        })
        .await);
    assert_conflict::<Counter>(&error, &1, 1, 2);
    let error = err(uow.savepoint(async |uow| uow.save(counter(1))).await);
    assert_already_exists::<Counter>(&error, &1);
    ok(uow.save(counter(3)));
    assert_eq!(ok(uow.commit().await).events().len(), 2);
    assert_eq!(bench.load::<Counter>(&system(), 1).await.value, 11);
    assert_eq!(bench.log().await.len(), 4);
}

/// A savepoint within a savepoint is undone alone, or with the outer one.
pub async fn savepoints_nest<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut uow = bench.unit_of_work(&system());
    ok(uow
        .savepoint(async |uow| {
            uow.save(counter(1))?;
            let inner = uow.savepoint(async |uow| refuse_after(uow, counter(2)).await);
            assert!(inner.await.is_err());
            uow.savepoint(async |uow| uow.save(counter(3))).await
        })
        .await);
    let outer = uow.savepoint(async |uow| {
        uow.savepoint(async |uow| uow.save(counter(4))).await?;
        refuse_after(uow, counter(5)).await
    });
    assert!(outer.await.is_err());
    let receipt = ok(uow.commit().await);
    let log = bench.log().await;
    let ids: Vec<&str> = log
        .iter()
        .map(super::super::envelope::Envelope::aggregate_id_str)
        .collect();
    assert_eq!(ids, ["1", "3"]);
    assert_eq!(receipt.events().len(), 2);
}

/// Where everything happened in savepoints that were undone, nothing is written.
pub async fn undone_savepoints_alone_write_nothing<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut uow = bench.unit_of_work(&system());
    let undone = uow.savepoint(async |uow| refuse_after(uow, counter(1)).await);
    assert!(undone.await.is_err());
    let receipt = ok(uow.commit().await);
    assert_eq!((receipt.events().len(), receipt.position()), (0, None));
    assert_eq!(bench.log().await.len(), 0);
    bench.counter(1).await;
}

/// A unit of work whose savepoint was left open, since its future was dropped, is not committed.
pub async fn an_open_savepoint_is_not_committed<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut uow = bench.unit_of_work(&system());
    ok(uow.begin_savepoint().await);
    ok(uow.save(counter(1)));
    assert_usage(&err(uow.commit().await));
    assert_eq!(bench.log().await.len(), 0);
    let mut uow = bench.unit_of_work(&system());
    assert_usage(&err(uow.roll_back_savepoint().await));
    bench.counter(1).await;
}

/// Hooks run in their order around the commit; those of an undone savepoint do not.
pub async fn hooks_run_around_the_commit<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let after = Arc::new(AtomicU32::new(0));
    let mut uow = bench.unit_of_work(&system());
    ok(uow.save(counter(1)));
    let count = |weight: u32| {
        let after = Arc::clone(&after);
        move |receipt: &crate::CommitReceipt| {
            let events = u32::try_from(receipt.events().len()).unwrap_or(u32::MAX);
            after.fetch_add(weight * events, Ordering::Relaxed);
        }
    };
    uow.after_commit(count(1));
    uow.before_commit(async |uow| {
        // It sees what was staged, may stage, and may add a hook.
        let one: Counter = uow.get(1).await?;
        uow.before_commit(async |uow| uow.save(counter(3)));
        let mut two = Counter::new(2);
        two.add(one.value * 20);
        uow.save(two)
    });
    let undone = uow.savepoint(async |uow| {
        uow.after_commit(count(1000));
        uow.before_commit(async |uow| uow.save(counter(4)));
        refuse_after(uow, counter(5)).await
    });
    assert!(undone.await.is_err());
    let receipt = ok(uow.commit().await);
    assert_eq!(receipt.events().len(), 3);
    assert_eq!(after.load(Ordering::Relaxed), 3);
    assert_eq!(bench.load::<Counter>(&system(), 2).await.value, 20);
    assert_eq!(bench.log().await.len(), 3);
}

/// Where a hook before the commit fails, nothing is committed, and no hook runs after.
pub async fn a_hook_that_fails_stops_the_commit<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let after = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&after);
    let mut uow = bench.unit_of_work(&system());
    ok(uow.save(counter(1)));
    uow.after_commit(move |_| {
        seen.fetch_add(1, Ordering::Relaxed);
    });
    uow.before_commit(async |uow| {
        let _: Counter = uow.get(1).await?;
        Err(Error::other("refused"))
    });
    let error = err(uow.commit().await);
    assert!(matches!(error, Error::Other(_)), "{error:?}");
    assert_eq!(after.load(Ordering::Relaxed), 0);
    assert_eq!(bench.log().await.len(), 0);
    bench.counter(1).await;
}

/// Savepoints work within `execute`, and run again with it.
pub async fn savepoints_run_again_with_the_work<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let parcel = bench.parcel(&north(), "taken").await;
    let runs = AtomicU32::new(0);
    let store = &bench.store;
    let receipt = ok(store
        .execute(&north(), async |uow| {
            let run = runs.fetch_add(1, Ordering::Relaxed);
            let undone = uow
                .savepoint(async |uow| {
                    let mut again = Parcel::register("again");
                    again.id = parcel.id;
                    uow.save(again)
                })
                .await;
            assert!(undone.is_err_and(|error| error.is_conflict()));
            if run == 0 {
                return Err(Error::Conflict {
                    aggregate: "parcel",
                    id: "1".to_owned(),
                    expected: 1,
                    found: 2,
                });
            }
            uow.save(Parcel::register("other"))
        })
        .await);
    assert_eq!(runs.into_inner(), 2);
    assert_eq!(receipt.events().len(), 1);
    assert_eq!(bench.log().await.len(), 2);
}

/// Hooks run around what is appended to streams as around what is saved as rows.
pub async fn hooks_run_for_either_form<H: Harness>(h: &H) {
    async fn rule<H: Harness, A: AccountForm>(h: &H) {
        let bench = begin(h).await;
        let opened = |number: &str| {
            let mut account = A::unopened(number);
            account.open("ann");
            account
        };
        let after = Arc::new(AtomicU32::new(0));
        for is_refused in [true, false] {
            let mut uow = bench.unit_of_work(&north());
            ok(uow.save(opened("A1")));
            let seen = Arc::clone(&after);
            uow.after_commit(move |receipt| {
                let events = u32::try_from(receipt.events().len()).unwrap_or(u32::MAX);
                seen.fetch_add(events, Ordering::Relaxed);
            });
            uow.before_commit(async move |uow| {
                let mut account: A = uow.get("A1".to_owned()).await?;
                account.transfer(5);
                uow.save(account)?;
                if is_refused {
                    return Err(Error::other("refused"));
                }
                Ok(())
            });
            assert_eq!(uow.commit().await.is_err(), is_refused);
            let events = if is_refused { 0 } else { 2 };
            assert_eq!(after.load(Ordering::Relaxed), events);
        }
        let account: A = bench.load(&north(), "A1".to_owned()).await;
        assert_eq!(account.contents(), ("ann", 5, false));
        assert_eq!(bench.log().await.len(), 2);
    }
    rule::<H, Account>(h).await;
    rule::<H, Ledger>(h).await;
}
