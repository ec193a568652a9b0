//! CQRS on sqlx: repositories, units of work, the transactional outbox and the projector, on
//! Postgres and SQLite.

#![cfg_attr(
    not(any(feature = "postgres", feature = "sqlite")),
    allow(dead_code, reason = "without a backend there is nothing to run")
)]

mod backend;
mod connections;
mod log;
mod projector;
mod read_models;
mod reads;
mod repository;
mod select;
mod statements;
mod store;
mod unit_of_work;
mod verify;

pub use backend::Backend;
#[cfg(feature = "postgres")]
pub use backend::postgres::Postgres;
#[cfg(feature = "sqlite")]
pub use backend::sqlite::Sqlite;
pub use projector::{
    ProjectorBuilder, ProjectorHandle, SqlTransaction, Stopped, SubscriptionFailure,
    SubscriptionState, SubscriptionStatus,
};
pub use read_models::SqlReadModels;
pub use repository::SqlRepository;
pub use store::{SqlStore, StoreOptions};
pub use unit_of_work::SqlUnitOfWork;
pub use verify::SchemaMismatch;

/// A store in Postgres.
#[cfg(feature = "postgres")]
pub type PgStore = SqlStore<Postgres>;
/// A store in SQLite.
#[cfg(feature = "sqlite")]
pub type SqliteStore = SqlStore<Sqlite>;

/// A unit of work in Postgres.
#[cfg(feature = "postgres")]
pub type PgUnitOfWork = SqlUnitOfWork<Postgres>;
/// A unit of work in SQLite.
#[cfg(feature = "sqlite")]
pub type SqliteUnitOfWork = SqlUnitOfWork<Sqlite>;
