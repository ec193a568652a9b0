//! Decisions over several aggregates: what was only read is guarded.

use super::Harness;
use super::fixtures::{Account, AccountForm, Counter, Ledger};
use super::support::{
    Bench, assert_conflict, assert_not_found, assert_usage, begin, err, join_all, north, ok, south,
    system,
};
use crate::aggregate::AggregateRoot;
use crate::error::Error;
use crate::store::Store;
use crate::unit_of_work::UnitOfWork;

/// Runs a rule for what is read and what is written in each form.
macro_rules! in_each_form {
    ($bench:ident, $rule:ident) => {
        $rule::<H, Account, Account>(&$bench, "rr").await;
        $rule::<H, Account, Ledger>(&$bench, "re").await;
        $rule::<H, Ledger, Account>(&$bench, "er").await;
        $rule::<H, Ledger, Ledger>(&$bench, "ee").await;
    };
}

/// Saves a new one with so much on it, and loads it back.
async fn account<H: Harness, A: AccountForm>(bench: &Bench<'_, H>, number: &str, cents: i64) -> A {
    let mut account = A::unopened(number);
    account.open("ann");
    account.transfer(cents);
    bench.save(&north(), account).await;
    bench.load(&north(), number.to_owned()).await
}

/// Two accounts of the names that belong to a case.
async fn pair<H: Harness, R: AccountForm, W: AccountForm>(
    bench: &Bench<'_, H>,
    case: &str,
) -> (R, W) {
    let read = account(bench, &format!("{case}1"), 10).await;
    (read, account(bench, &format!("{case}2"), 10).await)
}

/// If what was read is as it was, the commit writes what was saved, and nothing of what was read.
pub async fn a_decision_over_several_is_committed<H: Harness>(h: &H) {
    async fn rule<H: Harness, R: AccountForm, W: AccountForm>(bench: &Bench<'_, H>, case: &str) {
        let (read, mut written) = pair::<H, R, W>(bench, case).await;
        let before = bench.log().await.len();
        written.transfer(-15);
        let mut uow = bench.unit_of_work(&north());
        ok(uow.guard(&read));
        ok(uow.save(written.clone()));
        let receipt = ok(uow.commit().await);
        assert_eq!(receipt.events().len(), 1, "{case}");
        assert_eq!(bench.log().await.len(), before + 1);
        let id = written.id().clone();
        assert_eq!(bench.load::<W>(&north(), id).await.contents().1, -5);
        let again: R = bench.load(&north(), read.id().clone()).await;
        assert_eq!(again.root().version(), 2);
    }
    let bench = begin(h).await;
    in_each_form!(bench, rule);
}

/// If what was read has moved on, the commit is a conflict that names both versions, and writes
/// nothing: whichever was staged first.
pub async fn a_decision_on_what_has_moved_is_a_conflict<H: Harness>(h: &H) {
    async fn rule<H: Harness, R: AccountForm, W: AccountForm>(bench: &Bench<'_, H>, case: &str) {
        let (read, mut written) = pair::<H, R, W>(bench, case).await;
        let mut moved = read.clone();
        moved.transfer(1);
        moved.transfer(2);
        bench.save(&north(), moved).await;
        let before = bench.log().await.len();
        written.transfer(-15);
        for guard_first in [true, false] {
            let mut uow = bench.unit_of_work(&north());
            if guard_first {
                ok(uow.guard(&read));
            }
            ok(uow.save(written.clone()));
            ok(uow.save(Counter::new(1)));
            if !guard_first {
                ok(uow.guard(&read));
            }
            let error = err(uow.commit().await);
            assert_conflict::<R>(&error, read.id(), 2, 4);
        }
        assert_eq!(bench.log().await.len(), before, "{case}");
        let id = written.id().clone();
        assert_eq!(bench.load::<W>(&north(), id).await.contents().1, 10);
        assert!(bench.find::<Counter>(&north(), 1).await.is_none());
    }
    let bench = begin(h).await;
    in_each_form!(bench, rule);
}

/// If what was read was removed, it is not found, and nothing is written.
pub async fn a_decision_on_what_is_gone_is_not_found<H: Harness>(h: &H) {
    async fn rule<H: Harness, R: AccountForm, W: AccountForm>(bench: &Bench<'_, H>, case: &str) {
        let (read, mut written) = pair::<H, R, W>(bench, case).await;
        bench.remove(&north(), read.clone()).await;
        let before = bench.log().await.len();
        written.transfer(-15);
        let mut uow = bench.unit_of_work(&north());
        ok(uow.guard(&read));
        ok(uow.save(written));
        let error = err(uow.commit().await);
        assert_not_found::<R>(&error, read.id());
        assert_eq!(bench.log().await.len(), before, "{case}");
    }
    let bench = begin(h).await;
    in_each_form!(bench, rule);
}

