//! Support for the tests of `cqrs-sqlx`.

pub mod database;
pub mod domain;
pub mod stores;
pub mod wire;
