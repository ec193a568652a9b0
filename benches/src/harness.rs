//! Slices of time, and what is made of them.
//!
//! Sides are compared in short slices that take turns, so that whatever else the machine does
//! falls on all of them. A ratio is taken within each round, and the median of the rounds is
//! reported. Percentiles are those of all rounds together: what is rare is in few of them.

use std::future::Future;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::task::JoinSet;

/// Something that does one unit of work after the other.
pub(crate) trait Worker: Send + 'static {
    /// Does the next unit.
    fn work(&mut self) -> impl Future<Output = Result<()>> + Send;
}

/// How long a slice takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    /// Run first, and not measured: connections are opened, statements planned.
    pub(crate) ramp: Duration,
    /// Measured.
    pub(crate) measured: Duration,
}

/// What was measured in one slice.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    /// Units of work per second.
    pub(crate) per_s: f64,
    /// How long each unit took.
    pub(crate) latencies: Vec<Duration>,
}

/// Runs the workers side by side for one slice, and gives them back with what was measured.
///
/// # Errors
///
/// The first error of a worker; and where nothing was done within the slice.
pub(crate) async fn slice<W: Worker>(workers: Vec<W>, timing: Timing) -> Result<(Vec<W>, Sample)> {
    let from = Instant::now() + timing.ramp;
    let counted = from..from + timing.measured;
    let mut tasks = JoinSet::new();
    for mut worker in workers {
        let counted = counted.clone();
        tasks.spawn(async move {
            let mut count = Count::default();
            loop {
                let begun = Instant::now();
                if begun >= counted.end {
                    return anyhow::Ok((worker, count));
                }
                worker.work().await?;
                count.add(&counted, begun, Instant::now());
            }
        });
    }
    let mut workers = Vec::new();
    let mut all = Count::default();
    while let Some(ended) = tasks.join_next().await {
        let (worker, count) = ended??;
        workers.push(worker);
        all.done += count.done;
        all.latencies.extend(count.latencies);
    }
    ensure!(
        all.done > 0 && !all.latencies.is_empty(),
        "nothing was done within a slice of {:?}",
        timing.measured
    );
    let sample = Sample {
        per_s: count(all.done) / timing.measured.as_secs_f64(),
        latencies: all.latencies,
    };
    Ok((workers, sample))
}

/// What counts of a slice. A rate is of what ends within it. A latency is of what begins within it:
/// what takes longest ends after it.
#[derive(Debug, Default)]
struct Count {
    done: usize,
    latencies: Vec<Duration>,
}

impl Count {
    fn add(&mut self, counted: &Range<Instant>, begun: Instant, ended: Instant) {
        if counted.contains(&ended) {
            self.done += 1;
        }
        if counted.contains(&begun) {
            self.latencies.push(ended - begun);
        }
    }
}

/// As [`slice()`], of a worker that stays where it is.
///
/// # Errors
///
/// That of the worker, which is gone then.
pub(crate) async fn run_slice<W: Worker>(worker: &mut Option<W>, timing: Timing) -> Result<Sample> {
    let (mut workers, sample) = slice(worker.take().into_iter().collect(), timing).await?;
    *worker = workers.pop();
    Ok(sample)
}

impl Sample {
    /// What these latencies, all within `measured`, amount to.
    pub(crate) fn of(latencies: Vec<Duration>, measured: Duration) -> Self {
        Self {
            per_s: count(latencies.len()) / measured.as_secs_f64(),
            latencies,
        }
    }

    /// One piece of work that took so long, of so many units.
    pub(crate) fn once(units: usize, elapsed: Duration) -> Self {
        Self {
            per_s: count(units) / elapsed.as_secs_f64(),
            latencies: vec![elapsed],
        }
    }
}

/// The percentile of the latencies of these samples together, in microseconds; zero of none.
pub(crate) fn percentile_us<'s>(
    samples: impl IntoIterator<Item = &'s Sample>,
    quantile: f64,
) -> f64 {
    let latencies = samples.into_iter().flat_map(|sample| &sample.latencies);
    let mut sorted: Vec<Duration> = latencies.copied().collect();
    sorted.sort_unstable();
    percentile(&sorted, quantile).as_secs_f64() * 1e6
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of a benchmark are far below 2^52"
)]
fn count(count: usize) -> f64 {
    count as f64
}

/// The smallest of the sorted values that at least this share of them does not exceed; zero of
/// none.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rank is between zero and the number of values"
)]
fn percentile(sorted: &[Duration], quantile: f64) -> Duration {
    let rank = (count(sorted.len()) * quantile).ceil() as usize;
    sorted
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}

/// What is reported of several rounds, with their extremes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    /// The lowest.
    pub(crate) min: f64,
    /// What is reported.
    pub(crate) value: f64,
    /// The highest.
    pub(crate) max: f64,
}

