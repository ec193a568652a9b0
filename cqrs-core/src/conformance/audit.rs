//! Who created, changed and deleted, and when; soft delete.

use super::Harness;
use super::fixtures::{Locker, Parcel, ParcelEvent, StoredParcel, Tour};
use super::support::{Bench, begin, north, ok, south, system, tenant, time};
use crate::aggregate::AuditStamps;
use crate::context::RequestContext;
use crate::id::Id;
use crate::maintenance::Maintain;
use crate::read_model::ReadModels;
use crate::repository::Repository;
use crate::specification::{Query, Specification};
use crate::store::Store;
use crate::unit_of_work::UnitOfWork;

fn stamps(created: (i64, &str), updated: (i64, &str)) -> AuditStamps {
    AuditStamps {
        created_at: Some(time(created.0)),
        created_by: Some(created.1.to_owned()),
        updated_at: Some(time(updated.0)),
        updated_by: Some(updated.1.to_owned()),
        ..AuditStamps::default()
    }
}

/// Creation stamps the row as created and as changed, with the actor and the clock of the store.
pub async fn creation_is_stamped<H: Harness>(h: &H) {
    let bench = begin(h).await;
    bench.clock.set(time(1));
    let parcel = bench.parcel(&north(), "new").await;
    assert_eq!(parcel.root.stamps(), &stamps((1, "ann"), (1, "ann")));
    let locker = bench.locker(&north(), "unaudited").await;
    assert_eq!(locker.root.stamps(), &AuditStamps::default());
}

/// A change stamps the row as changed, with an event or without, and keeps who created it.
pub async fn a_change_is_stamped<H: Harness>(h: &H) {
    let bench = begin(h).await;
    bench.clock.set(time(1));
    let mut parcel = bench.parcel(&north(), "new").await;
    let id = parcel.id;
    bench.clock.set(time(2));
    parcel.relabel("changed");
    bench.save(&north().with_actor("cat"), parcel).await;
    let mut parcel: Parcel = bench.load(&north(), id).await;
    assert_eq!(parcel.root.stamps(), &stamps((1, "ann"), (2, "cat")));

    // A clock that goes back is the clock all the same.
    bench.clock.set(time(0));
    parcel.note = Some("no event".to_owned());
    bench.save(&system(), parcel).await;
    let parcel: Parcel = bench.load(&north(), id).await;
    assert_eq!(parcel.root.stamps(), &stamps((1, "ann"), (0, "root")));
}

/// A save that changes nothing leaves the stamps alone.
pub async fn an_unchanged_save_is_not_stamped<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let parcel = bench.parcel(&north(), "same").await;
    let id = parcel.id;
    bench.clock.set(time(9));
    bench.save(&north().with_actor("cat"), parcel).await;
    let parcel: Parcel = bench.load(&north(), id).await;
    assert_eq!(parcel.root.stamps(), &stamps((0, "ann"), (0, "ann")));
}

/// Without an actor the stamps say when, and not who.
pub async fn a_nobody_is_stamped_as_null<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let nobody = RequestContext::tenant(tenant("north"));
    let mut parcel = bench.parcel(&nobody, "anonymous").await;
    let id = parcel.id;
    assert_eq!(parcel.root.stamps().created_by, None);
    assert_eq!(parcel.root.stamps().updated_by, None);
    assert_eq!(parcel.root.stamps().created_at, Some(time(0)));
    parcel.relabel("named");
    bench.save(&north(), parcel).await;
    let mut parcel: Parcel = bench.load(&north(), id).await;
    assert_eq!(parcel.root.stamps().created_by, None);
    assert_eq!(parcel.root.stamps().updated_by.as_deref(), Some("ann"));
    parcel.relabel("anonymous again");
    bench.save(&nobody, parcel).await;
    let parcel: Parcel = bench.load(&north(), id).await;
    assert_eq!(parcel.root.stamps().updated_by, None);
}

