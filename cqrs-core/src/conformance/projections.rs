//! Projections and read models.

use std::collections::HashMap;

use super::Harness;
use super::fixtures::{
    Counter, CounterTotal, CounterTotals, ForeignLocker, LabelUse, Locker, LockerEntry, LockerList,
    MixedUse, MixedUses, Parcel, ParcelEntry, ParcelList, SharedUse, SharedUses,
};
use super::support::{
    Bench, assert_refused, assert_usage, begin, err, north, ok, south, system, tenant,
};
use crate::context::RequestContext;
use crate::envelope::Position;
use crate::error::{Error, StoreErrorKind};
use crate::event::EventSet;
use crate::projection::{RowAddress, RowProjection, Rows};
use crate::read_model::{ReadModel, ReadModels};
use crate::specification::Query;
use crate::store::Store;
use crate::subscription::{FailurePolicy, Parking, Subscription};
use crate::unit_of_work::UnitOfWork;

/// What a projection makes of the whole log: the oracle.
pub(super) async fn fold<H: Harness, P: RowProjection>(
    bench: &Bench<'_, H>,
    projection: P,
) -> Vec<P::Row> {
    fold_without(bench, projection, &[]).await
}

/// As [`fold`], without the events at these positions.
pub(super) async fn fold_without<H: Harness, P: RowProjection>(
    bench: &Bench<'_, H>,
    projection: P,
    left_out: &[Position],
) -> Vec<P::Row> {
    let mut rows: HashMap<RowAddress, Option<P::Row>> = HashMap::new();
    for raw in bench.log().await {
        let is_wanted =
            P::Event::aggregate_types().is_none_or(|types| types.contains(&raw.aggregate_type()));
        if !is_wanted || left_out.contains(&raw.position()) {
            continue;
        }
        let Some(event) = ok(P::Event::decode(&raw)) else {
            continue;
        };
        let event = raw.with_payload(event);
        if let Some(key) = ok(projection.key(&event)) {
            let address = ok(RowAddress::of::<P::Row>(event.tenant(), &key));
            let row = rows.entry(address).or_default();
            ok(projection.apply(row, &event));
        }
    }
    rows.into_values().flatten().collect()
}

/// The values of all rows, in an order of their own.
pub(super) fn sorted<R: ReadModel>(rows: Vec<R>) -> Vec<String> {
    let mut values: Vec<String> = rows
        .iter()
        .map(|row| format!("{:?}", ok(row.to_row())))
        .collect();
    values.sort();
    values
}

pub(super) async fn all<H: Harness, R: ReadModel>(
    bench: &Bench<'_, H>,
    context: &RequestContext,
) -> Vec<R> {
    ok(bench.store.read_models(context).query(Query::all()).await)
}

/// Parcels, lockers and counters of two tenants, created, changed and removed.
pub(super) async fn history<H: Harness>(bench: &Bench<'_, H>) {
    for round in 0..6_i64 {
        let context = if round % 2 == 0 { north() } else { south() };
        let label = ["red", "blue", "red"][usize::try_from(round % 3).unwrap_or(0)];
        let mut parcel = bench.parcel(&context, label).await;
        let id = parcel.id;
        parcel.move_to(1.0, 2.0);
        parcel.relabel("green");
        bench.save(&context, parcel).await;
        let mut parcel: Parcel = bench.load(&context, id).await;
        parcel.note = Some("an eventless change".to_owned());
        bench.save(&context, parcel).await;
        if round >= 4 {
            let mut parcel: Parcel = bench.load(&context, id).await;
            parcel.open();
            bench.save(&context, parcel).await;
        }
        let mut counter = bench.counter(round).await;
        counter.add(-round);
        counter.add(round);
        if round == 3 {
            counter.clear("up");
        }
        bench.save(&context, counter).await;
        let mut locker = bench.locker(&context, &format!("{round}")).await;
        locker.free();
        bench.remove(&context, locker).await;
    }
}

/// Each read model holds what folding the log gives, no event more and none less.
pub async fn a_read_model_is_the_fold_of_the_log<H: Harness>(h: &H) {
    let bench = begin(h).await;
    history(&bench).await;
    bench.project().await;
    let everyone = system();
    let parcels: Vec<ParcelEntry> = all(&bench, &everyone).await;
    assert_eq!(parcels.len(), 4);
    assert_eq!(sorted(parcels), sorted(fold(&bench, ParcelList).await));
    let labels: Vec<LabelUse> = all(&bench, &everyone).await;
    assert_eq!(labels.len(), 6);
    let uses: i64 = labels.iter().map(|label| label.uses).sum();
    assert_eq!(uses, 12);
    assert_eq!(
        sorted(labels),
        sorted(fold(&bench, super::fixtures::LabelUses).await)
    );
    let totals: Vec<CounterTotal> = all(&bench, &everyone).await;
    assert_eq!(sorted(totals), sorted(fold(&bench, CounterTotals).await));
    let lockers: Vec<LockerEntry> = all(&bench, &everyone).await;
    assert_eq!(lockers.len(), 6);
    assert_eq!(sorted(lockers), sorted(fold(&bench, LockerList).await));
}

