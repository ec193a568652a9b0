//! The part `write`: commits of an aggregate with one event.
//!
//! `create` places an order. `change` loads one, changes it and writes it under its version. Each
//! is done by
//!
//! - `ours`: `Store::execute`;
//! - `single`: by hand, with one data-modifying statement in autocommit, after a SELECT for
//!   `change`, on a pool of sqlx;
//! - `held`: as `single`, but each writer keeps a connection to itself, so that there is neither a
//!   pool nor its ping. Few services can work like this: it is the least that the work costs;
//! - `steps`: by hand on the same kind of pool, in a transaction with a statement for each step;
//! - `ours_coalesced`, where it is asked for: `Store::execute` of a store that coalesces commits.
//!
//! With `--taken`, some orders are placed for a customer who has one, which a unique key refuses.
//! Each such caller has to be told so, and nobody else.
//!
//! All have as many connections, but for up to four more that carry coalesced work, and no two
//! writers change the same order. With `--delay-us` they reach the server through a proxy that
//! delivers late, as a network would.

mod commit;
mod sides;
mod tasks;

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use cqrs_core::Entity as _;
use cqrs_sqlx::{PgStore, StoreOptions};
use sqlx::postgres::PgConnectOptions;

use crate::database::{Plan, Scratch, Tables, ensure_no_scans};
use crate::domain::Order;
use crate::harness::{self, Sample, Timing};
use crate::proxy::Proxy;
use crate::report::{Bound, By, Case, Goal, OURS, Results};

use sides::{Side, Sides};
use tasks::{Command, Tasks, Work};

/// How many writers there are where coalesced commits are to be ahead.
const CROWD: usize = 32;

/// How the part is run.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How long each slice is measured, in seconds.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// How many slices each side gets; a multiple of the number of sides lets each go first
    /// equally often.
    #[arg(long, default_value_t = 8)]
    rounds: usize,
    /// Numbers of concurrent writers.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 32])]
    writers: Vec<usize>,
    /// What the writers do.
    #[arg(long, value_delimiter = ',', default_values = ["create", "change"])]
    cases: Vec<Command>,
    /// How many connections more than writers each side may open.
    #[arg(long, default_value_t = 0)]
    spare_connections: usize,
    /// Who does it. One side alone is for a profiler.
    #[arg(long, value_delimiter = ',', default_values = ["ours", "single", "held", "steps"])]
    sides: Vec<Side>,
    /// How many of a thousand creations violate a unique key.
    #[arg(long, value_delimiter = ',', default_values_t = [0])]
    taken: Vec<usize>,
    /// Print every side's statements with their plans.
    #[arg(long)]
    plans: bool,
    /// How many microseconds later than it would the network delivers, each way.
    #[arg(long, default_value_t = 0)]
    delay_us: u64,
}

/// Runs the part.
///
/// # Errors
///
/// Where the database fails, or a side did not do its work.
pub(crate) async fn run(url: &str, options: &Options, results: &mut Results) -> Result<()> {
    Scratch::within(url, async |scratch| {
        measure_all(&scratch.options(), options, results).await
    })
    .await
}

async fn measure_all(
    database: &PgConnectOptions,
    options: &Options,
    results: &mut Results,
) -> Result<()> {
    let store = PgStore::connect_with(database.clone(), StoreOptions::default()).await?;
    store.migrate().await?;
    store.create_tables(&[Order::table()]).await?;
    store.verify(&[Order::table()]).await?;
    store.close();
    let mut tables = Tables::prepare(database).await?;
    println!("{}", tables.server().await?);
    if options.taken.iter().any(|taken| *taken > 0) {
        tables.let_customers_have_one_order().await?;
    }

    let network = match options.delay_us {
        0 => None,
        delay => Some(Proxy::start(database, Duration::from_micros(delay))?),
    };
    let reached = network.as_ref().map_or(database, Proxy::options);
    let all = all_work(options);
    let turns = all.len() * options.sides.len() * (1 + options.rounds);
    for work in all {
        let connections = work.writers + options.spare_connections;
        let mut sides = Sides::open(reached, connections, &options.sides).await?;
        let case = measure(&mut tables, &mut sides, work, options).await?;
        results.add(&case)?;
        results.expect(goals(&case, work, options.delay_us > 0));
        sides.close().await;
    }
    drop(tables);
    ensure_no_scans(database, &["cqrs_event", "bench_order"], turns).await
}

