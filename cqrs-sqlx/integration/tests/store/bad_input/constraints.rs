//! Constraints of the user's own.

use std::sync::atomic::{AtomicU32, Ordering};

use cqrs_core::{Entity, Error, Store, StoreErrorKind, UnitOfWork};
use cqrs_integration::domain::{self, Parcel, Parcels};
use cqrs_integration::stores;
use cqrs_sqlx::SqlStore;

use super::commit;
use cqrs_integration::each::{Fresh, Kind, kind, on_each};

on_each!(
    a_users_constraint_is_no_conflict,
    a_constraint_is_found_in_the_midst_of_a_batch,
    a_failed_unit_of_work_is_not_used_again,
);

/// Adds a CHECK and a UNIQUE of the user's own; the names under which they are violated.
async fn constrain<K: Kind>(fresh: &Fresh<K>) -> (&'static str, &'static str) {
    fresh
        .run(K::either(
            "ALTER TABLE parcel ADD CONSTRAINT not_heavy CHECK (grams < 100)",
            "DROP TABLE parcel",
        ))
        .await;
    if K::either(false, true) {
        let created = SqlStore::<K>::create_table_sql(Parcel::table());
        let check = ",\n CONSTRAINT not_heavy CHECK (grams < 100)\n) STRICT";
        fresh.run(created.replacen("\n) STRICT", check, 1)).await;
    }
    fresh
        .run("CREATE UNIQUE INDEX one_label ON parcel (label)")
        .await;
    ("not_heavy", K::either("one_label", "parcel.label"))
}

#[track_caller]
fn assert_constraint(error: &Error, name: &str) {
    let name = Some(name.to_owned());
    assert_eq!(*kind(error), StoreErrorKind::Constraint { name });
    assert!(!error.is_conflict() && !error.is_retryable());
}

async fn a_users_constraint_is_no_conflict<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    let (check, unique) = constrain(&fresh).await;
    commit(&store, Parcel::register("taken"))
        .await
        .map(drop)
        .unwrap();
    let free = Parcel::register("free");
    let id = domain::id(&free);
    commit(&store, free).await.map(drop).unwrap();
    let before = fresh.state().await;

    let mut heavy = Parcel::register("heavy");
    heavy.weigh(100);
    for (parcel, name) in [(heavy, check), (Parcel::register("taken"), unique)] {
        let error = commit(&store, parcel.clone()).await.unwrap_err();
        assert_constraint(&error, name);
        let mut uow = store.unit_of_work(&stores::tenant("north"));
        uow.save(parcel).unwrap();
        assert_constraint(&uow.connection().await.map(drop).unwrap_err(), name);
        assert_eq!(fresh.state().await, before);
    }
    for (change, name) in [
        (
            (|parcel: &mut Parcel| parcel.weigh(100)) as fn(&mut Parcel),
            check,
        ),
        (|parcel| parcel.relabel("taken"), unique),
    ] {
        let context = stores::tenant("north");
        let runs = AtomicU32::new(0);
        let error = store
            .execute(&context, async |uow| {
                runs.fetch_add(1, Ordering::Relaxed);
                let mut parcel = uow.get::<Parcel>(id).await?;
                change(&mut parcel);
                uow.save(parcel)
            })
            .await
            .unwrap_err();
        assert_constraint(&error, name);
        assert_eq!(runs.into_inner(), 1, "it is not tried again");
        assert_eq!(fresh.state().await, before);
    }
}

async fn a_constraint_is_found_in_the_midst_of_a_batch<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    let (check, unique) = constrain(&fresh).await;
    commit(&store, Parcel::register("taken"))
        .await
        .map(drop)
        .unwrap();
    let before = fresh.state().await;
    for (at, name) in [(0, check), (5, check), (9, check), (5, unique)] {
        let mut uow = store.unit_of_work(&stores::tenant("north"));
        for number in 0..10 {
            let mut parcel = Parcel::register(&number.to_string());
            if number == at && name == check {
                parcel.weigh(100);
            } else if number == at {
                parcel.relabel("taken");
            }
            uow.save(parcel).unwrap();
        }
        assert_constraint(&uow.commit().await.unwrap_err(), name);
        assert_eq!(fresh.state().await, before);
    }
    commit(&store, Parcel::register("next"))
        .await
        .map(drop)
        .unwrap();
}

async fn a_failed_unit_of_work_is_not_used_again<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    let (check, _) = constrain(&fresh).await;
    let before = fresh.state().await;
    let mut uow = store.unit_of_work(&stores::tenant("north"));
    uow.save(Parcel::register("first")).unwrap();
    let open = uow.repository::<Parcel>().find_open(5).await.unwrap();
    assert_eq!(open.len(), 1);
    let id = domain::id(&open[0]);
    let mut heavy = Parcel::register("heavy");
    heavy.weigh(100);
    uow.save(heavy).unwrap();
    let error = uow.repository::<Parcel>().find_open(5).await.unwrap_err();
    assert_constraint(&error, check);

    let usage = |error: Error| {
        assert_eq!(*kind(&error), StoreErrorKind::Usage, "{error:?}");
        assert!(!error.is_retryable());
        assert!(error.to_string().contains("begin a new one"), "{error}");
    };
    usage(uow.get::<Parcel>(id).await.unwrap_err());
    usage(uow.repository::<Parcel>().find_open(5).await.unwrap_err());
    usage(uow.connection().await.map(drop).unwrap_err());
    uow.save(Parcel::register("late")).unwrap();
    usage(uow.repository::<Parcel>().find_open(5).await.unwrap_err());
    usage(uow.commit().await.unwrap_err());
    assert_eq!(fresh.state().await, before);
    commit(&store, Parcel::register("next"))
        .await
        .map(drop)
        .unwrap();
}
