//! The part `rebuild`: a read model from the beginning of the log, with one segment and with
//! several, of a short log and of a long one. Nothing is compared with others; what is asked is
//! that a log of fifty times the length takes fifty times as long.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use cqrs_core::Subscription;
use sqlx::postgres::PgConnectOptions;

use super::drain::PAGE;
use super::log::Log;
use super::projections::{Bulk, Reached};
use crate::database::Scratch;
use crate::harness::Spread;
use crate::report::Miss;

/// How the part is run.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How many events there are.
    #[arg(long, value_delimiter = ',', default_values_t = [100_000, 5_000_000])]
    events: Vec<u64>,
    /// How many segments share the work.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2])]
    segments: Vec<u32>,
    /// How many times it is done; of logs of more than a million events, once.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

/// Runs the part. It asks for nothing, so nothing falls short.
///
/// # Errors
///
/// Where the database fails, or the work was not done.
pub(crate) async fn run(url: &str, options: &Options) -> Result<Vec<Miss>> {
    let scratch = Scratch::create(url).await?;
    let measured = measure(&scratch.options(), options).await;
    scratch.drop().await?;
    measured.map(|()| Vec::new())
}

async fn measure(database: &PgConnectOptions, options: &Options) -> Result<()> {
    let mut log = Log::prepare(database).await?;
    println!("| events | segments | seconds | events/s |\n|---|---|---|---|");
    for &events in &options.events {
        log.fill(i64::try_from(events)?).await?;
        let rounds = if events > 1_000_000 {
            1
        } else {
            options.rounds
        };
        let mut times = vec![Vec::new(); options.segments.len()];
        for _ in 0..rounds {
            for (times, &segments) in times.iter_mut().zip(&options.segments) {
                times.push(rebuild(&mut log, events, segments).await?.as_secs_f64());
            }
        }
        for (times, segments) in times.into_iter().zip(&options.segments) {
            let Spread { min, median, max } = Spread::of(times);
            let rate = u32::try_from(events).map_or(0.0, f64::from) / median;
            println!("| {events} | {segments} | {median:.2} ({min:.2}..{max:.2}) | {rate:.0} |");
        }
    }
    Ok(())
}

async fn rebuild(log: &mut Log, events: u64, segments: u32) -> Result<Duration> {
    log.rewind().await?;
    let store = log.store().await?;
    let reached = Reached::default();
    let subscription = Subscription::new(Bulk(reached.clone())).segments(segments);
    let projector = store
        .projector()
        .page_size(PAGE.into())
        .subscribe(subscription);
    let begun = Instant::now();
    let handle = projector.start().await?;
    reached.events(events).await;
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
    Ok(elapsed)
}
