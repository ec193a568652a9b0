//! The part `write`: commits of an aggregate with one event.
//!
//! `create` places an order. `change` loads one, changes it and writes it under its version. Each
//! is done by
//!
//! - `ours`: `Store::execute`;
//! - `single`: by hand, with one data-modifying statement in autocommit, after a SELECT for
//!   `change`, on a pool of sqlx;
//! - `steps`: by hand on the same kind of pool, in a transaction with a statement for each step;
//! - `held`, where it is asked for: as `single`, but each writer keeps a connection to itself, so
//!   that there is no pool. Few services can work like this; it shows what a pool costs.
//!
//! All have as many connections, and no two writers change the same order.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use cqrs_core::{Entity as _, Id, RequestContext, Store, TenantId, UnitOfWork};
use cqrs_sqlx::{PgStore, StoreOptions};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sqlx::{Connection as _, PgPool};
use uuid::Uuid;

use crate::database::{ACTOR, Plan, Scratch, TENANT, Tables, Tally, plans, synchronous_commit};
use crate::domain::{Change, Order, Place};
use crate::hand_written::{self, Caller};
use crate::harness::{self, Sample, Timing, Worker, slice};
use crate::report::{Case, Measured, Miss, OURS, Results};

/// What is asked of ours, for each case and number of writers.
const BARS: [(&str, f64); 2] = [("single", 0.9), ("steps", 1.4)];

/// How the part is run.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How long each slice is measured, in seconds.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// How many slices each side gets; a multiple of the number of sides lets each go first
    /// equally often.
    #[arg(long, default_value_t = 6)]
    rounds: usize,
    /// Numbers of concurrent writers.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 32])]
    writers: Vec<usize>,
    /// What the writers do.
    #[arg(long, value_delimiter = ',', default_values = ["create", "change"])]
    cases: Vec<Command>,
    /// How many connections more than writers each side may open.
    #[arg(long, default_value_t = 0)]
    spare_connections: usize,
    /// Who does it. One side alone is for a profiler.
    #[arg(long, value_delimiter = ',', default_values = ["ours", "single", "steps"])]
    sides: Vec<Side>,
    /// Print every side's statements with their plans.
    #[arg(long)]
    plans: bool,
    /// A short run: three slices of half a second.
    #[arg(long, conflicts_with_all = ["seconds", "rounds"])]
    quick: bool,
    /// Fail where ours is below 0.9 of `single` or 1.4 of `steps`.
    #[arg(long, conflicts_with = "sides")]
    check: bool,
}

/// What a writer does, again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Command {
    /// Places an order.
    Create,
    /// Loads an order and changes it.
    Change,
}

impl Command {
    /// Its name in the results.
    fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Change => "change",
        }
    }
}

/// Who does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Side {
    /// The framework.
    Ours,
    /// One statement on a pool.
    Single,
    /// A transaction on a pool.
    Steps,
    /// One statement on a connection of the writer's own.
    Held,
}

impl Side {
    /// Its name in the results.
    fn name(self) -> &'static str {
        match self {
            Self::Ours => OURS,
            Self::Single => "single",
            Self::Steps => "steps",
            Self::Held => "held",
        }
    }
}

/// Runs the part, and returns what fell short where that is asked for.
///
/// # Errors
///
/// Where the database fails, or a side did not do its work.
pub(crate) async fn run(url: &str, options: &Options, results: &mut Results) -> Result<Vec<Miss>> {
    let scratch = Scratch::create(url).await?;
    let misses = measure_all(&scratch.options(), options, results).await;
    scratch.drop().await?;
    misses
}

async fn measure_all(
    database: &PgConnectOptions,
    options: &Options,
    results: &mut Results,
) -> Result<Vec<Miss>> {
    let store = PgStore::connect_with(database.clone(), StoreOptions::default()).await?;
    store.migrate().await?;
    store.create_tables(&[Order::table()]).await?;
    store.verify(&[Order::table()]).await?;
    store.close();
    let mut tables = Tables::prepare(database).await?;
    println!("{}", tables.server().await?);

    let mut misses = Vec::new();
    for &command in &options.cases {
        for &writers in &options.writers {
            let connections = writers + options.spare_connections;
            let mut sides = Sides::open(database, connections, &options.sides).await?;
            let case = measure(&mut tables, &mut sides, command, writers, options).await?;
            results.add(&case)?;
            if options.check {
                misses.extend(case.misses(&BARS));
            }
            sides.close().await;
        }
    }
    Ok(misses)
}

