//! What the framework costs: measured against the same work written by hand on sqlx, interleaved
//! in one run, on the same server and the same tables.
//!
//! `cargo xtask bench <part>` runs a part on a private server that is as durable as a real one.
//! By itself the program needs `DATABASE_URL`, of a role that may create databases and run
//! `CHECKPOINT`; it works in a database of its own.
//!
//! Only ratios within a run mean anything on another machine.

mod bulk;
mod consume;
mod database;
mod domain;
mod hand_written;
mod harness;
mod latency;
mod load;
mod report;
mod sourced;
mod write;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use crate::report::Results;

/// What the framework costs against hand-written sqlx.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    part: Part,
}

/// What is measured.
#[derive(Debug, Subcommand)]
enum Part {
    /// What consuming leaves behind under a transaction that is held open; ten minutes.
    Bloat(consume::bloat::Options),
    /// Bulk inserts: many aggregates, each with its event.
    Bulk(bulk::Options),
    /// Consuming a log with everything still to do.
    Drain(consume::drain::Options),
    /// From a commit until it is visible, and what telling others of it costs.
    Latency(latency::Options),
    /// Loads of 1,000 aggregates: instructions and time.
    Load(load::Options),
    /// What `load` runs under callgrind.
    #[command(hide = true)]
    LoadOnce(load::Once),
    /// Loads of an event-sourced aggregate with many events, and of one with few.
    Sourced(sourced::Options),
    /// Read models from the beginning of a short log and of a long one.
    Rebuild(consume::rebuild::Options),
    /// Commits: an aggregate and its event.
    Write(write::Options),
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let url = std::env::var("DATABASE_URL")
        .context("DATABASE_URL is not set; `cargo xtask bench` sets it")?;
    let mut runtime = match &arguments.part {
        // Threads that take turns in another way would count as another number of instructions.
        Part::LoadOnce(_) => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    runtime
        .enable_all()
        .build()?
        .block_on(run(&url, &arguments.part))
}

async fn run(url: &str, part: &Part) -> Result<ExitCode> {
    if let Part::LoadOnce(once) = part {
        load::once(url, once).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut results = Results::open()?;
    let misses = match part {
        Part::Bloat(options) => consume::bloat::run(url, options).await?,
        Part::Bulk(options) => bulk::run(url, options, &mut results).await?,
        Part::Drain(options) => consume::drain::run(url, options, &mut results).await?,
        Part::Latency(options) => latency::run(url, options).await?,
        Part::Load(options) => load::run(url, options, &mut results).await?,
        Part::LoadOnce(_) => Vec::new(),
        Part::Sourced(options) => sourced::run(url, options, &mut results).await?,
        Part::Rebuild(options) => consume::rebuild::run(url, options).await?,
        Part::Write(options) => write::run(url, options, &mut results).await?,
    };
    for miss in &misses {
        eprintln!(
            "{} is {:.2}, below {:.2}",
            miss.what, miss.found, miss.least
        );
    }
    Ok(if misses.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
