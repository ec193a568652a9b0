//! Migrations: of the framework, again and at once, and beside those of the application.

use std::sync::Arc;

use cqrs_core::{Entity, Error, Store, StoreErrorKind, UnitOfWork};
use cqrs_integration::domain::{self, Parcel, ParcelView};
use cqrs_integration::stores;
use cqrs_sqlx::{SqlStore, StoreOptions};
use tokio::sync::Barrier;

use cqrs_integration::each::{Fresh, Kind, on_each};

on_each!(
    a_second_time_changes_nothing,
    many_at_once_agree,
    the_application_comes_first,
    the_framework_comes_first,
    both_migrate_at_once,
    created_tables_are_a_migration,
    a_newer_release_has_migrated,
    what_a_migration_was_is_still_checked,
);

const APPLICATION: &str = "CREATE TABLE customer (name text NOT NULL)";

/// How many the framework has.
const MIGRATIONS: i64 = 16;

async fn save<K: Kind>(store: &SqlStore<K>) {
    let mut unit_of_work = store.unit_of_work(&stores::tenant("north"));
    unit_of_work.save(Parcel::register("a")).unwrap();
    let _ = unit_of_work.commit().await.unwrap();
}

/// What is in the database's catalogue.
async fn catalogue<K: Kind>(fresh: &Fresh<K>) -> Vec<String> {
    let sql = K::either(
        "SELECT c.relname || coalesce('.' || a.attname || ' ' || format_type(a.atttypid, NULL), '')
         FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
         LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0
         WHERE n.nspname = 'public' ORDER BY 1",
        "SELECT coalesce(sql, name) FROM sqlite_master ORDER BY 1",
    );
    K::texts(&fresh.url, sql.to_owned()).await
}

async fn applied<K: Kind>(fresh: &Fresh<K>, table: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM {table}");
    fresh.number(sql).await
}

async fn a_second_time_changes_nothing<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    save(&store).await;
    let (catalogue_before, state) = (catalogue(&fresh).await, fresh.state().await);
    store.migrate().await.unwrap();
    fresh
        .open(StoreOptions::default())
        .await
        .migrate()
        .await
        .unwrap();
    assert_eq!(catalogue(&fresh).await, catalogue_before);
    assert_eq!(fresh.state().await, state);
    assert_eq!(applied(&fresh, "_cqrs_migrations").await, MIGRATIONS);
    save(&store).await;
}

async fn many_at_once_agree<K: Kind>() {
    const STORES: usize = 8;
    let fresh = Fresh::<K>::empty().await;
    let barrier = Arc::new(Barrier::new(STORES));
    let mut tasks = Vec::new();
    for _ in 0..STORES {
        let store = fresh.open(StoreOptions::default()).await;
        let barrier = Arc::clone(&barrier);
        tasks.push(tokio::spawn(async move {
            barrier.wait().await;
            store.migrate().await.map(|()| store)
        }));
    }
    let mut stores = Vec::new();
    for task in tasks {
        stores.push(task.await.unwrap().unwrap());
    }
    assert_eq!(applied(&fresh, "_cqrs_migrations").await, MIGRATIONS);
    stores[0].create_tables(&domain::tables()).await.unwrap();
    for store in &stores {
        save(store).await;
    }
    let events = fresh.number("SELECT count(*) FROM cqrs_event").await;
    assert_eq!(usize::try_from(events).unwrap(), STORES);
}

async fn assert_both<K: Kind>(fresh: &Fresh<K>, store: &SqlStore<K>) {
    assert_eq!(applied(fresh, "_cqrs_migrations").await, MIGRATIONS);
    assert_eq!(applied(fresh, "_sqlx_migrations").await, 1);
    store.create_tables(&domain::tables()).await.unwrap();
    store.verify(&domain::tables()).await.unwrap();
    save(store).await;
    fresh.run("INSERT INTO customer VALUES ('Kim')").await;

    // Neither finds the other's, at any later start.
    store.migrate().await.unwrap();
    let more = vec![
        APPLICATION.to_owned(),
        "ALTER TABLE customer ADD COLUMN city text".to_owned(),
    ];
    K::migrate(&fresh.url, more).await.unwrap();
    store.migrate().await.unwrap();
    assert_eq!(applied(fresh, "_cqrs_migrations").await, MIGRATIONS);
    assert_eq!(applied(fresh, "_sqlx_migrations").await, 2);
    save(store).await;
}

