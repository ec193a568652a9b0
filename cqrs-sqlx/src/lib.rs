//! CQRS on sqlx: repositories, units of work, the transactional outbox and the projector, on
//! Postgres and SQLite.
//!
//! Aggregates, events and read models are defined with `cqrs-core`; this crate stores them. The
//! features `postgres` and `sqlite` choose the databases; there is no default.
//!
//! - [`SqlStore`] is the store: [`connect`](SqlStore::connect), [`migrate`](SqlStore::migrate) and
//!   [`verify`](SqlStore::verify) at start-up, then everything of [`Store`](cqrs_core::Store).
//! - [`SqlUnitOfWork`] commits one aggregate with its events in one statement on Postgres, and
//!   several in one transaction. SQL of your own joins through
//!   [`connection`](SqlUnitOfWork::connection).
//! - [`ProjectorBuilder`] runs projections and relays over the log; [`ProjectorHandle`] stops them.
//!   [`SqlStore::subscriptions`] says where they stand, and [`Operations`] is what operators do to
//!   them.
//!
//! # Example
//!
#![cfg_attr(feature = "sqlite", doc = "```")]
#![cfg_attr(not(feature = "sqlite"), doc = "```ignore")]
//! use cqrs_core::{
//!     Aggregate, DomainEvent, Entity, RequestContext, Root, Store, TenantId, UnitOfWork,
//! };
//! use cqrs_sqlx::SqliteStore;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
//! #[event(aggregate = "account")]
//! enum AccountEvent {
//!     Opened,
//!     Deposited { cents: i64 },
//! }
//!
//! #[derive(Debug, Clone, Aggregate)]
//! #[aggregate(table = "account", event = AccountEvent, tenant, audit)]
//! struct Account {
//!     #[aggregate(id)]
//!     number: String,
//!     #[aggregate(root)]
//!     root: Root<AccountEvent>,
//!     cents: i64,
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = SqliteStore::connect("sqlite::memory:").await?;
//! store.migrate().await?;
//! store.create_tables(&[Account::table()]).await?;
//! store.verify(&[Account::table()]).await?;
//!
//! let context = RequestContext::tenant(TenantId::new("north")?).with_actor("kim");
//! let receipt = store
//!     .execute(&context, async |uow| {
//!         let mut root = Root::new();
//!         root.raise(AccountEvent::Opened);
//!         root.raise(AccountEvent::Deposited { cents: 250 });
//!         uow.save(Account { number: "A1".to_owned(), root, cents: 250 })
//!     })
//!     .await?;
//! assert_eq!(receipt.events().len(), 2);
//!
//! let loaded = store
//!     .execute(&context, async |uow| uow.get::<Account>("A1".to_owned()).await)
//!     .await?
//!     .into_output();
//! assert_eq!(loaded.cents, 250);
//! assert_eq!(loaded.root.version(), 2);
//! assert_eq!(loaded.root.stamps().created_by.as_deref(), Some("kim"));
//! # Ok(())
//! # }
//! ```

#![cfg_attr(
    not(any(feature = "postgres", feature = "sqlite")),
    allow(dead_code, reason = "without a backend there is nothing to run")
)]

mod backend;
mod coalesce;
mod connections;
mod health;
mod history;
mod integrity;
mod lent;
mod listening;
mod log;
mod maintenance;
mod metrics;
mod notifier;
mod projector;
mod read_models;
mod reads;
mod receipts;
mod repository;
mod retention;
mod select;
mod signal;
mod snapshots;
mod sourced;
mod sourced_types;
mod sql;
mod statements;
mod store;
#[cfg(feature = "sealed")]
mod subject_keys;
mod tenancy;
mod unit_of_work;
mod verify;
mod waits;

pub use backend::Backend;
#[cfg(feature = "postgres")]
pub use backend::postgres::Postgres;
#[cfg(feature = "sqlite")]
pub use backend::sqlite::Sqlite;
pub use health::{Health, HealthLimits, HorizonHolder, Problem};
pub use projector::{
    DeadLetter, DeadLetterStatus, FailedAttempt, OperationRecord, Operations, ProgressWatch,
    ProjectionSnapshot, ProjectorBuilder, ProjectorHandle, Restored, SegmentStatus, SnapshotTable,
    SqlTransaction, Stopped, SubscriptionFailure, SubscriptionProgress, SubscriptionState,
    SubscriptionStatus, SwitchOver,
};
pub use read_models::SqlReadModels;
pub use repository::SqlRepository;
pub use retention::{Removed, Retention, RetentionError};
pub use store::{SqlStore, StoreOptions};
#[cfg(feature = "sealed")]
pub use subject_keys::Rewrapped;
pub use unit_of_work::SqlUnitOfWork;
pub use verify::SchemaMismatch;

#[cfg(feature = "__tenancy-mutations")]
#[doc(hidden)]
pub use tenancy::{TenantSite as __TenantSite, mutation as __mutation};

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
