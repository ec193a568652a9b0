//! The part `sqlite`: commits and the drain on SQLite, against the same by hand on sqlx.
//!
//! Both sides work on files of their own on the same disk, with the same settings: a write-ahead
//! log, and `synchronous = FULL`, so that a commit is on the disk. A file is as long as the other,
//! for each slice begins with a new one. By hand one connection writes, and others read, as in the
//! framework.

mod by_hand;

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use cqrs_core::{
    AggregateRoot as _, Entity as _, Id, Maintain as _, RequestContext, Store as _, TenantId,
    UnitOfWork as _,
};
use cqrs_sqlx::{SqliteStore, StoreOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool};

use crate::consume;
use crate::database::{ACTOR, TENANT};
use crate::domain::{Change, Order, Place};
use crate::harness::{Sample, Timing, Worker, slice, take_turns};
use crate::report::{self, Bound, Case, OURS, Results};

use by_hand::Pools;

/// How many orders there are before each slice.
const SEEDS: usize = 1_000;
/// The other side of commits.
const STEPS: &str = "steps";

/// How the part is run.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How long each slice is measured, in seconds.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// How many slices each side gets.
    #[arg(long, default_value_t = 4)]
    rounds: usize,
    /// Numbers of concurrent writers.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8])]
    writers: Vec<usize>,
    /// How many events are drained.
    #[arg(long, default_value_t = 40_000)]
    events: usize,
}

/// Runs the part.
///
/// # Errors
///
/// Where the database fails, or a side did not do its work.
pub(crate) async fn run(_url: &str, options: &Options, results: &mut Results) -> Result<()> {
    // Beside the results, which are on a disk; temporary files may be kept in memory.
    let directory = tempfile::Builder::new()
        .prefix("cqrs-bench-")
        .tempdir_in(report::directory()?)?;
    let measured = Duration::try_from_secs_f64(options.seconds)?;
    let timing = Timing {
        ramp: measured / 4,
        measured,
    };
    for (name, is_change) in [("create", false), ("change", true)] {
        for &writers in &options.writers {
            let mut slices = 0;
            let turn = async |is_ours| {
                slices += 1;
                let file = directory
                    .path()
                    .join(format!("{name}-{writers}-{slices}.db"));
                commits(&database(&file), is_ours, is_change, writers, timing).await
            };
            let samples = take_turns(&[true, false], options.rounds, turn).await?;
            let case = Case::new("sqlite", name, [OURS, STEPS], samples).with_writers(writers);
            results.add(&case)?;
            results.expect(case.goals(&[(STEPS, Bound::AtLeast(0.95))]));
        }
    }
    let file = database(&directory.path().join("drain.db"));
    let case = consume::sqlite::drain(&file, options.events, options.rounds).await?;
    results.add(&case)?;
    results.expect(case.goals(&[("loop", Bound::AtLeast(0.95))]));
    Ok(())
}

fn database(file: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
}

/// A slice of one side, in a new file; checked.
async fn commits(
    options: &SqliteConnectOptions,
    is_ours: bool,
    is_change: bool,
    writers: usize,
    timing: Timing,
) -> Result<Sample> {
    let store = SqliteStore::connect_with(options.clone(), StoreOptions::default()).await?;
    store.migrate().await?;
    store.create_tables(&[Order::table()]).await?;
    let context = RequestContext::tenant(TenantId::new(TENANT)?).with_actor(ACTOR);
    let seeds: Vec<Order> = (0..SEEDS).map(|_| Order::place(&place(0))).collect();
    let ids: Vec<_> = seeds.iter().map(|order| *order.id()).collect();
    store.maintenance::<Order>(&context).insert(seeds).await?;
    let pools = Pools::open(options);
    let writer = |number| Writer {
        side: match is_ours {
            true => Side::Ours(store.clone(), context.clone()),
            false => Side::Steps(pools.clone()),
        },
        own: match is_change {
            true => ids.iter().copied().skip(number).step_by(writers).collect(),
            false => Vec::new(),
        },
        done: 0,
    };
    let (done, sample) = slice((0..writers).map(writer).collect(), timing).await?;
    let done: i64 = done.iter().map(|writer| writer.done).sum();
    verify(&pools.writer, done, is_change).await?;
    pools.close().await;
    store.close();
    Ok(sample)
}

/// Checks rows, events, the sums of both, and that versions have no gaps.
async fn verify(pool: &SqlitePool, done: i64, is_change: bool) -> Result<()> {
    let seeds = i64::try_from(SEEDS)?;
    let found: (i64, i64, i64, i64, i64) = sqlx::query_as(
        "SELECT count(*), sum(quantity), sum(version), (SELECT count(*) FROM cqrs_event), \
         (SELECT sum(coalesce(payload->>'$.quantity', payload->>'$.by')) FROM cqrs_event) \
         FROM bench_order",
    )
    .fetch_one(pool)
    .await?;
    let all = seeds + done;
    let orders = if is_change { seeds } else { all };
    let expected = (orders, all, all, all, all);
    ensure!(
        found == expected,
        "orders, their quantity and versions, events and their quantity: expected {expected:?}, \
         found {found:?}"
    );
    Ok(())
}

fn place(number: i64) -> Place {
    Place {
        customer: format!("customer {number}"),
        note: "Ring twice, and leave it with the neighbours if nobody is in.".to_owned(),
        quantity: 1,
    }
}

/// Who commits.
enum Side {
    /// The framework.
    Ours(SqliteStore, RequestContext),
    /// By hand.
    Steps(Pools),
}

/// Places orders, or changes its own, each in turn.
struct Writer {
    side: Side,
    own: Vec<Id<Order>>,
    done: i64,
}

impl Worker for Writer {
    async fn work(&mut self) -> Result<()> {
        let own = usize::try_from(self.done)? % self.own.len().max(1);
        match self.own.get(own) {
            None => self.place(&place(self.done)).await?,
            Some(&id) => {
                let change = Change {
                    id,
                    by: 1,
                    note: format!("Changed on the phone, call {}.", self.done),
                };
                self.change(&change).await?;
            }
        }
        self.done += 1;
        Ok(())
    }
}

impl Writer {
    async fn place(&self, place: &Place) -> Result<()> {
        match &self.side {
            Side::Ours(store, context) => {
                store
                    .execute(context, async |uow| uow.save(Order::place(place)))
                    .await?;
            }
            Side::Steps(pools) => by_hand::place(pools, place).await?,
        }
        Ok(())
    }

    async fn change(&self, change: &Change) -> Result<()> {
        match &self.side {
            Side::Ours(store, context) => {
                store
                    .execute(context, async |uow| {
                        let mut order: Order = uow.get(change.id).await?;
                        order.change(change);
                        uow.save(order)
                    })
                    .await?;
            }
            Side::Steps(pools) => by_hand::change(pools, change).await?,
        }
        Ok(())
    }
}
