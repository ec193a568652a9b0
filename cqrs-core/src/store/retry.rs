//! Trying again.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// How often and after which pauses a command is run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How many times it is run in all; at least once.
    pub attempts: u32,
    /// The pause after the first try; it doubles with each further one.
    pub first_delay: Duration,
    /// The longest pause.
    pub max_delay: Duration,
}

impl Default for RetryPolicy {
    /// 30 tries; pauses from 2 ms to 250 ms, some five seconds in all.
    fn default() -> Self {
        Self {
            attempts: 30,
            first_delay: Duration::from_millis(2),
            max_delay: Duration::from_millis(250),
        }
    }
}

impl RetryPolicy {
    /// The pause after try number `attempt`, from 1: between half of the doubled delay and all of
    /// it, at random, so that those who collided do not meet again.
    #[must_use]
    pub fn delay(&self, attempt: u32) -> Duration {
        let doubled = self
            .first_delay
            .saturating_mul(1 << attempt.saturating_sub(1).min(20))
            .min(self.max_delay);
        // Each RandomState has other keys; that is all the randomness a pause needs.
        let random = RandomState::new().hash_one(attempt) % 512;
        doubled / 2 + doubled.mul_f64(f64::from(u32::try_from(random).unwrap_or(0)) / 1024.0)
    }
}
