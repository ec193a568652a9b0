//! What a seed says before anything happens.

use std::time::Duration;

use cqrs_core::{FailurePolicy, Parking};
use cqrs_integration::random::Random;

/// Longer than a page takes, even where much else happens.
const DEADLINE: Duration = Duration::from_millis(150);

#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) seed: u64,
    /// What is done about events that the views cannot apply.
    pub(super) views: FailurePolicy,
    /// The same, in the release before: the policy may change with a release.
    pub(super) views_before: FailurePolicy,
    /// What is done about events that cannot be published.
    pub(super) relay: FailurePolicy,
    /// Whether the views are kept on pages without a lock.
    pub(super) unlocked: bool,
    /// How long a page may take, where some handlers hang.
    pub(super) deadline: Option<Duration>,
    /// Whether there are replicas of a release that cannot decode all events.
    pub(super) first_release: bool,
    /// Whether old events leave the log.
    pub(super) retention: bool,
}

impl Plan {
    pub(super) fn of(seed: u64) -> Self {
        // Apart from what happens then.
        let mut random = Random::new(!seed);
        Self {
            seed,
            views: policy(&mut random),
            relay: policy(&mut random),
            unlocked: random.below(2) == 0,
            deadline: (random.below(4) == 0).then_some(DEADLINE),
            first_release: random.below(2) == 0,
            retention: random.below(2) == 0,
            views_before: policy(&mut random),
        }
    }
}

fn policy(random: &mut Random) -> FailurePolicy {
    match random.below(4) {
        0 => FailurePolicy::Halt,
        1 => FailurePolicy::Skip,
        // Soon met: then it halts.
        2 => FailurePolicy::Park(Parking::at_most(3)),
        _ => FailurePolicy::Park(Parking::at_most(100_000)),
    }
}
