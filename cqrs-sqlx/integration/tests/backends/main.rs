//! What holds on every database alike, and what no value, condition or tenant may break.

#![expect(
    clippy::unwrap_used,
    reason = "in a test, what cannot be unwrapped is a failure"
)]

mod conformance;
mod fuzz;
mod history;
mod isolation;
mod row_security;
mod specification;
mod specification_differential;
