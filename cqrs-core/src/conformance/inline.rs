//! Projections that run in the transaction of each commit.

use std::sync::atomic::{AtomicU32, Ordering};

use super::Harness;
use super::fixtures::{
    Account, AccountForm, Counter, Forbidden, LabelUses, Ledger, Parcel, ParcelEvent, ParcelList,
    Recorder, Tallies, Tally, Tour,
};
use super::projections::{all, fold, sorted};
use super::support::{
    Bench, assert_conflict, assert_usage, begin, err, join_all, north, ok, south, system, time,
};
use crate::envelope::{Envelope, RawPayload};
use crate::error::{Error, Result};
use crate::idempotency::IdempotencyKey;
use crate::maintenance::Maintain;
use crate::projection::{Projection, RowProjection};
use crate::read_model::ReadModels;
use crate::specification::Query;
use crate::store::Store;
use crate::unit_of_work::UnitOfWork;

async fn begin_with_tallies<H: Harness>(h: &H) -> Bench<'_, H> {
    let bench = begin(h).await;
    ok(bench.store.inline_rows(Tallies));
    bench
}

/// The rows of all tenants are what folding the log gives.
async fn assert_folded<H: Harness>(bench: &Bench<'_, H>, rows: usize) {
    let tallies: Vec<Tally> = all(bench, &system()).await;
    assert_eq!(tallies.len(), rows);
    assert_eq!(sorted(tallies), sorted(fold(bench, Tallies).await));
}

async fn uses<H: Harness>(bench: &Bench<'_, H>, label: &str) -> Option<i64> {
    let read_models = bench.store.read_models(&north());
    let tally = read_models.find::<Tally>(label.to_owned()).await;
    ok(tally).map(|tally| tally.uses)
}

/// The rows are there when the commit returns, without a projector, each event counted once.
pub async fn inline_rows_are_there_after_the_commit<H: Harness>(h: &H) {
    let bench = begin_with_tallies(h).await;
    let expected = [(north(), [2, 3, 3]), (south(), [5, 6, 6])];
    for (context, rows) in expected {
        for (label, rows) in ["red", "blue", "red"].into_iter().zip(rows) {
            let mut parcel = bench.parcel(&context, label).await;
            parcel.relabel("green");
            parcel.move_to(1.0, 2.0);
            let receipt = bench.saved(&context, parcel).await;
            ok(bench.store.wait_for(&receipt, Tallies::NAME).await);
            assert_folded(&bench, rows).await;
        }
    }
    // Of no interest to it.
    bench.save(&system(), Counter::new(1)).await;
    assert_folded(&bench, 6).await;
}

/// An inline projection is given the events as the log holds them, in its order.
pub async fn inline_events_are_those_of_the_log<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let recorder = Recorder::default();
    ok(bench.store.inline(recorder.clone()));
    let parcel = bench.parcel(&north(), "a").await;
    bench.clock.set(time(7));
    let mut uow = bench.unit_of_work(&north());
    let mut changed: Parcel = ok(uow.get(parcel.id).await);
    changed.relabel("b");
    changed.weigh(5);
    ok(uow.save(changed));
    ok(uow.save(Parcel::silent("a marker")));
    // Sends them.
    ok(uow.get::<Parcel>(parcel.id).await);
    ok(uow.save(Parcel::register("c")));
    ok(uow.commit().await);
    let parcel: Parcel = bench.load(&north(), parcel.id).await;
    bench.remove(&north(), parcel).await;
    assert_eq!(bench.log().await.len(), 6);
    assert_eq!(recorder.events(), bench.log().await);
}

/// Where an inline projection fails, nothing is committed, and the error names it and gives the
/// domain's own error.
pub async fn a_failing_inline_projection_commits_nothing<H: Harness>(h: &H) {
    let bench = begin_with_tallies(h).await;
    let parcel = bench.parcel(&north(), "a").await;
    let before = bench.log().await;
    let key = ok(IdempotencyKey::new("once"));
    let runs = AtomicU32::new(0);
    let refused = bench
        .store
        .execute_once(&north(), &key, async |uow| {
            runs.fetch_add(1, Ordering::Relaxed);
            let mut parcel: Parcel = uow.get(parcel.id).await?;
            parcel.relabel("b");
            uow.save(parcel)?;
            uow.save(Parcel::register(Tallies::FORBIDDEN))
        })
        .await;
    let error = err(refused);
    assert_eq!(runs.into_inner(), 1, "it was not retried");
    assert_eq!(error.domain(), Some(&Forbidden));
    assert!(!error.is_retryable());
    match error {
        Error::Projection { name, .. } => assert_eq!(name, Tallies::NAME),
        other => panic!("expected the error of a projection, got {other:?}"),
    }
    assert_eq!(bench.log().await, before);
    assert_eq!(
        (uses(&bench, "a").await, uses(&bench, "b").await),
        (Some(1), None)
    );
    let found: Parcel = bench.load(&north(), parcel.id).await;
    assert_eq!(found.label, "a");
    // The key is free: nothing was recorded.
    let context = north();
    let saved = bench
        .store
        .execute_once(&context, &key, async |uow| uow.save(Parcel::register("b")));
    ok(saved.await);
    assert_folded(&bench, 2).await;
}

