//! Who created, changed and deleted, and when; soft delete.

use super::Harness;
use super::fixtures::{Locker, Parcel, ParcelEvent, StoredParcel};
use super::support::{begin, north, ok, south, system, tenant, time};
use crate::aggregate::AuditStamps;
use crate::context::RequestContext;
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
    expected.version = 3;
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