/// A soft-deleted aggregate is seen by no read of any scope; others stay.
pub async fn soft_delete_keeps_the_row_from_sight<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let kept = bench.parcel(&north(), "kept").await;
    let mut gone = bench.parcel(&north(), "gone").await;
    let id = gone.id;
    gone.label = "changed while removed".to_owned();
    let receipt = bench.removed(&north(), gone).await;
    assert_eq!(receipt.events().len(), 1);
    for context in [north(), system()] {
        let mut uow = bench.unit_of_work(&context);
        let mut parcels = uow.repository::<Parcel>();
        assert!(ok(parcels.find(id).await).is_none());
        let found = ok(parcels.query(Query::all()).await);
        assert_eq!(
            found.iter().map(|one| one.id).collect::<Vec<_>>(),
            [kept.id]
        );
        assert_eq!(ok(parcels.count(Specification::all()).await), 1);
        assert!(!ok(parcels.exists(Parcel::fields().label.eq("gone")).await));
    }
    let locker = bench.locker(&north(), "gone").await;
    bench.remove(&north(), locker).await;
    let mut uow = bench.unit_of_work(&system());
    assert_eq!(
        ok(uow.repository::<Locker>().count(Specification::all()).await),
        0
    );
}

/// Soft delete stamps the row as changed and as deleted, moves its version, and leaves its data.
pub async fn soft_delete_is_stamped<H: Harness>(h: &H) {
    let bench = begin(h).await;
    bench.clock.set(time(1));
    let mut parcel = bench.parcel(&north(), "kept").await;
    parcel.label = "not written".to_owned();
    parcel.root.raise(ParcelEvent::Opened);
    parcel.root.raise(ParcelEvent::Opened);
    let id = parcel.id;
    let stored = || async {
        let read_models = bench.store.read_models(&north());
        ok(read_models.find::<StoredParcel>(id).await)
    };
    let mut expected = StoredParcel {
        id,
        version: 1,
        label: "kept".to_owned(),
        created_at: time(1),
        created_by: Some("ann".to_owned()),
        updated_at: time(1),
        updated_by: Some("ann".to_owned()),
        deleted_at: None,
        deleted_by: None,
    };
    assert_eq!(stored().await.as_ref(), Some(&expected));

    bench.clock.set(time(2));
    bench.remove(&system(), parcel).await;
    expected.version = 4;
    expected.updated_at = time(2);
    expected.updated_by = Some("root".to_owned());
    expected.deleted_at = Some(time(2));
    expected.deleted_by = Some("root".to_owned());
    assert_eq!(stored().await, Some(expected));
    let elsewhere = bench
        .store
        .read_models(&south())
        .find::<StoredParcel>(id)
        .await;
    assert_eq!(ok(elsewhere), None);
}

/// Conditions and orders can ask for stamps.
pub async fn stamps_can_be_asked_for<H: Harness>(h: &H) {
    let bench = begin(h).await;
    for (second, label) in [(3, "third"), (1, "first"), (2, "second")] {
        bench.clock.set(time(second));
        bench.parcel(&north(), label).await;
    }
    let fields = Parcel::fields();
    let mut uow = bench.unit_of_work(&north());
    let mut parcels = uow.repository::<Parcel>();
    let query = Query::filter(fields.created_at.ge(time(2)) & fields.created_by.eq("ann"))
        .order_by(fields.created_at.asc());
    let found = ok(parcels.query(query).await);
    let labels: Vec<&str> = found.iter().map(|parcel| parcel.label.as_str()).collect();
    assert_eq!(labels, ["second", "third"]);
    assert_eq!(ok(parcels.count(fields.updated_at.lt(time(2))).await), 1);
    assert_eq!(ok(parcels.count(fields.updated_by.is_null()).await), 0);
}

