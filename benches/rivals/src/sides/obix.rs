//! obix: the outbox for es-entity, and what reads it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use es_entity::AtomicOperation as _;
use job::{JobSvcConfig, JobType, Jobs};
use obix::out::Outbox;
use obix::{
    EventCtx, EventDelivery, FlushOp, Handled, InsertOrder, MailboxConfig, OutboxEventJobConfig,
    SingletonSubscriber,
};
use serde::{Deserialize, Serialize};
use sqlx::{Executor as _, PgPool};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::protocol::{Changed, Placed};
use crate::serve::{READ_TABLE, Rival, seeds};

#[derive(Debug, Clone, Serialize, Deserialize)]
enum OrderEvent {
    Placed {
        order_id: Uuid,
        customer: String,
        note: String,
        quantity: i64,
    },
    Changed {
        order_id: Uuid,
        by: i64,
        note: String,
    },
}

/// Its outbox. What writes there is es-entity.
#[derive(Clone)]
pub(crate) struct Obix;

impl Rival for Obix {
    const TRUNCATE: &'static str = "TRUNCATE persistent_outbox_events, \
         persistent_outbox_commit_checkpoints, jobs, job_events, job_executions, \
         job_execution_states, job_waiters, order_total RESTART IDENTITY";
    const FILL: &'static [&'static str] = &[concat!(
        "INSERT INTO persistent_outbox_events (payload) \
         SELECT concat('{\"', name, '\":{\"order_id\":\"', id, '\",', fields, '}}')::jsonb",
        seeds!()
    )];
    const HOLDS: &'static str = "SELECT count(DISTINCT coalesce(payload->'Placed', \
         payload->'Changed')->>'order_id'), count(*), \
         coalesce(sum(coalesce(payload->'Placed'->>'quantity', payload->'Changed'->>'by')::int8), \
         0)::int8 FROM persistent_outbox_events";

    async fn setup(pool: &PgPool) -> Result<()> {
        pool.execute(include_str!("../../sql/obix.sql")).await?;
        pool.execute(READ_TABLE).await?;
        jobs(pool, true).await?.shutdown().await.map_err(failed)
    }

    fn open(_: &PgPool) -> Self {
        Self
    }

    async fn create(&self, _: Placed) -> Result<u64> {
        bail!("obix has no orders")
    }

    async fn change(&self, _: Uuid, _: Changed) -> Result<u64> {
        bail!("obix has no orders")
    }

    async fn load(&self, _: Uuid) -> Result<i64> {
        bail!("obix has no orders")
    }

    async fn replay(&self, pool: &PgPool, events: u64) -> Result<Duration> {
        let pool = pool.clone();
        // The compiler cannot prove that what follows may move between threads.
        let runtime = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || runtime.block_on(consume(&pool, events))).await?
    }
}

async fn consume(pool: &PgPool, events: u64) -> Result<Duration> {
    let mut jobs = jobs(pool, false).await?;
    let config = MailboxConfig::builder().build();
    let outbox: Outbox<OrderEvent> = Outbox::init(pool, config).await.map_err(failed)?;
    let all = Arc::new(Notify::new());
    let begun = Instant::now();
    let subscription = outbox
        .register_singleton_subscriber(
            &mut jobs,
            OutboxEventJobConfig::new(JobType::new("order-total")).with_max_batch_size(MAX_BATCH),
            Totals {
                left: AtomicU64::new(events),
                all: Arc::clone(&all),
            },
        )
        .await
        .map_err(failed)?;
    jobs.start_poll().await.map_err(failed)?;
    // Its own way to wait looks four times a second; that is not counted.
    all.notified().await;
    let elapsed = begun.elapsed();
    subscription
        .await_caught_up(Duration::from_secs(60))
        .await
        .map_err(failed)?;
    jobs.shutdown().await.map_err(failed)?;
    Ok(elapsed)
}

/// As large as the pages of the framework.
const MAX_BATCH: usize = 1_000;

async fn jobs(pool: &PgPool, migrate: bool) -> Result<Jobs> {
    let config = JobSvcConfig::builder()
        .pool(pool.clone())
        .exec_migrations(migrate)
        .build()
        .map_err(failed)?;
    Jobs::init(config).await.map_err(failed)
}

fn failed(error: impl std::fmt::Debug) -> anyhow::Error {
    anyhow!("{error:?}")
}

/// What was read and is not written yet.
#[derive(Default)]
struct Batch {
    events: u64,
    pieces: HashMap<Uuid, i64>,
}

/// The pieces of each order, folded in memory and written with one statement a batch.
struct Totals {
    /// How many events were not written yet.
    left: AtomicU64,
    /// Told when none is left.
    all: Arc<Notify>,
}

impl SingletonSubscriber<OrderEvent> for Totals {
    type Batch = Batch;

    async fn handle_persistent<'inv>(
        &self,
        ctx: EventCtx<'inv, Self::Batch>,
        event: &EventDelivery<OrderEvent>,
    ) -> Result<Handled<'inv>, Box<dyn std::error::Error + Send + Sync>> {
        let (order, pieces) = match &event.payload {
            Some(OrderEvent::Placed {
                order_id, quantity, ..
            }) => (*order_id, *quantity),
            Some(OrderEvent::Changed { order_id, by, .. }) => (*order_id, *by),
            None => return Ok(ctx.skip()),
        };
        Ok(ctx.collect_with(|batch| {
            batch.events += 1;
            *batch.pieces.entry(order).or_default() += pieces;
        }))
    }

    async fn flush(
        &self,
        op: &mut FlushOp<'_, InsertOrder>,
        batch: Self::Batch,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let (orders, pieces): (Vec<Uuid>, Vec<i64>) = batch.pieces.into_iter().unzip();
        sqlx::query(
            "INSERT INTO order_total (id, quantity) SELECT * FROM unnest($1::uuid[], $2::int8[]) \
             ON CONFLICT (id) DO UPDATE SET quantity = order_total.quantity + excluded.quantity",
        )
        .bind(&orders)
        .bind(&pieces)
        .execute(op.as_executor())
        .await?;
        if self.left.fetch_sub(batch.events, Ordering::Relaxed) == batch.events {
            self.all.notify_one();
        }
        Ok(())
    }
}
