//! How long to wait: between looks, after failures, after the database was away.

use std::time::Duration;

/// The first pause while writers are in flight.
const FIRST_WITH_WRITERS: Duration = Duration::from_millis(1);

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
}

impl Default for Polling {
    fn default() -> Self {
        Self::new(Duration::from_millis(100))
    }
}

/// The pauses between two looks at the log.
///
/// Commits of this process wake the projector themselves; polling finds those of others. While
/// something happens, it looks every `shortest`; the longer nothing happens, the longer the
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

    /// A commit of this process was signalled.
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
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest: longest.max(first),
            next: first,
        }
    }

    pub(super) fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = self.next.saturating_mul(2).min(self.longest);
        pause
    }

    pub(super) fn reset(&mut self) {
        self.next = self.first;
    }
}

/// The pauses before a page that failed is tried again. After the last one comes the halt.
#[derive(Debug, Clone)]
pub(super) struct RetryDelays(pub(super) Vec<Duration>);

impl Default for RetryDelays {
    fn default() -> Self {
        Self(vec![
            Duration::from_millis(100),
            Duration::from_secs(1),
            Duration::from_secs(10),
        ])
    }
}

impl RetryDelays {
    /// The pause after this many failed attempts; `None` is the halt.
    pub(super) fn after(&self, failed_attempts: u32) -> Option<Duration> {
        let index = usize::try_from(failed_attempts.checked_sub(1)?).ok()?;
        self.0.get(index).copied()
    }

    /// What is left of the pause when the last attempt failed `elapsed` ago. The clock may have
    /// been set back, so never more than the whole.
    pub(super) fn remaining(
        &self,
        failed_attempts: u32,
        elapsed: chrono::TimeDelta,
    ) -> Option<Duration> {
        let pause = self.after(failed_attempts)?;
        let elapsed = elapsed.to_std().unwrap_or_default();
        pause.checked_sub(elapsed).filter(|rest| !rest.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;

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
    fn after_the_last_delay_comes_the_halt() {
        let delays = RetryDelays::default();
        let pauses: Vec<_> = (1..5).map(|failed| delays.after(failed)).collect();
        assert_eq!(
            pauses,
            [Some(MS(100)), Some(MS(1000)), Some(MS(10_000)), None]
        );
        assert_eq!(RetryDelays(Vec::new()).after(1), None);
    }

    #[test]
    fn what_is_left_of_a_delay_does_not_outgrow_it() {
        let delays = RetryDelays::default();
        let left = |ms| delays.remaining(2, TimeDelta::milliseconds(ms));
        assert_eq!(left(400), Some(MS(600)));
        assert_eq!(left(1000), None);
        assert_eq!(left(-5000), Some(MS(1000)), "the clock was set back");
        assert_eq!(delays.remaining(0, TimeDelta::zero()), None);
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