/// A log of many pages is applied whole and in order, whichever way it was written.
pub async fn a_long_log_is_projected_in_pages<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut uow = bench.unit_of_work(&system());
    for id in 0..30 {
        let mut counter = Counter::new(id);
        for by in 1..=40 {
            counter.add(by);
        }
        ok(uow.save(counter));
    }
    let _ = ok(uow.commit().await);
    bench.project().await;
    let totals: Vec<CounterTotal> = all(&bench, &system()).await;
    assert_eq!(totals.len(), 30);
    assert!(
        totals
            .iter()
            .all(|row| (row.sum, row.additions) == (820, 40))
    );
}

/// Projecting again applies nothing again; what was written meanwhile is applied once.
pub async fn projecting_again_changes_nothing<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut parcel = bench.parcel(&north(), "once").await;
    for _ in 0..3 {
        bench.project().await;
    }
    let rows: Vec<LabelUse> = all(&bench, &north()).await;
    assert_eq!(rows[0].uses, 1);
    parcel.relabel("once");
    bench.save(&north(), parcel).await;
    for _ in 0..3 {
        bench.project().await;
    }
    let rows: Vec<LabelUse> = all(&bench, &north()).await;
    assert_eq!((rows.len(), rows[0].uses), (1, 2));
}

/// A projection can delete a row and make it again, within a page and across pages.
pub async fn rows_are_deleted_and_made_again<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let up = |row: Option<CounterTotal>| row.map(|row| (row.sum, row.additions));
    let key = || (1, "up".to_owned());
    let mut counter = bench.counter(1).await;
    bench.project().await;
    let read_models = bench.store.read_models(&system());
    assert_eq!(up(ok(read_models.find(key()).await)), Some((1, 1)));

    counter.clear("up");
    bench.save(&system(), counter).await;
    bench.project().await;
    assert_eq!(up(ok(read_models.find(key()).await)), None);

    let mut counter: Counter = bench.load(&system(), 1).await;
    counter.add(5);
    counter.clear("up");
    counter.add(7);
    counter.add(8);
    bench.save(&system(), counter).await;
    bench.project().await;
    assert_eq!(up(ok(read_models.find(key()).await)), Some((15, 2)));

    // Made and deleted in one page: it never was.
    let mut counter: Counter = bench.load(&system(), 1).await;
    counter.add(-5);
    counter.clear("down");
    bench.save(&system(), counter).await;
    bench.project().await;
    let down = ok(read_models
        .find::<CounterTotal>((1, "down".to_owned()))
        .await);
    assert_eq!(down, None);
}

/// A key of two columns tells rows apart by both.
pub async fn a_key_of_two_columns_is_one_row<H: Harness>(h: &H) {
    let bench = begin(h).await;
    for id in [1, 2] {
        let mut counter = bench.counter(id).await;
        counter.add(10 * id);
        counter.add(-id);
        bench.save(&system(), counter).await;
    }
    bench.project().await;
    let read_models = bench.store.read_models(&system());
    for (id, direction, sum, additions) in [
        (1, "up", 11, 2),
        (1, "down", -1, 1),
        (2, "up", 21, 2),
        (2, "down", -2, 1),
    ] {
        let found: Option<CounterTotal> = ok(read_models.find((id, direction.to_owned())).await);
        let found = found.map(|row| (row.sum, row.additions));
        assert_eq!(found, Some((sum, additions)), "{id} {direction}");
    }
    let none = read_models.find::<CounterTotal>((3, "up".to_owned())).await;
    assert_eq!(ok(none), None);
    let rows: Vec<CounterTotal> = all(&bench, &system()).await;
    let keys: Vec<_> = rows
        .iter()
        .map(|row| (row.counter, row.direction.as_str()))
        .collect();
    assert_eq!(keys, [(1, "down"), (1, "up"), (2, "down"), (2, "up")]);
}

