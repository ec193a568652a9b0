//! The part `load`: 1,000 aggregates by a finder, against the same rows through sqlx's derived
//! `FromRow`, which finds columns by their names.
//!
//! The instructions of the client are counted by callgrind, which runs this program with
//! [`Once`] for each side: with some loads and with more of them, so that the difference, divided
//! by how many more, is what a load costs without start-up, connecting and preparing. Time is
//! taken in slices, as elsewhere.

mod count;
mod sides;

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use cqrs_core::{Entity as _, Maintain as _, RequestContext, TenantId};
use cqrs_sqlx::{PgStore, StoreOptions};
use sqlx::postgres::PgConnectOptions;

use crate::database::{ACTOR, Scratch, TENANT};
use crate::domain::{Order, Place};
use crate::harness::{Timing, Worker, run_slice, take_turns};
use crate::report::{Amounts, Bound, Case, Results};

use sides::{Loader, Side};

/// How many aggregates a load has.
const ROWS: usize = 1_000;
/// The most instructions of ours for one of sqlx's.
const MOST: f64 = 0.9;

/// How the part is run.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How long each slice is measured, in seconds.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// How many slices each side gets.
    #[arg(long, default_value_t = 6)]
    rounds: usize,
    /// How many loads are counted.
    #[arg(long, default_value_t = 20)]
    loads: u32,
}

/// What callgrind runs.
#[derive(Debug, Args)]
pub(crate) struct Once {
    /// Who loads.
    #[arg(long)]
    side: Side,
    /// How often.
    #[arg(long)]
    loads: u32,
    /// The database, with its rows.
    #[arg(long)]
    database: String,
}

/// Runs the part.
///
/// # Errors
///
/// Where the database or callgrind fails, or the sides load different rows.
pub(crate) async fn run(url: &str, options: &Options, results: &mut Results) -> Result<()> {
    Scratch::within(url, async |scratch| {
        measure(scratch, options, results).await
    })
    .await
}

/// Loads, and prints a checksum.
///
/// # Errors
///
/// Where the database fails.
pub(crate) async fn once(url: &str, once: &Once) -> Result<()> {
    let server: PgConnectOptions = url.parse()?;
    let mut loader = Loader::open(&server.database(&once.database), once.side).await?;
    let mut sum = 0;
    for _ in 0..once.loads {
        sum += loader.load().await?;
    }
    println!("{sum}");
    Ok(())
}

async fn measure(scratch: &Scratch, options: &Options, results: &mut Results) -> Result<()> {
    let database = scratch.options();
    let sum = fill(&database).await?;
    let mut loaders = Vec::new();
    for side in Side::ALL {
        let mut loader = Loader::open(&database, side).await?;
        ensure!(
            loader.load().await? == sum,
            "{} loads other rows",
            side.name()
        );
        loaders.push(Some(loader));
    }

    let measured = Duration::try_from_secs_f64(options.seconds)?;
    let timing = Timing {
        ramp: measured / 4,
        measured,
    };
    let samples = take_turns(&[0, 1], options.rounds, async |index: usize| {
        run_slice(&mut loaders[index], timing).await
    })
    .await?;
    let names = Side::ALL.iter().map(|side| side.name());
    let case = Case::new("load", "1,000 aggregates", names, samples);
    results.add(&case)?;

    let mut counts = Vec::new();
    for side in Side::ALL {
        let count = count::instructions(scratch.name(), side, options.loads)?;
        counts.push((side.name(), amount(count)));
    }
    let counts = Amounts {
        part: "load",
        case: "1,000 aggregates, counted".to_owned(),
        unit: "instructions",
        sides: counts,
    };
    results.add_amounts(&counts)?;
    results.expect(counts.goal(Side::FromRow.name(), Bound::AtMost(MOST)));
    Ok(())
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of a benchmark are far below 2^52"
)]
fn amount(count: u64) -> f64 {
    count as f64
}

/// Inserts the rows; the sum of their quantities.
async fn fill(database: &PgConnectOptions) -> Result<i64> {
    let store = PgStore::connect_with(database.clone(), StoreOptions::default()).await?;
    store.migrate().await?;
    store.create_tables(&[Order::table()]).await?;
    let context = RequestContext::tenant(TenantId::new(TENANT)?).with_actor(ACTOR);
    let quantities = 1..=i64::try_from(ROWS)?;
    let orders: Vec<Order> = quantities
        .clone()
        .map(|quantity| {
            Order::place(&Place {
                customer: format!("customer {quantity}"),
                note: "Leave it with the neighbours, please.".to_owned(),
                quantity,
            })
        })
        .collect();
    store.maintenance::<Order>(&context).insert(orders).await?;
    store.close();
    Ok(quantities.sum())
}

impl Worker for Loader {
    async fn work(&mut self) -> Result<()> {
        self.load().await.map(drop)
    }
}