/// Measures a case: a round that does not count, then the rounds that do.
async fn measure(
    tables: &mut Tables,
    sides: &mut Sides,
    command: Command,
    writers: usize,
    options: &Options,
) -> Result<Case> {
    let (seconds, rounds) = if options.quick {
        (0.5, 3)
    } else {
        (options.seconds, options.rounds)
    };
    let measured = Duration::try_from_secs_f64(seconds)?;
    let timing = Timing {
        ramp: measured / 4,
        measured,
    };
    let warm_up = Timing {
        ramp: Duration::ZERO,
        measured: (measured / 2).min(Duration::from_secs(1)),
    };

    let all = &options.sides;
    let mut shapes = None;
    for &side in all {
        run_slice(tables, sides, side, command, writers, warm_up).await?;
        let shape = tables.shape().await?;
        let first = shapes.get_or_insert_with(|| shape.clone());
        ensure!(
            *first == shape,
            "{} writes other columns than {}:\n{}\nand not\n{}",
            side.name(),
            all[0].name(),
            shape.join("\n"),
            first.join("\n"),
        );
    }
    let inspected = sides.inspect(all).await?;
    if options.plans {
        print_plans(&inspected);
    }

    let mut samples = vec![Vec::new(); all.len()];
    for round in 0..rounds {
        for side in harness::order(all, round) {
            let sample = run_slice(tables, sides, side, command, writers, timing).await?;
            let index = all.iter().position(|other| *other == side);
            samples[index.unwrap_or_default()].push(sample);
        }
    }
    Ok(Case {
        part: "write",
        case: command.name(),
        writers,
        delay_us: 0,
        sides: all
            .iter()
            .zip(samples)
            .map(|(side, samples)| Measured {
                side: side.name(),
                samples,
            })
            .collect(),
    })
}

/// Runs one slice of one side on fresh tables, and checks what it left there.
async fn run_slice(
    tables: &mut Tables,
    sides: &mut Sides,
    side: Side,
    command: Command,
    writers: usize,
    timing: Timing,
) -> Result<Sample> {
    tables.reset().await?;
    let tasks = Tasks::of_all_writers(command, tables.seeds(), writers);
    let (tally, sample) = sides.run(side, tasks, timing).await?;
    tables
        .verify(&tally)
        .await
        .map_err(|error| error.context(format!("{} did not do its work", side.name())))?;
    Ok(sample)
}

fn print_plans(inspected: &[(Side, Vec<Plan>)]) {
    for (side, plans) in inspected {
        for plan in plans {
            println!("\n{}: {}", side.name(), plan.statement);
            println!(
                "    planned anew for {} executions of {}",
                plan.custom,
                plan.custom + plan.generic
            );
            for step in &plan.steps {
                println!("    {step}");
            }
        }
    }
}

/// The sides of one case, with their connections.
struct Sides {
    ours: PgStore,
    single: PgPool,
    steps: PgPool,
    held: Vec<PgConnection>,
    caller: Caller,
}

impl Sides {
    async fn open(database: &PgConnectOptions, connections: usize, all: &[Side]) -> Result<Self> {
        let pool = || {
            let size = u32::try_from(connections)?;
            anyhow::Ok(
                PgPoolOptions::new()
                    .max_connections(size)
                    .test_before_acquire(false)
                    .idle_timeout(None)
                    .max_lifetime(None)
                    .connect_lazy_with(database.clone()),
            )
        };
        let mut kept = Vec::new();
        if all.contains(&Side::Held) {
            for _ in 0..connections {
                kept.push(PgConnection::connect_with(database).await?);
            }
        }
        let options = StoreOptions::default().max_connections(connections);
        Ok(Self {
            ours: PgStore::connect_with(database.clone(), options).await?,
            single: pool()?,
            steps: pool()?,
            held: kept,
            caller: Caller {
                tenant: TENANT.to_owned(),
                actor: ACTOR.to_owned(),
            },
        })
    }

    async fn close(self) {
        self.ours.close();
        self.single.close().await;
        self.steps.close().await;
    }