/// A commit that is refused for another reason leaves no row of an inline projection.
pub async fn a_conflict_leaves_no_inline_row<H: Harness>(h: &H) {
    let bench = begin_with_tallies(h).await;
    let mut stale = bench.parcel(&north(), "a").await;
    let mut winner: Parcel = bench.load(&north(), stale.id).await;
    winner.relabel("b");
    bench.save(&north(), winner).await;
    let id = stale.id;
    stale.relabel("c");
    let error = err(bench.try_save(&north(), stale).await);
    assert_conflict::<Parcel>(&error, &id, 1, 2);
    assert_eq!(uses(&bench, "c").await, None);
    assert_folded(&bench, 2).await;
}

/// What a savepoint undid is not seen by inline projections; what it kept is.
pub async fn inline_projections_see_what_is_committed<H: Harness>(h: &H) {
    let bench = begin_with_tallies(h).await;
    let mut uow = bench.unit_of_work(&north());
    ok(uow.save(Parcel::register("kept")));
    let undone: Result<()> = uow
        .savepoint(async |uow| {
            uow.save(Parcel::register("undone"))?;
            // Sends it.
            uow.query::<Parcel>(Query::all()).await?;
            Err(Error::other("no"))
        })
        .await;
    err(undone);
    let kept = uow.savepoint(async |uow| uow.save(Parcel::register("kept")));
    ok(kept.await);
    uow.before_commit(async |uow| uow.save(Parcel::register("hooked")));
    ok(uow.commit().await);
    assert_eq!(uses(&bench, "kept").await, Some(2));
    assert_eq!(uses(&bench, "hooked").await, Some(1));
    assert_folded(&bench, 2).await;

    let mut dropped = bench.unit_of_work(&north());
    ok(dropped.save(Parcel::register("dropped")));
    dropped.rollback().await;
    assert_folded(&bench, 2).await;
}

/// A command with a key, whose savepoints lock, save children and are undone, is counted once
/// however often it comes, with what it has kept, and in its tenant alone.
pub async fn inline_rows_count_a_repeated_command_once<H: Harness>(h: &H) {
    let bench = begin_with_tallies(h).await;
    let key = ok(IdempotencyKey::new("once"));
    let mut receipts = Vec::new();
    for context in [north(), south(), north()] {
        let receipt = bench.store.execute_once(&context, &key, async |uow| {
            let parcel = Parcel::register("red");
            let id = parcel.id;
            uow.save(parcel)?;
            let undone = uow.savepoint(async |uow| {
                let locking = Query::filter(Parcel::fields().label.eq("red")).lock();
                let found = uow.query::<Parcel>(locking).await?;
                assert_eq!(found.len(), 1, "what was staged is seen");
                for mut parcel in found {
                    parcel.relabel("blue");
                    uow.save(parcel)?;
                }
                uow.save(Tour::plan("undone", &["Graz"]))?;
                assert_eq!(uow.query::<Tour>(Query::all()).await?.len(), 1);
                Err::<(), _>(Error::other("undone"))
            });
            assert!(undone.await.is_err());
            uow.savepoint(async |uow| {
                let mut parcel: Parcel = uow.get(id).await?;
                parcel.relabel("yellow");
                uow.save(parcel)?;
                uow.save(Tour::plan("kept", &["Graz", "Linz"]))
            })
            .await?;
            Ok(id)
        });
        let receipt = ok(receipt.await);
        receipts.push((receipt.events().to_vec(), receipt.into_output()));
    }
    assert_eq!(receipts[0], receipts[2]);
    assert_ne!(receipts[0].1, receipts[1].1);
    assert_eq!(receipts[0].0.len(), 3);
    assert_eq!(bench.log().await.len(), 6);
    assert_folded(&bench, 4).await;
    assert_eq!(uses(&bench, "yellow").await, Some(1));
    let tours: Vec<Tour> = ok(bench.unit_of_work(&north()).query(Query::all()).await);
    assert_eq!(tours.len(), 1);
    assert_eq!(tours[0].cities(), ["Graz", "Linz"]);
}

/// A projection runs inline or with a projector, and no two have one name.
pub async fn a_projection_runs_one_way<H: Harness>(h: &H) {
    let bench = begin_with_tallies(h).await;
    assert_usage(&err(bench.store.inline_rows(Tallies)));
    // The harness has subscribed these.
    assert_usage(&err(bench.store.inline_rows(ParcelList)));
    assert_usage(&err(bench.store.inline_rows(LabelUses)));
    bench.parcel(&north(), "a").await;
    bench.project().await;
    assert_folded(&bench, 1).await;
}

