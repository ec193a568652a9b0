//! Tests on real servers.

#![expect(
    clippy::unwrap_used,
    reason = "in a test, what cannot be unwrapped is a failure"
)]

mod backfill;
mod bad_input;
mod cache;
mod cancellation;
mod chaos;
mod children;
mod concurrency;
mod conformance;
mod consistency;
mod deadlocks;
mod each;
mod fuzz;
mod inbox;
mod inline;
mod isolation;
mod locks;
mod lost_connection;
mod maintenance;
mod metrics;
mod migrations;
mod oracle;
mod projector;
mod refused;
mod retention;
mod row_security;
mod sourced;
mod specification;
mod specification_differential;
mod sql_finders;
mod statement_count;
mod units_of_work;
