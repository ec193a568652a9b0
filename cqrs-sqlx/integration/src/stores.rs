//! Stores with the tables of [`domain`].

use cqrs_core::{RequestContext, TenantId};
use cqrs_sqlx::{Backend, PgStore, SqlStore, SqliteStore, StoreOptions};

use crate::domain;

/// A context within a tenant.
#[must_use]
pub fn tenant(name: &str) -> RequestContext {
    RequestContext::tenant(TenantId::new(name).expect("a plain name is a tenant"))
}

/// A store on an empty Postgres database, with all tables, as [`postgres_with`].
pub async fn postgres(url: &str) -> PgStore {
    with_tables(postgres_with(url, StoreOptions::default()).await).await
}

/// A store on a Postgres database that has its tables, without notifications: they go over
/// connections and at moments of their own, and what a test does is alone on the wire without them.
pub async fn postgres_with(url: &str, options: StoreOptions) -> PgStore {
    postgres_that_tells(url, options.notifications(false)).await
}

/// As [`postgres_with`], with notifications.
pub async fn postgres_that_tells(url: &str, options: StoreOptions) -> PgStore {
    PgStore::connect_with(url.parse().expect("a Postgres URL"), options)
        .await
        .expect("the database is there")
}

/// A store on an empty SQLite database, with all tables.
pub async fn sqlite(url: &str) -> SqliteStore {
    with_tables(SqliteStore::connect(url).await.expect("SQLite opens")).await
}

/// The store, after its database, which was empty, has got all tables.
pub async fn with_tables<B: Backend>(store: SqlStore<B>) -> SqlStore<B> {
    store.migrate().await.expect("migrations apply");
    store
        .create_tables(&domain::tables())
        .await
        .expect("tables are created");
    store
}
