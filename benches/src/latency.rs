//! The part `latency`: from a commit until its row is visible in a read model; and what it costs
//! the writers that others are told of their commits.
//!
//! Commits arrive at a fixed rate, whatever the earlier ones do. The time runs from the answer of
//! the commit until `wait_for` returns in the store that runs the projector: the store that
//! commits (`here`), another one that hears of it (`told`), or another one that polls (`polls`).
//! Or it returns in the store that commits, while another runs the projector (`waits`), also
//! without notifications (`asks`). Or the process that commits and waits has two segments, alone
//! (`split`) or with another that has as many workers (`shared`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use cqrs_core::{
    Entity as _, Envelope, Maintain as _, ReadModel, RequestContext, RowProjection, Store as _,
    Subscription, TenantId, UnitOfWork as _,
};
use cqrs_sqlx::{PgStore, Postgres, ProjectorBuilder, StoreOptions};
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::task::JoinSet;

use crate::database::{Scratch, TENANT, ensure_no_scans};
use crate::domain::{Order, OrderEvent, OrderId, Place};
use crate::harness::{Sample, Spread, Timing, Worker, slice, take_turns, warm_and_measure};
use crate::report::{Bound, By, Case, Goal, Results};

/// The rate at which other processes are to hear at once; beyond, they are told now and then.
const UNHURRIED: u32 = 200;

/// The share of their commits that writers make at least where others are told.
const LEAST: f64 = 0.97;
/// How often a process tells others by itself, so that it is known how long that takes.
const TELLINGS: u32 = 2_000;
/// Which of two stores notifies.
const TOLD: usize = 0;
const SILENT: usize = 1;

/// How the part is run.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Commits a second.
    #[arg(long, value_delimiter = ',', default_values_t = [200, 2000])]
    rates: Vec<u32>,
    /// How long each rate is kept up.
    #[arg(long, default_value_t = 2)]
    seconds: u32,
    /// Where the projector is.
    #[arg(long, value_delimiter = ',', default_values = ["here", "told", "polls", "waits", "asks", "split", "shared"])]
    sides: Vec<Side>,
    /// What is measured.
    #[arg(long, value_delimiter = ',', default_values = ["visible", "cost"])]
    cases: Vec<Which>,
    /// Writers whose commits are counted with and without notifications.
    #[arg(long, default_value_t = 32)]
    writers: usize,
    /// How many times each side is measured.
    #[arg(long, default_value_t = 4)]
    rounds: usize,
    /// How many pairs of slices, with notifications and without, there are of the cost of telling.
    #[arg(long, default_value_t = 20)]
    pairs: usize,
    /// How long each of these slices is measured, in seconds.
    #[arg(long, default_value_t = 0.8)]
    slice: f64,
}

/// What nobody has to scan.
const TABLES: [&str; 3] = ["cqrs_event", "bench_order", "bench_order_row"];

/// How many orders there are before any is measured.
const GROWN: u32 = 20_000;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    /// From a commit until its row is visible.
    Visible,
    /// What it costs the writers that others are told.
    Cost,
}

/// Where the projector is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Side {
    Here,
    Told,
    Polls,
    Waits,
    Asks,
    Split,
    Shared,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Here => "here",
            Self::Told => "told",
            Self::Polls => "polls",
            Self::Waits => "waits",
            Self::Asks => "asks",
            Self::Split => "split",
            Self::Shared => "shared",
        }
    }

    fn segments(self) -> u32 {
        match self {
            Self::Split | Self::Shared => 2,
            _ => 1,
        }
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
    const ROW_PER_AGGREGATE: bool = true;

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

/// Runs the part.
///
/// # Errors
///
/// Where the database fails, or a row was not visible when it was said to be.
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
    let store = open(database, true).await?;
    store.migrate().await?;
    let tables = [Order::table(), OrderRow::table()];
    store.create_tables(&tables).await?;
    store.close();
    let rates = match options.cases.contains(&Which::Visible) {
        true => &options.rates[..],
        false => &[],
    };
    for &rate in rates {
        let turn = async |side| {
            let sample = visible(database, side, rate, options.seconds).await?;
            verify(database, GROWN + rate * (options.seconds + 1)).await?;
            ensure_no_scans(database, &TABLES, 1).await?;
            Ok(sample)
        };
        let samples = take_turns(&options.sides, options.rounds, turn).await?;
        let names = options.sides.iter().map(|side| side.name());
        let case = Case::new("latency", format!("at {rate} commits/s"), names, samples)
            .comparing(Side::Here.name())
            .by(By::P50);
        results.add(&case)?;
        results.expect(goals(&case, rate));
    }
    if options.cases.contains(&Which::Cost) {
        let (case, telling) = cost(database, options).await?;
        results.add(&case)?;
        println!("  {telling}");
        if let Some(interval) = case.interval(By::Rate, "told", "silent") {
            println!("  {}", decided(interval));
            if is_decided(interval) {
                results.expect(case.goals(&[("silent", Bound::AtLeast(LEAST))]));
            }
        }
    }
    Ok(())
}

