//! Databases of a size.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use anyhow::Result;
use cqrs_core::{
    Entity as _, Envelope, Maintain as _, Projection, ProjectionTransaction, RequestContext,
    StartAt, Subscription, TenantId,
};
use cqrs_sqlx::{PgStore, Postgres, SqlTransaction, StoreOptions};
use sqlx::postgres::{PgPool, PgPoolOptions};

use crate::database::{Scratch, ensure_no_scans};
use crate::domain::{Basket, Order};
use crate::sourced::MeterEvent;

/// How many events a meter has; each adds one to its sum.
pub(super) const EVENTS_OF_A_METER: i64 = 4;
/// How many baskets there are.
const BASKETS: i64 = 100;

/// A database of a size.
pub(super) struct Filled {
    scratch: Scratch,
    pub(super) store: PgStore,
    pool: PgPool,
    pub(super) tenants: i64,
    /// How many meters there are, with ids from 0.
    pub(super) meters: i64,
    /// The baskets, each with the sum of its pieces.
    pub(super) baskets: Arc<[Basket]>,
    pub(super) children: i64,
    /// How often something was done with what is there.
    pub(super) number: Arc<AtomicI64>,
}

/// The tenant of this number.
pub(super) fn tenant(number: i64) -> Result<TenantId> {
    Ok(TenantId::new(format!("tenant-{number}"))?)
}

impl Filled {
    /// A log of so many events of meters, of so many tenants.
    pub(super) async fn log(url: &str, events: i64, tenants: i64) -> Result<Self> {
        let mut filled = Self::empty(url).await?;
        filled.tenants = tenants;
        filled.meters = events / EVENTS_OF_A_METER;
        let inserted = filled.insert(events).await;
        filled.or_drop(inserted).await
    }

    /// Baskets with so many children.
    pub(super) async fn baskets(url: &str, children: i64) -> Result<Self> {
        let mut filled = Self::empty(url).await?;
        filled.children = children;
        filled.baskets = (0..BASKETS)
            .map(|number| Basket::fill(number, children))
            .collect();
        let context = RequestContext::tenant(tenant(0)?);
        let inserted = filled
            .store
            .maintenance::<Basket>(&context)
            .insert(filled.baskets.to_vec())
            .await;
        let analyzed = match inserted {
            Ok(_) => filled.analyze().await,
            Err(error) => Err(error.into()),
        };
        filled.or_drop(analyzed).await
    }

    async fn empty(url: &str) -> Result<Self> {
        let scratch = Scratch::create(url).await?;
        let store = PgStore::connect_with(scratch.options(), StoreOptions::default()).await?;
        store.migrate().await?;
        store
            .create_tables(&[Order::table(), Basket::table()])
            .await?;
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .connect_lazy_with(scratch.options());
        Ok(Self {
            scratch,
            store,
            pool,
            tenants: 1,
            meters: 0,
            baskets: Arc::new([]),
            children: 0,
            number: Arc::default(),
        })
    }

    async fn or_drop(self, outcome: Result<()>) -> Result<Self> {
        match outcome {
            Ok(()) => Ok(self),
            Err(error) => {
                self.drop().await?;
                Err(error)
            }
        }
    }

    async fn insert(&self, events: i64) -> Result<()> {
        sqlx::query(
            "INSERT INTO cqrs_event (correlation_id, actor, tenant_id, aggregate_type, \
             aggregate_id, event_id, aggregate_version, event_type, schema_version, payload, \
             content_hash, occurred_at, sourced) \
             SELECT id, 'seed', concat('tenant-', number / $3 % $2), 'meter', \
             (number / $3)::text, id, number % $3 + 1, 'meter.read', 1, payload::json, \
             sha256(convert_to(payload, 'UTF8')), now(), true \
             FROM generate_series(0, $1 - 1) AS number, \
             LATERAL (SELECT concat('00000000-0000-7000-8000-', \
             lpad(to_hex(number), 12, '0'))::uuid AS id, \
             concat('{\"note\":\"Read at the door, ', number, '.\",\"value\":1}') AS payload) AS e",
        )
        .bind(events)
        .bind(self.tenants)
        .bind(EVENTS_OF_A_METER)
        .execute(&self.pool)
        .await?;
        self.analyze().await
    }

    async fn analyze(&self) -> Result<()> {
        for sql in ["VACUUM (ANALYZE)", "CHECKPOINT"] {
            sqlx::query(sql).execute(&self.pool).await?;
        }
        Ok(())
    }

    /// How many events there are. Counted where it is quick: by the sequence, for all are in the
    /// log and none was given back while nothing failed.
    pub(super) async fn events(&self) -> Result<i64> {
        Ok(
            sqlx::query_scalar("SELECT last_value FROM cqrs_event_position")
                .fetch_one(&self.pool)
                .await?,
        )
    }

    /// Sets all subscriptions so many events before the end.
    pub(super) async fn rewind(&self, events: i64) -> Result<()> {
        let end = self.events().await?;
        sqlx::query("UPDATE cqrs_segment SET position = $1")
            .bind(end - events)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Ends so many turns, and checks that nobody scanned the log in them.
    pub(super) async fn end(self, turns: usize) -> Result<()> {
        self.store.close();
        self.pool.close().await;
        let checked = ensure_no_scans(&self.scratch.options(), &["cqrs_event"], turns).await;
        let dropped = self.scratch.drop().await;
        checked.and(dropped)
    }

    async fn drop(self) -> Result<()> {
        self.store.close();
        self.pool.close().await;
        self.scratch.drop().await
    }
}

/// A projection that counts, and writes nothing: what is left is what the log costs.
#[derive(Debug, Clone)]
pub(super) struct Counting {
    name: String,
    counted: Arc<AtomicI64>,
}

impl Counting {
    pub(super) fn new(number: i64) -> Self {
        Self {
            name: format!("bench_counting_{number}"),
            counted: Arc::default(),
        }
    }

    /// From the end of the log, where it is new.
    pub(super) fn subscription(&self) -> Subscription<SqlTransaction<Postgres>> {
        Subscription::new(self.clone()).start_at(StartAt::Now)
    }

    /// How many it has counted since it was asked last.
    pub(super) fn take(&self) -> i64 {
        self.counted.swap(0, Ordering::SeqCst)
    }
}

impl<T: ProjectionTransaction> Projection<T> for Counting {
    type Event = MeterEvent;

    fn name(&self) -> &str {
        &self.name
    }

    async fn apply(
        &self,
        page: &[Envelope<MeterEvent>],
        _transaction: &mut T,
    ) -> cqrs_core::Result<()> {
        let values = page.iter().map(|event| {
            let MeterEvent::Read { value, .. } = event.payload();
            *value
        });
        self.counted.fetch_add(values.sum(), Ordering::SeqCst);
        Ok(())
    }
}
