//! Tables and columns that are missing, or are not those of the code.

use cqrs_core::{
    Entity, Error, Id, Position, Query, Repository, RequestContext, Store, StoreErrorKind,
    UnitOfWork,
};
use cqrs_integration::domain::{self, Parcel, ParcelViews, Parcels};
use cqrs_integration::stores;
use cqrs_sqlx::{SchemaMismatch, StoreOptions};

use super::{Chest, assert_schema, commit};
use crate::each::{Fresh, Kind, kind, on_each};

on_each!(
    a_table_that_is_missing_is_named,
    a_column_that_is_missing_is_named,
    a_text_column_that_is_missing_is_named,
    all_differences_come_at_once,
    a_store_that_was_not_migrated_says_so,
);

async fn a_table_that_is_missing_is_named<K: Kind>() {
    let fresh = Fresh::<K>::empty().await;
    let store = fresh.open(StoreOptions::default()).await;
    store.migrate().await.unwrap();
    let named = ["parcel", "store.verify("];
    let mut uow = store.unit_of_work(&stores::tenant("north"));
    let id = Id::new();
    assert_schema(&uow.get::<Parcel>(id).await.unwrap_err(), &named);
    let mut parcels = uow.repository::<Parcel>();
    assert_schema(&parcels.find_open(1).await.unwrap_err(), &named);
    assert_schema(&parcels.query(Query::all()).await.unwrap_err(), &named);
    let all = cqrs_core::Specification::all();
    assert_schema(&parcels.count(all).await.unwrap_err(), &named);
    let error = commit(&store, Parcel::register("a")).await.unwrap_err();
    assert_schema(&error, &named);
    let mut uow = store.unit_of_work(&stores::tenant("north"));
    uow.save(Parcel::register("a")).unwrap();
    uow.save(Parcel::register("b")).unwrap();
    assert_schema(&uow.commit().await.unwrap_err(), &named);
    assert_eq!(fresh.number("SELECT count(*) FROM cqrs_event").await, 0);

    let error = store.verify(&domain::tables()).await.unwrap_err();
    assert_eq!(
        differences(&error),
        [
            "table parcel: expected, found no such table",
            "table parcel_view: expected, found no such table",
        ]
    );
}

fn differences(error: &Error) -> Vec<String> {
    assert_eq!(*kind(error), StoreErrorKind::Schema);
    let source = std::error::Error::source(error).expect("a mismatch is the source");
    let mismatch: &SchemaMismatch = source.downcast_ref().expect("a mismatch is the source");
    for difference in mismatch.differences() {
        assert!(error.to_string().contains(difference), "{error}");
    }
    mismatch.differences().to_vec()
}

async fn a_column_that_is_missing_is_named<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    commit(&store, Parcel::register("a"))
        .await
        .map(drop)
        .unwrap();
    fresh.run("ALTER TABLE parcel DROP COLUMN grams").await;
    let before = fresh.state().await;
    let named = ["grams", "store.verify("];
    let mut uow = store.unit_of_work(&stores::tenant("north"));
    let mut parcels = uow.repository::<Parcel>();
    let error = parcels.query(Query::all()).await.unwrap_err();
    assert_schema(&error, &named);
    let error = commit(&store, Parcel::register("a")).await.unwrap_err();
    assert_schema(&error, &named);
    assert_eq!(fresh.state().await, before);
    let error = store.verify(&domain::tables()).await.unwrap_err();
    let found = differences(&error);
    assert_eq!(found.len(), 1, "{found:?}");
    let (start, end) = (
        "table parcel, column grams: expected ",
        ", found no such column",
    );
    assert!(
        found[0].starts_with(start) && found[0].ends_with(end),
        "{found:?}"
    );
}

/// SQLite takes a name in double quotes that is no column for a text.
async fn a_text_column_that_is_missing_is_named<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    let parcel = Parcel::register("a");
    let id = domain::id(&parcel);
    commit(&store, parcel).await.map(drop).unwrap();
    fresh.run("ALTER TABLE parcel DROP COLUMN label").await;
    let mut uow = store.unit_of_work(&stores::tenant("north"));
    let named = ["label", "store.verify("];
    assert_schema(&uow.get::<Parcel>(id).await.unwrap_err(), &named);
    let mut parcels = uow.repository::<Parcel>();
    let is_label = Parcel::fields().label.eq("label");
    assert_schema(&parcels.count(is_label).await.unwrap_err(), &named);
}

