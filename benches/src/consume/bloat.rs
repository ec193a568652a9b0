//! The part `bloat`: what consuming leaves behind while somebody holds a transaction open, so that
//! no dead row can be removed. The log and its checkpoint beside the usual outbox, whose rows are
//! updated. It takes as long as it is told, ten minutes by itself.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::sync::watch;

use super::by_hand;
use super::log::Log;
use super::projections::{Bulk, Reached};
use crate::database::{ACTOR, Scratch, TENANT};
use crate::domain::Place;
use crate::hand_written::{self, Caller};
use crate::harness::{Sample, Spread};
use crate::report::{Amounts, Bound, By, Case, OURS, Results};

/// The page of the usual outbox.
const STATUS_PAGE: i64 = 500;
/// How often the usual outbox is polled.
const STATUS_POLL: Duration = Duration::from_millis(10);

/// How the part is run.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How long the transaction is held open, in seconds.
    #[arg(long, default_value_t = 600)]
    seconds: u32,
    /// Commits a second.
    #[arg(long, default_value_t = 200)]
    rate: u32,
    /// How many times it says how long an event takes.
    #[arg(long, default_value_t = 10)]
    reports: u32,
}

/// Runs the part.
///
/// # Errors
///
/// Where the database fails, or events were not consumed.
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
    let mut log = Log::prepare(database).await?;
    log.fill(10_000).await?;
    log.rewind().await?;
    let mut holder = log.connect().await?;
    holder
        .execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM cqrs_event")
        .await?;

    let store = log.store().await?;
    let reached = Reached::default();
    let projector = store.projector().projection(Bulk(reached.clone()));
    let handle = projector.start().await?;
    let (stop, stopped) = watch::channel(false);
    let outbox = tokio::spawn(consume_outbox(log.connect().await?, stopped));

    let mut writer = log.connect().await?;
    println!("| second | from commit to applied, median ms |\n|---|---|");
    let mut samples = Vec::new();
    let begun = Instant::now();
    let commits = options.seconds * options.rate;
    let report_every = (commits / options.reports.max(1)).max(1);
    let mut times = Vec::new();
    let mut last = log.end;
    for number in 0..commits {
        let at = begun + Duration::from_secs(1) * number / options.rate;
        tokio::time::sleep_until(at.into()).await;
        last = commit(&mut writer).await?;
        // Only some are waited for, not to change the rate.
        if number % options.rate == 0 {
            let committed = Instant::now();
            reached.position(last).await;
            times.push(committed.elapsed());
        }
        if (number + 1) % report_every == 0 {
            let reported = std::mem::take(&mut times);
            let ms = reported
                .iter()
                .map(|time: &Duration| time.as_secs_f64() * 1e3);
            let Spread { min, value, max } = Spread::of(ms);
            samples.push(Sample::of(
                reported,
                Duration::from_secs(1) * report_every / options.rate,
            ));
            let second = begun.elapsed().as_secs();
            println!("| {second} | {value:.2} ({min:.2}..{max:.2}) |");
        }
    }
    log.end = last;
    reached.position(last).await;
    handle.stop(Duration::from_secs(10)).await;
    store.close();
    stop.send_replace(true);
    outbox.await??;
    log.verify("the projection", false).await?;
    let case = Case::new("bloat", "from commit to applied", [OURS], vec![samples]).by(By::P50);
    results.add(&case)?;
    let [dead, kib] = remains(&mut log.connection).await?;
    results.add_amounts(&dead)?;
    results.expect(dead.goal_of_side(OURS, Bound::AtMost(0.0)));
    results.add_amounts(&kib)?;
    holder.execute("COMMIT").await?;
    holder.close().await?;
    Ok(())
}

/// Commits an event to the log, and another one to the usual outbox.
async fn commit(connection: &mut PgConnection) -> Result<i64> {
    let caller = Caller {
        tenant: TENANT.to_owned(),
        actor: ACTOR.to_owned(),
    };
    let place = Place {
        customer: "Ada".to_owned(),
        note: "as soon as it can be".to_owned(),
        quantity: 1,
    };
    let position = hand_written::place_in_one(connection, &caller, &place).await?;
    sqlx::query(
        "INSERT INTO bench_outbox SELECT position, tenant_id, aggregate_id, event_type, payload \
         FROM cqrs_event WHERE position = $1",
    )
    .bind(position)
    .execute(connection)
    .await?;
    Ok(position)
}

async fn consume_outbox(
    mut connection: PgConnection,
    stopped: watch::Receiver<bool>,
) -> Result<()> {
    while !*stopped.borrow() {
        if by_hand::status_page(&mut connection, STATUS_PAGE).await? == 0 {
            tokio::time::sleep(STATUS_POLL).await;
        }
    }
    Ok(())
}

/// How many rows of the log (`ours`), of its checkpoints and of the usual outbox (`naive`) are
/// dead, and how large they are with those.
async fn remains(connection: &mut PgConnection) -> Result<[Amounts; 2]> {
    const TABLES: [(&str, &str); 3] = [
        (OURS, "cqrs_event"),
        ("checkpoints", "cqrs_segment"),
        ("naive", "bench_outbox"),
    ];
    connection
        .execute("ANALYZE cqrs_event, cqrs_segment, bench_outbox")
        .await?;
    let (mut dead, mut kib) = (Vec::new(), Vec::new());
    for (side, table) in TABLES {
        let (rows, size): (f64, f64) = sqlx::query_as(
            "SELECT n_dead_tup::float8, pg_total_relation_size(relid)::float8 / 1024 \
             FROM pg_stat_user_tables WHERE relname = $1",
        )
        .bind(table)
        .fetch_one(&mut *connection)
        .await?;
        dead.push((side, rows));
        kib.push((side, size));
    }
    let amounts = |case: &str, unit, sides| Amounts {
        part: "bloat",
        case: case.to_owned(),
        unit,
        sides,
    };
    Ok([
        amounts("dead rows", "rows", dead),
        amounts("size", "KiB", kib),
    ])
}