/// Guards alone wait for the commit, whatever is read meanwhile. Beside what was saved the next read
/// tells.
pub async fn a_guard_is_told_of_with_what_is_staged<H: Harness>(h: &H) {
    async fn rule<H: Harness, R: AccountForm, W: AccountForm>(bench: &Bench<'_, H>, case: &str) {
        let (read, mut written) = pair::<H, R, W>(bench, case).await;
        let mut moved = read.clone();
        moved.transfer(1);
        bench.save(&north(), moved).await;
        let id = written.id().clone();
        let mut uow = bench.unit_of_work(&north());
        ok(uow.guard(&read));
        let _: W = ok(uow.get(id.clone()).await);
        let moved: R = ok(uow.get(read.id().clone()).await);
        assert_eq!(moved.root().version(), 3, "{case}");
        assert_conflict::<R>(&err(uow.commit().await), read.id(), 2, 3);

        written.transfer(-1);
        let mut uow = bench.unit_of_work(&north());
        ok(uow.guard(&read));
        ok(uow.save(written.clone()));
        let error = err(uow.get::<W>(id.clone()).await.map(drop));
        assert_conflict::<R>(&error, read.id(), 2, 3);
        let mut uow = bench.unit_of_work(&north());
        ok(uow.save(written));
        let _: W = ok(uow.get(id.clone()).await);
        ok(uow.guard(&read));
        let error = err(uow.get::<W>(id).await.map(drop));
        assert_conflict::<R>(&error, read.id(), 2, 3);
    }
    let bench = begin(h).await;
    in_each_form!(bench, rule);
}

/// What is saved as it was loaded is staged as any other: the next read tells that it has moved on.
pub async fn a_save_without_a_change_is_staged<H: Harness>(h: &H) {
    async fn rule<H: Harness, A: AccountForm>(bench: &Bench<'_, H>, id: &str) {
        let stale: A = account(bench, id, 1).await;
        let id = stale.id().clone();
        let mut moved = stale.clone();
        moved.transfer(1);
        bench.save(&north(), moved).await;
        let mut uow = bench.unit_of_work(&north());
        ok(uow.save(stale));
        let error = err(uow.get::<A>(id.clone()).await.map(drop));
        assert_conflict::<A>(&error, &id, 2, 3);

        let fresh: A = bench.load(&north(), id.clone()).await;
        let before = bench.log().await.len();
        let mut uow = bench.unit_of_work(&north());
        ok(uow.save(fresh));
        let mut again: A = ok(uow.get(id).await);
        again.transfer(1);
        ok(uow.save(again));
        let receipt = ok(uow.commit().await);
        assert_eq!(
            (receipt.events().len(), bench.log().await.len()),
            (1, before + 1)
        );
    }
    let bench = begin(h).await;
    rule::<H, Account>(&bench, "1").await;
    rule::<H, Ledger>(&bench, "2").await;
}

/// Many are guarded at once, and a commit that writes nothing is checked too.
pub async fn every_guard_counts<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut rows: Vec<Account> = Vec::new();
    let mut streams: Vec<Ledger> = Vec::new();
    for number in 0..4 {
        rows.push(account(&bench, &format!("{number}"), 1).await);
        streams.push(account(&bench, &format!("{number}"), 1).await);
    }
    let guarded = |uow: &mut <H::Store as Store>::UnitOfWork| {
        // In no order.
        for number in [2, 0, 3, 1] {
            ok(uow.guard(&streams[number]));
            ok(uow.guard(&rows[number]));
        }
    };
    let mut uow = bench.unit_of_work(&north());
    guarded(&mut uow);
    let receipt = ok(uow.commit().await);
    assert_eq!((receipt.events().len(), receipt.position()), (0, None));
    for number in 0..4 {
        let (mut row, mut stream) = (rows[number].clone(), streams[number].clone());
        let id = row.id().clone();
        row.transfer(1);
        bench.save(&north(), row).await;
        let mut uow = bench.unit_of_work(&north());
        guarded(&mut uow);
        let error = err(uow.commit().await);
        // Of several, any may be named.
        assert!(error.is_conflict(), "{error:?}");
        stream.transfer(1);
        bench.save(&north(), stream).await;
        let mut uow = bench.unit_of_work(&north());
        ok(uow.guard(&streams[number]));
        assert_conflict::<Ledger>(&err(uow.commit().await), &id, 2, 3);
    }
}

/// Only what is stored and one's own can be guarded, and only where there is a commit.
pub async fn what_cannot_be_guarded_is_refused<H: Harness>(h: &H) {
    async fn rule<H: Harness, A: AccountForm>(bench: &Bench<'_, H>, id: &str) {
        let stored: A = account(bench, id, 1).await;
        let mut uow = bench.unit_of_work(&north());
        let unsaved = A::unopened("unsaved");
        assert_not_found::<A>(&err(uow.guard(&unsaved)), unsaved.id());
        let mut uow = bench.unit_of_work(&south());
        assert_not_found::<A>(&err(uow.guard(&stored)), stored.id());
        let mut uow = bench.store.read_only(&north());
        assert_usage(&err(uow.guard(&stored)));
        // The system may guard what it sees.
        let mut uow = bench.unit_of_work(&system());
        ok(uow.guard(&stored));
        let _ = ok(uow.commit().await);
    }
    let bench = begin(h).await;
    rule::<H, Account>(&bench, "1").await;
    rule::<H, Ledger>(&bench, "1").await;
}

