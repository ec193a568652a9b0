//! The part `growth`: what commits, loads and the drain cost as what is there grows.
//!
//! - `events`: a log of a million events, and of ten million;
//! - `tenants`: a log of 400,000 events, of 10 to 100,000 tenants;
//! - `projections`: the end of such a log, drained by 1 to 16 projections;
//! - `children`: aggregates with 1 to 1,000 children.
//!
//! The sizes are the sides of a case, and take turns; each has a database of its own, but for
//! projections, which share one. Commits and loads are counted, and events applied; of children, each
//! of them. So no size is to be slower than the smallest by more than measurements differ.
//!
//! What is loaded from a log was not loaded before, so that its pages are not in the server's memory
//! where the log is larger than that; `load again` is of a thousand aggregates in turn.

mod filled;
mod workers;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};

use crate::harness::{Sample, Timing, slice, warm_and_measure};
use crate::report::{Bound, By, Case, Goal, Results};

use filled::{Counting, Filled};
use workers::{Deed, Hand};

/// How much longer than with the smallest size a unit of work may take.
const MOST: f64 = 1.3;
/// How many events from the end of a log are drained.
const DRAINED: i64 = 20_000;

/// How the part is run.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How long each slice is measured, in seconds.
    #[arg(long, default_value_t = 0.5)]
    seconds: f64,
    /// How many slices each size gets.
    #[arg(long, default_value_t = 4)]
    rounds: usize,
    /// What grows.
    #[arg(
        long,
        value_delimiter = ',',
        default_values = ["events", "tenants", "projections", "children"]
    )]
    cases: Vec<Grows>,
    /// The lengths of logs. From ten million events on they take minutes to fill, and GBs of disk.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000_000, 10_000_000])]
    events: Vec<i64>,
    /// The length of a log where something else grows.
    #[arg(long, default_value_t = 400_000)]
    length: i64,
    /// The numbers of tenants.
    #[arg(long, value_delimiter = ',', default_values_t = [10, 1_000, 100_000])]
    tenants: Vec<i64>,
    /// The numbers of projections.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4, 16])]
    projections: Vec<i64>,
    /// The numbers of children.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10, 100, 1_000])]
    children: Vec<i64>,
}

/// What grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Grows {
    Events,
    Tenants,
    Projections,
    Children,
}

/// Runs the part.
///
/// # Errors
///
/// Where the database fails, or the work was not done.
pub(crate) async fn run(url: &str, options: &Options, results: &mut Results) -> Result<()> {
    for &grows in &options.cases {
        let mut filled = Vec::new();
        let measured = fill_and_measure(url, options, grows, &mut filled, results).await;
        // A drain and three deeds at most.
        let turns = 4 * (1 + options.rounds);
        let mut ended = Ok(());
        for filled in filled {
            ended = ended.and(filled.end(turns).await);
        }
        measured.and(ended)?;
    }
    Ok(())
}

async fn fill_and_measure(
    url: &str,
    options: &Options,
    grows: Grows,
    filled: &mut Vec<Filled>,
    results: &mut Results,
) -> Result<()> {
    let (name, sizes) = match grows {
        Grows::Events => ("events", &options.events),
        Grows::Tenants => ("tenants", &options.tenants),
        Grows::Projections => ("projections", &options.projections),
        Grows::Children => ("children", &options.children),
    };
    for &size in sizes {
        filled.push(match grows {
            Grows::Events => Filled::log(url, size, 10).await?,
            Grows::Tenants => Filled::log(url, options.length, size).await?,
            // One log for all numbers of them.
            Grows::Projections if !filled.is_empty() => break,
            Grows::Projections => Filled::log(url, options.length, 10).await?,
            Grows::Children => Filled::baskets(url, size).await?,
        });
    }
    measure(options, grows, name, sizes, filled, results).await
}

