//! Tests on real servers.

mod bad_input;
mod cancellation;
mod concurrency;
mod conformance;
mod each;
mod isolation;
mod lost_connection;
mod migrations;
mod oracle;
mod projector;
mod statement_count;
