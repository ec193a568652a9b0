//! Consumers of the log, and the statements that they and commits send.

#![expect(
    clippy::unwrap_used,
    reason = "in a test, what cannot be unwrapped is a failure"
)]

mod backfill;
mod chaos;
mod consistency;
mod event_sets;
mod inbox;
mod metrics;
mod oracle;
mod pooled;
mod processes;
mod projector;
mod retention;
mod statement_count;
mod warnings;
