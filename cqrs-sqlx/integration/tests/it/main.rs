//! Tests on real servers.

mod conformance;
mod lost_connection;
mod oracle;
mod projector;
mod statement_count;
