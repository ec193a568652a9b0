//! Slices of time, and what is made of them.
//!
//! Sides are compared in short slices that take turns, so that whatever else the machine does
//! falls on all of them. A ratio is taken within each round, and the median of the rounds is
//! reported.

use std::future::Future;
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
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sample {
    /// Units of work per second.
    pub(crate) per_s: f64,
    /// The median latency, in microseconds.
    pub(crate) p50_us: f64,
    /// The 99th percentile of the latency, in microseconds.
    pub(crate) p99_us: f64,
}

/// Runs the workers side by side for one slice, and gives them back with what was measured.
///
/// # Errors
///
/// The first error of a worker; and where nothing was done within the slice.
pub(crate) async fn slice<W: Worker>(workers: Vec<W>, timing: Timing) -> Result<(Vec<W>, Sample)> {
    let from = Instant::now() + timing.ramp;
    let until = from + timing.measured;
    let mut tasks = JoinSet::new();
    for mut worker in workers {
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            loop {
                let begun = Instant::now();
                if begun >= until {
                    return anyhow::Ok((worker, latencies));
                }
                worker.work().await?;
                let ended = Instant::now();
                if (from..until).contains(&ended) {
                    latencies.push(ended - begun);
                }
            }
        });
    }
    let mut workers = Vec::new();
    let mut latencies = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        let (worker, measured) = ended??;
        workers.push(worker);
        latencies.extend(measured);
    }
    ensure!(
        !latencies.is_empty(),
        "nothing was done within a slice of {:?}",
        timing.measured
    );
    Ok((workers, Sample::of(latencies, timing.measured)))
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
    pub(crate) fn of(mut latencies: Vec<Duration>, measured: Duration) -> Self {
        latencies.sort_unstable();
        let us = |quantile| percentile(&latencies, quantile).as_secs_f64() * 1e6;
        Self {
            per_s: count(latencies.len()) / measured.as_secs_f64(),
            p50_us: us(0.50),
            p99_us: us(0.99),
        }
    }
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

impl Sample {
    /// One piece of work that took so long, of so many units.
    pub(crate) fn once(units: usize, elapsed: Duration) -> Self {
        let us = elapsed.as_secs_f64() * 1e6;
        Self {
            per_s: count(units) / elapsed.as_secs_f64(),
            p50_us: us,
            p99_us: us,
        }
    }
}

/// The median of several rounds, with their extremes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    /// The lowest.
    pub(crate) min: f64,
    /// The median: of an even number, the mean of the two in the middle.
    pub(crate) median: f64,
    /// The highest.
    pub(crate) max: f64,
}

impl Spread {
    /// The spread of these values; zeros of none.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        let (Some(&min), Some(&max)) = (values.first(), values.last()) else {
            return Self {
                min: 0.0,
                median: 0.0,
                max: 0.0,
            };
        };
        let upper = values[values.len() / 2];
        let lower = values[(values.len() - 1) / 2];
        Self {
            min,
            median: f64::midpoint(lower, upper),
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
    fn a_sample_counts_per_second() {
        let sample = Sample::of(millis([3, 1, 2, 4]), Duration::from_millis(500));
        assert!((sample.per_s - 8.0).abs() < 1e-9);
        assert!((sample.p50_us - 2_000.0).abs() < 1e-6);
        assert!((sample.p99_us - 4_000.0).abs() < 1e-6);
    }

    #[test]
    fn a_spread_is_the_median_with_its_extremes() {
        let odd = Spread::of([5.0, 1.0, 2.0]);
        assert_eq!((odd.min, odd.median, odd.max), (1.0, 2.0, 5.0));
        let even = Spread::of([4.0, 1.0, 2.0, 3.0]);
        assert_eq!((even.min, even.median, even.max), (1.0, 2.5, 4.0));
        assert_eq!(Spread::of([]).median, 0.0);
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let sample = |per_s| Sample {
            per_s,
            p50_us: 0.0,
            p99_us: 0.0,
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
        let timing = Timing {
            ramp: Duration::from_millis(5),
            measured: Duration::from_millis(20),
        };
        let (workers, sample) = slice(vec![Counter(0), Counter(0)], timing)
            .await
            .expect("no worker fails");
        assert!(workers.iter().all(|worker| worker.0 > 0));
        assert!(sample.per_s > 0.0 && sample.p50_us >= 1_000.0);
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
