//! The sides with their connections, and their writers.

use anyhow::{Result, bail, ensure};
use clap::ValueEnum;
use cqrs_core::{RequestContext, Store, StoreErrorKind, TenantId, UnitOfWork};
use cqrs_sqlx::{PgStore, StoreOptions};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sqlx::{Connection as _, PgPool};

use super::commit::{Commit, Held, Ours, Single, Steps};
use super::tasks::{Task, Tasks};
use crate::database::{ACTOR, Plan, TENANT, Tally, plans, synchronous_commit};
use crate::hand_written::Caller;
use crate::harness::{Sample, Timing, Worker, slice};
use crate::report::OURS;

/// How many commits go out in one statement at most.
const COALESCED: usize = 128;

/// Who does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Side {
    /// The framework.
    Ours,
    /// The framework, with coalesced commits.
    #[value(name = "ours_coalesced")]
    Coalesced,
    /// One statement on a pool.
    Single,
    /// A transaction on a pool.
    Steps,
    /// One statement on a connection of the writer's own.
    Held,
}

impl Side {
    /// Its name in the results.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ours => OURS,
            Self::Coalesced => "ours_coalesced",
            Self::Single => "single",
            Self::Steps => "steps",
            Self::Held => "held",
        }
    }
}

/// The sides of one case, with their connections.
pub(super) struct Sides {
    ours: PgStore,
    coalesced: PgStore,
    single: PgPool,
    steps: PgPool,
    held: Vec<PgConnection>,
    caller: Caller,
}

impl Sides {
    pub(super) async fn open(
        database: &PgConnectOptions,
        connections: usize,
        all: &[Side],
    ) -> Result<Self> {
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
        let coalescing = options.clone().coalesce(COALESCED);
        Ok(Self {
            ours: PgStore::connect_with(database.clone(), options).await?,
            coalesced: PgStore::connect_with(database.clone(), coalescing).await?,
            single: pool()?,
            steps: pool()?,
            held: kept,
            caller: Caller {
                tenant: TENANT.to_owned(),
                actor: ACTOR.to_owned(),
            },
        })
    }

    pub(super) async fn close(self) {
        self.ours.close();
        self.coalesced.close();
        self.single.close().await;
        self.steps.close().await;
    }

    /// The plans of each side, on a connection that it used.
    ///
    /// # Errors
    ///
    /// Where a statement scans a table, and where the sides' commits are not equally durable.
    pub(super) async fn inspect(&mut self, all: &[Side]) -> Result<Vec<(Side, Vec<Plan>)>> {
        let mut inspected = Vec::new();
        let mut durability = None;
        for &side in all {
            let (found, plans) = match side {
                Side::Ours => inspect_store(&self.ours).await?,
                Side::Coalesced => inspect_store(&self.coalesced).await?,
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

    pub(super) async fn run(
        &mut self,
        side: Side,
        tasks: Vec<Tasks>,
        timing: Timing,
    ) -> Result<(Tally, Sample)> {
        let caller = &self.caller;
        match side {
            Side::Ours | Side::Coalesced => {
                let store = match side {
                    Side::Coalesced => &self.coalesced,
                    _ => &self.ours,
                };
                let tenant = TenantId::new(&caller.tenant)?;
                let (_, tally, sample) = run_writers(tasks, timing, || {
                    Some(Ours {
                        store: store.clone(),
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

async fn inspect_store(store: &PgStore) -> Result<(String, Vec<Plan>)> {
    let mut unit_of_work = store.unit_of_work(&RequestContext::system());
    let found = inspect(unit_of_work.connection().await?).await?;
    unit_of_work.rollback().await;
    Ok(found)
}

async fn inspect(connection: &mut PgConnection) -> Result<(String, Vec<Plan>)> {
    let durability = synchronous_commit(connection).await?;
    Ok((durability, plans(connection).await?))
}

/// Whether a constraint was violated, as the framework says it, or as sqlx does.
fn is_refused(error: &anyhow::Error) -> bool {
    match (error.downcast_ref(), error.downcast_ref()) {
        (Some(cqrs_core::Error::Store(error)), _) => {
            matches!(error.kind(), StoreErrorKind::Constraint { .. })
        }
        (_, Some(sqlx::Error::Database(error))) => error.is_unique_violation(),
        _ => false,
    }
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
        bail!("there are fewer connections than writers");
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
            Task::Refused(place) => {
                let Err(error) = self.commit.place(&place).await else {
                    bail!("a key was taken twice");
                };
                if !is_refused(&error) {
                    return Err(error);
                }
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
