//! How long to wait: between looks, after failures, after the database was away.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// The first pause while writers are in flight.
const FIRST_WITH_WRITERS: Duration = Duration::from_millis(1);

/// How long what is known of a checkpoint is believed while nothing happens: someone may have
/// halted, reset or removed it.
pub(super) const DOUBT: Duration = Duration::from_secs(10);

/// How often to poll.
#[derive(Debug, Clone, Copy)]
pub(super) struct Polling {
    /// While something happens.
    pub(super) shortest: Duration,
    /// While nothing happens.
    pub(super) longest: Duration,
}

impl Polling {
    pub(super) fn new(shortest: Duration) -> Self {
        Self {
            shortest,
            longest: shortest.saturating_mul(10),
        }
    }

    /// How long to wait for what is heard of, before it is better to ask.
    pub(super) fn until_doubt(&self) -> Duration {
        self.longest.min(DOUBT)
    }
}

impl Default for Polling {
    fn default() -> Self {
        Self::new(Duration::from_millis(100))
    }
}

/// The pauses between two looks at the log.
///
/// Commits wake the projector themselves, those of other processes where it hears of them; polling
/// finds the rest. While something happens, it looks every `shortest`; the longer nothing happens, the longer the
/// pauses, up to `longest`: an idle system costs a query a second, and a busy one is seen at once.
/// While writers are in flight the next event is about to become visible, so it looks again after
/// 1 ms, then 2, 4 and so on.
#[derive(Debug)]
pub(super) struct Pace {
    polling: Polling,
    idle: Duration,
    with_writers: Duration,
}

impl Pace {
    pub(super) fn new(polling: Polling) -> Self {
        Self {
            polling,
            idle: polling.shortest,
            with_writers: FIRST_WITH_WRITERS,
        }
    }

    /// A commit was signalled.
    pub(super) fn woken(&mut self) {
        self.with_writers = FIRST_WITH_WRITERS;
    }

    /// The pause after a look.
    pub(super) fn after(&mut self, moved: bool, writers: bool) -> Duration {
        let Polling { shortest, longest } = self.polling;
        if moved {
            self.idle = shortest;
        }
        if writers {
            let pause = self.with_writers.min(shortest);
            self.with_writers = self.with_writers.saturating_mul(2).min(shortest);
            return pause;
        }
        self.with_writers = FIRST_WITH_WRITERS;
        let pause = self.idle;
        self.idle = self.idle.saturating_mul(2).min(longest);
        pause
    }
}

/// A pause that doubles, from `first` up to `longest`, until it is reset.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest: longest.max(first),
            next: first,
        }
    }

    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = self.next.saturating_mul(2).min(self.longest);
        pause
    }

    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

/// The pauses before an event that failed is tried again. After the last one comes the policy.
#[derive(Clone)]
pub(super) struct RetryDelays {
    delays: Vec<Duration>,
    random: Random,
}

/// Numbers from 0 up to 1.
pub(super) type Random = Arc<dyn Fn() -> f64 + Send + Sync>;

impl Default for RetryDelays {
    fn default() -> Self {
        // Each RandomState has other keys; that is all the randomness a pause needs.
        let random = || {
            let random = RandomState::new().hash_one(0) % 1024;
            f64::from(u32::try_from(random).unwrap_or(0)) / 1024.0
        };
        Self {
            delays: vec![
                Duration::from_millis(100),
                Duration::from_secs(1),
                Duration::from_secs(10),
            ],
            random: Arc::new(random),
        }
    }
}

impl RetryDelays {
    pub(super) fn set_delays(&mut self, delays: Vec<Duration>) {
        self.delays = delays;
    }

    pub(super) fn set_random(&mut self, random: Random) {
        self.random = random;
    }

