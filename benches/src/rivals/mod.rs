//! The part `rivals`: the same work done with other crates for event sourcing.
//!
//! - `create` and `change`: a command on a new order, and one that loads an order and appends an
//!   event; by the framework with an event-sourced order (`ours`), with one that is stored as a row
//!   beside its event (`ours_state`), and with such commits and loads coalesced (`ours_coalesced`).
//! - `load 10` and `load 1,000`: an order with so many events, without snapshots, which nobody
//!   takes by default; and by the framework with one each 100 events (`ours_snapshot`).
//! - `replay`: all events into a read table with the pieces of each order, by a row projection
//!   (`ours`), by a projection with a statement for each page that adds to the rows (`ours_bulk`),
//!   and by a handler with a statement for each event (`ours_each`).
//!
//! Each side has a database for itself, with the schema and the indexes that it ships, on the same
//! server. The rivals are in the package `benches/rivals`, whose README says how they are used;
//! this part builds it, and talks to it.

mod child;
mod orders;
mod ours;
mod protocol;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use sqlx::ConnectOptions as _;

use crate::database::{SEEDS, Scratch};
use crate::harness::{Sample, take_turns, warm_and_measure};
use crate::report::{Bound, Case, Goal, OURS, Results};

use child::Program;
use ours::{COALESCED, KEPT, Ours, Replay, STATE};
use protocol::{Append, Appending, Done, Holds, Work};

/// The framework's side that adds to the rows of a page with one statement.
const BULK: &str = "ours_bulk";
/// The framework's side that handles events one by one.
const EACH: &str = "ours_each";
/// The rival that has a query of one's own in place of the view that it ships.
const UPSERT: &str = "cqrs-es-upsert";
/// How many orders there are to load: of those with many events, fewer.
const LOADED: [(usize, usize, &str); 2] = [(1_000, 10, "load 10"), (100, 1_000, "load 1,000")];
/// How many events an order has that is replayed.
const REPLAYED: usize = 10;

/// How long each side works at least before it is measured: each slice opens its connections, and
/// prepares its statements on each of them.
const SHORTEST_RAMP: Duration = Duration::from_millis(500);

/// What is asked of ours with commands, against each rival.
const APPEND_BAR: f64 = 2.0;
/// What is asked of a replay by ours, against that of cqrs-es into the view that it ships.
const REPLAY_BAR: f64 = 40.0;

/// How the part is run.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How long each slice is measured, in seconds.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// How many slices each side gets.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How many times each side replays; it takes some of them half a minute.
    #[arg(long, default_value_t = 2)]
    replays: usize,
    /// Replays wait for the disk, all of them; without it none does.
    #[arg(long)]
    durable: bool,
    /// How many events are replayed.
    #[arg(long, default_value_t = 100_000)]
    events: usize,
    /// Numbers of concurrent writers.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 32])]
    writers: Vec<usize>,
    /// What is measured.
    #[arg(long, value_delimiter = ',', default_values = ["append", "load", "replay"])]
    cases: Vec<Which>,
    /// With whom it is compared.
    #[arg(
        long,
        value_delimiter = ',',
        default_values = ["cqrs-es", "es-entity", "disintegrate", "esrs", "obix"]
    )]
    rivals: Vec<Rival>,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    Append,
    Load,
    Replay,
}

/// With whom it is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Rival {
    CqrsEs,
    EsEntity,
    Disintegrate,
    Esrs,
    /// Only replays: what it reads is written by es-entity.
    Obix,
}

impl Rival {
    /// The sides that do this work with it.
    fn sides(self, which: Which) -> &'static [&'static str] {
        match (self, which) {
            (Self::CqrsEs, Which::Replay) => &["cqrs-es", UPSERT],
            (Self::EsEntity, Which::Replay) | (Self::Obix, Which::Append | Which::Load) => &[],
            (Self::CqrsEs, _) => &["cqrs-es"],
            (Self::EsEntity, _) => &["es-entity"],
            (Self::Disintegrate, _) => &["disintegrate"],
            (Self::Esrs, _) => &["esrs"],
            (Self::Obix, _) => &["obix"],
        }
    }
}

/// Runs the part.
///
/// # Errors
///
/// Where the rivals do not build, a database fails, or a side did not do its work.
pub(crate) async fn run(url: &str, options: &Options, results: &mut Results) -> Result<()> {
    let mut run = Run {
        url,
        options,
        program: Program::start()?,
        databases: Vec::new(),
    };
    let measured = run.measure(results).await;
    run.drop_databases().await?;
    measured
}

/// A run, with a database for each side.
struct Run<'r> {
    url: &'r str,
    options: &'r Options,
    program: Program,
    databases: Vec<(&'static str, Scratch)>,
}

