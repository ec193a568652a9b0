//! Support for the tests of `cqrs-sqlx`.

pub mod database;
pub mod domain;
pub mod random;
pub mod stores;
pub mod wire;
pub mod workload;

/// The code in the guide compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/guide.md")]
mod guide {}
