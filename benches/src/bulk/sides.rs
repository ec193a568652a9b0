//! The sides, and what each has ready in memory.

use std::time::Instant;

use anyhow::{Result, ensure};
use clap::ValueEnum;
use cqrs_core::{Maintain, RequestContext, Store, TenantId, UnitOfWork};
use cqrs_sqlx::{PgStore, StoreOptions};
use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};

use super::copy::{self, Row};
use crate::database::{ACTOR, TENANT, Tally};
use crate::domain::{Order, Place};
use crate::harness::Sample;
use crate::report::OURS;

/// How many aggregates `arrays` commits at once.
const BATCH: usize = 1_000;

/// Who does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Side {
    /// The framework's bulk insert.
    Ours,
    /// COPY by hand.
    Copy,
    /// The framework's units of work.
    Arrays,
}

impl Side {
    /// Its name in the results.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ours => OURS,
            Self::Copy => "copy",
            Self::Arrays => "arrays",
        }
    }
}

/// The sides with their connections.
pub(super) struct Sides {
    store: PgStore,
    connection: PgConnection,
    context: RequestContext,
}

impl Sides {
    pub(super) async fn open(database: &PgConnectOptions) -> Result<Self> {
        Ok(Self {
            store: PgStore::connect_with(database.clone(), StoreOptions::default()).await?,
            connection: PgConnection::connect_with(database).await?,
            context: RequestContext::tenant(TenantId::new(TENANT)?).with_actor(ACTOR),
        })
    }

    pub(super) fn close(self) {
        self.store.close();
    }

    /// Inserts so many rows; what they are together, and how fast it was.
    pub(super) async fn run(&mut self, side: Side, rows: usize) -> Result<(Tally, Sample)> {
        let commands: Vec<Place> = (0..rows).map(command).collect();
        let tally = Tally {
            placed: u64::try_from(rows)?,
            quantity: commands.iter().map(|command| command.quantity).sum(),
            ..Tally::default()
        };
        let elapsed = match side {
            Side::Ours => {
                let orders: Vec<Order> = commands.iter().map(Order::place).collect();
                let maintenance = self.store.maintenance::<Order>(&self.context);
                let begun = Instant::now();
                let done = maintenance.insert(orders).await?;
                let elapsed = begun.elapsed();
                ensure!(done.items() == rows, "{} rows", done.items());
                elapsed
            }
            Side::Copy => {
                let ready: Vec<Row> = commands.iter().map(Row::new).collect::<Result<_>>()?;
                let begun = Instant::now();
                copy::insert(&mut self.connection, &ready).await?;
                begun.elapsed()
            }
            Side::Arrays => {
                let orders: Vec<Order> = commands.iter().map(Order::place).collect();
                let (store, context) = (&self.store, &self.context);
                let begun = Instant::now();
                let done = store
                    .execute_in_batches(context, BATCH, orders, async |uow, order| uow.save(order))
                    .await?;
                let elapsed = begun.elapsed();
                ensure!(done.items() == rows, "{} rows", done.items());
                elapsed
            }
        };
        Ok((tally, Sample::once(rows, elapsed)))
    }
}

fn command(index: usize) -> Place {
    Place {
        customer: format!("customer {index}"),
        note: "Leave it with the neighbours, please.".to_owned(),
        quantity: i64::try_from(index % 90).unwrap_or(0) + 1,
    }
}