/// What is done in each case.
fn all_work(options: &Options) -> Vec<Work> {
    let mut all = Vec::new();
    for &command in &options.cases {
        let taken: &[usize] = match command {
            Command::Create => &options.taken,
            Command::Change => &[0],
        };
        for &writers in &options.writers {
            all.extend(taken.iter().map(|&taken| Work {
                command,
                writers,
                taken,
            }));
        }
    }
    all
}

/// What is asked of ours.
fn goals(case: &Case, work: Work, is_far: bool) -> Vec<Goal> {
    if work.taken > 0 {
        return Vec::new();
    }
    let least = match (work.command, is_far) {
        (Command::Create, false) => 1.7,
        (Command::Change, false) => 1.5,
        (Command::Create, true) => 3.3,
        (Command::Change, true) => 2.3,
    };
    let (single, steps, coalesced) = (
        Side::Single.name(),
        Side::Steps.name(),
        Side::Coalesced.name(),
    );
    let mut goals = vec![
        case.goal(By::Rate, OURS, single, Bound::AtLeast(0.95)),
        case.goal(By::Rate, OURS, steps, Bound::AtLeast(least)),
    ];
    if work.writers >= CROWD {
        goals.push(case.goal(By::Rate, coalesced, single, Bound::AtLeast(2.5)));
        goals.push(case.goal(By::P99, coalesced, single, Bound::AtMost(1.0)));
    }
    goals.into_iter().flatten().collect()
}

/// Measures a case: a round that does not count, then the rounds that do.
async fn measure(
    tables: &mut Tables,
    sides: &mut Sides,
    work: Work,
    options: &Options,
) -> Result<Case> {
    let measured = Duration::try_from_secs_f64(options.seconds)?;
    let timing = Timing {
        ramp: measured / 4,
        measured,
    };
    let warm_up = Timing {
        ramp: Duration::ZERO,
        measured: (measured / 2).min(Duration::from_secs(1)),
    };

    let all = &options.sides;
    let mut shapes = None;
    for &side in all {
        run_slice(tables, sides, side, work, warm_up).await?;
        let shape = tables.shape().await?;
        let first = shapes.get_or_insert_with(|| shape.clone());
        ensure!(
            *first == shape,
            "{} writes other columns than {}:\n{}\nand not\n{}",
            side.name(),
            all[0].name(),
            shape.join("\n"),
            first.join("\n"),
        );
    }
    let inspected = sides.inspect(all).await?;
    if options.plans {
        print_plans(&inspected);
    }

    let samples = harness::take_turns(all, options.rounds, async |side| {
        run_slice(tables, sides, side, work, timing).await
    })
    .await?;
    let names = all.iter().map(|side| side.name());
    Ok(Case::new("write", work.name(), names, samples)
        .with_writers(work.writers)
        .with_delay(options.delay_us))
}

/// Runs one slice of one side on fresh tables, and checks what it left there.
async fn run_slice(
    tables: &mut Tables,
    sides: &mut Sides,
    side: Side,
    work: Work,
    timing: Timing,
) -> Result<Sample> {
    tables.reset().await?;
    let tasks = Tasks::of_all_writers(work, tables.seeds());
    let (tally, sample) = sides.run(side, tasks, timing).await?;
    tables
        .verify(&tally)
        .await
        .map_err(|error| error.context(format!("{} did not do its work", side.name())))?;
    Ok(sample)
}

fn print_plans(inspected: &[(Side, Vec<Plan>)]) {
    for (side, plans) in inspected {
        for plan in plans {
            println!("\n{}: {}", side.name(), plan.statement);
            println!(
                "    planned anew for {} executions of {}",
                plan.custom,
                plan.custom + plan.generic
            );
            for step in &plan.steps {
                println!("    {step}");
            }
        }
    }
}
