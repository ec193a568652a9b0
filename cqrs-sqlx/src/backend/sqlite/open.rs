//! Opening a store on SQLite.

use cqrs_core::Result;
use sqlx::sqlite::SqliteConnectOptions;

use super::{Sqlite, no_row_security};
use crate::backend::url;
use crate::connections::Connections;
use crate::{SqlStore, StoreOptions};

impl SqlStore<Sqlite> {
    /// Opens a store in a file, which is created where it does not exist, or in memory
    /// (`sqlite::memory:`).
    ///
    /// # Errors
    ///
    /// [`Store`](cqrs_core::Error::Store), of kind [`Usage`](cqrs_core::StoreErrorKind::Usage) where
    /// the URL is malformed or of another database, else where the file cannot be opened.
    pub async fn connect(url: &str) -> Result<Self> {
        let options: SqliteConnectOptions = url::parse(url, &["sqlite"])?;
        Self::connect_with(options.create_if_missing(true), StoreOptions::default()).await
    }

    /// As [`connect`](Self::connect), with options.
    ///
    /// One connection writes, since SQLite has one writer; the others read. A database in memory
    /// has one connection for both.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect); a [`Usage`](cqrs_core::StoreErrorKind::Usage) error where the
    /// options ask for [row-level security](StoreOptions::row_level_security).
    pub async fn connect_with(options: SqliteConnectOptions, store: StoreOptions) -> Result<Self> {
        if store.row_level_security {
            return Err(no_row_security());
        }
        let backend = Sqlite::new(options);
        let open = |size| Connections::new(backend.clone(), size, store.acquire_timeout);
        let writer = open(1);
        drop(writer.acquire().await?);
        let readers = if backend.is_in_memory() {
            writer.clone()
        } else {
            open(store.max_connections)
        };
        Ok(Self::from_parts(
            backend, writer, readers, None, None, store,
        ))
    }
}
