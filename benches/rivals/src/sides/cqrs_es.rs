//! cqrs-es with postgres-es.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use async_trait::async_trait;
use cqrs_es::event_sink::EventSink;
use cqrs_es::persist::{GenericQuery, PersistedEventStore, QueryReplay};
use cqrs_es::{
    Aggregate, AggregateContext as _, DomainEvent, EventEnvelope, EventStore as _, Query, View,
};
use postgres_es::{PostgresCqrs, PostgresEventRepository, PostgresViewRepository, postgres_cqrs};
use serde::{Deserialize, Serialize};
use sqlx::{Executor as _, PgPool};
use uuid::Uuid;

use crate::protocol::{Changed, Placed};
use crate::serve::{READ_TABLE, Rival, UPSERT, seeds};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum OrderEvent {
    Placed {
        customer: String,
        note: String,
        quantity: i64,
    },
    Changed {
        by: i64,
        note: String,
    },
}

impl OrderEvent {
    fn pieces(&self) -> i64 {
        match self {
            Self::Placed { quantity, .. } => *quantity,
            Self::Changed { by, .. } => *by,
        }
    }
}

impl DomainEvent for OrderEvent {
    fn event_type(&self) -> String {
        match self {
            Self::Placed { .. } => "Placed".to_owned(),
            Self::Changed { .. } => "Changed".to_owned(),
        }
    }

    fn event_version(&self) -> String {
        "1.0".to_owned()
    }
}

enum OrderCommand {
    Place(Placed),
    Change(Changed),
}

#[derive(Debug, thiserror::Error)]
#[error("the order was not placed")]
struct NotPlaced;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Order {
    customer: String,
    note: String,
    quantity: i64,
}

impl Aggregate for Order {
    const TYPE: &'static str = "order";

    type Command = OrderCommand;
    type Event = OrderEvent;
    type Error = NotPlaced;
    type Services = ();

    async fn handle(
        &mut self,
        command: OrderCommand,
        (): &(),
        sink: &EventSink<Self>,
    ) -> Result<(), NotPlaced> {
        let event = match command {
            OrderCommand::Place(placed) => OrderEvent::Placed {
                customer: placed.customer,
                note: placed.note,
                quantity: placed.quantity,
            },
            OrderCommand::Change(_) if self.customer.is_empty() => return Err(NotPlaced),
            OrderCommand::Change(changed) => OrderEvent::Changed {
                by: changed.by,
                note: changed.note,
            },
        };
        sink.write(event, self).await;
        Ok(())
    }

    fn apply(&mut self, event: OrderEvent) {
        match event {
            OrderEvent::Placed {
                customer,
                note,
                quantity,
            } => {
                *self = Self {
                    customer,
                    note,
                    quantity,
                };
            }
            OrderEvent::Changed { by, note } => {
                self.quantity += by;
                self.note = note;
            }
        }
    }
}

/// The pieces of an order.
#[derive(Debug, Default, Serialize, Deserialize)]
struct OrderTotal {
    quantity: i64,
}

impl View<Order> for OrderTotal {
    fn update(&mut self, event: &EventEnvelope<Order>) {
        self.quantity += event.payload.pieces();
    }
}

/// Its event store, with the view that it ships.
#[derive(Clone)]
pub(crate) struct CqrsEs {
    cqrs: Arc<PostgresCqrs<Order>>,
    store: Arc<PersistedEventStore<PostgresEventRepository, Order>>,
}

