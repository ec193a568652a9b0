//! Stores: repositories, units of work, commits, and what may happen to them.

#![expect(
    clippy::unwrap_used,
    reason = "in a test, what cannot be unwrapped is a failure"
)]

mod bad_input;
mod cache;
mod cancellation;
mod children;
mod concurrency;
mod deadlocks;
mod decisions;
mod inline;
mod locks;
mod lost_connection;
mod maintenance;
mod migrations;
mod old_log;
mod refused;
mod sourced;
mod sql_finders;
mod units_of_work;