/// A change of nothing but children is a change of the aggregate.
pub async fn a_change_in_a_child_alone_is_stamped<H: Harness>(h: &H) {
    let bench = begin(h).await;
    bench.clock.set(time(1));
    let tour = Tour::plan("north", &["Graz", "Wels"]);
    let id = tour.id;
    bench.save(&north(), tour).await;
    let mut tour: Tour = bench.load(&north(), id).await;
    assert_eq!(tour.root.stamps(), &stamps((1, "ann"), (1, "ann")));
    bench.clock.set(time(2));
    tour.stops[1].minutes = Some(5);
    bench.save(&north().with_actor("cat"), tour).await;
    let mut tour: Tour = bench.load(&north(), id).await;
    assert_eq!(tour.root.stamps(), &stamps((1, "ann"), (2, "cat")));
    bench.clock.set(time(3));
    tour.stops.pop();
    bench.save(&system(), tour).await;
    let tour: Tour = bench.load(&north(), id).await;
    assert_eq!(tour.root.stamps(), &stamps((1, "ann"), (3, "root")));
    bench.clock.set(time(4));
    bench.save(&north(), tour).await;
    let tour: Tour = bench.load(&north(), id).await;
    assert_eq!(tour.root.stamps(), &stamps((1, "ann"), (3, "root")));
}

/// The row as it is, whether it is deleted or not.
async fn stored_row<H: Harness>(bench: &Bench<'_, H>, id: Id<Parcel>) -> StoredParcel {
    let read_models = bench.store.read_models(&system());
    let found = ok(read_models.find::<StoredParcel>(id).await);
    found.unwrap_or_else(|| panic!("parcel {id} has no row"))
}

/// When and by whom it was created, changed and deleted, in seconds of the suite's time.
type Stamped<'r> = [Option<(i64, Option<&'r str>)>; 3];

fn stamped(row: &StoredParcel) -> Stamped<'_> {
    let second = |at: chrono::DateTime<chrono::Utc>| (at - time(0)).num_seconds();
    [
        Some((second(row.created_at), row.created_by.as_deref())),
        Some((second(row.updated_at), row.updated_by.as_deref())),
        row.deleted_at
            .map(|at| (second(at), row.deleted_by.as_deref())),
    ]
}

/// Bulk inserts, updates and removals leave the stamps that units of work leave.
pub async fn bulk_changes_are_stamped<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let parcels = |actor: &str| {
        let context = north().with_actor(actor);
        bench.store.maintenance::<Parcel>(&context)
    };
    bench.clock.set(time(1));
    let parcel = Parcel::register("bulk");
    let id = parcel.id;
    ok(parcels("ann").insert([parcel]).await);
    let row = stored_row(&bench, id).await;
    let created = Some((1, Some("ann")));
    assert_eq!(stamped(&row), [created, created, None]);

    bench.clock.set(time(2));
    let set = || [Parcel::fields().priority.set(7)];
    ok(parcels("cat").update(Specification::all(), set()).await);
    let row = stored_row(&bench, id).await;
    let updated = Some((2, Some("cat")));
    assert_eq!(stamped(&row), [created, updated, None]);

    bench.clock.set(time(3));
    ok(parcels("dan").update(Specification::all(), set()).await);
    assert_eq!(stored_row(&bench, id).await, row);

    ok(parcels("eve").remove(Specification::all()).await);
    let row = stored_row(&bench, id).await;
    let removed = Some((3, Some("eve")));
    assert_eq!(stamped(&row), [created, removed, removed]);
}

/// What is changed while it is deleted stays deleted since when it was, and by whom.
pub async fn a_bulk_change_of_what_is_deleted_keeps_the_deletion<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let parcel = bench.parcel(&north(), "gone").await;
    let id = parcel.id;
    bench.clock.set(time(1));
    bench.remove(&north().with_actor("cat"), parcel).await;
    bench.clock.set(time(2));
    let all = bench.store.maintenance::<Parcel>(&system());
    let all = all.include_deleted();
    let set = [Parcel::fields().priority.set(7)];
    let changed = all.update(Specification::all(), set);
    assert_eq!(ok(changed.await).items(), 1);
    let row = stored_row(&bench, id).await;
    let (created, updated) = (Some((0, Some("ann"))), Some((2, Some("root"))));
    assert_eq!(stamped(&row), [created, updated, Some((1, Some("cat")))]);
}

