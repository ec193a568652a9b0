//! Stores with the tables of [`domain`].

use cqrs_core::{RequestContext, TenantId};
use cqrs_sqlx::{PgStore, SqliteStore, StoreOptions};

use crate::domain;

/// A context within a tenant.
#[must_use]
pub fn tenant(name: &str) -> RequestContext {
    RequestContext::tenant(TenantId::new(name).expect("a plain name is a tenant"))
}

/// A store on an empty Postgres database, with all tables.
pub async fn postgres(url: &str) -> PgStore {
    let store = postgres_with(url, StoreOptions::default()).await;
    store.migrate().await.expect("migrations apply");
    store
        .create_tables(&domain::tables())
        .await
        .expect("tables are created");
    store
}

/// A store on a Postgres database that has its tables.
pub async fn postgres_with(url: &str, options: StoreOptions) -> PgStore {
    PgStore::connect_with(url.parse().expect("a Postgres URL"), options)
        .await
        .expect("the database is there")
}

/// A store on an empty SQLite database, with all tables.
pub async fn sqlite(url: &str) -> SqliteStore {
    let store = SqliteStore::connect(url).await.expect("SQLite opens");
    store.migrate().await.expect("migrations apply");
    store
        .create_tables(&domain::tables())
        .await
        .expect("tables are created");
    store
}