impl Spread {
    /// The spread of these values; zeros of none. Reported is the median: of an even number, the
    /// mean of the two in the middle.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        let (Some(&min), Some(&max)) = (values.first(), values.last()) else {
            return Self {
                min: 0.0,
                value: 0.0,
                max: 0.0,
            };
        };
        let upper = values[values.len() / 2];
        let lower = values[(values.len() - 1) / 2];
        Self {
            min,
            value: f64::midpoint(lower, upper),
            max,
        }
    }

    /// The spread of the rounds' ratios: this value of each sample of `ours` over that of the one
    /// of `theirs` that was taken in the same round.
    pub(crate) fn of_ratios(
        ours: &[Sample],
        theirs: &[Sample],
        value: impl Fn(&Sample) -> f64,
    ) -> Self {
        let rounds = ours.iter().zip(theirs);
        Self::of(rounds.map(|(ours, theirs)| value(ours) / value(theirs)))
    }

    /// In units of so many.
    pub(crate) fn per(self, unit: f64) -> Self {
        Self {
            min: self.min / unit,
            value: self.value / unit,
            max: self.max / unit,
        }
    }

    /// With another value to be reported, which the extremes then include.
    pub(crate) fn reporting(self, value: f64) -> Self {
        Self {
            min: self.min.min(value),
            value,
            max: self.max.max(value),
        }
    }
}

/// An interval that has the true median with 95 %, and its median; whatever the values are
/// distributed like, as long as each is as likely above it as below (the sign test). None of fewer
/// than six values, which cannot have one.
pub(crate) fn interval_of_median(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    let all = values.len();
    // How likely it is that at most so many of all are below the median: what lies outside, on
    // either side, may be 2.5 %.
    let (mut at_most, mut exactly, mut outside) = (0.0, 0.5_f64.powf(count(all)), 0);
    for below in 0..all {
        at_most += exactly;
        if at_most > 0.025 {
            break;
        }
        outside = below + 1;
        exactly *= count(all - below) / count(below + 1);
    }
    let low = values.get(outside.checked_sub(1)?)?;
    let high = values.get(all.checked_sub(outside)?)?;
    Some(Spread {
        min: *low,
        max: *high,
        ..Spread::of(values.iter().copied())
    })
}

/// The order in which the sides take their turns in a round: each goes first equally often.
pub(crate) fn order<T: Copy>(sides: &[T], round: usize) -> Vec<T> {
    let mut order = sides.to_vec();
    let length = order.len().max(1);
    order.rotate_left(round % length);
    order
}

/// Has the sides take turns, and returns what was measured of each, a sample for each round.
///
/// # Errors
///
/// The first error of a turn.
pub(crate) async fn take_turns<S: Copy + PartialEq>(
    sides: &[S],
    rounds: usize,
    mut turn: impl AsyncFnMut(S) -> Result<Sample>,
) -> Result<Vec<Vec<Sample>>> {
    let mut samples = vec![Vec::new(); sides.len()];
    for round in 0..rounds {
        for side in order(sides, round) {
            let sample = turn(side).await?;
            let index = sides.iter().position(|other| *other == side);
            samples[index.unwrap_or_default()].push(sample);
        }
    }
    Ok(samples)
}

