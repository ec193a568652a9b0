//! The part `latency`: from a commit until its row is visible in a read model; and what it costs
//! the writers that others are told of their commits.
//!
//! Commits arrive at a fixed rate, whatever the earlier ones do. The time runs from the answer of
//! the commit until `wait_for` returns in the store that runs the projector: the store that
//! commits (`here`), another one that hears of it (`told`), or another one that polls (`polls`).
//! Or it returns in the store that commits, while another runs the projector (`waits`), also
//! without notifications (`asks`).

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use cqrs_core::{
    Entity as _, Envelope, ReadModel, RequestContext, RowProjection, Store as _, TenantId,
    UnitOfWork as _,
};
use cqrs_sqlx::{PgStore, StoreOptions};
use sqlx::postgres::PgConnectOptions;
use tokio::task::JoinSet;

use crate::database::{Scratch, TENANT};
use crate::domain::{Order, OrderEvent, OrderId, Place};
use crate::report::Miss;

/// How the part is run.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Commits a second.
    #[arg(long, value_delimiter = ',', default_values_t = [200, 2000])]
    rates: Vec<u32>,
    /// How long each rate is kept up.
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Where the projector is.
    #[arg(long, value_delimiter = ',', default_values = ["here", "told", "polls", "waits", "asks"])]
    sides: Vec<Side>,
    /// Writers whose commits are counted with and without notifications; 0 leaves that out.
    #[arg(long, default_value_t = 32)]
    writers: usize,
    /// How many times they are.
    #[arg(long, default_value_t = 6)]
    rounds: usize,
}

/// Where the projector is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Side {
    Here,
    Told,
    Polls,
    Waits,
    Asks,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Here => "here",
            Self::Told => "told",
            Self::Polls => "polls",
            Self::Waits => "waits",
            Self::Asks => "asks",
        })
    }
}

/// What a reader sees of an order.
#[derive(Debug, Clone, ReadModel)]
#[read_model(table = "bench_order_row", tenant)]
struct OrderRow {
    #[read_model(key)]
    id: OrderId,
    quantity: i64,
}

struct OrderRows;

impl RowProjection for OrderRows {
    type Event = OrderEvent;
    type Row = OrderRow;

    const NAME: &'static str = "bench_order_row";

    fn key(&self, event: &Envelope<OrderEvent>) -> cqrs_core::Result<Option<OrderId>> {
        Ok(Some(event.aggregate_id()?))
    }

    fn apply(
        &self,
        row: &mut Option<OrderRow>,
        event: &Envelope<OrderEvent>,
    ) -> cqrs_core::Result<()> {
        let id = event.aggregate_id()?;
        let row = row.get_or_insert(OrderRow { id, quantity: 0 });
        match event.payload() {
            OrderEvent::Placed { quantity, .. } => row.quantity = *quantity,
            OrderEvent::Changed { by, .. } => row.quantity += by,
        }
        Ok(())
    }
}

/// Runs the part. It asks for nothing, so nothing falls short.
///
/// # Errors
///
/// Where the database fails.
pub(crate) async fn run(url: &str, options: &Options) -> Result<Vec<Miss>> {
    let scratch = Scratch::create(url).await?;
    let measured = measure(&scratch.options(), options).await;
    scratch.drop().await?;
    measured.map(|()| Vec::new())
}

async fn measure(database: &PgConnectOptions, options: &Options) -> Result<()> {
    let store = open(database, true).await?;
    store.migrate().await?;
    let tables = [Order::table(), OrderRow::table()];
    store.create_tables(&tables).await?;
    store.close();
    println!("| commits/s | projector | p50 ms | p99 ms |\n|---|---|---|---|");
    for &rate in &options.rates {
        for &side in &options.sides {
            // A first second warms connections, statements and plans.
            visible(database, side, rate, 1).await?;
            let mut times = visible(database, side, rate, options.seconds).await?;
            times.sort_unstable();
            let at = |share: f64| {
                let index = (times.len() as f64 * share) as usize;
                times[index.min(times.len() - 1)].as_secs_f64() * 1e3
            };
            println!("| {rate} | {side} | {:.2} | {:.2} |", at(0.5), at(0.99));
        }
    }
    if options.writers > 0 {
        cost(database, options).await?;
    }
    Ok(())
}