impl Run<'_> {
    async fn measure(&mut self, results: &mut Results) -> Result<()> {
        for &which in &self.options.cases {
            let cases = match which {
                Which::Append => self.append().await?,
                Which::Load => self.load().await?,
                Which::Replay => vec![self.replay().await?],
            };
            for case in cases {
                results.add(&case)?;
                results.expect(self.goals(which, case));
            }
        }
        Ok(())
    }

    /// How far ours is to be ahead of each rival.
    fn goals(&self, which: Which, case: Case) -> Vec<Goal> {
        let rivals = self.rivals(which).map(|rival| {
            let least = match (which, rival) {
                (Which::Append, _) => APPEND_BAR,
                (Which::Replay, "cqrs-es") => REPLAY_BAR,
                _ => 1.0,
            };
            (rival, Bound::AtLeast(least))
        });
        let asked: Vec<(&str, Bound)> = rivals.collect();
        let mut goals = case.goals(&asked);
        if which == Which::Append {
            let case = case.comparing(STATE);
            goals.extend(case.goals(&asked));
            goals.extend(case.comparing(COALESCED).goals(&asked));
        }
        goals
    }

    /// The sides of the rivals that do this work.
    fn rivals(&self, which: Which) -> impl Iterator<Item = &'static str> {
        let rivals = self.options.rivals.iter();
        rivals.flat_map(move |rival| rival.sides(which)).copied()
    }

    /// The URL of the database of a side, which it gets with its first work.
    async fn url_of(&mut self, rival: &'static str) -> Result<String> {
        if let Some((_, scratch)) = self.databases.iter().find(|(side, _)| *side == rival) {
            return Ok(scratch.options().to_url_lossy().into());
        }
        let scratch = Scratch::create(self.url).await?;
        let url: String = scratch.options().to_url_lossy().into();
        self.databases.push((rival, scratch));
        self.program.prepare(rival, &url, Work::Setup)?;
        Ok(url)
    }

    async fn drop_databases(self) -> Result<()> {
        // Its connections end with the program.
        drop(self.program);
        for (_, scratch) in self.databases {
            scratch.drop().await?;
        }
        Ok(())
    }

    async fn append(&mut self) -> Result<Vec<Case>> {
        let options = self.options;
        let mut ours = Ours::create(self.url).await?;
        let cases = self.append_beside(&mut ours, options).await;
        ours.drop().await?;
        cases
    }

    async fn append_beside(&mut self, ours: &mut Ours, options: &Options) -> Result<Vec<Case>> {
        let (ramp_ms, measured_ms) = self.slice()?;
        let sides: Vec<_> = [OURS, STATE, COALESCED]
            .into_iter()
            .chain(self.rivals(Which::Append))
            .collect();
        let mut cases = Vec::new();
        for (command, name) in [(Appending::Create, "create"), (Appending::Change, "change")] {
            for &writers in &options.writers {
                let append = Append {
                    command,
                    writers,
                    ramp_ms,
                    measured_ms,
                };
                let mut retries = Vec::new();
                let samples = warm_and_measure(&sides, options.rounds, async |side| {
                    let (sample, done) = match side {
                        OURS => ours.append(append).await?,
                        STATE | COALESCED => ours.append_state(side, append).await?,
                        rival => self.append_rival(rival, append).await?,
                    };
                    if done.retries > 0 {
                        retries.push(format!("{side} {} for {}", done.retries, done.units));
                    }
                    Ok(sample)
                })
                .await?;
                if !retries.is_empty() {
                    println!("\nrepeated commands: {}", retries.join(", "));
                }
                let names = sides.iter().copied();
                cases.push(Case::new("rivals", name, names, samples).with_writers(writers));
            }
        }
        Ok(cases)
    }

    async fn append_rival(
        &mut self,
        rival: &'static str,
        append: Append,
    ) -> Result<(Sample, Done)> {
        let url = self.url_of(rival).await?;
        let fill = Work::Fill {
            orders: SEEDS,
            events: 1,
        };
        self.program.prepare(rival, &url, fill)?;
        let (sample, done) = self.program.measure(rival, &url, Work::Append(append))?;
        let found = self.program.holds(rival, &url)?;
        verify(rival, after(SEEDS, append.command, done)?, found)?;
        Ok((sample, done))
    }

    async fn load(&mut self) -> Result<Vec<Case>> {
        let (ramp_ms, measured_ms) = self.slice()?;
        let work = Work::Load {
            ramp_ms,
            measured_ms,
        };
        let mut cases = Vec::new();
        for (orders, events, name) in LOADED {
            let mut sides = vec![OURS];
            if events > ours::SNAPSHOT_EVERY {
                sides.push(KEPT);
            }
            for rival in self.rivals(Which::Load).collect::<Vec<_>>() {
                let url = self.url_of(rival).await?;
                self.program
                    .prepare(rival, &url, Work::Fill { orders, events })?;
                sides.push(rival);
            }
            let ours = Ours::create(self.url).await?;
            let ids = ours.fill(orders, events).await?;
            let kept = match sides.contains(&KEPT) {
                true => ours.fill_kept(orders, events).await?,
                false => Arc::default(),
            };
            let timing = ours::timing(ramp_ms, measured_ms);
            let samples = warm_and_measure(&sides, self.options.rounds, async |side| match side {
                OURS => ours.load(&ids, events, timing).await,
                KEPT => ours.load_kept(&kept, events, timing).await,
                rival => {
                    let url = self.url_of(rival).await?;
                    let (sample, done) = self.program.measure(rival, &url, work)?;
                    ensure!(done.units > 0, "{rival} loaded nothing");
                    Ok(sample)
                }
            })
            .await;
            ours.drop().await?;
            cases.push(Case::new("rivals", name, sides, samples?));
        }
        Ok(cases)
    }

    async fn replay(&mut self) -> Result<Case> {
        let (orders, events) = (self.options.events / REPLAYED, REPLAYED);
        let mut sides = vec![OURS, BULK, EACH];
        for rival in self.rivals(Which::Replay).collect::<Vec<_>>() {
            self.url_of(rival).await?;
            sides.push(rival);
        }
        let ours = Ours::create(self.url).await?;
        ours.fill(orders, events).await?;
        let waits = self.options.durable;
        let samples = take_turns(&sides, self.options.replays, async |side| {
            let (sample, found) = match side {
                OURS => ours.replay(Replay::Fold, waits).await?,
                BULK => ours.replay(Replay::Bulk, waits).await?,
                EACH => ours.replay(Replay::Each, waits).await?,
                rival => {
                    let url = self.url_of(rival).await?;
                    self.program
                        .prepare(rival, &url, Work::Fill { orders, events })?;
                    let (sample, _) = self.program.measure(rival, &url, Work::Replay { waits })?;
                    (sample, self.program.holds(rival, &url)?)
                }
            };
            verify(side, replayed(orders, events)?, found)?;
            Ok(sample)
        })
        .await;
        ours.drop().await?;
        let name = if waits { "replay, durable" } else { "replay" };
        Ok(Case::new("rivals", name, sides, samples?))
    }

    /// How long a slice is run before it is measured, and how long it is measured.
    fn slice(&self) -> Result<(u64, u64)> {
        let measured = Duration::try_from_secs_f64(self.options.seconds)?;
        let millis = |duration: Duration| u64::try_from(duration.as_millis());
        Ok((
            millis((measured / 2).max(SHORTEST_RAMP))?,
            millis(measured)?,
        ))
    }
}