async fn all_differences_come_at_once<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    store.verify(&[Chest::table()]).await.unwrap_err();
    fresh
        .run(K::either(
            "CREATE TABLE chest (
                 id uuid PRIMARY KEY, version integer NOT NULL, status integer NOT NULL,
                 size varchar(10), stops json NOT NULL, label text,
                 note text NOT NULL, pieces numeric NOT NULL, extra text NOT NULL,
                 spare text, filled text NOT NULL DEFAULT 'x', counted serial)",
            "CREATE TABLE chest (
                 id blob PRIMARY KEY, version text NOT NULL, status integer NOT NULL,
                 size varchar(10), stops json NOT NULL, label text,
                 note text NOT NULL, pieces real NOT NULL, extra text NOT NULL,
                 spare text, filled text NOT NULL DEFAULT 'x')",
        ))
        .await;
    let error = store
        .verify(&[Chest::table(), Parcel::table()])
        .await
        .unwrap_err();
    let postgres = [
        "table chest, column version: expected bigint, found integer",
        "table chest, column status: expected text, found integer",
        "table chest, column size: expected not null, found nullable",
        "table chest, column stops: expected jsonb, found json",
        "table chest, column label: expected not null, found nullable",
        "table chest, column note: expected nullable, found not null",
        "table chest, column pieces: expected integer, found numeric",
        "table chest, column extra: the code does not write it, and it is not null without a default",
    ];
    let sqlite = [
        "table chest, column version: expected integer, found text",
        "table chest, column status: expected text, found integer",
        "table chest, column size: expected not null, found nullable",
        "table chest, column stops: expected text, found json",
        "table chest, column label: expected not null, found nullable",
        "table chest, column note: expected nullable, found not null",
        "table chest, column pieces: expected integer, found real",
        "table chest, column extra: the code does not write it, and it is not null without a default",
    ];
    let mut found = differences(&error);
    let mut expected = K::either(postgres, sqlite).map(str::to_owned).to_vec();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

async fn a_store_that_was_not_migrated_says_so<K: Kind>() {
    let fresh = Fresh::<K>::empty().await;
    let store = fresh.open(StoreOptions::default()).await;
    store.create_tables(&domain::tables()).await.unwrap();
    let named = ["store.migrate()"];
    let error = commit(&store, Parcel::register("a")).await.unwrap_err();
    assert_schema(&error, &named);
    let mut uow = store.unit_of_work(&stores::tenant("north"));
    uow.save(Parcel::register("a")).unwrap();
    uow.save(Parcel::register("b")).unwrap();
    assert_schema(&uow.commit().await.unwrap_err(), &named);
    assert_eq!(fresh.number("SELECT count(*) FROM parcel").await, 0);

    let system = RequestContext::system();
    let log = store.events(&system, Position::START, 1).await;
    assert_schema(&log.unwrap_err(), &named);
    assert_schema(&store.subscriptions().await.unwrap_err(), &named);
    assert_schema(
        &store
            .operations(&RequestContext::system())
            .unwrap()
            .resume("any")
            .await
            .unwrap_err(),
        &named,
    );
    let error = store.projector().rows(ParcelViews).start().await;
    assert_schema(&error.unwrap_err(), &named);
    let error = store.projector().rows(ParcelViews).run_until_idle().await;
    assert_schema(&error.unwrap_err(), &named);
    let error = store.verify(&domain::tables()).await.unwrap_err();
    let hint = "expected, found no such table (call `store.migrate()` once before use)";
    assert_eq!(
        differences(&error),
        [
            "cqrs_event",
            "cqrs_subscription",
            "cqrs_segment",
            "cqrs_dead_letter",
            "cqrs_operation",
            "cqrs_receipt"
        ]
        .map(|table| format!("table {table}: {hint}"))
    );

    store.migrate().await.unwrap();
    store.verify(&domain::tables()).await.unwrap();
    commit(&store, Parcel::register("a"))
        .await
        .map(drop)
        .unwrap();
}