async fn measure(
    options: &Options,
    grows: Grows,
    name: &str,
    sizes: &[i64],
    filled: &[Filled],
    results: &mut Results,
) -> Result<()> {
    let all: Vec<usize> = (0..sizes.len()).collect();
    let mut add = |what: &str, counted: &'static str, samples: Vec<Vec<Sample>>| {
        let sides: Vec<String> = sizes.iter().map(i64::to_string).collect();
        let case = Case::new("growth", format!("{what} by {name}"), &sides, samples);
        let case = case
            .comparing(sides.first().context("a size")?)
            .counting(counted);
        results.add(&case)?;
        results.expect(goals(&case, &sides, grows));
        anyhow::Ok(())
    };
    if grows != Grows::Children {
        let turn = async |index: usize| match grows {
            Grows::Projections => drain(&filled[0], sizes[index]).await,
            _ => drain(&filled[index], 1).await,
        };
        let samples = warm_and_measure(&all, options.rounds, turn).await?;
        add("drain", "events applied", samples)?;
    }
    let measured = Duration::try_from_secs_f64(options.seconds)?;
    let timing = Timing {
        ramp: measured / 4,
        measured,
    };
    let deeds: &[Deed] = match grows {
        Grows::Projections => &[],
        Grows::Children => &[Deed::GetBasket, Deed::FillBasket],
        Grows::Events => &[Deed::LoadMeter, Deed::LoadAgain, Deed::PlaceOrder],
        Grows::Tenants => &[Deed::LoadMeter, Deed::PlaceOrder],
    };
    for &deed in deeds {
        let turn = async |index: usize| {
            let filled = &filled[index];
            let before = filled.events().await?;
            let (hands, sample) = slice(vec![Hand::new(filled, deed)], timing).await?;
            let commits = filled.events().await? - before;
            let done: i64 = hands.iter().map(|hand| hand.committed).sum();
            ensure!(commits == done, "{done} commits left {commits} events");
            Ok(match grows {
                Grows::Children => of_children(sample, sizes[index])?,
                _ => sample,
            })
        };
        let (what, counted) = match deed {
            Deed::GetBasket => ("load", "children loaded"),
            Deed::FillBasket => ("commit", "children committed"),
            Deed::LoadMeter => ("load", "aggregates loaded"),
            Deed::LoadAgain => ("load again", "aggregates loaded"),
            Deed::PlaceOrder => ("commit", "commits"),
        };
        let samples = warm_and_measure(&all, options.rounds, turn).await?;
        add(what, counted, samples)?;
    }
    Ok(())
}

/// No size may be much slower than the smallest; nor, where each child counts, than the one before
/// it: that the smallest is an aggregate with one child, which pays for all else, hides nothing.
fn goals(case: &Case, sizes: &[String], grows: Grows) -> Vec<Goal> {
    let pairs: Vec<(&String, &String)> = match grows {
        Grows::Children => sizes.iter().zip(sizes.iter().skip(1)).collect(),
        _ => sizes
            .iter()
            .skip(1)
            .map(|other| (&sizes[0], other))
            .collect(),
    };
    let goal =
        |(size, other): (&String, &String)| case.goal(By::Rate, size, other, Bound::AtMost(MOST));
    pairs.into_iter().filter_map(goal).collect()
}

/// Children per second, of a sample of aggregates that have so many.
fn of_children(sample: Sample, children: i64) -> Result<Sample> {
    let children = f64::from(u32::try_from(children)?);
    Ok(Sample {
        per_s: sample.per_s * children,
        ..sample
    })
}

/// Has projections apply the last events of the log; a sample of events applied.
async fn drain(filled: &Filled, projections: i64) -> Result<Sample> {
    let all: Vec<Counting> = (0..projections).map(Counting::new).collect();
    let build = || {
        let projector = filled.store.projector().page_size(1_000);
        all.iter().fold(projector, |projector, counting| {
            projector.subscribe(counting.subscription())
        })
    };
    // Makes the checkpoints, which are then set back; and applies what a turn of fewer projections has
    // set back and left, which does not count.
    build().run_until_idle().await?;
    for counting in &all {
        counting.take();
    }
    filled.rewind(DRAINED).await?;
    let projector = build();
    let begun = Instant::now();
    projector.run_until_idle().await?;
    let elapsed = begun.elapsed();
    for counting in &all {
        let counted = counting.take();
        ensure!(counted == DRAINED, "a projection applied {counted} events");
    }
    Ok(Sample::once(
        usize::try_from(DRAINED * projections)?,
        elapsed,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_for_each_child_is_what_may_not_grow() {
        // Ten children in five times the time of one, a hundred in twenty times that of ten.
        let rates = [(1, 100.0), (10, 20.0), (100, 1.0)];
        let samples = rates.map(|(children, per_s)| {
            let sample = Sample {
                per_s,
                latencies: Vec::new(),
            };
            vec![of_children(sample, children).expect("a small number")]
        });
        let sizes = ["1", "10", "100"].map(str::to_owned);
        let case = Case::new("growth", "load", &sizes, samples.to_vec()).comparing("1");
        let found = |grows| {
            let goals = goals(&case, &sizes, grows).into_iter();
            goals
                .map(|goal| (goal.found, goal.is_met()))
                .collect::<Vec<_>>()
        };
        assert_eq!(found(Grows::Children), [(0.5, true), (2.0, false)]);
        assert_eq!(found(Grows::Events), [(0.5, true), (1.0, true)]);
    }
}