/// What is asked for in the process that commits, and across processes.
fn goals(case: &Case, rate: u32) -> Vec<Goal> {
    let (here, told) = (Side::Here.name(), Side::Told.name());
    let mut goals = vec![
        case.goal_in_ms(By::P50, here, Bound::AtMost(0.6)),
        case.goal_in_ms(By::P99, here, Bound::AtMost(4.0)),
        case.goal_in_ms(By::P99, told, Bound::AtMost(10.0)),
    ];
    if rate <= UNHURRIED {
        goals.push(case.goal_in_ms(By::P50, told, Bound::AtMost(1.0)));
    }
    goals.into_iter().flatten().collect()
}

/// Checks that each commit has its row, and empties the tables for the next turn.
async fn verify(database: &PgConnectOptions, commits: u32) -> Result<()> {
    let mut connection = PgConnection::connect_with(database).await?;
    let (orders, events, rows, pieces): (i64, i64, i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM bench_order), (SELECT count(*) FROM cqrs_event), \
         count(*), coalesce(sum(quantity), 0)::int8 FROM bench_order_row",
    )
    .fetch_one(&mut connection)
    .await?;
    let commits = i64::from(commits);
    ensure!(
        [orders, events, rows, pieces] == [commits; 4],
        "of {commits} commits there are {orders} orders, {events} events, {rows} rows with \
         {pieces} pieces"
    );
    empty(&mut connection).await
}

async fn empty(connection: &mut PgConnection) -> Result<()> {
    connection
        .execute(
            "TRUNCATE bench_order, cqrs_event, bench_order_row, cqrs_segment, cqrs_subscription; \
             CHECKPOINT",
        )
        .await?;
    Ok(())
}

async fn open(database: &PgConnectOptions, notifications: bool) -> Result<PgStore> {
    let options = StoreOptions::default()
        .max_connections(40)
        .notifications(notifications);
    Ok(PgStore::connect_with(database.clone(), options).await?)
}

fn projector(store: &PgStore, side: Side) -> ProjectorBuilder<Postgres> {
    let rows = Subscription::named(OrderRows::NAME).rows(OrderRows);
    store.projector().subscribe(rows.segments(side.segments()))
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

/// As a service that has run for a while: its tables have rows, and statistics by which statements are
/// planned. Without any, the server looks for one row of a small table among all of them.
async fn grow(database: &PgConnectOptions, store: &PgStore, side: Side) -> Result<()> {
    let orders = (0..GROWN).map(|_| order());
    let inserted = store
        .maintenance::<Order>(&context()?)
        .insert(orders)
        .await?;
    ensure!(inserted.items() == usize::try_from(GROWN)?, "{inserted:?}");
    projector(store, side).run_until_idle().await?;
    let mut connection = PgConnection::connect_with(database).await?;
    connection
        .execute("VACUUM (ANALYZE) bench_order, bench_order_row, cqrs_event, cqrs_segment")
        .await?;
    Ok(())
}

/// Commits for a second that warms connections, statements and plans, and then for those that are
/// measured: how long it took until each row was visible.
async fn visible(
    database: &PgConnectOptions,
    side: Side,
    rate: u32,
    seconds: u32,
) -> Result<Sample> {
    let is_told = matches!(side, Side::Told | Side::Waits | Side::Shared);
    let writer = open(database, is_told).await?;
    let reader = match side {
        Side::Here | Side::Split => writer.clone(),
        _ => open(database, is_told).await?,
    };
    let waiter = match side {
        Side::Waits | Side::Asks | Side::Shared => &writer,
        _ => &reader,
    };
    grow(database, &reader, side).await?;
    let mut handles = vec![projector(&reader, side).start().await?];
    if side == Side::Shared {
        handles.push(projector(&writer, side).start().await?);
    }
    let begun = Instant::now();
    let mut commits = JoinSet::new();
    for number in 0..rate * (1 + seconds) {
        let at = begun + Duration::from_secs(1) * number / rate;
        tokio::time::sleep_until(at.into()).await;
        let (writer, waiter, context) = (writer.clone(), waiter.clone(), context()?);
        commits.spawn(async move {
            let mut uow = writer.unit_of_work(&context);
            uow.save(order())?;
            let receipt = uow.commit().await?;
            let committed = Instant::now();
            waiter.wait_for(&receipt, OrderRows::NAME).await?;
            let time = (number >= rate).then(|| committed.elapsed());
            Ok::<_, cqrs_core::Error>((committed, time))
        });
    }
    let (mut times, mut last) = (Vec::new(), begun);
    while let Some(ended) = commits.join_next().await {
        let (committed, time) = ended.context("a commit panicked")??;
        last = last.max(committed);
        times.extend(time);
    }
    for handle in handles {
        handle.stop(Duration::from_secs(10)).await;
    }
    writer.close();
    reader.close();
    // The rate that was kept.
    Ok(Sample::of(times, last - begun - Duration::from_secs(1)))
}

/// Whether an interval of the median says that the target is met, or that it is missed.
fn is_decided(interval: Spread) -> bool {
    interval.min >= LEAST || interval.max < LEAST
}

/// What an interval of the median says about the target.
fn decided(interval: Spread) -> String {
    let Spread { min, value, max } = interval;
    let is = match () {
        () if min >= LEAST => "the target is met",
        () if max < LEAST => "the target is missed",
        () => "it is not decided whether the target is met",
    };
    format!("told/silent {value:.3}, with 95 % between {min:.3} and {max:.3}: {is}")
}

/// How often others were told while so much was committed, and how long it takes to tell them.
struct Telling {
    told: u64,
    commits: u64,
    seconds: f64,
    alone: Duration,
}

impl std::fmt::Display for Telling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            told,
            commits,
            seconds,
            alone,
        } = self;
        let (per_commit, alone) = (commits / (*told).max(1), alone.as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        let per_s = *told as f64 / seconds;
        write!(
            f,
            "others were told {per_s:.0} times a second, once for {per_commit} commits; to tell them \
             takes {:.0} us by itself, which is {:.1} % of the time of one connection",
            alone * 1e6,
            per_s * alone * 100.0
        )
    }
}

