//! Tests on real servers.

mod conformance;
mod lost_connection;
mod statement_count;
