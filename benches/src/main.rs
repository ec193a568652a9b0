//! What the framework costs: measured against the same work written by hand on sqlx, interleaved
//! in one run, on the same server and the same tables.
//!
//! `cargo xtask bench` runs everything on a private server that is as durable as a real one,
//! `cargo xtask bench <part>` a part. By itself the program needs `DATABASE_URL`, of a role that
//! may create databases and run `CHECKPOINT`; it works in databases of its own.
//!
//! Only ratios within a run mean anything on another machine.
//!
//! A newcomer reads [`harness`], which measures, and [`report`], which says what was measured; then
//! any part. [`plan`] says with which arguments parts run where none is named.

mod bulk;
mod compile;
mod consume;
mod database;
mod domain;
mod growth;
mod hand_written;
mod harness;
mod latency;
mod load;
mod mapping;
mod plan;
mod proxy;
mod query;
mod report;
mod rivals;
mod sourced;
mod sqlite;
mod write;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use clap::{Parser, Subcommand};

use crate::report::{Extent, Results};

/// How long a part may take.
const LONGEST: Duration = Duration::from_hours(1);

/// What the framework costs against hand-written sqlx.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// What is measured; everything but `bloat` where none is named.
    #[command(subcommand)]
    part: Option<Part>,
    /// In three minutes instead of twenty. The part that is named, or all of them, with arguments
    /// that show whether they work rather than what things cost.
    #[arg(long, global = true)]
    quick: bool,
    /// Fail where a target is missed.
    #[arg(long, global = true)]
    check: bool,
}

