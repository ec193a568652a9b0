//! The projector: runs subscriptions over the log.
//!
//! One horizon task of the store finds out how far the log can be trusted. Each subscription has a loop, which
//! runs one pass after another: claim the checkpoint, read a page up to the horizon, apply it,
//! move the checkpoint, commit. A pass is [`pass`]'s topic, when to run the next one the loop's.
//!
//! Architecture invariant: nothing about a consumer is kept outside of its row in
//! `cqrs_subscription`. What a process remembers is only to save it questions, so any number of
//! processes may run the same subscription, and any of them may die at any point.

mod apply;
mod builder;
mod building;
mod builds;
mod checkpoint;
mod claim;
mod consistency;
mod dead_letters;
mod deferred;
mod errors;
mod failure;
mod handle;
mod horizon;
mod idle;
mod letter;
mod narrow;
mod operations;
mod pace;
mod page_sql;
mod pass;
pub(crate) mod processes;
mod progress;
mod queries;
mod rebuild;
pub(crate) mod records;
mod register;
mod replay;
mod reset;
mod restore;
mod segments;
mod snapshots;
mod status;
mod subscription;
mod switch;
mod transaction;
mod turns;
mod under_way;
mod unlocked;
mod wait;
mod wake;
mod worker;

pub use builder::ProjectorBuilder;
pub use building::SwitchOver;
pub use dead_letters::FailedAttempt;
pub use handle::{ProjectorHandle, Stopped};
pub use letter::{DeadLetter, DeadLetterStatus};
pub use operations::{OperationRecord, Operations};
pub use progress::{ProgressWatch, SubscriptionProgress};
pub use restore::Restored;
pub use snapshots::{ProjectionSnapshot, SnapshotTable};
pub use status::{SegmentStatus, SubscriptionFailure, SubscriptionState, SubscriptionStatus};
pub use transaction::SqlTransaction;

pub(crate) use building::COLUMNS as REBUILD_COLUMNS;
pub(crate) use checkpoint::COLUMNS as SEGMENT_COLUMNS;
pub(crate) use consistency::compare;
pub(crate) use horizon::{Watching, settled};
pub(crate) use letter::COLUMNS as DEAD_LETTER_COLUMNS;
pub(crate) use operations::COLUMNS as OPERATION_COLUMNS;
pub(crate) use pace::Backoff;
pub(crate) use progress::progress;
#[cfg(feature = "sealed")]
pub(crate) use queries::execute_within;
pub(crate) use queries::{begin, begin_reading, discard, end, execute, rollback};
pub(crate) use rebuild::rebuild_inline;
pub(crate) use snapshots::COLUMNS as SNAPSHOT_COLUMNS;
pub(crate) use status::statuses;
pub(crate) use under_way::UnderWay;
pub(crate) use wait::wait_for;
pub(crate) use wake::{Known, Progress, Wake};
