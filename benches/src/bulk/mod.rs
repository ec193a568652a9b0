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
use crate::harness::{self, Sample};
use crate::report::{Bound, Case, Results};

use sides::{Side, Sides};

/// What is asked of ours.
const BOUNDS: [(&str, Bound); 1] = [("copy", Bound::AtLeast(0.8))];

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
}

/// Runs the part.
///
/// # Errors
///
/// Where the database fails, or a side did not do its work.
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
    let store = PgStore::connect_with(database.clone(), StoreOptions::default()).await?;
    store.migrate().await?;
    store.create_tables(&[Order::table()]).await?;
    store.close();
    let mut tables = Tables::prepare(database).await?;
    println!("{}", tables.server().await?);
    let mut sides = Sides::open(database).await?;

    let all = &options.sides;
    let mut shapes = None;
    for &side in all {
        insert(&mut tables, &mut sides, side, options.rows).await?;
        let shape = tables.shape().await?;
        let first = shapes.get_or_insert_with(|| shape.clone());
        ensure!(
            *first == shape,
            "{} writes other columns:\n{}\nand not\n{}",
            side.name(),
            shape.join("\n"),
            first.join("\n")
        );
    }
    let samples = harness::take_turns(all, options.rounds, async |side| {
        insert(&mut tables, &mut sides, side, options.rows).await
    })
    .await?;
    let names = all.iter().map(|side| side.name());
    let case = Case::new("bulk", "insert", names, samples);
    results.add(&case)?;
    results.expect(case.goals(&BOUNDS));
    sides.close();
    Ok(())
}

/// Has a side insert into fresh tables, and checks what it left there.
async fn insert(tables: &mut Tables, sides: &mut Sides, side: Side, rows: usize) -> Result<Sample> {
    tables.reset().await?;
    let (tally, sample) = sides.run(side, rows).await?;
    tables
        .verify(&tally)
        .await
        .with_context(|| format!("{} did not do its work", side.name()))?;
    Ok(sample)
}