/// As [`take_turns`], after a first turn of each side that does not count: plans, caches.
///
/// # Errors
///
/// The first error of a turn.
pub(crate) async fn warm_and_measure<S: Copy + PartialEq>(
    sides: &[S],
    rounds: usize,
    mut turn: impl AsyncFnMut(S) -> Result<Sample>,
) -> Result<Vec<Vec<Sample>>> {
    for &side in sides {
        turn(side).await?;
    }
    take_turns(sides, rounds, turn).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(values: impl IntoIterator<Item = u64>) -> Vec<Duration> {
        values.into_iter().map(Duration::from_millis).collect()
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let hundred = millis(1..=100);
        assert_eq!(percentile(&hundred, 0.50), Duration::from_millis(50));
        assert_eq!(percentile(&hundred, 0.99), Duration::from_millis(99));
        assert_eq!(percentile(&hundred, 1.0), Duration::from_millis(100));
        assert_eq!(percentile(&millis([7]), 0.5), Duration::from_millis(7));
        assert_eq!(percentile(&millis([7, 9]), 0.99), Duration::from_millis(9));
        assert_eq!(percentile(&[], 0.5), Duration::ZERO);
    }

    #[test]
    fn a_percentile_is_one_of_all_rounds() {
        let rounds = [millis([1, 1, 1]), millis([1, 1, 1]), millis([1, 1, 50])]
            .map(|latencies| Sample::of(latencies, Duration::from_secs(1)));
        assert!((percentile_us(&rounds[..2], 0.99) - 1_000.0).abs() < 1e-6);
        assert!((percentile_us(&rounds, 0.99) - 50_000.0).abs() < 1e-6);
        assert!((percentile_us(&rounds, 0.50) - 1_000.0).abs() < 1e-6);
    }

    #[test]
    fn a_sample_counts_per_second() {
        let sample = Sample::of(millis([3, 1, 2, 4]), Duration::from_millis(500));
        assert!((sample.per_s - 8.0).abs() < 1e-9);
        let once = Sample::once(100, Duration::from_millis(500));
        assert!((once.per_s - 200.0).abs() < 1e-9);
        assert_eq!(once.latencies, millis([500]));
    }

    #[test]
    fn what_lasts_beyond_the_slice_is_a_latency_and_no_rate() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let slice = at(10)..at(20);
        let mut count = Count::default();
        for (begun, ended) in [(0, 9), (9, 12), (12, 15), (15, 900)] {
            count.add(&slice, at(begun), at(ended));
        }
        assert_eq!(count.done, 2);
        assert_eq!(count.latencies, millis([3, 885]));
    }

    #[test]
    fn a_spread_is_the_median_with_its_extremes() {
        let odd = Spread::of([5.0, 1.0, 2.0]);
        assert_eq!((odd.min, odd.value, odd.max), (1.0, 2.0, 5.0));
        let even = Spread::of([4.0, 1.0, 2.0, 3.0]);
        assert_eq!((even.min, even.value, even.max), (1.0, 2.5, 4.0));
        assert_eq!(Spread::of([]).value, 0.0);
        let wider = even.reporting(5.0);
        assert_eq!((wider.min, wider.value, wider.max), (1.0, 5.0, 5.0));
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let sample = |per_s| Sample {
            per_s,
            latencies: Vec::new(),
        };
        // The machine was slow in the second round; the ratio is the same.
        let ratios = Spread::of_ratios(
            &[sample(300.0), sample(30.0)],
            &[sample(200.0), sample(20.0)],
            |sample| sample.per_s,
        );
        assert_eq!((ratios.min, ratios.max), (1.5, 1.5));
    }

    #[test]
    fn the_median_of_twenty_lies_between_the_sixth_and_the_fifteenth() {
        let interval = |last: u32| interval_of_median((1..=last).map(f64::from));
        let of_twenty = interval(20).expect("they are enough");
        assert_eq!(
            (of_twenty.min, of_twenty.value, of_twenty.max),
            (6.0, 10.5, 15.0)
        );
        let of_six = interval(6).expect("they are just enough");
        assert_eq!((of_six.min, of_six.max), (1.0, 6.0));
        assert!(interval(5).is_none() && interval(0).is_none());
    }

    #[test]
    fn each_side_goes_first() {
        assert_eq!(order(&['a', 'b', 'c'], 0), ['a', 'b', 'c']);
        assert_eq!(order(&['a', 'b', 'c'], 1), ['b', 'c', 'a']);
        assert_eq!(order(&['a', 'b', 'c'], 5), ['c', 'a', 'b']);
        assert!(order::<char>(&[], 3).is_empty());
    }

    #[tokio::test]
    async fn a_slice_gives_its_workers_back() {
        struct Counter(u64);
        impl Worker for Counter {
            async fn work(&mut self) -> Result<()> {
                tokio::time::sleep(Duration::from_millis(1)).await;
                self.0 += 1;
                Ok(())
            }
        }
        // Long enough for a machine that does much else.
        let timing = Timing {
            ramp: Duration::from_millis(5),
            measured: Duration::from_secs(1),
        };
        let (workers, sample) = slice(vec![Counter(0), Counter(0)], timing)
            .await
            .expect("no worker fails");
        assert!(workers.iter().all(|worker| worker.0 > 0));
        assert!(sample.per_s > 0.0 && percentile_us([&sample], 0.5) >= 1_000.0);
    }

    #[tokio::test]
    async fn the_error_of_a_worker_ends_the_slice() {
        struct Broken;
        impl Worker for Broken {
            async fn work(&mut self) -> Result<()> {
                anyhow::bail!("broken")
            }
        }
        let timing = Timing {
            ramp: Duration::ZERO,
            measured: Duration::from_secs(60),
        };
        assert!(slice(vec![Broken], timing).await.is_err());
    }

    #[tokio::test]
    async fn a_slice_in_which_nothing_is_done_is_an_error() {
        let none: Vec<Idle> = Vec::new();
        let timing = Timing {
            ramp: Duration::ZERO,
            measured: Duration::from_millis(1),
        };
        assert!(slice(none, timing).await.is_err());
    }

    struct Idle;

    impl Worker for Idle {
        async fn work(&mut self) -> Result<()> {
            Ok(())
        }
    }
}
