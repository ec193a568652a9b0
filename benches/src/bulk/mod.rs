//! The part `bulk`: inserts of many aggregates with an event each, in one transaction.
//!
//! - `ours`: `Maintenance::insert` of aggregates that are ready in memory;
//! - `copy`: by hand, with a binary COPY for each table, of rows that are ready in memory, payloads
//!   and hashes included;
//! - `arrays`: commits of 1,000 aggregates each, with `Store::execute_in_batches`.

mod copy;
mod sides;

use anyhow::{Context, Result, ensure};
use clap::Args;
use cqrs_core::Entity as _;
use cqrs_sqlx::{PgStore, StoreOptions};
use sqlx::postgres::PgConnectOptions;

use crate::database::{Scratch, Tables};
use crate::domain::Order;
use crate::harness;
use crate::report::{Case, Measured, Miss, Results};

use sides::{Side, Sides};

/// What is asked of ours.
const BARS: [(&str, f64); 1] = [("copy", 0.8)];

/// How the part is run.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How many aggregates are inserted.
    #[arg(long, default_value_t = 100_000)]
    rows: usize,
    /// How many times each side does it; a multiple of the number of sides lets each go first
    /// equally often.
    #[arg(long, default_value_t = 6)]
    rounds: usize,
    /// Who does it.
    #[arg(long, value_delimiter = ',', default_values = ["ours", "copy", "arrays"])]
    sides: Vec<Side>,
    /// Fail where ours is below 0.8 of `copy`.
    #[arg(long, conflicts_with = "sides")]
    check: bool,
}

/// Runs the part, and returns what fell short where that is asked for.
///
/// # Errors
///
/// Where the database fails, or a side did not do its work.
pub(crate) async fn run(url: &str, options: &Options, results: &mut Results) -> Result<Vec<Miss>> {
    let scratch = Scratch::create(url).await?;
    let misses = measure(&scratch.options(), options, results).await;
    scratch.drop().await?;
    misses
}

async fn measure(
    database: &PgConnectOptions,
    options: &Options,
    results: &mut Results,
) -> Result<Vec<Miss>> {
    let store = PgStore::connect_with(database.clone(), StoreOptions::default()).await?;
    store.migrate().await?;
    store.create_tables(&[Order::table()]).await?;
    store.close();
    let mut tables = Tables::prepare(database).await?;
    println!("{}", tables.server().await?);
    let mut sides = Sides::open(database).await?;

    let all = &options.sides;
    let mut samples = vec![Vec::new(); all.len()];
    let mut shapes = None;
    // The round before the first does not count: it compares what the sides write.
    for round in 0..=options.rounds {
        for side in harness::order(all, round) {
            tables.reset().await?;
            let (tally, sample) = sides.run(side, options.rows).await?;
            tables
                .verify(&tally)
                .await
                .with_context(|| format!("{} did not do its work", side.name()))?;
            if round == 0 {
                let shape = tables.shape().await?;
                let first = shapes.get_or_insert_with(|| shape.clone());
                ensure!(
                    *first == shape,
                    "{} writes other columns:\n{}\nand not\n{}",
                    side.name(),
                    shape.join("\n"),
                    first.join("\n")
                );
                continue;
            }
            let index = all.iter().position(|other| *other == side);
            samples[index.unwrap_or_default()].push(sample);
        }
    }
    let case = Case {
        part: "bulk",
        case: "insert",
        writers: 1,
        delay_us: 0,
        sides: all
            .iter()
            .zip(samples)
            .map(|(side, samples)| Measured {
                side: side.name(),
                samples,
            })
            .collect(),
    };
    results.add(&case)?;
    sides.close();
    Ok(if options.check {
        case.misses(&BARS)
    } else {
        Vec::new()
    })
}
