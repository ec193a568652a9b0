//! Domain-driven design with CQRS: aggregates, domain events, repositories, units of work and
//! projections.
//!
//! This crate holds the traits and values, and implementations in memory. It knows no database,
//! no async runtime and no broker; `cqrs-sqlx` runs the same code on Postgres and SQLite.
//!
//! | to | see |
//! |---|---|
//! | define an aggregate | [`Aggregate`](derive@Aggregate), [`Root`], [`DomainEvent`](derive@DomainEvent), [`DomainError`] |
//! | make its state the fold of its events | [`Sourced`], [`Decide`] |
//! | keep what it was after each change | [`KeepsHistory`], [`Revision`], [`EventHistory`] |
//! | map its fields to columns | [`mapping`], [`ValueObject`](derive@ValueObject), [`Record`](derive@Record) |
//! | find aggregates | [`repository`](macro@repository), [`Repository`], [`Specification`], [`Query`] |
//! | run commands | [`Store::execute`], [`UnitOfWork`], [`RequestContext`], [`CommandHandler`], [`IdempotencyKey`] |
//! | keep and read read models | [`ReadModel`](derive@ReadModel), [`RowProjection`], [`Projection`], [`ReadModels`], [`QueryHandler`] |
//! | follow several aggregates at once | [`EventSet`](derive@EventSet) |
//! | keep them in the commit, or fold them on read | [`Store::inline`], [`Store::live`] |
//! | cache reads | `cache` (a feature) |
//! | seal personal data, and forget it | `sealed` (a feature) |
//! | work on many aggregates at once | [`Maintain::maintenance`], [`Maintenance`] |
//! | write SQL of your own | [`sql`], [`SqlRow`](derive@SqlRow) |
//! | tell others | [`EventBus`], [`Relay`] |
//! | tell errors apart | [`Error`], [`StoreErrorKind`] |
//! | describe events to others, and keep their payloads readable | [`schema`] |
//! | test | [`InMemoryStore`], [`ManualClock`], [`testing`] |
//! | write a store | [`staging`], `conformance` (a feature) |
//!
//! # Example
//!
//! An aggregate, a read model and a command, on the store in memory.
//!
//! ```
//! use cqrs_core::{
//!     Aggregate, DomainEvent, Envelope, InMemoryStore, ReadModel, ReadModels, RequestContext,
//!     Result, Root, RowProjection, Store, TenantId, UnitOfWork,
//! };
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
//! #[aggregate(table = "account", event = AccountEvent, tenant)]
//! struct Account {
//!     #[aggregate(id)]
//!     number: String,
//!     #[aggregate(root)]
//!     root: Root<AccountEvent>,
//!     cents: i64,
//! }
//!
//! impl Account {
//!     fn open(number: &str) -> Self {
//!         let mut root = Root::new();
//!         root.raise(AccountEvent::Opened);
//!         Self { number: number.to_owned(), root, cents: 0 }
//!     }
//!
//!     fn deposit(&mut self, cents: i64) {
//!         self.cents += cents;
//!         self.root.raise(AccountEvent::Deposited { cents });
//!     }
//! }
//!
//! #[derive(Debug, Clone, PartialEq, ReadModel)]
//! #[read_model(table = "account_activity", tenant)]
//! struct Activity {
//!     #[read_model(key)]
//!     number: String,
//!     deposits: u32,
//! }
//!
//! struct Activities;
//!
//! impl RowProjection for Activities {
//!     type Event = AccountEvent;
//!     type Row = Activity;
//!     const NAME: &'static str = "account_activity";
//!
//!     fn key(&self, event: &Envelope<AccountEvent>) -> Result<Option<String>> {
//!         Ok(Some(event.aggregate_id_str().to_owned()))
//!     }
//!
//!     fn apply(&self, row: &mut Option<Activity>, event: &Envelope<AccountEvent>) -> Result<()> {
//!         let number = event.aggregate_id_str().to_owned();
//!         let activity = row.get_or_insert(Activity { number, deposits: 0 });
//!         if let AccountEvent::Deposited { .. } = event.payload() {
//!             activity.deposits += 1;
//!         }
//!         Ok(())
//!     }
//! }
//!
//! async fn deposit<U: UnitOfWork>(uow: &mut U, number: &str, cents: i64) -> Result<()> {
//!     let mut account = uow.get::<Account>(number.to_owned()).await?;
//!     account.deposit(cents);
//!     uow.save(account)
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = InMemoryStore::new();
//! store.subscribe_rows(Activities)?;
//! let context = RequestContext::tenant(TenantId::new("north")?);
//!
//! let opened = store.execute(&context, async |uow| uow.save(Account::open("A1"))).await?;
//! assert_eq!(opened.events().len(), 1);
//! let receipt = store.execute(&context, async |uow| deposit(uow, "A1", 250).await).await?;
//!
//! store.wait_for(&receipt, Activities::NAME).await?;
//! let activity = store.read_models(&context).find::<Activity>("A1".to_owned()).await?;
//! assert_eq!(activity.map(|activity| activity.deposits), Some(1));
//! # Ok(())
//! # }
//! ```