async fn open(database: &PgConnectOptions, notifications: bool) -> Result<PgStore> {
    let options = StoreOptions::default()
        .max_connections(40)
        .notifications(notifications);
    Ok(PgStore::connect_with(database.clone(), options).await?)
}

fn context() -> Result<RequestContext> {
    Ok(RequestContext::tenant(TenantId::new(TENANT)?))
}

fn order() -> Order {
    Order::place(&Place {
        customer: "Ada".to_owned(),
        note: "as soon as it can be".to_owned(),
        quantity: 1,
    })
}

/// How long it took for each commit.
async fn visible(
    database: &PgConnectOptions,
    side: Side,
    rate: u32,
    seconds: u32,
) -> Result<Vec<Duration>> {
    let is_told = matches!(side, Side::Told | Side::Waits);
    let writer = open(database, is_told).await?;
    let reader = match side {
        Side::Here => writer.clone(),
        _ => open(database, is_told).await?,
    };
    let waiter = match side {
        Side::Waits | Side::Asks => &writer,
        _ => &reader,
    };
    let projector = reader.projector().rows(OrderRows);
    projector.run_until_idle().await?;
    let handle = reader.projector().rows(OrderRows).start().await?;
    let begun = Instant::now();
    let mut commits = JoinSet::new();
    for number in 0..rate * seconds {
        let at = begun + Duration::from_secs(1) * number / rate;
        tokio::time::sleep_until(at.into()).await;
        let (writer, waiter, context) = (writer.clone(), waiter.clone(), context()?);
        commits.spawn(async move {
            let mut uow = writer.unit_of_work(&context);
            uow.save(order())?;
            let receipt = uow.commit().await?;
            let committed = Instant::now();
            waiter.wait_for(&receipt, OrderRows::NAME).await?;
            Ok::<_, cqrs_core::Error>(committed.elapsed())
        });
    }
    let mut times = Vec::new();
    while let Some(time) = commits.join_next().await {
        times.push(time.context("a commit panicked")??);
    }
    handle.stop(Duration::from_secs(10)).await;
    writer.close();
    reader.close();
    Ok(times)
}

/// Commits a second with notifications, by those without, in turns.
async fn cost(database: &PgConnectOptions, options: &Options) -> Result<()> {
    let stores = [open(database, true).await?, open(database, false).await?];
    let mut ratios = Vec::new();
    for round in 0..=options.rounds {
        let mut made = [0.0; 2];
        for turn in 0..2 {
            let side = (round + turn) % 2;
            made[side] = commits(&stores[side], options.writers).await?;
        }
        // The first round warms both.
        if round > 0 {
            ratios.push(made[0] / made[1]);
        }
    }
    ratios.sort_unstable_by(f64::total_cmp);
    if let (Some(least), Some(most)) = (ratios.first(), ratios.last()) {
        let median = ratios[ratios.len() / 2];
        let writers = options.writers;
        println!("{writers} writers, told/silent: {median:.3} ({least:.3}..{most:.3})");
    }
    Ok(())
}

/// How many commits so many writers make in a second.
async fn commits(store: &PgStore, writers: usize) -> Result<f64> {
    let begun = Instant::now();
    let until = begun + Duration::from_secs(1);
    let mut tasks = JoinSet::new();
    for _ in 0..writers {
        let (store, context) = (store.clone(), context()?);
        tasks.spawn(async move {
            let mut made = 0_u32;
            while Instant::now() < until {
                let mut uow = store.unit_of_work(&context);
                uow.save(order())?;
                let _ = uow.commit().await?;
                made += 1;
            }
            Ok::<_, cqrs_core::Error>(made)
        });
    }
    let mut made = 0_u32;
    while let Some(task) = tasks.join_next().await {
        made += task.context("a writer panicked")??;
    }
    Ok(f64::from(made) / begun.elapsed().as_secs_f64())
}
