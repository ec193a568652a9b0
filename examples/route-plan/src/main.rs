//! Plans, dispatches and lists the best-known routes of Solomon's instances for two tenants.
//!
//! ```text
//! cargo run --release -p route-plan -- FOLDER                      SQLite in memory
//! cargo run --release -p route-plan -- FOLDER --database FILE      SQLite in a file
//! cargo run --release -p route-plan -- FOLDER --database-url URL   Postgres
//! ```
//!
//! It reads the folder's instances `0025_*.txt` and routes `best_known_25.txt`, plans each
//! instance in a unit of work, dispatches, completes and cancels a share of the plans, and waits
//! until the read model shows it. It prints the read model, totals by tenant and status, and
//! whether they are what the files say; progress goes to standard error. It ends with an error
//! where a file is malformed (then nothing is imported), or an instance was refused.

mod check;
mod commands;
mod day;
mod files;
mod import;
mod plan;
mod read_model;
mod report;
mod schedule;
mod table;
mod tenant;
mod violation;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Parser;
use cqrs_core::{Entity, RowProjection, Store};
use cqrs_sqlx::{Backend, PgStore, SqlStore, SqliteStore, StoreOptions};
use sqlx::sqlite::SqliteConnectOptions;

use files::Solved;
use plan::RoutePlan;
use read_model::{RoutePlanList, RoutePlanRow};

/// Plans, dispatches and lists delivery routes of two tenants.
#[derive(Debug, Parser)]
struct Arguments {
    /// The folder with the instances and their best-known routes.
    folder: PathBuf,
    /// Keep the plans in this SQLite file; otherwise they are kept in memory.
    #[arg(long, value_name = "FILE")]
    database: Option<PathBuf>,
    /// Keep the plans in this Postgres database.
    #[arg(long, value_name = "URL", conflicts_with = "database", value_parser = postgres_url)]
    database_url: Option<String>,
}

fn postgres_url(text: &str) -> Result<String, &'static str> {
    match text.split_once("://") {
        Some(("postgres" | "postgresql", _)) => Ok(text.to_owned()),
        _ => Err("expected postgres://user:password@host/database"),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match start(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Reads the files, and only then opens the database.
async fn start(arguments: Arguments) -> anyhow::Result<()> {
    let solved = files::read_folder(&arguments.folder)?;
    if let Some(url) = arguments.database_url {
        return run(PgStore::connect(&url).await?, &solved).await;
    }
    let Some(file) = arguments.database else {
        return run(SqliteStore::connect("sqlite::memory:").await?, &solved).await;
    };
    let options = SqliteConnectOptions::new()
        .filename(&file)
        .create_if_missing(true);
    let store = SqliteStore::connect_with(options, StoreOptions::default())
        .await
        .with_context(|| format!("opening {}", file.display()))?;
    run(store, &solved).await
}

/// The same on every database.
async fn run<B: Backend>(store: SqlStore<B>, solved: &[Solved]) -> anyhow::Result<()> {
    let tables = [RoutePlan::table(), RoutePlanRow::table()];
    store.migrate().await?;
    store.create_tables(&tables).await?;
    store.verify(&tables).await?;

    let projector = store.projector().rows(RoutePlanList);
    projector.run_until_idle().await?; // what an earlier run may have left behind
    let projector = projector.start().await?;

    let started = Instant::now();
    let import = import::run(&store, solved).await?;
    let imported = started.elapsed();
    let day = day::run(&store, &import.accepted).await?;
    if let Some(receipt) = &import.receipt {
        store.wait_for(receipt, RoutePlanList::NAME).await?;
    }
    if let Some(receipt) = &day.receipt {
        store.wait_for(receipt, RoutePlanList::NAME).await?;
    }
    projector.stop(Duration::from_secs(5)).await;

    report::print(&store, &import.accepted).await?;
    let (all, new) = (solved.len(), import.accepted.len() - import.known);
    let (plans, known, refused) = (import.plans, import.known, import.refusals.len());
    println!(
        "imported  {new} of {all} instances with {plans} plans in {imported:.2?}; \
         {known} were there before, {refused} refused"
    );
    println!(
        "commands  {} accepted, {} refused",
        day.accepted, day.refused
    );
    if refused > 0 {
        let refusals = import.refusals.join("\n");
        bail!("{refused} of {all} instances were refused:\n{refusals}");
    }
    Ok(())
}
