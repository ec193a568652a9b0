//! Postgres.

mod horizon;
mod rows;