/// Commits that meet on the same rows fold into them one after the other.
pub async fn many_writers_fold_into_few_inline_rows<H: Harness>(h: &H) {
    let bench = begin_with_tallies(h).await;
    let context = north();
    let write = async |writer: usize| {
        for round in 0..6 {
            let labels = ["x", "y", "z"];
            let (first, second) = (
                labels[(writer + round) % 3],
                labels[(writer * 2 + round) % 3],
            );
            let written = bench.store.execute(&context, async |uow| {
                uow.save(Parcel::register(first))?;
                uow.save(Parcel::register(second))
            });
            ok(written.await);
        }
    };
    join_all((0..4).map(write)).await;
    let labels = ["x", "y", "z"];
    let mut total = 0;
    for label in labels {
        total += uses(&bench, label).await.unwrap_or(0);
    }
    assert_eq!(total, 48);
    // Events of several aggregates may come to a row in another order than that of the log, so
    // what depends on the order is not compared.
    for tally in fold(&bench, Tallies).await {
        assert_eq!(uses(&bench, &tally.label).await, Some(tally.uses));
    }
}

/// Bulk work is projected in its own transactions: what fails there is not written.
pub async fn bulk_work_is_projected_inline<H: Harness>(h: &H) {
    let bench = begin_with_tallies(h).await;
    let recorder = Recorder::default();
    ok(bench.store.inline(recorder.clone()));
    let labels = ["red", "blue", "red", "red"];
    let parcels = bench.store.maintenance::<Parcel>(&north());
    ok(parcels.insert(labels.map(Parcel::register)).await);
    assert_folded(&bench, 2).await;
    assert_eq!(uses(&bench, "red").await, Some(3));

    let label = Parcel::fields().label;
    let green = ParcelEvent::Relabelled("green".to_owned());
    let relabelling = bench.store.maintenance::<Parcel>(&north()).raising(green);
    let relabelling = relabelling.batch_size(2);
    let changed = relabelling.update(label.eq("red"), [label.set("green")]);
    assert_eq!(ok(changed.await).items(), 3);
    assert_folded(&bench, 3).await;
    assert_eq!(ok(parcels.purge(label.eq("blue")).await).items(), 1);
    assert_eq!(recorder.events(), bench.log().await);

    let before = bench.log().await;
    let refused = parcels.insert(["white", Tallies::FORBIDDEN].map(Parcel::register));
    assert_eq!(err(refused.await).domain(), Some(&Forbidden));
    let forbidden = ParcelEvent::Relabelled(Tallies::FORBIDDEN.to_owned());
    let relabelling = bench
        .store
        .maintenance::<Parcel>(&north())
        .raising(forbidden);
    let refused = relabelling.update(label.eq("green"), [label.set("black")]);
    let refused = err(refused.await.map_err(Error::from));
    assert_eq!(refused.domain(), Some(&Forbidden));
    assert_eq!(bench.log().await, before);
    assert_eq!(ok(parcels.count(label.eq("green")).await), 3);
    assert_folded(&bench, 3).await;
}

/// Refuses that an account is closed.
struct StaysOpen;

impl<T: Send> Projection<T> for StaysOpen {
    type Event = RawPayload;

    fn name(&self) -> &str {
        "conformance_stays_open"
    }

    async fn apply(&self, page: &[Envelope<RawPayload>], _: &mut T) -> Result<()> {
        match page
            .iter()
            .find(|event| event.event_type().ends_with(".closed"))
        {
            Some(_) => Err(Error::other("accounts stay open")),
            None => Ok(()),
        }
    }
}

/// A projection in the commit sees what streams and rows append, and may refuse either.
pub async fn an_inline_projection_decides_over_either_form<H: Harness>(h: &H) {
    async fn rule<H: Harness, A: AccountForm>(h: &H) {
        let bench = begin(h).await;
        let recorder = Recorder::default();
        ok(bench.store.inline(StaysOpen));
        ok(bench.store.inline(recorder.clone()));
        let mut account = A::unopened("A1");
        account.open("ann");
        bench.save(&north(), account).await;
        let mut closed: A = bench.load(&north(), "A1".to_owned()).await;
        let mut stale = closed.clone();
        closed.transfer(1);
        closed.close();
        let error = err(bench.try_save(&north(), closed).await);
        assert!(matches!(error, Error::Projection { .. }), "{error:?}");
        stale.transfer(2);
        bench.save(&north(), stale.clone()).await;
        stale.transfer(3);
        let error = err(bench.try_save(&north(), stale).await);
        assert_conflict::<A>(&error, &"A1".to_owned(), 1, 2);
        let account: A = bench.load(&north(), "A1".to_owned()).await;
        assert_eq!(account.contents(), ("ann", 2, false));
        assert_eq!(bench.log().await.len(), 2);
    }
    rule::<H, Account>(h).await;
    rule::<H, Ledger>(h).await;
}