    /// The pause after this many failed attempts, up to a fifth longer than its delay, so that
    /// what failed together is not tried again together; `None` after the last.
    pub(super) fn after(&self, failed_attempts: u32) -> Option<Duration> {
        let index = usize::try_from(failed_attempts.checked_sub(1)?).ok()?;
        let delay = *self.delays.get(index)?;
        let random = catch_unwind(AssertUnwindSafe(|| (self.random)()));
        // What is no number, or a panic, is none.
        let longer = match random {
            Ok(random) if !random.is_nan() => random.clamp(0.0, 1.0) / 5.0,
            _ => 0.0,
        };
        Some(delay.saturating_add(delay.mul_f64(longer)))
    }
}

impl fmt::Debug for RetryDelays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.delays.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn an_idle_log_is_looked_at_less_and_less_often() {
        let mut pace = Pace::new(Polling::default());
        let pauses: Vec<_> = (0..6).map(|_| pace.after(false, false)).collect();
        assert_eq!(
            pauses,
            [MS(100), MS(200), MS(400), MS(800), MS(1000), MS(1000)]
        );
        assert_eq!(pace.after(true, false), MS(100));
    }

    #[test]
    fn writers_in_flight_are_looked_for_soon() {
        let mut pace = Pace::new(Polling::default());
        let pauses: Vec<_> = (0..9).map(|_| pace.after(false, true)).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 100, 100].map(MS));
        pace.woken();
        assert_eq!(pace.after(false, true), MS(1));
        pace.after(true, false);
        assert_eq!(pace.after(false, true), MS(1));
    }

    #[test]
    fn a_poll_interval_below_a_millisecond_is_kept() {
        let mut pace = Pace::new(Polling::new(Duration::ZERO));
        assert_eq!(pace.after(false, true), Duration::ZERO);
        assert_eq!(pace.after(false, false), Duration::ZERO);
    }

    #[test]
    fn a_long_poll_interval_does_not_put_off_what_others_did() {
        assert_eq!(Polling::new(MS(100)).until_doubt(), MS(1000));
        assert_eq!(Polling::new(MS(60_000)).until_doubt(), MS(10_000));
    }

    fn delays(random: f64) -> RetryDelays {
        let mut delays = RetryDelays::default();
        delays.set_random(Arc::new(move || random));
        delays
    }

    #[test]
    fn after_the_last_delay_comes_the_policy() {
        let mut delays = delays(0.0);
        let pauses: Vec<_> = (1..5).map(|failed| delays.after(failed)).collect();
        assert_eq!(
            pauses,
            [Some(MS(100)), Some(MS(1000)), Some(MS(10_000)), None]
        );
        delays.set_delays(Vec::new());
        assert_eq!(delays.after(1), None);
    }

    #[test]
    fn a_delay_is_up_to_a_fifth_longer() {
        assert_eq!(delays(0.5).after(2), Some(MS(1100)));
        assert_eq!(delays(1.0).after(2), Some(MS(1200)));
        assert_eq!(delays(7.0).after(2), Some(MS(1200)));
        assert_eq!(delays(f64::NAN).after(2), Some(MS(1000)));
        for _ in 0..100 {
            let pause = RetryDelays::default().after(1).unwrap();
            assert!((MS(100)..=MS(120)).contains(&pause));
        }
    }

    #[test]
    fn a_panic_makes_a_delay_no_longer() {
        let mut delays = RetryDelays::default();
        delays.set_random(Arc::new(|| panic!("no number")));
        assert_eq!(delays.after(2), Some(MS(1000)));
    }

    #[test]
    fn a_delay_may_be_for_ever() {
        let mut delays = delays(1.0);
        delays.set_delays(vec![Duration::MAX]);
        assert_eq!(delays.after(1), Some(Duration::MAX));
    }

    #[test]
    fn a_backoff_doubles_until_it_is_reset() {
        let mut backoff = Backoff::new(MS(10), MS(35));
        let pauses: Vec<_> = (0..4).map(|_| backoff.next()).collect();
        assert_eq!(pauses, [10, 20, 35, 35].map(MS));
        backoff.reset();
        assert_eq!(backoff.next(), MS(10));
    }
}