/// Read models show the rows of the tenant; one key may have a row in each. The system sees all,
/// by key those of the first tenant.
pub async fn read_models_are_within_the_tenant<H: Harness>(h: &H) {
    let bench = begin(h).await;
    for _ in 0..2 {
        bench.parcel(&north(), "shared").await;
    }
    for label in ["shared", "own", "shared", "shared"] {
        bench.parcel(&south(), label).await;
    }
    bench.project().await;
    for (context, rows, uses) in [
        (north(), 1, Some(2)),
        (south(), 2, Some(3)),
        (system(), 3, Some(2)),
        (RequestContext::tenant(tenant("nobody")), 0, None),
    ] {
        let found: Vec<LabelUse> = all(&bench, &context).await;
        assert_eq!(found.len(), rows, "{context:?}");
        let read_models = bench.store.read_models(&context);
        let shared: Option<LabelUse> = ok(read_models.find("shared".to_owned()).await);
        assert_eq!(shared.map(|row| row.uses), uses, "{context:?}");
        let count = read_models
            .count(LabelUse::fields().label.eq("shared"))
            .await;
        let expected = if rows == 3 {
            2
        } else {
            u64::from(uses.is_some())
        };
        assert_eq!(ok(count), expected, "{context:?}");
    }
}

/// Read models answer conditions, orders, limits and counts as repositories do.
pub async fn read_models_can_be_asked<H: Harness>(h: &H) {
    let bench = begin(h).await;
    for (label, more) in [("b", 2), ("a", 0), ("é", 1), ("Z", 1)] {
        for _ in 0..=more {
            bench.parcel(&north(), label).await;
        }
    }
    let mut light = bench.parcel(&north(), "light").await;
    light.root.raise(super::fixtures::ParcelEvent::Annotated {
        note: None,
        details: serde_json::Value::Null,
    });
    bench.save(&north(), light).await;
    bench.project().await;
    let read_models = bench.store.read_models(&north());
    let f = LabelUse::fields();
    let ask = async |query: Query<LabelUse>| {
        let rows = ok(read_models.query(query).await);
        rows.iter().map(|row| row.label.clone()).collect::<Vec<_>>()
    };
    assert_eq!(ask(Query::all()).await, ["Z", "a", "b", "light", "é"]);
    let query = Query::all()
        .order_by(f.uses.desc())
        .order_by(f.label.desc());
    assert_eq!(ask(query).await, ["b", "é", "Z", "light", "a"]);
    let query = Query::filter(f.uses.ge(2)).order_by(f.uses.asc()).limit(2);
    assert_eq!(ask(query).await, ["Z", "é"]);
    assert!(ask(Query::all().limit(0)).await.is_empty());
    assert_eq!(ok(read_models.count(!f.label.lt("a")).await), 4);
    let weight = ParcelEntry::fields().weight;
    assert_eq!(ok(read_models.count(weight.is_null()).await), 1);
    assert_eq!(ok(read_models.count(!weight.eq(1)).await), 8);
    let refused = read_models.count(f.label.eq("\0")).await;
    assert_refused(&err(refused), "conformance_label_use", "label");
    let refused = read_models.find::<LabelUse>("\0".to_owned()).await;
    assert_refused(&err(refused), "conformance_label_use", "label");
}

/// After waiting for a receipt, the row that the commit leads to is there.
pub async fn your_own_write_is_there_after_waiting<H: Harness>(h: &H) {
    let bench = begin(h).await;
    for round in 0..3 {
        let receipt = ok(bench
            .store
            .execute(&north(), async |uow| {
                let parcel = Parcel::register("mine");
                let id = parcel.id;
                uow.save(parcel)?;
                Ok(id)
            })
            .await);
        ok(bench.store.wait_for(&receipt, ParcelList::NAME).await);
        let read_models = bench.store.read_models(&north());
        let row: Option<ParcelEntry> = ok(read_models.find(*receipt.output()).await);
        assert_eq!(row.map(|row| row.label), Some("mine".to_owned()), "{round}");
        // Once more: it is already there.
        ok(bench.store.wait_for(&receipt, ParcelList::NAME).await);
    }
    // Events that the subscription does not read bring it forward all the same.
    let receipt = bench.saved(&system(), Counter::new(1)).await;
    ok(bench.store.wait_for(&receipt, ParcelList::NAME).await);
}

/// There is nothing to wait for where nothing was written.
pub async fn waiting_for_an_empty_commit_returns<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let receipt = ok(bench.unit_of_work(&north()).commit().await);
    ok(bench.store.wait_for(&receipt, ParcelList::NAME).await);
}

/// Waiting for a subscription that nobody registered is an error at once.
pub async fn an_unknown_subscription_is_a_usage_error<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let receipt = bench.saved(&system(), Counter::new(1)).await;
    let waited = bench.store.wait_for(&receipt, "no such subscription").await;
    assert_usage(&err(waited));
}

