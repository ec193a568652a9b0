//! Databases that cannot be reached, full pools, closed stores.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cqrs_core::{Error, Id, Store, StoreErrorKind, UnitOfWork};
use cqrs_integration::domain::{self, Parcel, Parcels};
use cqrs_integration::stores;
use cqrs_sqlx::{PgStore, Postgres, SqliteStore, StoreOptions};

use super::commit;
use cqrs_integration::each::{Fresh, Kind, kind, on_each};

on_each!(a_full_pool_is_said_in_time, a_closed_store_says_so,);

/// Who takes another role does not see since when its server process runs.
#[tokio::test]
async fn a_connection_may_take_another_role() {
    let (fresh, store) = Fresh::<Postgres>::with_store().await;
    let role = format!("cqrs_plain_{}", uuid::Uuid::new_v4().simple());
    let tables = "ALL TABLES IN SCHEMA public";
    fresh
        .run(format!(
            "CREATE ROLE {role}; GRANT ALL ON {tables} TO {role};
             GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}"
        ))
        .await;
    let mut url = fresh.url.clone();
    url.push(if url.contains('?') { '&' } else { '?' });
    url.push_str(&format!("options=-c%20role%3D{role}"));
    let plain = PgStore::connect(&url).await.unwrap();
    let context = stores::tenant("north");
    let saved = plain.execute(&context, async |uow| uow.save(Parcel::register("a")));
    assert_eq!(saved.await.unwrap().events().len(), 1);
    let projector = plain.projector().rows(domain::ParcelViews);
    assert_eq!(projector.run_until_idle().await.unwrap(), 1);
    plain.close();
    store.close();
    fresh
        .run(format!("DROP OWNED BY {role}; DROP ROLE {role}"))
        .await;
}

async fn a_full_pool_is_said_in_time<K: Kind>() {
    let timeout = Duration::from_millis(100);
    let options = StoreOptions::default()
        .max_connections(1)
        .acquire_timeout(timeout);
    let (fresh, other) = Fresh::<K>::with_store().await;
    other.close();
    // A busy machine may need longer to connect; from then on there is a connection.
    let store = loop {
        match K::open(&fresh.url, options.clone()).await {
            Ok(store) => break store,
            Err(error) => assert_eq!(*kind(&error), StoreErrorKind::Unavailable),
        }
    };
    let before = fresh.state().await;
    let mut holder = store.unit_of_work(&stores::tenant("north"));
    holder.connection().await.unwrap();

    for several in [false, true] {
        let mut uow = store.unit_of_work(&stores::tenant("north"));
        uow.save(Parcel::register("a")).unwrap();
        if several {
            uow.save(Parcel::register("b")).unwrap();
        }
        let begun = std::time::Instant::now();
        let error = uow.commit().await.unwrap_err();
        assert!(begun.elapsed() >= timeout);
        assert_eq!(*kind(&error), StoreErrorKind::PoolTimedOut);
        assert!(!error.is_retryable() && !error.is_conflict());
        let text = error.to_string();
        let says = "all 1 connections of the store were in use for 100ms";
        assert!(text.starts_with(says), "{text}");
    }
    let context = stores::tenant("north");
    let runs = AtomicU32::new(0);
    let work = store.execute(&context, async |uow| {
        runs.fetch_add(1, Ordering::Relaxed);
        uow.save(Parcel::register("a"))
    });
    assert_eq!(
        *kind(&work.await.unwrap_err()),
        StoreErrorKind::PoolTimedOut
    );
    assert_eq!(runs.into_inner(), 1, "it has waited long enough");
    let mut uow = store.unit_of_work(&context);
    let error = uow.connection().await.map(drop).unwrap_err();
    assert_eq!(*kind(&error), StoreErrorKind::PoolTimedOut);
    let read = uow.repository::<Parcel>().find_open(1).await;
    assert_eq!(*kind(&read.unwrap_err()), StoreErrorKind::Usage);
    assert_eq!(fresh.state().await, before);

    let _ = holder.commit().await.unwrap();
    commit(&store, Parcel::register("a"))
        .await
        .map(drop)
        .unwrap();
    assert_eq!(fresh.number("SELECT count(*) FROM parcel").await, 1);
    assert_eq!(fresh.number("SELECT count(*) FROM cqrs_event").await, 1);
}

#[tokio::test]
async fn a_malformed_url_is_an_error() {
    for url in [
        "",
        "postgres",
        "postgres://:::",
        "postgres://localhost:port/x",
        "sqlite::memory:",
    ] {
        let error = PgStore::connect(url).await.unwrap_err();
        assert_eq!(*kind(&error), StoreErrorKind::Usage, "{url}: {error:?}");
        assert!(error.to_string().contains("URL"), "{url}: {error}");
    }
    for url in [
        "plans.db",
        "postgres://localhost/x",
        "sqlite://plans?mode=what",
    ] {
        let error = SqliteStore::connect(url).await.unwrap_err();
        assert_eq!(*kind(&error), StoreErrorKind::Usage, "{url}: {error:?}");
        assert!(error.to_string().contains("URL"), "{url}: {error}");
    }
}

#[tokio::test]
async fn a_database_that_cannot_be_reached_is_unavailable() {
    // A port that was free a moment ago.
    let port = {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.local_addr().unwrap().port()
    };
    let error = PgStore::connect(&format!("postgres://nobody@127.0.0.1:{port}/plans"))
        .await
        .unwrap_err();
    assert_eq!(*kind(&error), StoreErrorKind::Unavailable);
    assert!(error.is_retryable());
    let error = SqliteStore::connect("sqlite:///no/such/directory/plans.db")
        .await
        .unwrap_err();
    assert_eq!(*kind(&error), StoreErrorKind::Unavailable);
}

#[tokio::test]
async fn a_database_that_does_not_exist_is_an_error() {
    let mut options: sqlx::postgres::PgConnectOptions =
        cqrs_integration::database::postgres_url().parse().unwrap();
    options = options.database("cqrs_no_such_database");
    let error = PgStore::connect_with(options, StoreOptions::default())
        .await
        .unwrap_err();
    assert!(!error.is_retryable(), "{error:?}");
    assert!(
        error.to_string().contains("cqrs_no_such_database"),
        "{error}"
    );
}

async fn a_closed_store_says_so<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    let before = fresh.state().await;
    let mut open = store.unit_of_work(&stores::tenant("north"));
    open.connection().await.unwrap();
    store.close();
    store.close();
    let usage = |error: Error| {
        assert_eq!(*kind(&error), StoreErrorKind::Usage, "{error:?}");
        assert!(error.to_string().contains("closed"), "{error}");
    };
    usage(commit(&store, Parcel::register("a")).await.unwrap_err());
    let mut uow = store.unit_of_work(&stores::tenant("north"));
    usage(uow.get::<Parcel>(Id::new()).await.unwrap_err());
    usage(store.migrate().await.unwrap_err());
    usage(store.verify(&domain::tables()).await.unwrap_err());
    usage(store.subscriptions().await.unwrap_err());
    assert_eq!(fresh.state().await, before);

    // What is under way is finished.
    open.save(Parcel::register("a")).unwrap();
    assert_eq!(open.commit().await.unwrap().events().len(), 1);
    assert_eq!(fresh.number("SELECT count(*) FROM parcel").await, 1);
}
