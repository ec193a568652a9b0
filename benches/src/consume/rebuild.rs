//! The part `rebuild`: a read model from the beginning of the log, with one segment and with
//! several, of a short log and of a long one. Nothing is compared with others: a log of fifty times
//! the length is to take fifty times as long, and a second segment is to help.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use cqrs_core::Subscription;
use sqlx::postgres::PgConnectOptions;

use super::drain::PAGE;
use super::log::Log;
use super::projections::{Bulk, Folding, Reached};
use crate::database::Scratch;
use crate::harness::{Sample, Spread, take_turns};
use crate::report::{Bound, By, Case, Goal, Results};

/// From how many events on a rebuild is done once.
const LONG: usize = 1_000_000;

/// How the part is run.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How many events there are.
    #[arg(long, value_delimiter = ',', default_values_t = [100_000, 5_000_000])]
    events: Vec<usize>,
    /// How many segments share the work.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2])]
    segments: Vec<u32>,
    /// How the read model is kept.
    #[arg(long, value_delimiter = ',', default_values = ["upserts"])]
    cases: Vec<Which>,
    /// How many times it is done; of logs of more than a million events, once.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

/// How the read model is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    /// By a projection that writes a page with one statement.
    Upserts,
    /// By a row projection, whose rows are loaded first.
    Folds,
}

/// Runs the part.
///
/// # Errors
///
/// Where the database fails, or the work was not done.
pub(crate) async fn run(url: &str, options: &Options, results: &mut Results) -> Result<()> {
    Scratch::within(url, async |scratch| {
        measure(&scratch.options(), options, results).await
    })
    .await
}

async fn measure(
    database: &PgConnectOptions,
    options: &Options,
    results: &mut Results,
) -> Result<()> {
    let mut log = Log::prepare(database).await?;
    let mut rates = Vec::new();
    for &events in &options.events {
        log.fill(i64::try_from(events)?).await?;
        for (number, &which) in options.cases.iter().enumerate() {
            let case = compare(&mut log, events, which, options).await?;
            if number == 0 {
                rates.push(case.1);
            }
            results.add(&case.0)?;
            results.expect(
                case.0
                    .goal(By::Rate, &name(2), &name(1), Bound::AtLeast(1.5)),
            );
        }
    }
    if let ([short, .., long], [first, .., last]) = (rates.as_slice(), options.events.as_slice()) {
        results.expect([Goal {
            part: "rebuild",
            case: format!("{last} events by {first}"),
            what: "time of an event".to_owned(),
            found: short / long,
            bound: Bound::AtMost(1.2),
        }]);
    }
    Ok(())
}

/// One number of segments with the others, and the rate of the first.
async fn compare(
    log: &mut Log,
    events: usize,
    which: Which,
    options: &Options,
) -> Result<(Case, f64)> {
    let rounds = if events > LONG { 1 } else { options.rounds };
    let turn = async |segments| rebuild(log, events, which, segments).await;
    let samples = take_turns(&options.segments, rounds, turn).await?;
    let rate = Spread::of(samples[0].iter().map(|sample| By::Rate.of(sample))).value;
    let segments = options.segments.iter();
    let sides: Vec<String> = segments.map(|&segments| name(segments)).collect();
    let what = match which {
        Which::Upserts => format!("{events} events"),
        Which::Folds => format!("{events} events folded"),
    };
    let case = Case::new("rebuild", what, &sides, samples);
    let case = match sides.last() {
        Some(most) => case.comparing(most),
        None => case,
    };
    Ok((case, rate))
}

/// The side with so many segments.
fn name(segments: u32) -> String {
    match segments {
        1 => "1 segment".to_owned(),
        several => format!("{several} segments"),
    }
}

async fn rebuild(log: &mut Log, events: usize, which: Which, segments: u32) -> Result<Sample> {
    log.rewind().await?;
    let store = log.store().await?;
    let reached = Reached::default();
    let subscription = match which {
        Which::Upserts => Subscription::new(Bulk(reached.clone())),
        Which::Folds => Subscription::new(Folding(reached.clone())),
    };
    let subscription = subscription.segments(segments);
    let projector = store
        .projector()
        .page_size(PAGE.into())
        .subscribe(subscription);
    let begun = Instant::now();
    let handle = projector.start().await?;
    reached.events(u64::try_from(events)?).await;
    let elapsed = begun.elapsed();
    handle.stop(Duration::from_secs(10)).await;
    let left: i64 = store
        .subscriptions()
        .await?
        .iter()
        .map(|status| log.end - status.position.0)
        .max()
        .unwrap_or(i64::MAX);
    ensure!(left == 0, "it stands {left} positions before the end");
    store.close();
    log.verify("the rebuild", false).await?;
    Ok(Sample::once(events, elapsed))
}
