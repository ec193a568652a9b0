//! esrs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use esrs::handler::TransactionalEventHandler;
use esrs::manager::AggregateManager;
use esrs::rebuilder::{PgRebuilder, Rebuilder as _};
use esrs::store::StoreEvent;
use esrs::store::postgres::{PgStore, PgStoreBuilder, PgStoreError, UuidFormat};
use esrs::{Aggregate, AggregateState};
use serde::{Deserialize, Serialize};
use sqlx::{Executor as _, PgConnection, PgPool};
use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::protocol::{Changed, Placed};
use crate::serve::{READ_TABLE, Rival, UPSERT, seeds};

#[derive(Debug, Clone, Serialize, Deserialize)]
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

enum OrderCommand {
    Place(Placed),
    Change(Changed),
}

#[derive(Debug, thiserror::Error)]
#[error("the order was not placed")]
struct NotPlaced;

#[derive(Debug, Default)]
struct OrderState {
    customer: String,
    #[expect(dead_code, reason = "an order has it, whoever asks")]
    note: String,
    quantity: i64,
}

struct Order;

impl Aggregate for Order {
    const NAME: &'static str = "order";

    type State = OrderState;
    type Command = OrderCommand;
    type Event = OrderEvent;
    type Error = NotPlaced;

    fn handle_command(
        state: &OrderState,
        command: OrderCommand,
    ) -> Result<Vec<OrderEvent>, NotPlaced> {
        match command {
            OrderCommand::Place(placed) => Ok(vec![OrderEvent::Placed {
                customer: placed.customer,
                note: placed.note,
                quantity: placed.quantity,
            }]),
            OrderCommand::Change(_) if state.customer.is_empty() => Err(NotPlaced),
            OrderCommand::Change(changed) => Ok(vec![OrderEvent::Changed {
                by: changed.by,
                note: changed.note,
            }]),
        }
    }

    fn apply_event(state: OrderState, event: OrderEvent) -> OrderState {
        match event {
            OrderEvent::Placed {
                customer,
                note,
                quantity,
            } => OrderState {
                customer,
                note,
                quantity,
            },
            OrderEvent::Changed { by, note } => OrderState {
                quantity: state.quantity + by,
                note,
                ..state
            },
        }
    }
}

/// Its store and manager.
#[derive(Clone)]
pub(crate) struct Esrs {
    pool: PgPool,
    manager: Arc<OnceCell<AggregateManager<PgStore<Order>>>>,
}

impl Esrs {
    /// Made with the first command, and kept, as an application keeps it.
    async fn manager(&self) -> Result<&AggregateManager<PgStore<Order>>> {
        let make = || async {
            let store = PgStoreBuilder::<Order>::new(self.pool.clone())
                .without_running_migrations()
                .with_event_id_format(UuidFormat::V7)
                .try_build()
                .await?;
            anyhow::Ok(AggregateManager::new(store))
        };
        self.manager.get_or_try_init(make).await
    }
}

impl Rival for Esrs {
    const TRUNCATE: &'static str = "TRUNCATE order_events, order_total";
    const FILL: &'static [&'static str] = &[concat!(
        "INSERT INTO order_events (id, aggregate_id, payload, occurred_on, sequence_number) \
         SELECT gen_random_uuid(), id, concat('{\"', name, '\":{', fields, '}}')::jsonb, now(), \
         version",
        seeds!()
    )];
    const HOLDS: &'static str = "SELECT count(DISTINCT aggregate_id), count(*), \
         coalesce(sum(coalesce(payload->'Placed'->>'quantity', payload->'Changed'->>'by')::int8), \
         0)::int8 FROM order_events";

    async fn setup(pool: &PgPool) -> Result<()> {
        PgStoreBuilder::<Order>::new(pool.clone())
            .try_build()
            .await?;
        pool.execute(READ_TABLE).await?;
        Ok(())
    }

    fn open(pool: &PgPool) -> Self {
        Self {
            pool: pool.clone(),
            manager: Arc::default(),
        }
    }

    async fn create(&self, placed: Placed) -> Result<u64> {
        let state = AggregateState::with_id(Uuid::now_v7());
        self.manager()
            .await?
            .handle_command(state, OrderCommand::Place(placed))
            .await??;
        Ok(0)
    }

    async fn change(&self, order: Uuid, changed: Changed) -> Result<u64> {
        let manager = self.manager().await?;
        let state = manager.load(order).await?.context("no such order")?;
        manager
            .handle_command(state, OrderCommand::Change(changed))
            .await??;
        Ok(0)
    }

    async fn load(&self, order: Uuid) -> Result<i64> {
        let state = self.manager().await?.load(order).await?;
        Ok(state.context("no such order")?.inner().quantity)
    }

    async fn replay(&self, pool: &PgPool, _: u64) -> Result<Duration> {
        let begun = Instant::now();
        // All at once deletes the row of an order before each of its events.
        PgRebuilder::<Order>::new()
            .with_transactional_event_handlers(vec![Box::new(Totals)])
            .by_aggregate_id(pool.clone())
            .await?;
        Ok(begun.elapsed())
    }
}

/// The pieces of each order.
struct Totals;

#[async_trait]
impl TransactionalEventHandler<Order, PgStoreError, PgConnection> for Totals {
    async fn handle(
        &self,
        event: &StoreEvent<OrderEvent>,
        connection: &mut PgConnection,
    ) -> Result<(), PgStoreError> {
        let pieces = match &event.payload {
            OrderEvent::Placed { quantity, .. } => *quantity,
            OrderEvent::Changed { by, .. } => *by,
        };
        sqlx::query(UPSERT)
            .bind(event.aggregate_id)
            .bind(pieces)
            .execute(connection)
            .await?;
        Ok(())
    }

    async fn delete(&self, order: Uuid, connection: &mut PgConnection) -> Result<(), PgStoreError> {
        sqlx::query("DELETE FROM order_total WHERE id = $1")
            .bind(order)
            .execute(connection)
            .await?;
        Ok(())
    }
}