impl Rival for CqrsEs {
    const TRUNCATE: &'static str = "TRUNCATE events, snapshots, order_view";
    const FILL: &'static [&'static str] = &[concat!(
        "INSERT INTO events (aggregate_type, aggregate_id, sequence, event_type, event_version, \
         payload, metadata) SELECT 'order', id::text, version, name, '1.0', \
         concat('{\"', name, '\":{', fields, '}}')::json, '{}'::json",
        seeds!()
    )];
    const HOLDS: &'static str = "SELECT count(DISTINCT aggregate_id), count(*), \
         coalesce(sum(coalesce(payload->'Placed'->>'quantity', payload->'Changed'->>'by')::int8), \
         0)::int8 FROM events WHERE aggregate_type = 'order'";
    const READS: &'static str =
        "SELECT count(*), coalesce(sum((payload->>'quantity')::int8), 0)::int8 FROM order_view";

    async fn setup(pool: &PgPool) -> Result<()> {
        // Those of its db/init.sql.
        pool.execute(
            "CREATE TABLE events (aggregate_type text NOT NULL, aggregate_id text NOT NULL, \
             sequence bigint CHECK (sequence >= 0) NOT NULL, event_type text NOT NULL, \
             event_version text NOT NULL, payload json NOT NULL, metadata json NOT NULL, \
             PRIMARY KEY (aggregate_type, aggregate_id, sequence)); \
             CREATE TABLE snapshots (aggregate_type text NOT NULL, aggregate_id text NOT NULL, \
             last_sequence bigint CHECK (last_sequence >= 0) NOT NULL, \
             current_snapshot bigint CHECK (current_snapshot >= 0) NOT NULL, \
             payload json NOT NULL, PRIMARY KEY (aggregate_type, aggregate_id, last_sequence)); \
             CREATE TABLE order_view (view_id text NOT NULL, \
             version bigint CHECK (version >= 0) NOT NULL, payload json NOT NULL, \
             PRIMARY KEY (view_id))",
        )
        .await?;
        Ok(())
    }

    fn open(pool: &PgPool) -> Self {
        let repository = PostgresEventRepository::new(pool.clone());
        Self {
            cqrs: Arc::new(postgres_cqrs(pool.clone(), Vec::new(), ())),
            store: Arc::new(PersistedEventStore::new_event_store(repository)),
        }
    }

    async fn create(&self, placed: Placed) -> Result<u64> {
        let id = Uuid::now_v7().to_string();
        self.cqrs.execute(&id, OrderCommand::Place(placed)).await?;
        Ok(0)
    }

    async fn change(&self, order: Uuid, changed: Changed) -> Result<u64> {
        let command = OrderCommand::Change(changed);
        self.cqrs.execute(&order.to_string(), command).await?;
        Ok(0)
    }

    async fn load(&self, order: Uuid) -> Result<i64> {
        let mut context = self.store.load_aggregate(&order.to_string()).await?;
        Ok(context.aggregate().quantity)
    }

    async fn replay(&self, pool: &PgPool, _: u64) -> Result<Duration> {
        let views = PostgresViewRepository::<OrderTotal, Order>::new("order_view", pool.clone());
        let mut query = GenericQuery::new(Arc::new(views));
        query.use_error_handler(Box::new(|error| {
            eprintln!("a view was not written: {error}")
        }));
        let repository = PostgresEventRepository::new(pool.clone())
            .with_streaming_channel_size(STREAMING_CHANNEL);
        let begun = Instant::now();
        QueryReplay::new(repository, query).replay_all().await?;
        Ok(begun.elapsed())
    }
}

/// The size that its documentation gives as the example.
const STREAMING_CHANNEL: usize = 1_000;

/// The same event store, with a query of one's own in place of the view: a statement an event.
#[derive(Clone)]
pub(crate) struct CqrsEsUpsert(CqrsEs);

impl Rival for CqrsEsUpsert {
    const TRUNCATE: &'static str = "TRUNCATE events, snapshots, order_view, order_total";
    const FILL: &'static [&'static str] = CqrsEs::FILL;
    const HOLDS: &'static str = CqrsEs::HOLDS;

    async fn setup(pool: &PgPool) -> Result<()> {
        CqrsEs::setup(pool).await?;
        pool.execute(READ_TABLE).await?;
        Ok(())
    }

    fn open(pool: &PgPool) -> Self {
        Self(CqrsEs::open(pool))
    }

    async fn create(&self, placed: Placed) -> Result<u64> {
        self.0.create(placed).await
    }

    async fn change(&self, order: Uuid, changed: Changed) -> Result<u64> {
        self.0.change(order, changed).await
    }

    async fn load(&self, order: Uuid) -> Result<i64> {
        self.0.load(order).await
    }

    async fn replay(&self, pool: &PgPool, _: u64) -> Result<Duration> {
        let repository = PostgresEventRepository::new(pool.clone())
            .with_streaming_channel_size(STREAMING_CHANNEL);
        let query = Upserts { pool: pool.clone() };
        let begun = Instant::now();
        QueryReplay::new(repository, query).replay_all().await?;
        Ok(begun.elapsed())
    }
}

struct Upserts {
    pool: PgPool,
}

impl Upserts {
    async fn write(&self, order: &str, events: &[EventEnvelope<Order>]) -> Result<()> {
        let id = Uuid::parse_str(order).context("the id of an order")?;
        for event in events {
            let written = sqlx::query(UPSERT)
                .bind(id)
                .bind(event.payload.pieces())
                .execute(&self.pool)
                .await?;
            ensure!(written.rows_affected() == 1, "no row was written");
        }
        Ok(())
    }
}

#[async_trait]
impl Query<Order> for Upserts {
    async fn dispatch(&self, order: &str, events: &[EventEnvelope<Order>]) {
        // A query has no way to fail; what is missing is found when the read table is checked.
        if let Err(error) = self.write(order, events).await {
            eprintln!("an event was not written: {error:#}");
        }
    }
}