// What the derives emit names this crate by its path; the conformance suite uses them in here.
extern crate self as cqrs_core;

mod aggregate;
mod bus;
#[cfg(feature = "cache")]
pub mod cache;
mod changes;
mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod consistency;
mod context;
mod envelope;
mod error;
mod event;
mod handler;
pub mod history;
mod hooks;
mod id;
mod idempotency;
mod inline;
pub mod integrity;
mod interceptor;
mod live;
pub mod maintenance;
pub mod mapping;
pub mod memory;

#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;
mod panics;
mod payload;
pub mod process;
mod projection;
mod read_model;
mod repository;
pub mod schema;
#[cfg(feature = "sealed")]
pub mod sealed;
pub mod sourced;
mod specification;
mod spent;
pub mod sql;
pub mod staging;
mod store;
mod subscription;
pub mod testing;
mod unit_of_work;
mod upcast;

pub use aggregate::{AggregateRoot, AuditStamps, Root};
pub use bus::{ConsoleEventBus, EventBus, Relay};
pub use changes::{Changing, TableChanges};
pub use clock::{Clock, ManualClock, SystemClock};
pub use consistency::ConsistencyCheck;
pub use context::{InvalidTenantId, Metadata, RequestContext, TenantId, TenantScope, TraceContext};
pub use envelope::{AggregateIdError, Envelope, EventHeader, Position, RawPayload};
pub use error::{DomainError, Error, Result, StoreError, StoreErrorKind};
pub use event::{DomainEvent, EventSet, EventType};
pub use handler::{CommandHandler, QueryHandler};
pub use history::{FieldChange, Historic, KeepsHistory, Revision, RevisionKind};
pub use hooks::{Hooks, HooksMark};
pub use id::{AggregateId, Id, ParseIdError};
pub use idempotency::{IdempotencyKey, RecordedReceipt};
pub use inline::{Inline, InlineProjections, SubscribedName};
pub use integrity::{ContentHash, HashKey, HashKeys, InvalidContentHash, LogCheck};
pub use interceptor::{Change, Intercepted, InterceptedCommit, Interceptor, Interceptors};
pub use live::{Live, LogSlice};
pub use maintenance::{Maintain, Maintenance};
pub use mapping::{Child, ColumnValue, Columns, Entity, Record, ValueObject};
pub use memory::InMemoryStore;
pub use payload::{PayloadError, canonical_json};
pub use projection::{
    Projection, ProjectionTransaction, Rebuilds, RowAddress, RowProjection, Rows,
};
pub use read_model::{Owned, ReadModel, ReadModelRepository, ReadModels, RowKey};
pub use repository::{EventHistory, Repository};
pub use sourced::{AsOf, Decide, Sourced, SourcedState, StateStored};
pub use specification::{
    Assignment, CacheKey, Children, Comparison, Cursor, Direction, Field, JsonLeaf, JsonPath,
    JsonPlace, JsonStep, JsonValue, LikeToken, Operand, Order, Page, PageRequest, Paging, Place,
    Predicate, Query, RowLock, SortKey, Specification, TextTest, TextValue,
};
pub use spent::Spent;
pub use sql::{SqlQueries, SqlReads, SqlRow};
pub use store::{
    BatchError, BatchReceipt, BoxFuture, Delivery, Inbox, ItemWork, RetryPolicy, Store, StoreId,
    Work, WorkOnce,
};
pub use subscription::{
    Each, EventFilter, EventHandler, FailurePolicy, Parking, StartAt, Subscription,
};
pub use unit_of_work::{CommitReceipt, UnitOfWork};
pub use upcast::{Upcast, check_readable};

#[cfg(feature = "derive")]
pub use cqrs_macros::{
    Aggregate, Child, DomainEvent, EventSet, ReadModel, Record, SqlRow, ValueObject, repository,
};