/// The parts, a line for each: its subcommand, and the module with its `Options` and its `run`.
macro_rules! parts {
    ($($(#[$attribute:meta])* $part:ident = $($module:ident)::+,)+) => {
        #[derive(Debug, Subcommand)]
        enum Part {
            $($(#[$attribute])* $part($($module::)+Options),)+
            /// What `load` runs under callgrind.
            #[command(hide = true)]
            LoadOnce(load::Once),
        }

        impl Part {
            async fn run(&self, url: &str, results: &mut Results) -> Result<()> {
                match self {
                    $(Self::$part(options) => $($module::)+run(url, options, results).await,)+
                    Self::LoadOnce(once) => load::once(url, once).await,
                }
            }
        }
    };
}

parts! {
    /// What consuming leaves behind under a transaction that is held open; ten minutes.
    Bloat = consume::bloat,
    /// Bulk inserts: many aggregates, each with its event.
    Bulk = bulk,
    /// How long an application takes to compile, by its number of aggregates.
    Compile = compile,
    /// Consuming a log with everything still to do.
    Drain = consume::drain,
    /// What commits, loads and the drain cost as logs, tenants, projections and aggregates grow.
    Growth = growth,
    /// From a commit until it is visible, and what telling others of it costs.
    Latency = latency,
    /// Loads of 1,000 aggregates: instructions and time.
    Load = load,
    /// What does no I/O, in instructions: mapping, staging, conditions, decoding.
    Mapping = mapping,
    /// Finders, rows of a read model, a page with children, a count.
    Query = query,
    /// Read models from the beginning of a short log and of a long one.
    Rebuild = consume::rebuild,
    /// The same work with other crates, which it compiles; not part of a whole run.
    Rivals = rivals,
    /// Loads of an event-sourced aggregate with many events, and of one with few.
    Sourced = sourced,
    /// Commits and the drain on SQLite.
    Sqlite = sqlite,
    /// Commits: an aggregate and its event.
    Write = write,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let url = std::env::var("DATABASE_URL")
        .context("DATABASE_URL is not set; `cargo xtask bench` sets it")?;
    if let Some(Part::LoadOnce(once)) = &arguments.part {
        // Threads that take turns in another way would count as another number of instructions.
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime
            .enable_all()
            .build()?
            .block_on(load::once(&url, once))?;
        return Ok(ExitCode::SUCCESS);
    }
    let is_whole = arguments.part.is_none();
    let extent = match (is_whole, arguments.quick) {
        (_, true) => Extent::Quick,
        (true, false) => Extent::Whole,
        (false, false) => Extent::Part,
    };
    let mut results = Results::open()?;
    let told = std::env::args().skip(1).collect();
    let parts = planned(arguments.part, arguments.quick, told)?;
    let outcomes = run_all(parts, &url, &mut results);
    let (goals, are_met) = results.finish(extent)?;
    println!("\n{goals}\n");
    let mut has_failed = false;
    for (line, elapsed, outcome) in outcomes {
        let told = match outcome {
            Ok(()) => String::new(),
            Err(error) => format!("  FAILED: {error:#}"),
        };
        has_failed |= !told.is_empty();
        println!("{:6.1} s  {line}{told}", elapsed.as_secs_f64());
    }
    if is_whole {
        println!("\nnot in this run: `cargo xtask bench rivals`, `cargo xtask bench bloat`");
    }
    Ok(match has_failed || (arguments.check && !are_met) {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}

/// A part's line, how long it took, and what came of it.
type Outcome = (String, Duration, Result<()>);

/// Runs parts, one after the other.
fn run_all(parts: Vec<(String, Part)>, url: &str, results: &mut Results) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for (line, part) in parts {
        println!("\n==> {line}");
        let begun = Instant::now();
        results.begin(&line);
        let outcome = alone(LONGEST, part.run(url, results));
        if let Err(error) = &outcome {
            eprintln!("{line}: {error:#}");
        }
        outcomes.push((line, begun.elapsed(), outcome));
    }
    outcomes
}

/// Runs a part in a runtime of its own, so that nothing of it is left when it ends. One that panics
/// or takes too long has failed, and the others go on. A part is left where it waits: one that runs
/// another program (`compile`, `load`, `mapping`, `rivals`) only where that has ended.
fn alone(longest: Duration, part: impl Future<Output = Result<()>>) -> Result<()> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().build()?;
    let run = || runtime.block_on(async { tokio::time::timeout(longest, part).await? });
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err(anyhow!("it panicked")))
}

/// What is to be run: the part as the user told, or what the plan says.
fn planned(
    part: Option<Part>,
    is_quick: bool,
    mut told: Vec<String>,
) -> Result<Vec<(String, Part)>> {
    told.retain(|word| word != "--quick" && word != "--check");
    let plan = if is_quick { plan::QUICK } else { plan::WHOLE };
    match part {
        None => plan::parts(plan, None),
        Some(part) if !is_quick => Ok(vec![(told.join(" "), part)]),
        Some(_) => {
            ensure!(
                told.len() == 1,
                "`--quick` has arguments of its own; leave it out to give others"
            );
            plan::parts(plan, Some(&told[0]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(told: &[&str]) -> Result<Vec<String>> {
        let arguments = Arguments::try_parse_from(["bench"].iter().chain(told))?;
        let told = told.iter().map(ToString::to_string).collect();
        let planned = planned(arguments.part, arguments.quick, told)?;
        Ok(planned.into_iter().map(|(line, _)| line).collect())
    }

    #[test]
    fn a_part_that_does_not_end_well_has_failed() {
        let limit = Duration::from_mins(1);
        assert!(alone(limit, async { Ok(()) }).is_ok());
        assert!(alone(limit, async { Err(anyhow!("no server")) }).is_err());
        assert!(alone(limit, async { panic!("a slice without work") }).is_err());
        assert!(alone(Duration::ZERO, std::future::pending()).is_err());
    }

    #[test]
    fn parts_run_on_a_server_and_record_what_they_measured() {
        // No slices of time, in which a busy machine might do nothing.
        const LINES: [&str; 3] = [
            "bulk --rows 100 --rounds 1",
            "drain --events 2000 --rounds 1 --cases bulk,each",
            "growth --cases projections --length 20000 --projections 1,2 --rounds 1",
        ];
        const SIDES: usize = 3 + 4 + 2 + 2;
        let url = std::env::var("DATABASE_URL").expect("`cargo xtask test` sets it");
        let directory = tempfile::tempdir().expect("a directory");
        let mut results = Results::open_in(directory.path()).expect("it is new");
        let parts = plan::parts(&LINES, None).expect("they are parts");
        for (line, _, outcome) in run_all(parts, &url, &mut results) {
            outcome.unwrap_or_else(|error| panic!("{line}: {error:#}"));
        }
        let recorded = std::fs::read_to_string(directory.path().join("results.jsonl"));
        assert_eq!(recorded.expect("it was written").lines().count(), SIDES);
    }

    #[test]
    fn a_part_runs_as_told_and_without_one_the_plan() {
        let told = lines(&["write", "--writers", "4", "--check"]).expect("it is an option");
        assert_eq!(told, ["write --writers 4"]);
        assert_eq!(lines(&["--check"]).expect("the plan"), plan::WHOLE);
        assert_eq!(lines(&["--quick"]).expect("the plan"), plan::QUICK);
    }

    #[test]
    fn a_quick_part_has_the_arguments_of_the_plan_and_no_others() {
        let load = lines(&["load", "--quick", "--check"]).expect("it is planned");
        assert!(load.len() == 1 && plan::QUICK.contains(&load[0].as_str()));
        let refused = lines(&["load", "--quick", "--rounds", "9"]).expect_err("both");
        assert!(refused.to_string().contains("--quick"), "{refused}");
        assert!(lines(&["bloat", "--quick"]).is_err());
    }
}