/// How long it takes to tell others where nothing else is done: the framework's statement, on a
/// connection that has prepared it, while somebody listens.
async fn telling_alone(database: &PgConnectOptions) -> Result<Duration> {
    let mut connection = PgConnection::connect_with(database).await?;
    let mut begun = Instant::now();
    for number in 0..TELLINGS + TELLINGS / 10 {
        if number == TELLINGS / 10 {
            begun = Instant::now();
        }
        sqlx::query(
            "SELECT set_config('synchronous_commit', 'off', true), pg_notify(channel, content) \
             FROM unnest($1::text[], $2::text[]) AS told (channel, content)",
        )
        .bind(vec!["cqrs_committed"])
        .bind(vec![number.to_string()])
        .execute(&mut connection)
        .await?;
    }
    let elapsed = begun.elapsed();
    connection.close().await?;
    Ok(elapsed / TELLINGS)
}

/// Commits with notifications and without: pairs of short slices, each side first in every other.
async fn cost(database: &PgConnectOptions, options: &Options) -> Result<(Case, Telling)> {
    let stores = [open(database, true).await?, open(database, false).await?];
    // Somebody hears what is told, and does nothing with it.
    let mut listener = listening(database).await?;
    let heard = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&heard);
    let hears = tokio::spawn(async move {
        while listener.recv().await.is_ok() {
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let mut connection = PgConnection::connect_with(database).await?;
    let measured = Duration::try_from_secs_f64(options.slice)?;
    let timing = Timing {
        ramp: measured / 4,
        measured,
    };
    let (mut commits, mut seconds) = (0, 0.0);
    let samples = warm_and_measure(&[TOLD, SILENT], options.pairs, async |side: usize| {
        empty(&mut connection).await?;
        let writer = || {
            Ok(Writer {
                store: stores[side].clone(),
                context: context()?,
                made: 0,
            })
        };
        let writers = (0..options.writers).map(|_| writer());
        let (writers, sample) = slice(writers.collect::<Result<Vec<_>>>()?, timing).await?;
        let made: i64 = writers.iter().map(|writer| writer.made).sum();
        let events: i64 = sqlx::query_scalar("SELECT count(*) FROM cqrs_event")
            .fetch_one(&mut connection)
            .await?;
        ensure!(events == made, "{made} commits left {events} events");
        if side == TOLD {
            commits += u64::try_from(made)?;
            seconds += (timing.ramp + timing.measured).as_secs_f64();
        }
        Ok(sample)
    })
    .await?;
    let told = heard.load(Ordering::Relaxed);
    ensure!(told > 0, "nobody was told");
    let alone = telling_alone(database).await?;
    ensure!(!hears.is_finished(), "nobody heard what was told");
    hears.abort();
    for store in &stores {
        store.close();
    }
    let case = Case::new("latency", "cost of telling", ["told", "silent"], samples)
        .with_writers(options.writers)
        .comparing("told");
    let telling = Telling {
        told,
        commits,
        seconds,
        alone,
    };
    Ok((case, telling))
}

async fn listening(database: &PgConnectOptions) -> Result<PgListener> {
    let pool = PgPoolOptions::new().max_connections(1);
    let pool = pool.connect_lazy_with(database.clone());
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.listen("cqrs_committed").await?;
    Ok(listener)
}

/// Commits as fast as it can.
struct Writer {
    store: PgStore,
    context: RequestContext,
    made: i64,
}

impl Worker for Writer {
    async fn work(&mut self) -> Result<()> {
        let mut uow = self.store.unit_of_work(&self.context);
        uow.save(order())?;
        let _ = uow.commit().await?;
        self.made += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_decides_only_where_the_target_is_outside() {
        let said = |min, max| {
            decided(Spread {
                min,
                value: f64::midpoint(min, max),
                max,
            })
        };
        assert!(said(0.97, 1.01).ends_with("the target is met"));
        assert!(said(0.90, 0.96).ends_with("the target is missed"));
        assert!(said(0.96, 0.98).contains("not decided"));
    }
}