/// An event that cannot be read halts its subscription at its position, with all before it
/// applied; other subscriptions go on, and waiting for it is an error.
pub async fn an_event_that_cannot_be_read_halts_its_subscription<H: Harness>(h: &H) {
    let bench = begin(h).await;
    bench.locker(&north(), "before").await;
    let melted = bench.saved(&north(), ForeignLocker::melted("melted")).await;
    let after = bench.saved(&north(), assigned("after")).await;
    bench.parcel(&north(), "unrelated").await;
    bench.project().await;

    let halted = bench
        .harness
        .halted_at(&bench.store, LockerList::NAME)
        .await;
    assert_eq!(halted, melted.position());
    let halted = bench
        .harness
        .halted_at(&bench.store, ParcelList::NAME)
        .await;
    assert_eq!(halted, None);
    let lockers: Vec<LockerEntry> = all(&bench, &north()).await;
    let ids: Vec<&str> = lockers.iter().map(|row| row.id.as_str()).collect();
    assert_eq!(ids, ["before"]);
    let parcels: Vec<ParcelEntry> = all(&bench, &north()).await;
    assert_eq!(parcels.len(), 1);
    match err(bench.store.wait_for(&after, LockerList::NAME).await) {
        Error::Store(error) => {
            let unhelpful = [StoreErrorKind::Usage, StoreErrorKind::TimedOut];
            assert!(!unhelpful.contains(error.kind()), "{error:?}");
        }
        Error::Undecodable { position, .. } => assert_eq!(Some(position), melted.position()),
        Error::Other(_) => {}
        other => panic!("expected why it is halted, got {other:?}"),
    }
}

/// A row type without tenants does not mix those of events: its subscription halts, whatever its
/// policy, a commit with it inline and a live read are refused, and the error says what to write.
pub async fn tenants_are_not_mixed_unasked<H: Harness>(h: &H) {
    let bench = begin(h).await;
    bench.parcel(&north(), "both").await;
    bench.parcel(&south(), "both").await;
    let first = bench.log().await.first().map(crate::Envelope::position);
    for policy in [
        FailurePolicy::Skip,
        FailurePolicy::Park(Parking::at_most(10)),
    ] {
        let make = || Subscription::new(Rows(MixedUses)).on_failure(policy.clone());
        h.run_subscription(&bench.store, &make).await;
        assert_eq!(h.halted_at(&bench.store, MixedUses::NAME).await, first);
        let letters = h.dead_letters(&bench.store, MixedUses::NAME).await;
        assert_eq!(letters, []);
    }
    for context in [north(), system()] {
        let live = err(bench.store.live(&context).rows(&MixedUses).await);
        assert_mixes(&live);
    }

    // Another store, since a name is used inline or with a projector.
    let bench = begin(h).await;
    ok(bench.store.inline_rows(MixedUses));
    let mut uow = bench.unit_of_work(&north());
    ok(uow.save(Parcel::register("both")));
    match err(uow.commit().await) {
        Error::Projection { name, cause } => {
            assert_eq!(name, MixedUses::NAME);
            assert_mixes(&cause);
        }
        other => panic!("expected the error of a projection, got {other:?}"),
    }
    assert!(bench.log().await.is_empty());
    let rows: Vec<MixedUse> = all(&bench, &system()).await;
    assert_eq!(rows, []);
}

#[track_caller]
fn assert_mixes(error: &Error) {
    assert_usage(error);
    assert!(error.is_of_page());
    let message = error.to_string();
    for part in ["\"north\"", "conformance_mixed_use", "(tenant)", "(shared)"] {
        assert!(message.contains(part), "{message}");
    }
}

/// Rows that all tenants share are folded from the events of all, and read within each tenant.
pub async fn shared_rows_are_of_all_tenants<H: Harness>(h: &H) {
    let bench = begin(h).await;
    bench.parcel(&north(), "both").await;
    bench.parcel(&south(), "both").await;
    bench.parcel(&south(), "theirs").await;
    h.run_subscription(&bench.store, &|| Subscription::new(Rows(SharedUses)))
        .await;
    assert_eq!(h.halted_at(&bench.store, SharedUses::NAME).await, None);
    let uses = |label: &str, uses| SharedUse {
        label: label.to_owned(),
        uses,
    };
    let expected = sorted(vec![uses("both", 2), uses("theirs", 1)]);
    for context in [north(), south(), system()] {
        let rows: Vec<SharedUse> = all(&bench, &context).await;
        assert_eq!(sorted(rows), expected);
        let read_models = bench.store.read_models(&context);
        let row = ok(read_models.find::<SharedUse>("theirs".to_owned()).await);
        assert_eq!(row, Some(uses("theirs", 1)));
    }
    let everyone = system();
    let live = ok(bench.store.live(&everyone).rows(&SharedUses).await);
    assert_eq!(sorted(live), expected);

    let bench = begin(h).await;
    ok(bench.store.inline_rows(SharedUses));
    bench.parcel(&north(), "both").await;
    bench.parcel(&south(), "both").await;
    let rows: Vec<SharedUse> = all(&bench, &north()).await;
    assert_eq!(rows, [uses("both", 2)]);
}

fn assigned(id: &str) -> Locker {
    let mut locker = Locker::new(id);
    locker.assign("ann");
    locker
}