/// What there is when these commands were added to so many orders with an event of one piece each.
fn after(seeds: usize, command: Appending, done: Done) -> Result<Holds> {
    let (seeds, units) = (i64::try_from(seeds)?, i64::try_from(done.units)?);
    let placed = match command {
        Appending::Create => units,
        Appending::Change => 0,
    };
    Ok(Holds {
        orders: seeds + placed,
        events: seeds + units,
        quantity: seeds + done.quantity,
        ..Holds::default()
    })
}

/// What there is when so many orders, each with so many events of one piece, were replayed.
fn replayed(orders: usize, events: usize) -> Result<Holds> {
    let all = i64::try_from(orders * events)?;
    let orders = i64::try_from(orders)?;
    Ok(Holds {
        orders,
        events: all,
        quantity: all,
        rows: orders,
        total: all,
    })
}

fn verify(side: &str, expected: Holds, found: Holds) -> Result<()> {
    ensure!(
        expected == found,
        "{side} did not do its work: expected {expected:?}, found {found:?}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::Turn;

    #[test]
    fn what_is_said_is_understood() {
        let work = Work::Append(Append {
            command: Appending::Change,
            writers: 8,
            ramp_ms: 250,
            measured_ms: 1_000,
        });
        let said = serde_json::to_string(&protocol::Command {
            rival: "esrs".to_owned(),
            url: "postgres://here".to_owned(),
            work,
        })
        .expect("it is plain data");
        assert_eq!(
            said,
            "{\"rival\":\"esrs\",\"url\":\"postgres://here\",\"work\":\"append\",\
             \"command\":\"change\",\"writers\":8,\"ramp_ms\":250,\"measured_ms\":1000}"
        );
        let understood: protocol::Command = serde_json::from_str(&said).expect("it was just said");
        let Work::Append(append) = understood.work else {
            panic!("another work: {understood:?}");
        };
        assert_eq!((append.command, append.writers), (Appending::Change, 8));
    }

    #[test]
    fn writers_change_orders_of_their_own_each_in_turn() {
        let mut seen = std::collections::HashSet::new();
        for mut turn in Turn::of_all_writers(8) {
            for _ in 0..100 / 8 {
                assert!(seen.insert(turn.order(100)), "changed by two writers");
                turn.next();
            }
        }
        assert_eq!(seen.len(), 96);
        assert!(seen.iter().all(|order| *order < 100));
    }

    #[test]
    fn commands_that_were_not_written_are_found() {
        let done = Done {
            units: 3,
            quantity: 6,
            retries: 0,
        };
        let all = after(10, Appending::Create, done).expect("small numbers");
        assert_eq!((all.orders, all.events, all.quantity), (13, 13, 16));
        assert!(verify("esrs", all, all).is_ok());
        let fewer = Holds { events: 12, ..all };
        assert!(verify("esrs", all, fewer).is_err());
    }
}
