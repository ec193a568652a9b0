//! Opening a store on Postgres.

use cqrs_core::Result;
use cqrs_core::mapping::Table;
use sqlx::postgres::PgConnectOptions;

use super::{Postgres, row_security};
use crate::backend::url;
use crate::connections::Connections;
use crate::{SqlStore, StoreOptions};

/// How many connections there are for coalesced commits and loads.
const FLUSHERS: usize = 4;

impl SqlStore<Postgres> {
    /// The statements that put tables behind policies of row-level security, with the framework's
    /// own, for [`StoreOptions::row_level_security`]: to put into a migration of your own, after
    /// those that create the tables. Tables without tenants are left out. The statements may be run
    /// again.
    ///
    /// The role that the application connects as must not be a superuser and must not have
    /// `BYPASSRLS`. It needs `SELECT`, `INSERT`, `UPDATE` and `DELETE` on the tables, and `USAGE`
    /// and `SELECT` on the sequence `cqrs_event_position`.
    #[must_use]
    pub fn row_level_security_sql(tables: &[&Table]) -> String {
        row_security::sql(tables)
    }

    /// Opens a store. Connects once, to find out early that it can.
    ///
    /// # Errors
    ///
    /// [`Store`](cqrs_core::Error::Store), of kind [`Usage`](cqrs_core::StoreErrorKind::Usage) where
    /// the URL is malformed or of another database, else where the database cannot be
    /// reached.
    pub async fn connect(url: &str) -> Result<Self> {
        let options: PgConnectOptions = url::parse(url, &["postgres", "postgresql"])?;
        Self::connect_with(options, StoreOptions::default()).await
    }

    /// As [`connect`](Self::connect), with options.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub async fn connect_with(options: PgConnectOptions, store: StoreOptions) -> Result<Self> {
        let backend = Postgres::new(options);
        let open = |backend, size| Connections::new(backend, size, store.acquire_timeout);
        let connections = open(backend.clone(), store.max_connections);
        drop(connections.acquire().await?);
        let notifier = store.notifications.then(|| open(backend.clone(), 1));
        let flushers = store.coalesce.map(|_| open(backend.flushing(), FLUSHERS));
        Ok(Self::from_parts(
            backend,
            connections.clone(),
            connections,
            notifier,
            flushers,
            store,
        ))
    }
}
