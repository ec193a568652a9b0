//! What the parts that consume the log share: a log, the read table that is made of it, and the
//! ways to make it.

pub(crate) mod bloat;
pub(crate) mod drain;
pub(crate) mod rebuild;
pub(crate) mod sqlite;

mod by_hand;
mod log;
mod projections;
