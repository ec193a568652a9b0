//! es-entity.

use std::time::Duration;

use anyhow::{Result, bail};
use es_entity::{
    EntityEvents, EntityEventsBuilder, EntityHydrationError, EsEntity, EsEvent, EsRepo, FromRepo,
    IntoEvents, TryFromEvents, errlanes,
};
use serde::{Deserialize, Serialize};
use sqlx::{Executor as _, PgPool};
use uuid::Uuid;

use crate::protocol::{Changed, Placed};
use crate::serve::{READ_TABLE, Rival, seeds};

es_entity::entity_id! { OrderId }

#[derive(Debug, Serialize, Deserialize, EsEvent)]
#[serde(tag = "type", rename_all = "snake_case")]
#[es_event(id = "OrderId")]
enum OrderEvent {
    Placed {
        id: OrderId,
        customer: String,
        note: String,
        quantity: i64,
    },
    Changed {
        by: i64,
        note: String,
    },
}

struct NewOrder(Placed);

impl IntoEvents<OrderEvent> for NewOrder {
    type IdSource = FromRepo;

    fn into_events(
        self,
        builder: EntityEventsBuilder<OrderEvent, FromRepo>,
    ) -> EntityEvents<OrderEvent> {
        let id = builder.id();
        builder.initial_events([OrderEvent::Placed {
            id,
            customer: self.0.customer,
            note: self.0.note,
            quantity: self.0.quantity,
        }])
    }
}

#[derive(EsEntity)]
struct Order {
    id: OrderId,
    #[expect(dead_code, reason = "an order has it, whoever asks")]
    customer: String,
    note: String,
    quantity: i64,
    events: EntityEvents<OrderEvent>,
}

impl Order {
    fn change(&mut self, changed: Changed) {
        self.quantity += changed.by;
        self.note.clone_from(&changed.note);
        self.events.push(OrderEvent::Changed {
            by: changed.by,
            note: changed.note,
        });
    }
}

impl TryFromEvents<OrderEvent> for Order {
    fn try_from_events(events: EntityEvents<OrderEvent>) -> Result<Self, EntityHydrationError> {
        let mut hydrator = Self::hydrator();
        let mut pieces = 0;
        for event in events.iter_all() {
            match event {
                OrderEvent::Placed {
                    id,
                    customer,
                    note,
                    quantity,
                } => {
                    pieces = *quantity;
                    hydrator
                        .id(*id)
                        .customer(customer.clone())
                        .note(note.clone());
                }
                OrderEvent::Changed { by, note } => {
                    pieces += by;
                    hydrator.note(note.clone());
                }
            }
        }
        hydrator.quantity(pieces);
        hydrator.build(events)
    }
}

#[derive(EsRepo)]
#[es_repo(entity = "Order")]
struct Orders {
    pool: PgPool,
}

/// Its repository. It has nothing that reads a log; `obix` has.
#[derive(Clone)]
pub(crate) struct Repository {
    pool: PgPool,
}

impl Repository {
    fn orders(&self) -> Orders {
        Orders {
            pool: self.pool.clone(),
        }
    }
}

impl Rival for Repository {
    const TRUNCATE: &'static str = "TRUNCATE orders, order_events, order_total";
    const FILL: &'static [&'static str] = &[
        "INSERT INTO orders (id, created_at) SELECT id, now() FROM unnest($1::uuid[]) AS id \
         WHERE $2::int > 0",
        concat!(
            "INSERT INTO order_events (id, sequence, event_type, event, recorded_at) \
             SELECT id, version, lower(name), concat('{\"type\":\"', lower(name), '\",', \
             CASE version WHEN 1 THEN concat('\"id\":\"', id, '\",') END, fields, '}')::jsonb, \
             now()",
            seeds!()
        ),
    ];
    const HOLDS: &'static str = "SELECT (SELECT count(*) FROM orders), count(*), \
         coalesce(sum(coalesce(event->>'quantity', event->>'by')::int8), 0)::int8 \
         FROM order_events";

    async fn setup(pool: &PgPool) -> Result<()> {
        // The two tables of its README; without columns to query by, which no command here needs.
        pool.execute(include_str!("../../sql/es_entity.sql"))
            .await?;
        pool.execute(READ_TABLE).await?;
        Ok(())
    }

    fn open(pool: &PgPool) -> Self {
        Self { pool: pool.clone() }
    }

    async fn create(&self, placed: Placed) -> Result<u64> {
        self.orders().create(NewOrder(placed)).await?;
        Ok(0)
    }

    async fn change(&self, order: Uuid, changed: Changed) -> Result<u64> {
        let orders = self.orders();
        let mut order = orders.find_by_id(OrderId::from(order)).await?;
        order.change(changed);
        orders.update(&mut order).await?;
        Ok(0)
    }

    async fn load(&self, order: Uuid) -> Result<i64> {
        let order = self.orders().find_by_id(OrderId::from(order)).await?;
        Ok(order.quantity)
    }

    async fn replay(&self, _: &PgPool, _: u64) -> Result<Duration> {
        bail!("es-entity has no replay")
    }
}