async fn the_application_comes_first<K: Kind>() {
    let fresh = Fresh::<K>::empty().await;
    K::migrate(&fresh.url, vec![APPLICATION.to_owned()])
        .await
        .unwrap();
    let store = fresh.open(StoreOptions::default()).await;
    store.migrate().await.unwrap();
    assert_both(&fresh, &store).await;
}

async fn the_framework_comes_first<K: Kind>() {
    let fresh = Fresh::<K>::empty().await;
    let store = fresh.open(StoreOptions::default()).await;
    store.migrate().await.unwrap();
    K::migrate(&fresh.url, vec![APPLICATION.to_owned()])
        .await
        .unwrap();
    assert_both(&fresh, &store).await;
}

/// sqlx takes a lock for its migrations on Postgres only, so in SQLite one application migrates.
async fn both_migrate_at_once<K: Kind>() {
    let fresh = Fresh::<K>::empty().await;
    let store = fresh.open(StoreOptions::default()).await;
    let application = vec![APPLICATION.to_owned()];
    let (framework, application) =
        tokio::join!(store.migrate(), K::migrate(&fresh.url, application));
    framework.unwrap();
    application.unwrap();
    assert_both(&fresh, &store).await;
}

/// A rolling deployment, or one that was rolled back: what a newer release has added stays, and
/// the older one works on.
async fn a_newer_release_has_migrated<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    save(&store).await;
    // As the newer release would: its migration, what that adds, and a row that says so.
    let added = "ALTER TABLE cqrs_event ADD COLUMN added_later text; \
                 CREATE TABLE cqrs_added_later (id bigint PRIMARY KEY);";
    fresh.run(added).await;
    let row = K::either(
        "INSERT INTO _cqrs_migrations (version, description, success, checksum, execution_time) \
         VALUES (4711, 'later', true, '\\x00', 1)",
        "INSERT INTO _cqrs_migrations (version, description, success, checksum, execution_time) \
         VALUES (4711, 'later', true, x'00', 1)",
    );
    fresh.run(row).await;
    let before = catalogue(&fresh).await;

    store.migrate().await.unwrap();
    let older = fresh.open(StoreOptions::default()).await;
    older.migrate().await.unwrap();
    assert_eq!(catalogue(&fresh).await, before);
    assert_eq!(applied(&fresh, "_cqrs_migrations").await, MIGRATIONS + 1);
    older.verify(&domain::tables()).await.unwrap();
    save(&older).await;
}

/// What is not known is let be; what is known and differs is not.
async fn what_a_migration_was_is_still_checked<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    let last = "UPDATE _cqrs_migrations SET checksum = SUM_OF_ANOTHER \
                WHERE version = (SELECT max(version) FROM _cqrs_migrations)";
    let sum = K::either("'\\x00'", "x'00'");
    fresh.run(&last.replace("SUM_OF_ANOTHER", sum)).await;
    let Err(Error::Store(error)) = store.migrate().await else {
        panic!("it is another migration");
    };
    assert_eq!(*error.kind(), StoreErrorKind::Schema, "{error}");
}

async fn created_tables_are_a_migration<K: Kind>() {
    let fresh = Fresh::<K>::empty().await;
    let tables = [Parcel::table(), ParcelView::table()];
    let migrations: Vec<String> = tables
        .iter()
        .map(|table| SqlStore::<K>::create_table_sql(table))
        .collect();
    K::migrate(&fresh.url, migrations.clone()).await.unwrap();
    let store = fresh.open(StoreOptions::default()).await;
    store.migrate().await.unwrap();
    store.verify(&tables).await.unwrap();
    save(&store).await;

    // It is the table that the store itself would make.
    let before = catalogue(&fresh).await;
    store.create_tables(&tables).await.unwrap();
    assert_eq!(catalogue(&fresh).await, before);
    K::migrate(&fresh.url, migrations).await.unwrap();
    assert_eq!(applied(&fresh, "_sqlx_migrations").await, 2);
}
