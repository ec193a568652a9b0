//! CQRS on sqlx: repositories, units of work, the transactional outbox and the projector, on
//! Postgres and SQLite.

#![cfg_attr(
    not(any(feature = "postgres", feature = "sqlite")),
    allow(dead_code, reason = "without a backend there is nothing to run")
)]

mod backend;
mod connections;
mod log;
mod projector;
mod read_models;
mod repository;
mod select;
mod statements;
mod store;
mod unit_of_work;
mod verify;
