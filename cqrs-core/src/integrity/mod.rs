//! Tamper evidence: hashes of events, keys for them, chains, and the check of a whole log.

mod anchor;
mod chain;
mod check;
mod hash;
mod keys;
mod report;

pub use self::anchor::{Anchor, InvalidAnchor};
pub(crate) use self::chain::{Chain, LinkedEvent, LinkedStream, read_link};
pub use self::check::{ChainedAggregate, LogCheck, LogScan, StoredEvent};
pub(crate) use self::hash::Link;
pub use self::hash::{ContentHash, InvalidContentHash};
pub use self::keys::{HashKey, HashKeys, Hashing};
pub use self::report::{Break, BreakKind, LogCheckReport};
