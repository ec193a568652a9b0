//! What protects the log and what is in it: evidence of tampering, and sealed fields.

#![expect(
    clippy::unwrap_used,
    reason = "in a test, what cannot be unwrapped is a failure"
)]

mod forget;
mod tamper;
