//! Support for the tests of `cqrs-sqlx`.

pub mod cluster;
pub mod database;
pub mod domain;
pub mod each;
pub mod random;
pub mod stores;
pub mod ticking;
pub mod wire;
pub mod workload;
