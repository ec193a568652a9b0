//! SQLite.

mod horizon;
mod rows;