/// What the unit of work itself has written is no conflict.
pub async fn a_guard_and_a_save_go_together<H: Harness>(h: &H) {
    async fn rule<H: Harness, A: AccountForm>(bench: &Bench<'_, H>, id: &str) {
        let read: A = account(bench, id, 1).await;
        let id = read.id().clone();
        let mut written = read.clone();
        written.transfer(1);
        let mut uow = bench.unit_of_work(&north());
        ok(uow.guard(&read));
        ok(uow.save(written));
        let own: A = ok(uow.get(id.clone()).await);
        ok(uow.guard(&own));
        let _ = ok(uow.commit().await);
        assert_eq!(bench.load::<A>(&north(), id.clone()).await.contents().1, 2);

        let stale: A = bench.load(&north(), id.clone()).await;
        let mut written = stale.clone();
        written.transfer(1);
        let mut uow = bench.unit_of_work(&north());
        ok(uow.save(written));
        let _: A = ok(uow.get(id.clone()).await);
        ok(uow.guard(&stale));
        let error = err(uow.get::<A>(id.clone()).await.map(drop));
        assert_usage(&error);
        assert!(!error.is_retryable(), "{error:?}");
        let mut written = stale.clone();
        written.transfer(1);
        let mut uow = bench.unit_of_work(&north());
        ok(uow.save(written));
        let _: A = ok(uow.get(id).await);
        ok(uow.guard(&stale));
        assert_usage(&err(uow.commit().await));

        let mut fresh: A = bench.load(&north(), stale.id().clone()).await;
        fresh.transfer(1);
        bench.save(&north(), fresh).await;
        let mut fresh: A = bench.load(&north(), stale.id().clone()).await;
        fresh.transfer(1);
        let mut uow = bench.unit_of_work(&north());
        ok(uow.guard(&stale));
        ok(uow.save(fresh));
        assert_conflict::<A>(&err(uow.commit().await), stale.id(), 3, 4);
    }
    let bench = begin(h).await;
    rule::<H, Account>(&bench, "1").await;
    rule::<H, Ledger>(&bench, "1").await;
}

/// A guard belongs to its savepoint: its conflict is that of the savepoint, and is undone with it.
pub async fn a_guard_belongs_to_its_savepoint<H: Harness>(h: &H) {
    async fn rule<H: Harness, R: AccountForm, W: AccountForm>(bench: &Bench<'_, H>, case: &str) {
        let (read, mut written) = pair::<H, R, W>(bench, case).await;
        let mut moved = read.clone();
        moved.transfer(1);
        bench.save(&north(), moved).await;
        written.transfer(-1);
        let mut uow = bench.unit_of_work(&north());
        let stale = read.clone();
        let undone = uow.savepoint(async move |uow| uow.guard(&stale)).await;
        assert_conflict::<R>(&err(undone), read.id(), 2, 3);
        let given_up = uow
            .savepoint(async move |uow| {
                uow.guard(&read)?;
                Err::<(), _>(Error::other("given up"))
            })
            .await;
        assert!(given_up.is_err());
        ok(uow.save(written));
        let receipt = ok(uow.commit().await);
        assert_eq!(receipt.events().len(), 1, "{case}");
    }
    let bench = begin(h).await;
    in_each_form!(bench, rule);
}

/// Two decisions that each read what the other writes: never do both count. (The write skew that
/// snapshots alone let through.)
pub async fn decisions_that_cross_see_each_other<H: Harness>(h: &H) {
    async fn rule<H: Harness, R: AccountForm, W: AccountForm>(bench: &Bench<'_, H>, case: &str) {
        for round in 0..5 {
            let (one, other) = pair::<H, R, W>(bench, &format!("{case}{round}")).await;
            let (one, other) = (one.id().clone(), other.id().clone());
            let withdraw = async |first: bool| {
                bench
                    .store
                    .execute(&north(), async |uow| {
                        let mut one: R = uow.get(one.clone()).await?;
                        let mut other: W = uow.get(other.clone()).await?;
                        if one.contents().1 + other.contents().1 < 15 {
                            return Err(Error::other("too little on both"));
                        }
                        if first {
                            one.transfer(-15);
                            uow.guard(&other)?;
                            uow.save(one)
                        } else {
                            other.transfer(-15);
                            uow.guard(&one)?;
                            uow.save(other)
                        }
                    })
                    .await
            };
            join_all([true, false].into_iter().map(|first| async move {
                drop(withdraw(first).await);
            }))
            .await;
            let one: R = bench.load(&north(), one.clone()).await;
            let other: W = bench.load(&north(), other.clone()).await;
            let both = one.contents().1 + other.contents().1;
            assert_eq!(both, 5, "{case}, round {round}");
        }
    }
    let bench = begin(h).await;
    in_each_form!(bench, rule);
}
