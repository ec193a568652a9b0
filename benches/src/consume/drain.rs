//! The part `drain`: a log with everything still to do.
//!
//! - `bulk`: a page of the log is one statement on the read table, by a projection (`ours`), by a
//!   row projection that the framework folds (`fold`), by hand (`loop`); and the usual outbox with
//!   a status column and an UPDATE for each row (`naive`), which is given the first events only.
//! - `writers`: `ours`, `loop` and `naive` while others commit as fast as they can; and what those
//!   manage.
//! - `each`: a statement for each event, by an event handler (`ours`) and by hand (`loop`).
//!
//! The part `sqlite` has the same on SQLite.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use sqlx::PgConnection;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::by_hand;
use super::log::Log;
use super::projections::{Bulk, Each, Fold, Reached};
use crate::database::{ACTOR, Scratch, TENANT, ensure_no_scans};
use crate::domain::Place;
use crate::hand_written::{self, Caller};
use crate::harness::{Sample, warm_and_measure};
use crate::report::{Bound, Case, OURS, Results};

/// The page of all but the usual outbox.
pub(super) const PAGE: u16 = 1_000;
/// The page of the usual outbox.
const STATUS_PAGE: i64 = 500;
/// A part of the events that are handled one by one.
const EACH_SHARE: usize = 5;

/// How the part is run.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How many events there are.
    #[arg(long, default_value_t = 200_000)]
    events: usize,
    /// How many times each side drains them; a multiple of the number of sides lets each go first
    /// equally often.
    #[arg(long, default_value_t = 4)]
    rounds: usize,
    /// How many writers there are where there are any.
    #[arg(long, default_value_t = 8)]
    writers: usize,
    /// The usual outbox, which is slow, is given this part of the events: the first of so many.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    share: u16,
    /// What is measured.
    #[arg(long, value_delimiter = ',', default_values = ["bulk", "writers", "each"])]
    cases: Vec<Which>,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    Bulk,
    Writers,
    Each,
}

/// Who drains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Ours,
    Fold,
    Loop,
    Status,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Ours => OURS,
            Self::Fold => "fold",
            Self::Loop => "loop",
            Self::Status => "naive",
        }
    }
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
    let mut log = Log::prepare(database).await?;
    for which in &options.cases {
        match which {
            Which::Bulk => {
                let case = bulk(&mut log, options).await?;
                results.add(&case)?;
                let bounds = [
                    ("loop", Bound::AtLeast(0.85)),
                    ("naive", Bound::AtLeast(40.0)),
                ];
                results.expect(case.goals(&bounds));
            }
            Which::Writers => {
                let (drained, commits) = beside_writers(&mut log, options).await?;
                for (case, least) in [(drained, 0.85), (commits, 1.0)] {
                    results.add(&case)?;
                    results.expect(case.goals(&[("loop", Bound::AtLeast(least))]));
                }
            }
            Which::Each => {
                let case = each(&mut log, options).await?;
                results.add(&case)?;
                results.expect(case.goals(&[("loop", Bound::AtLeast(0.95))]));
            }
        }
    }
    drop(log);
    // No case has more than four sides.
    let turns = 4 * options.cases.len() * (1 + options.rounds);
    ensure_no_scans(database, &["cqrs_event", "bench_order"], turns).await
}

async fn bulk(log: &mut Log, options: &Options) -> Result<Case> {
    const SIDES: [Side; 4] = [Side::Ours, Side::Fold, Side::Loop, Side::Status];
    log.fill(i64::try_from(options.events)?).await?;
    let turn = async |side| bulk_turn(log, side, options).await;
    let samples = warm_and_measure(&SIDES, options.rounds, turn).await?;
    Ok(Case::new("drain", "bulk", SIDES.map(Side::name), samples))
}

async fn bulk_turn(log: &mut Log, side: Side, options: &Options) -> Result<Sample> {
    let events = options.events;
    if side == Side::Status {
        log.fill_outbox().await?;
    }
    log.rewind().await?;
    let mut drained = 0;
    let mut begun = Instant::now();
    match side {
        Side::Ours | Side::Fold => {
            let store = log.store().await?;
            let projector = store.projector().page_size(PAGE.into());
            let projector = match side {
                Side::Fold => projector.rows(Fold),
                _ => projector.projection(Bulk::default()),
            };
            begun = Instant::now();
            drained += usize::try_from(projector.run_until_idle().await?)?;
            store.close();
        }
        Side::Loop => drained += drain_by_hand(&mut log.consumer().await?, true).await?,
        Side::Status => {
            let mut connection = log.consumer().await?;
            while drained < events / usize::from(options.share) {
                drained += by_hand::status_page(&mut connection, STATUS_PAGE).await?;
            }
        }
    }
    let sample = Sample::once(drained, begun.elapsed());
    let is_outbox = side == Side::Status;
    ensure!(is_outbox || drained == events, "{drained} events");
    log.verify(side.name(), is_outbox).await?;
    Ok(sample)
}

async fn drain_by_hand(connection: &mut PgConnection, bulk: bool) -> Result<usize> {
    let mut drained = 0;
    loop {
        let (events, _) = by_hand::page(connection, PAGE.into(), bulk).await?;
        drained += events;
        if events < usize::from(PAGE) {
            return Ok(drained);
        }
    }
}

