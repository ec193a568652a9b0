//! The part `sourced`: loading an event-sourced aggregate.
//!
//! One that has 10,099 events, the last 99 of them after its last snapshot, against one with 100
//! events and no snapshot: what a snapshot is worth is that age does not matter.

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use cqrs_core::{Aggregate, RequestContext, Root, Sourced, SourcedState, Store, TenantId};
use cqrs_core::{Repository as _, UnitOfWork as _};
use cqrs_sqlx::{PgStore, StoreOptions};
use serde::{Deserialize, Serialize};

use crate::database::{ACTOR, Scratch, TENANT};
use crate::harness::{Timing, Worker, run_slice, take_turns};
use crate::report::{Bound, Case, OURS, Results};

/// The side with few events.
const FEW: &str = "100";
/// The least loads per second of the old one for each of the young one.
const LEAST: f64 = 1.0 / 1.5;

/// How the part is run.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How long each slice is measured, in seconds.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// How many slices each side gets.
    #[arg(long, default_value_t = 6)]
    rounds: usize,
}

#[derive(Debug, Clone, Serialize, Deserialize, cqrs_core::DomainEvent)]
#[event(aggregate = "meter")]
pub(crate) enum MeterEvent {
    Read { value: i64, note: String },
}

macro_rules! meter {
    ($name:ident, $($snapshot:tt)*) => {
        #[derive(Debug, Clone, Aggregate)]
        #[aggregate(sourced, event = MeterEvent, tenant $($snapshot)*)]
        pub(crate) struct $name {
            #[aggregate(id)]
            id: i64,
            #[aggregate(root)]
            root: Root<MeterEvent>,
            pub(crate) sum: i64,
        }

        impl Sourced for $name {
            fn apply(&mut self, event: &MeterEvent) {
                let MeterEvent::Read { value, .. } = event;
                self.sum += value;
            }
        }
    };
}

// Two kinds of reading the same streams.
meter!(Meter,);
meter!(KeptMeter, , snapshot(every = 100));

/// Loads one of the meters, again and again.
struct Loader {
    store: PgStore,
    context: RequestContext,
    is_kept: bool,
}

impl Worker for Loader {
    async fn work(&mut self) -> Result<()> {
        let mut uow = self.store.unit_of_work(&self.context);
        let sum = if self.is_kept {
            uow.get::<KeptMeter>(1).await?.sum
        } else {
            uow.get::<Meter>(2).await?.sum
        };
        ensure!(
            sum == if self.is_kept { 10_099 } else { 100 },
            "another meter"
        );
        Ok(())
    }
}

/// Runs the part.
///
/// # Errors
///
/// Where the database fails.
pub(crate) async fn run(url: &str, options: &Options, results: &mut Results) -> Result<()> {
    Scratch::within(url, async |scratch| {
        measure(scratch, options, results).await
    })
    .await
}

async fn measure(scratch: &Scratch, options: &Options, results: &mut Results) -> Result<()> {
    let store = PgStore::connect_with(scratch.options(), StoreOptions::default()).await?;
    let context = RequestContext::tenant(TenantId::new(TENANT)?).with_actor(ACTOR);
    fill(&store, &context).await?;
    let mut loaders = [true, false].map(|is_kept| {
        Some(Loader {
            store: store.clone(),
            context: context.clone(),
            is_kept,
        })
    });
    let measured = Duration::try_from_secs_f64(options.seconds)?;
    let timing = Timing {
        ramp: measured / 4,
        measured,
    };
    let samples = take_turns(&[0, 1], options.rounds, async |index: usize| {
        run_slice(&mut loaders[index], timing).await
    })
    .await?;
    let case = Case::new("sourced", "load of 10,099 events", [OURS, FEW], samples);
    results.add(&case)?;
    results.expect(case.goals(&[(FEW, Bound::AtLeast(LEAST))]));
    store.close();
    Ok(())
}

/// Appends a hundred events at a time, then those after the last snapshot. Other meters are there
/// too, so that a plan is what it would be.
async fn fill(store: &PgStore, context: &RequestContext) -> Result<()> {
    store.migrate().await?;
    let commits = (0..100).map(|_| 100).chain([99]);
    for events in commits {
        store
            .execute(context, async |uow| {
                let found = uow.repository::<KeptMeter>().find(1).await?;
                let mut meter = found.unwrap_or_else(|| KeptMeter::blank(1));
                (0..events).for_each(|_| meter.raise(reading()));
                uow.save(meter)
            })
            .await?;
        store.snapshots_written().await;
    }
    for id in 2..200 {
        store
            .execute(context, async |uow| {
                let mut meter = Meter::blank(id);
                (0..100).for_each(|_| meter.raise(reading()));
                uow.save(meter)
            })
            .await?;
    }
    Ok(())
}

fn reading() -> MeterEvent {
    MeterEvent::Read {
        value: 1,
        note: "Read by the neighbours, who have the key.".to_owned(),
    }
}
