//! The store in memory, put through the conformance suite.

use cqrs_core::conformance::differential::compare;
use cqrs_core::conformance::{Memory, seed};

mod conformance {
    cqrs_core::conformance_suite!(
        #[tokio::test]
        super::Memory
    );
}

#[tokio::test]
async fn random_commands_end_alike_in_two_stores() {
    for seed in (seed()..).take(20) {
        compare(&Memory, &Memory, seed, 120).await;
    }
}