async fn each(log: &mut Log, options: &Options) -> Result<Case> {
    const SIDES: [Side; 2] = [Side::Ours, Side::Loop];
    let events = options.events / EACH_SHARE;
    log.fill(i64::try_from(events)?).await?;
    let turn = async |side: Side| {
        log.rewind().await?;
        let (elapsed, drained) = if side == Side::Ours {
            let store = log.store().await?;
            let projector = store.projector().page_size(PAGE.into()).each(Each);
            let begun = Instant::now();
            let drained = usize::try_from(projector.run_until_idle().await?)?;
            let elapsed = begun.elapsed();
            store.close();
            (elapsed, drained)
        } else {
            let mut connection = log.connect().await?;
            let begun = Instant::now();
            let drained = drain_by_hand(&mut connection, false).await?;
            (begun.elapsed(), drained)
        };
        ensure!(drained == events, "{drained} events");
        log.verify(side.name(), false).await?;
        Ok(Sample::once(drained, elapsed))
    };
    let samples = warm_and_measure(&SIDES, options.rounds, turn).await?;
    Ok(Case::new("drain", "each", SIDES.map(Side::name), samples))
}

/// The drain, and the commits of the writers beside it.
async fn beside_writers(log: &mut Log, options: &Options) -> Result<(Case, Case)> {
    const SIDES: [Side; 3] = [Side::Ours, Side::Loop, Side::Status];
    log.fill(i64::try_from(options.events)?).await?;
    let mut commits = SIDES.map(|_| Vec::new());
    let turn = async |side: Side| {
        let is_outbox = side == Side::Status;
        if is_outbox {
            log.fill_outbox().await?;
        }
        log.rewind().await?;
        let writers = Writers::start(log, options.writers).await?;
        let (drained, elapsed, made) = drain_beside(log, side, writers, options).await?;
        for (of, commits) in SIDES.into_iter().zip(&mut commits) {
            if of == side {
                commits.push(Sample::once(made.0, made.1));
            }
        }
        log.verify(side.name(), is_outbox).await?;
        Ok(Sample::once(drained, elapsed))
    };
    let samples = warm_and_measure(&SIDES, options.rounds, turn).await?;
    let commits = commits.map(|all| all[1..].to_vec()).to_vec();
    let case = |name, samples| {
        Case::new("drain", name, SIDES.map(Side::name), samples).with_writers(options.writers)
    };
    Ok((
        case("bulk beside", samples),
        case("commits beside", commits),
    ))
}

/// How many events of those that the log was filled with were drained, and how long it took; and what the
/// writers made until then, and no longer: when nobody drains they are faster.
async fn drain_beside(
    log: &mut Log,
    side: Side,
    writers: Writers,
    options: &Options,
) -> Result<(usize, Duration, (usize, Duration))> {
    if side != Side::Ours {
        let (mut connection, end) = (log.consumer().await?, log.end);
        let share = options.events / usize::from(options.share);
        let begun = Instant::now();
        // On a thread of the runtime, as the projector: that is where the writers are.
        let drained = tokio::spawn(async move {
            if side == Side::Loop {
                while by_hand::page(&mut connection, PAGE.into(), true).await?.1 < end {}
                return anyhow::Ok(None);
            }
            let mut drained = 0;
            while drained < share {
                drained += by_hand::status_page(&mut connection, STATUS_PAGE).await?;
            }
            Ok(Some(drained))
        });
        let drained = drained.await??.unwrap_or(options.events);
        let elapsed = begun.elapsed();
        return Ok((drained, elapsed, writers.stop().await?));
    }
    let store = log.store().await?;
    let reached = Reached::default();
    let bulk = Bulk(reached.clone());
    let projector = store.projector().page_size(PAGE.into()).projection(bulk);
    let begun = Instant::now();
    let handle = projector.start().await?;
    reached.position(log.end).await;
    let elapsed = begun.elapsed();
    let made = writers.stop().await?;
    handle.stop(Duration::from_secs(10)).await;
    store.close();
    Ok((options.events, elapsed, made))
}

/// Writers that commit as fast as they can, by hand: the same beside all sides.
struct Writers {
    stop: watch::Sender<bool>,
    tasks: JoinSet<Result<usize>>,
    begun: Instant,
}

impl Writers {
    async fn start(log: &Log, writers: usize) -> Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let mut connections = Vec::with_capacity(writers);
        for _ in 0..writers {
            connections.push(log.connect().await?);
        }
        let begun = Instant::now();
        for mut connection in connections {
            let stopped = stopped.clone();
            let caller = Caller {
                tenant: TENANT.to_owned(),
                actor: ACTOR.to_owned(),
            };
            tasks.spawn(async move {
                let place = Place {
                    customer: "Ada".to_owned(),
                    note: "as soon as it can be".to_owned(),
                    quantity: 1,
                };
                let mut made = 0;
                while !*stopped.borrow() {
                    hand_written::place_in_one(&mut connection, &caller, &place).await?;
                    made += 1;
                }
                Ok(made)
            });
        }
        Ok(Self { stop, tasks, begun })
    }

    /// How many commits they made, in how much time.
    async fn stop(mut self) -> Result<(usize, Duration)> {
        self.stop.send_replace(true);
        let elapsed = self.begun.elapsed();
        let mut made = 0;
        while let Some(task) = self.tasks.join_next().await {
            made += task.context("a writer panicked")??;
        }
        Ok((made, elapsed))
    }
}
