//! Domain-driven design with CQRS: aggregates, domain events, repositories, units of work and
//! projections.
//!
//! This crate holds the traits and values, and implementations in memory. It knows no database,
//! no async runtime and no broker; `cqrs-sqlx` runs the same code on Postgres and SQLite.

// What the derives emit names this crate by its path; the conformance suite uses them in here.
extern crate self as cqrs_core;

mod aggregate;
mod bus;
mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
mod context;
mod envelope;
mod error;
mod event;
mod handler;
mod id;
pub mod mapping;
pub mod memory;

#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;
mod payload;
mod projection;
mod read_model;
mod repository;
mod specification;
pub mod staging;
mod store;
mod unit_of_work;

pub use aggregate::{AggregateRoot, AuditStamps, Root};
pub use bus::{ConsoleEventBus, EventBus, Relay};
pub use clock::{Clock, ManualClock, SystemClock};
pub use context::{InvalidTenantId, Metadata, RequestContext, TenantId, TenantScope, TraceContext};
pub use envelope::{AggregateIdError, Envelope, EventHeader, Position, RawPayload};
pub use error::{DomainError, Error, Result, StoreError, StoreErrorKind};
pub use event::{DomainEvent, EventSet, EventType};
pub use handler::{CommandHandler, QueryHandler};
pub use id::{AggregateId, Id, ParseIdError};
pub use mapping::{ColumnValue, Entity, Record, ValueObject};
pub use memory::InMemoryStore;
pub use payload::{ContentHash, PayloadError, canonical_json};
pub use projection::{
    Projection, ProjectionTransaction, RowAddress, RowProjection, Rows, Subscription,
};
pub use read_model::{Owned, ReadModel, ReadModels, RowKey};
pub use repository::Repository;
pub use specification::{Comparison, Direction, Field, Order, Predicate, Query, Specification};
pub use store::{BoxFuture, RetryPolicy, Store, Work};
pub use unit_of_work::{CommitReceipt, UnitOfWork};

#[cfg(feature = "derive")]
pub use cqrs_macros::{Aggregate, DomainEvent, ReadModel, Record, ValueObject, repository};
