//! Tables and columns that are missing, or are not those of the code.

use cqrs_core::conformance::fixtures::{Shelf, Tour};
use cqrs_core::{
    Aggregate, DomainEvent, Entity, Error, Id, Position, Query, ReadModel, Repository,
    RequestContext, Root, Store, StoreErrorKind, UnitOfWork,
};
use cqrs_integration::domain::{self, Parcel, ParcelView, ParcelViews, Parcels};
use cqrs_integration::stores;
use cqrs_sqlx::{SchemaMismatch, SqlStore, StoreOptions};
use serde::{Deserialize, Serialize};

use super::{Chest, assert_schema, commit};
use cqrs_integration::each::{Fresh, Kind, kind, on_each};

on_each!(
    a_table_that_is_missing_is_named,
    a_column_that_is_missing_is_named,
    a_text_column_that_is_missing_is_named,
    all_differences_come_at_once,
    keys_are_compared,
    tables_of_children_are_compared,
    foreign_keys_of_children_are_compared,
    a_table_has_rows_of_one_type,
    columns_that_the_database_computes_are_not_written,
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
            "cqrs_rebuild",
            "cqrs_process",
            "cqrs_process_task",
            "cqrs_removed",
            "cqrs_projection_snapshot",
            "cqrs_history",
            "cqrs_receipt",
            "cqrs_snapshot",
            "cqrs_sourced_type",
            "cqrs_chain_head",
            "cqrs_subject_key"
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

async fn keys_are_compared<K: Kind>() {
    let fresh = Fresh::<K>::empty().await;
    let store = fresh.open(StoreOptions::default()).await;
    store.migrate().await.unwrap();
    let tables = [Crate::table(), ParcelView::table()];
    let columns = |table: &str| {
        let sql = SqlStore::<K>::create_table_sql(match table {
            "crates" => Crate::table(),
            _ => ParcelView::table(),
        });
        let (before, _) = sql
            .split_once(K::either(",\n    CONSTRAINT", ",\n    PRIMARY"))
            .unwrap();
        before.to_owned()
    };
    for (keys, expected) in [
        (["PRIMARY KEY (id)", "PRIMARY KEY (id, tenant_id)"], vec![]),
        (
            ["UNIQUE (weight, id), UNIQUE (id)", "UNIQUE (tenant_id, id)"],
            vec![],
        ),
        (
            [
                "PRIMARY KEY (weight, id)",
                "PRIMARY KEY (id), UNIQUE (version)",
            ],
            vec![
                "table crates, column id: expected primary key (id), found primary key (weight, id)",
                "table parcel_view, column tenant_id, id: expected primary key (tenant_id, id), \
                 found primary key (id), unique key (version)",
            ],
        ),
        (
            ["CHECK (true)", "PRIMARY KEY (tenant_id, id)"],
            vec!["table crates, column id: expected primary key (id), found none"],
        ),
    ] {
        for (table, key) in ["crates", "parcel_view"].into_iter().zip(keys) {
            fresh.run(format!("{}, {key})", columns(table))).await;
        }
        let found = match store.verify(&tables).await {
            Ok(()) => Vec::new(),
            Err(error) => differences(&error),
        };
        assert_eq!(found, expected, "{keys:?}");
        fresh.run("DROP TABLE crates; DROP TABLE parcel_view").await;
    }
}

async fn tables_of_children_are_compared<K: Kind>() {
    let fresh = Fresh::<K>::empty().await;
    let store = fresh.open(StoreOptions::default()).await;
    store.migrate().await.unwrap();
    store.create_tables(&[Tour::table()]).await.unwrap();
    store.verify(&[Tour::table()]).await.unwrap();
    fresh
        .run(
            "ALTER TABLE conformance_stop DROP COLUMN city;
             DROP TABLE conformance_ticket;
             CREATE TABLE conformance_ticket
                 (tour varchar(9), tenant_id text, position text, number text, holder text)",
        )
        .await;
    let error = store.verify(&[Tour::table()]).await.unwrap_err();
    let found = differences(&error);
    let starts = [
        "table conformance_stop, column city: expected text, found no such column",
        "table conformance_ticket, column tour: expected ",
        "table conformance_ticket, column tour: expected not null, found nullable",
        "table conformance_ticket, column tenant_id: expected not null, found nullable",
        "table conformance_ticket, column position: expected integer, found text",
        "table conformance_ticket, column position: expected not null, found nullable",
        "table conformance_ticket, column number: expected not null, found nullable",
        "table conformance_ticket, column tour, number: expected primary key (tour, number), \
         found none",
        "table conformance_ticket, column tour: expected foreign key (tour) to \
         conformance_tour (id), found none",
    ];
    assert_eq!(found.len(), starts.len(), "{found:#?}");
    for (found, start) in found.iter().zip(starts) {
        assert!(found.starts_with(start), "{found}");
    }
    // Whoever reads says so too, where the types of columns can tell.
    let mut uow = store.unit_of_work(&stores::tenant("north"));
    let error = uow.query::<Tour>(Query::all()).await.unwrap_err();
    assert_schema(&error, &["city", "store.verify("]);
}

/// One to the aggregate is asked for, by itself or with more columns; others may be there.
async fn foreign_keys_of_children_are_compared<K: Kind>() {
    let fresh = Fresh::<K>::empty().await;
    let store = fresh.open(StoreOptions::default()).await;
    store.migrate().await.unwrap();
    store.create_tables(&[Shelf::table()]).await.unwrap();
    let (parent, other) = ("conformance_shelf_id", "elsewhere");
    fresh
        .run(
            "CREATE TABLE elsewhere (id bigint PRIMARY KEY, shelf bigint UNIQUE);
             ALTER TABLE conformance_shelf ADD COLUMN label integer;
             CREATE UNIQUE INDEX labelled ON conformance_shelf (id, label);
             CREATE UNIQUE INDEX by_label ON conformance_shelf (label)",
        )
        .await;
    let to_shelf = format!("FOREIGN KEY ({parent}) REFERENCES conformance_shelf (id)");
    let right = format!("{to_shelf} ON DELETE CASCADE");
    let wrong = format!("FOREIGN KEY ({parent}) REFERENCES {other} (shelf)");
    let says = |found: &str| {
        vec![format!(
            "table conformance_book, column {parent}: expected foreign key ({parent}) to \
             conformance_shelf (id), found {found}"
        )]
    };
    let refuses = |action: &str| {
        vec![format!(
            "table conformance_book, column {parent}: expected foreign key ({parent}) to \
             conformance_shelf (id) with ON DELETE CASCADE, or deferred, found ON DELETE {action}"
        )]
    };
    for (keys, expected) in [
        (String::new(), says("none")),
        (format!(", {right}"), vec![]),
        (format!(", {wrong}, {right}"), vec![]),
        (
            format!(", FOREIGN KEY ({parent}) REFERENCES conformance_shelf ON DELETE CASCADE"),
            vec![],
        ),
        (
            format!(
                ", FOREIGN KEY ({parent}, number) REFERENCES conformance_shelf (id, label) \
                 ON DELETE CASCADE"
            ),
            vec![],
        ),
        (
            format!(", {to_shelf} DEFERRABLE INITIALLY DEFERRED"),
            vec![],
        ),
        (format!(", {to_shelf}"), refuses("NO ACTION")),
        (
            format!(", {to_shelf} ON DELETE RESTRICT DEFERRABLE INITIALLY DEFERRED"),
            refuses("RESTRICT"),
        ),
        (
            format!(", {right}, {to_shelf} ON DELETE SET NULL"),
            refuses("SET NULL"),
        ),
        (
            format!(", {wrong}"),
            says(&format!("foreign key ({parent}) to {other} (shelf)")),
        ),
        (
            format!(", FOREIGN KEY ({parent}) REFERENCES conformance_shelf (label)"),
            says(&format!(
                "foreign key ({parent}) to conformance_shelf (label)"
            )),
        ),
        (
            ", FOREIGN KEY (number) REFERENCES conformance_shelf (id)".to_owned(),
            says("none"),
        ),
    ] {
        fresh
            .run(&format!(
                "DROP TABLE conformance_book;
                 CREATE TABLE conformance_book ({parent} bigint NOT NULL,
                     position integer NOT NULL, number bigint NOT NULL,
                     PRIMARY KEY ({parent}, number){keys})"
            ))
            .await;
        let found = match store.verify(&[Shelf::table()]).await {
            Ok(()) => vec![],
            Err(error) => differences(&error),
        };
        assert_eq!(found, expected, "{keys}");
    }
}

async fn a_table_has_rows_of_one_type<K: Kind>() {
    let fresh = Fresh::<K>::empty().await;
    let store = fresh.open(StoreOptions::default()).await;
    store.migrate().await.unwrap();
    store.create_tables(&[Crate::table()]).await.unwrap();
    store
        .verify(&[Crate::table(), Crate::table()])
        .await
        .unwrap();
    store
        .verify(&[Crate::table(), CrateList::table()])
        .await
        .unwrap();
    let error = store.verify(&[Crate::table(), OtherCrate::table()]).await;
    let found = differences(&error.unwrap_err());
    let module = module_path!();
    assert_eq!(
        found,
        [format!(
            "table crates: expected rows of one type, found those of {module}::Crate and of \
             {module}::OtherCrate"
        )]
    );
}

async fn columns_that_the_database_computes_are_not_written<K: Kind>() {
    let fresh = Fresh::<K>::empty().await;
    let store = fresh.open(StoreOptions::default()).await;
    store.migrate().await.unwrap();
    let table = [Measured::table()];
    store.create_tables(&table).await.unwrap();
    let found = differences(&store.verify(&table).await.unwrap_err());
    assert_eq!(
        found,
        [
            "table measured, column area: expected one that the database generates, found one \
             that it does not",
            "table measured, column views: expected not null, found nullable",
        ]
    );
    for (width, views, expected) in [
        (
            "AS (1 + 1) STORED",
            "NOT NULL",
            vec![
                "table measured, column width: expected one that the code writes, found one that the \
             database generates (mark the field with `#[mapper(generated)]`)",
                "table measured, column views: the code does not write it, and it is not null without \
             a default",
            ],
        ),
        ("NOT NULL", "NOT NULL DEFAULT 3", vec![]),
    ] {
        let id = K::either("uuid", "blob");
        let width = match width.strip_prefix("AS") {
            Some(rest) => format!("GENERATED ALWAYS AS {rest} NOT NULL"),
            None => width.to_owned(),
        };
        let area = if expected.is_empty() {
            "width * height"
        } else {
            "height * 2"
        };
        fresh
            .run(format!(
                "DROP TABLE measured;
                 CREATE TABLE measured (
                     version {0} NOT NULL, id {id} PRIMARY KEY, width {0} {width},
                     height {0} NOT NULL, area {0} GENERATED ALWAYS AS ({area}) STORED,
                     views {0} {views})",
                K::either("bigint", "integer"),
            ))
            .await;
        let found = match store.verify(&table).await {
            Ok(()) => Vec::new(),
            Err(error) => differences(&error),
        };
        assert_eq!(found, expected);
    }

    let measured = Measured::new(2, 3);
    let id = measured.id;
    assert_eq!((measured.area, measured.views), (0, 0));
    let mut uow = store.unit_of_work(&stores::tenant("north"));
    uow.save(measured).unwrap();
    let mut measured: Measured = uow.get(id).await.unwrap();
    assert_eq!((measured.area, measured.views), (6, 3));
    others_write_views(&mut uow, 4).await;
    // What is not written is no difference either.
    measured.area = 70;
    uow.save(measured.clone()).unwrap();
    let mut measured: Measured = uow.get(id).await.unwrap();
    assert_eq!(
        (measured.area, measured.views, measured.root.version()),
        (6, 4, 1)
    );
    measured.height = 5;
    measured.views = 50;
    uow.save(measured).unwrap();
    let measured: Measured = uow.get(id).await.unwrap();
    assert_eq!(
        (measured.area, measured.views, measured.root.version()),
        (10, 4, 2)
    );
    let large = Measured::fields().area.gt(9) & Measured::fields().views.eq(4);
    assert_eq!(uow.repository::<Measured>().count(large).await.unwrap(), 1);
    let _ = uow.commit().await.unwrap();
}

async fn others_write_views<K: Kind>(uow: &mut cqrs_sqlx::SqlUnitOfWork<K>, views: i64) {
    let sql = format!("UPDATE measured SET views = {views}");
    K::run_on(uow.connection().await.unwrap(), sql)
        .await
        .unwrap();
}

/// An aggregate with a column that the database computes, and one that others write.
#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "measured", event = CrateEvent)]
struct Measured {
    #[aggregate(id)]
    id: Id<Measured>,
    #[aggregate(root)]
    root: Root<CrateEvent>,
    width: i64,
    height: i64,
    #[mapper(generated)]
    area: i64,
    #[mapper(read_only)]
    views: i64,
}

impl Measured {
    fn new(width: i64, height: i64) -> Self {
        Self {
            id: Id::new(),
            root: Root::new(),
            width,
            height,
            area: 0,
            views: 0,
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "crate")]
enum CrateEvent {
    Filled,
}

#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "crates", event = CrateEvent)]
struct Crate {
    #[aggregate(id)]
    id: Id<Crate>,
    #[aggregate(root)]
    root: Root<CrateEvent>,
    weight: i64,
}

/// A second type that takes the table for its own.
#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "crates", event = CrateEvent)]
struct OtherCrate {
    #[aggregate(id)]
    id: Id<OtherCrate>,
    #[aggregate(root)]
    root: Root<CrateEvent>,
}

/// A read model may read what an aggregate writes.
#[derive(Debug, Clone, ReadModel)]
#[read_model(table = "crates")]
struct CrateList {
    #[read_model(key)]
    id: Id<Crate>,
    weight: i64,
}
