//! Tests on real servers.

mod lost_connection;
mod statement_count;