    /// The plans of each side, on a connection that it used.
    ///
    /// # Errors
    ///
    /// Where a statement scans a table, and where the sides' commits are not equally durable.
    async fn inspect(&mut self, all: &[Side]) -> Result<Vec<(Side, Vec<Plan>)>> {
        let mut inspected = Vec::new();
        let mut durability = None;
        for &side in all {
            let (found, plans) = match side {
                Side::Ours => {
                    let mut unit_of_work = self.ours.unit_of_work(&RequestContext::system());
                    let found = inspect(unit_of_work.connection().await?).await?;
                    unit_of_work.rollback().await;
                    found
                }
                Side::Single => inspect(&mut *self.single.acquire().await?).await?,
                Side::Steps => inspect(&mut *self.steps.acquire().await?).await?,
                Side::Held => inspect(&mut self.held[0]).await?,
            };
            let first = durability.get_or_insert_with(|| found.clone());
            ensure!(*first == found, "the sides' synchronous_commit differs");
            inspected.push((side, plans));
        }
        Ok(inspected)
    }

    async fn run(
        &mut self,
        side: Side,
        tasks: Vec<Tasks>,
        timing: Timing,
    ) -> Result<(Tally, Sample)> {
        let caller = &self.caller;
        match side {
            Side::Ours => {
                let tenant = TenantId::new(&caller.tenant)?;
                let (_, tally, sample) = run_writers(tasks, timing, || {
                    Some(Ours {
                        store: self.ours.clone(),
                        tenant: tenant.clone(),
                        actor: caller.actor.clone(),
                    })
                })
                .await?;
                Ok((tally, sample))
            }
            Side::Single => {
                let (_, tally, sample) = run_writers(tasks, timing, || {
                    Some(Single {
                        pool: self.single.clone(),
                        caller: caller.clone(),
                    })
                })
                .await?;
                Ok((tally, sample))
            }
            Side::Steps => {
                let (_, tally, sample) = run_writers(tasks, timing, || {
                    Some(Steps {
                        pool: self.steps.clone(),
                        caller: caller.clone(),
                    })
                })
                .await?;
                Ok((tally, sample))
            }
            Side::Held => {
                let connections = &mut self.held;
                let (writers, tally, sample) = run_writers(tasks, timing, || {
                    Some(Held {
                        connection: connections.pop()?,
                        caller: caller.clone(),
                    })
                })
                .await?;
                self.held
                    .extend(writers.into_iter().map(|held| held.connection));
                Ok((tally, sample))
            }
        }
    }
}

async fn inspect(connection: &mut PgConnection) -> Result<(String, Vec<Plan>)> {
    let durability = synchronous_commit(connection).await?;
    Ok((durability, plans(connection).await?))
}

/// Runs a writer for each list of tasks, and adds up what they committed.
async fn run_writers<C: Commit>(
    tasks: Vec<Tasks>,
    timing: Timing,
    mut commit: impl FnMut() -> Option<C>,
) -> Result<(Vec<C>, Tally, Sample)> {
    let writers = tasks
        .into_iter()
        .map(|tasks| {
            Some(Writer {
                commit: commit()?,
                tasks,
                tally: Tally::default(),
            })
        })
        .collect::<Option<Vec<_>>>();
    let Some(writers) = writers else {
        anyhow::bail!("there are fewer connections than writers");
    };
    let (writers, sample) = slice(writers, timing).await?;
    let mut tally = Tally::default();
    let mut commits = Vec::new();
    for writer in writers {
        tally.add(writer.tally);
        commits.push(writer.commit);
    }
    Ok((commits, tally, sample))
}

/// What a writer has to do: the same for all sides.
#[derive(Debug)]
struct Tasks {
    command: Command,
    /// Among how many writers the orders are divided.
    writers: usize,
    writer: usize,
    done: usize,
    orders: Arc<[Uuid]>,
}

impl Tasks {
    fn of_all_writers(command: Command, orders: &[Uuid], writers: usize) -> Vec<Self> {
        let orders: Arc<[Uuid]> = orders.into();
        (0..writers)
            .map(|writer| Self {
                command,
                writers,
                writer,
                done: 0,
                orders: Arc::clone(&orders),
            })
            .collect()
    }

    fn next(&mut self) -> Task {
        let number = self.done;
        self.done += 1;
        let writer = self.writer;
        let small = i64::try_from(number % 7).unwrap_or_default() + 1;
        match self.command {
            Command::Create => Task::Place(Place {
                customer: format!("customer {writer}/{number}"),
                note: "Ring twice, and leave it with the neighbours if nobody is in.".to_owned(),
                quantity: small,
            }),
            Command::Change => Task::Change(Change {
                id: Id::from_uuid(self.orders[self.order(number)]),
                by: small,
                note: format!("Changed on the phone, call {writer}/{number}."),
            }),
        }
    }