/// Who restores has changed it; who created it stays, and nobody has deleted it.
pub async fn restoring_is_stamped_as_a_change<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let parcel = bench.parcel(&north(), "back").await;
    let id = parcel.id;
    bench.clock.set(time(1));
    bench.remove(&north().with_actor("cat"), parcel).await;
    bench.clock.set(time(2));
    let parcels = bench.store.maintenance::<Parcel>(&system());
    assert_eq!(ok(parcels.restore(Specification::all()).await).items(), 1);
    let row = stored_row(&bench, id).await;
    let created = Some((0, Some("ann")));
    assert_eq!(stamped(&row), [created, Some((2, Some("root"))), None]);
    let parcel: Parcel = bench.load(&north(), id).await;
    assert_eq!(parcel.root.stamps(), &stamps((0, "ann"), (2, "root")));

    bench.clock.set(time(3));
    bench.remove(&north(), parcel).await;
    let row = stored_row(&bench, id).await;
    let removed = Some((3, Some("ann")));
    assert_eq!(stamped(&row), [created, removed, removed]);
}

/// Without an actor, bulk work too says when, and not who; also where somebody is named before.
pub async fn bulk_work_of_nobody_is_stamped_as_null<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let nobody = RequestContext::tenant(tenant("north"));
    let parcels = bench.store.maintenance::<Parcel>(&nobody);
    let fresh = Parcel::register("fresh");
    let fresh_id = fresh.id;
    ok(parcels.insert([fresh]).await);
    let row = stored_row(&bench, fresh_id).await;
    assert_eq!(stamped(&row), [Some((0, None)), Some((0, None)), None]);

    let named = bench.parcel(&north(), "named").await.id;
    let created = Some((0, Some("ann")));
    let is_named = || Parcel::fields().label.eq("named");
    bench.clock.set(time(1));
    let set = [Parcel::fields().priority.set(7)];
    ok(parcels.update(is_named(), set).await);
    let row = stored_row(&bench, named).await;
    assert_eq!(stamped(&row), [created, Some((1, None)), None]);
    bench.clock.set(time(2));
    ok(parcels.remove(is_named()).await);
    let row = stored_row(&bench, named).await;
    assert_eq!(stamped(&row), [created, Some((2, None)), Some((2, None))]);
    bench.clock.set(time(3));
    ok(parcels.restore(is_named()).await);
    let row = stored_row(&bench, named).await;
    assert_eq!(stamped(&row), [created, Some((3, None)), None]);
}

/// What is imported was created now and by who imports it, and is deleted by nobody, whatever it
/// was where it comes from.
pub async fn an_import_is_stamped_as_new<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let parcel = bench.parcel(&north(), "moved").await;
    bench.clock.set(time(1));
    bench.remove(&north().with_actor("cat"), parcel).await;
    let all = bench.store.maintenance::<Parcel>(&system());
    let found = ok(all.include_deleted().query(Query::all()).await);
    let copies: Vec<Parcel> = found
        .into_iter()
        .map(|parcel| Parcel {
            id: Id::new(),
            ..parcel
        })
        .collect();
    let id = copies[0].id;
    bench.clock.set(time(2));
    let parcels = bench.store.maintenance::<Parcel>(&system());
    ok(parcels.import(copies.into_iter(), |_| {}).await);
    let row = stored_row(&bench, id).await;
    let created = Some((2, Some("root")));
    assert_eq!(stamped(&row), [created, created, None]);
    let parcel: Parcel = bench.load(&north(), id).await;
    assert_eq!(parcel.root.stamps(), &stamps((2, "root"), (2, "root")));
}
