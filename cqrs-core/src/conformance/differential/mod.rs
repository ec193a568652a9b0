//! Two stores, the same random commands, the same answers.

mod command;
mod describe;
mod run;
mod subject;

pub use command::{Command, random_commands};

use std::sync::Arc;

use super::Harness;
use super::support::time;
use crate::clock::ManualClock;
use run::Run;

/// Drives two stores with the same random commands, and panics where they differ: in what a
/// command reads, in the kind and content of its error, in what its commit writes; at the end, in
/// the rows, the log and the read models.
///
/// Ids of events, positions and the time of recording are the store's own; of these only order
/// and number are compared.
///
/// # Panics
///
/// Where the stores differ; the message has the seed, and the command. Take seeds from
/// [`seed`](super::seed), which the environment can repeat.
pub async fn compare<A: Harness, B: Harness>(a: &A, b: &B, seed: u64, steps: usize) {
    let clock = Arc::new(ManualClock::new(time(0)));
    let mut in_a = Run::begin(a, Arc::clone(&clock), seed).await;
    let mut in_b = Run::begin(b, Arc::clone(&clock), seed).await;
    for (command, index) in random_commands(seed, steps).iter().zip(1..) {
        clock.set(time(index));
        let seen_in_a = in_a.run(command).await;
        let seen_in_b = in_b.run(command).await;
        assert_eq!(
            seen_in_a, seen_in_b,
            "CQRS_SEED={seed}: the stores differ at command {index}, {command:#?}"
        );
    }
    for (seen_in_a, seen_in_b) in in_a.everything().await.iter().zip(in_b.everything().await) {
        assert_eq!(
            *seen_in_a, seen_in_b,
            "CQRS_SEED={seed}: the stores differ after {steps} commands"
        );
    }
}
