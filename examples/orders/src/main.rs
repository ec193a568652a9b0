//! Imports the life cycle of orders with its recorded times, lists it, and flags late orders.
//!
//! ```text
//! cargo run --release -p orders                           made-up orders, SQLite in memory
//! cargo run --release -p orders -- FILE                   orders of a CSV file
//! cargo run --release -p orders -- --database FILE        SQLite in a file
//! cargo run --release -p orders -- --database-url URL     Postgres
//! cargo run --release -p orders -- FILE --check --database FILE    what an earlier run has left there
//! ```
//!
//! The file has a header and the columns `order_id`, `customer_id`, `order_status`,
//! `order_purchase_timestamp`, `order_approved_at`, `order_delivered_carrier_date`,
//! `order_delivered_customer_date` and `order_estimated_delivery_date`, with times as
//! `7/24/2018 20:41`, empty where it did not happen.
//!
//! Each step of an order is a command to an event-sourced aggregate, in the order of time. While that
//! time goes by, a process manager waits for each order, and flags those that have not arrived on the
//! day they were promised for. It prints the orders by status, the delay of deliveries by month, the
//! customers whose deliveries were latest, and what happened to one late order. Then all rows, all
//! events, and the orders as of several times are compared with the file: the first difference ends it
//! with an error.
//!
//! `README.md` has what it prints for some 5,000 real orders, and what the columns mean.

mod check;
mod file;
mod import;
mod late;
mod order;
mod read_models;
mod report;
mod sample;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail};
use chrono::DateTime;
use clap::Parser;
use cqrs_core::{Entity, ManualClock, ReadModels, RequestContext, Specification, Store, TenantId};
use cqrs_sqlx::{Backend, PgStore, SqlStore, SqliteStore, StoreOptions};
use sqlx::sqlite::SqliteConnectOptions;

use crate::file::Record;
use crate::late::LateOrders;
use crate::read_models::{
    CustomerRow, CustomerSummary, DeliveryMonths, MonthRow, OrderList, OrderRow,
};

/// Imports the life cycle of orders, lists it, and flags late orders.
#[derive(Debug, Parser)]
struct Arguments {
    /// A CSV file of orders; otherwise some are made up.
    file: Option<PathBuf>,
    /// Keep the orders in this SQLite file; otherwise they are kept in memory.
    #[arg(long, value_name = "FILE")]
    database: Option<PathBuf>,
    /// Keep the orders in this Postgres database.
    #[arg(long, value_name = "URL", conflicts_with = "database")]
    database_url: Option<String>,
    /// Compare what a database holds since an earlier run with the file, and import nothing.
    #[arg(long)]
    check: bool,
    /// How many orders are made up.
    #[arg(long, value_name = "N", default_value_t = 120, conflicts_with = "file")]
    orders: usize,
    /// What they are made from: the same number gives the same orders.
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "file")]
    seed: u64,
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

async fn start(arguments: Arguments) -> anyhow::Result<()> {
    let (text, name) = match &arguments.file {
        Some(file) => (file::read(file)?, file.display().to_string()),
        None => {
            let text = sample::csv(arguments.seed, arguments.orders);
            (text.into_bytes(), "the sample".to_owned())
        }
    };
    let records = file::parse(&text).with_context(|| format!("reading {name}"))?;
    let input = Input {
        text,
        records,
        is_imported: arguments.check,
    };
    let clock = Arc::new(ManualClock::new(DateTime::UNIX_EPOCH));
    let options = StoreOptions::default().clock(clock.clone());
    if let Some(url) = &arguments.database_url {
        let store = PgStore::connect_with(url.parse()?, options).await?;
        return run(store, &clock, &input).await;
    }
    let connect = match &arguments.database {
        Some(file) => SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(!arguments.check),
        None => "sqlite::memory:".parse()?,
    };
    let store = SqliteStore::connect_with(connect, options).await?;
    run(store, &clock, &input).await
}

struct Input {
    text: Vec<u8>,
    records: Vec<Record>,
    /// Whether that was done before.
    is_imported: bool,
}

/// The same on every database.
async fn run<B: Backend>(
    store: SqlStore<B>,
    clock: &ManualClock,
    input: &Input,
) -> anyhow::Result<()> {
    let context = RequestContext::tenant(TenantId::new("marketplace")?).with_actor("import");
    let tables = [OrderRow::table(), CustomerRow::table(), MonthRow::table()];
    if input.is_imported {
        store.verify(&tables).await?;
    } else {
        store.migrate().await?;
        store.create_tables(&tables).await?;
        store.verify(&tables).await?;
        import(&store, clock, &context, &input.records).await?;
    }
    let started = Instant::now();
    check::run(&store, &context, &input.text).await?;
    println!("          in {:.2?}", started.elapsed());
    Ok(())
}

async fn import<B: Backend>(
    store: &SqlStore<B>,
    clock: &ManualClock,
    context: &RequestContext,
    records: &[Record],
) -> anyhow::Result<()> {
    let orders = Specification::<OrderRow>::all();
    if store.read_models(context).exists(orders).await? {
        bail!("the database holds orders already");
    }
    let projector = store
        .projector()
        .rows(OrderList)
        .rows(CustomerSummary)
        .rows(DeliveryMonths)
        .process(LateOrders);
    let started = Instant::now();
    let commands = import::run(store, clock, &projector, context, records).await?;
    let took = started.elapsed();
    report::print(store, context).await?;
    println!(
        "imported  {} orders by {commands} commands in {took:.2?}",
        records.len()
    );
    Ok(())
}
