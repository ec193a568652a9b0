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

use cqrs_integration::random::seed;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Runs cases that `CQRS_SEED` repeats.
fn runner(config: Config) -> TestRunner {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed().to_le_bytes());
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    TestRunner::new_with_rng(config, random)
}
