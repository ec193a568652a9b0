//! A store in memory, for tests and for programs that need no database.
//!
//! It keeps the rules of the database backends: versions, tenants, soft delete, ids that are never
//! used again, all or nothing. It keeps nothing beyond the process, and it has no background task:
//! projections run when [`InMemoryStore::project`] or
//! [`wait_for`](crate::Store::wait_for) is called.

mod bulk;
mod commit;
mod consistency;
mod dead_letters;
mod history;
mod integrity;
#[cfg(feature = "sealed")]
mod keys;
mod overlay;
mod processes;
mod read_models;
mod rebuild;
mod repository;
mod select;
mod sourced;
mod state;
mod store;
mod subscriptions;
mod transaction;
mod turn;
mod unit_of_work;
mod view;

pub use dead_letters::{DeadLetter, DeadLetterStatus};
#[cfg(feature = "sealed")]
pub use keys::InMemoryKeyStore;
pub use read_models::InMemoryReadModels;
pub use repository::InMemoryRepository;
pub use store::InMemoryStore;
pub use subscriptions::{SubscriptionHalted, SubscriptionState, SubscriptionStatus};
pub use transaction::InMemoryTransaction;
pub use unit_of_work::InMemoryUnitOfWork;