    /// The index of the order that is changed with this task: one of the writer's own, each in
    /// turn, and far from the last one.
    fn order(&self, number: usize) -> usize {
        /// A prime that divides no likely number of orders.
        const STRIDE: usize = 7_919;
        let own = self.orders.len() / self.writers;
        (number * STRIDE % own) * self.writers + self.writer
    }
}

/// One command.
enum Task {
    Place(Place),
    Change(Change),
}

/// How a side commits.
trait Commit: Send + 'static {
    /// Places an order.
    fn place(&mut self, place: &Place) -> impl Future<Output = Result<()>> + Send;

    /// Changes an order.
    fn change(&mut self, change: &Change) -> impl Future<Output = Result<()>> + Send;
}

/// Does tasks, and keeps count of them.
struct Writer<C> {
    commit: C,
    tasks: Tasks,
    tally: Tally,
}

impl<C: Commit> Worker for Writer<C> {
    async fn work(&mut self) -> Result<()> {
        match self.tasks.next() {
            Task::Place(place) => {
                self.commit.place(&place).await?;
                self.tally.placed += 1;
                self.tally.quantity += place.quantity;
            }
            Task::Change(change) => {
                self.commit.change(&change).await?;
                self.tally.changed += 1;
                self.tally.by += change.by;
            }
        }
        Ok(())
    }
}

/// The framework.
struct Ours {
    store: PgStore,
    tenant: TenantId,
    actor: String,
}

impl Ours {
    fn context(&self) -> RequestContext {
        RequestContext::tenant(self.tenant.clone()).with_actor(&*self.actor)
    }
}

impl Commit for Ours {
    async fn place(&mut self, place: &Place) -> Result<()> {
        let context = self.context();
        let receipt = self
            .store
            .execute(&context, async |unit_of_work| {
                unit_of_work.save(Order::place(place))
            })
            .await?;
        ensure!(receipt.position().is_some(), "nothing was written");
        Ok(())
    }

    async fn change(&mut self, change: &Change) -> Result<()> {
        let context = self.context();
        let receipt = self
            .store
            .execute(&context, async |unit_of_work| {
                let mut order: Order = unit_of_work.get(change.id).await?;
                order.change(change);
                unit_of_work.save(order)
            })
            .await?;
        ensure!(receipt.position().is_some(), "nothing was written");
        Ok(())
    }
}

/// One statement on a pool.
struct Single {
    pool: PgPool,
    caller: Caller,
}

impl Commit for Single {
    async fn place(&mut self, place: &Place) -> Result<()> {
        let mut connection = self.pool.acquire().await?;
        hand_written::place_in_one(&mut connection, &self.caller, place).await?;
        Ok(())
    }

    async fn change(&mut self, change: &Change) -> Result<()> {
        let mut connection = self.pool.acquire().await?;
        hand_written::change_in_one(&mut connection, &self.caller, change).await?;
        Ok(())
    }
}

/// A transaction on a pool.
struct Steps {
    pool: PgPool,
    caller: Caller,
}

impl Commit for Steps {
    async fn place(&mut self, place: &Place) -> Result<()> {
        let mut transaction = self.pool.begin().await?;
        hand_written::place_in_steps(&mut transaction, &self.caller, place).await?;
        transaction.commit().await?;
        Ok(())
    }

    async fn change(&mut self, change: &Change) -> Result<()> {
        let mut transaction = self.pool.begin().await?;
        hand_written::change_in_steps(&mut transaction, &self.caller, change).await?;
        transaction.commit().await?;
        Ok(())
    }
}

/// One statement on a connection of the writer's own.
struct Held {
    connection: PgConnection,
    caller: Caller,
}

impl Commit for Held {
    async fn place(&mut self, place: &Place) -> Result<()> {
        hand_written::place_in_one(&mut self.connection, &self.caller, place).await?;
        Ok(())
    }

    async fn change(&mut self, change: &Change) -> Result<()> {
        hand_written::change_in_one(&mut self.connection, &self.caller, change).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_change_orders_of_their_own_each_in_turn() {
        let orders: Vec<Uuid> = (0..100).map(Uuid::from_u128).collect();
        let mut seen = std::collections::HashSet::new();
        for tasks in Tasks::of_all_writers(Command::Change, &orders, 8) {
            for number in 0..100 / 8 {
                assert!(seen.insert(tasks.order(number)), "changed by two writers");
            }
        }
        assert_eq!(seen.len(), 96);
        assert!(seen.iter().all(|order| *order < 100));
    }
}
