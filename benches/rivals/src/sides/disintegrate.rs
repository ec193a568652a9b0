//! disintegrate with disintegrate-postgres.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use async_trait::async_trait;
use disintegrate::serde::json::Json;
use disintegrate::{
    Decision, DecisionError, Event, EventListener, EventSourcedStateStore, LoadState as _,
    NoSnapshot, PersistedEvent, StateMutate, StateQuery, StreamQuery,
};
use disintegrate_postgres::{
    Error, PgDecisionMaker, PgEventId, PgEventListener, PgEventListenerConfig, PgEventStore,
    decision_maker,
};
use serde::{Deserialize, Serialize};
use sqlx::{Executor as _, PgPool};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::protocol::{Changed, Placed};
use crate::serve::{READ_TABLE, Rival, UPSERT, seeds};

#[derive(Debug, Clone, PartialEq, Eq, Event, Serialize, Deserialize)]
#[stream(OrderStream, [Placed, Changed])]
enum OrderEvent {
    Placed {
        #[id]
        order_id: Uuid,
        customer: String,
        note: String,
        quantity: i64,
    },
    Changed {
        #[id]
        order_id: Uuid,
        by: i64,
        note: String,
    },
}

#[derive(Debug, Default, Clone, StateQuery, Serialize, Deserialize)]
#[state_query(OrderStream)]
struct Order {
    #[id]
    order_id: Uuid,
    customer: String,
    note: String,
    quantity: i64,
}

impl Order {
    fn new(order_id: Uuid) -> Self {
        Self {
            order_id,
            ..Self::default()
        }
    }
}

impl StateMutate for Order {
    fn mutate(&mut self, event: Self::Event) {
        match event {
            OrderStream::Placed {
                customer,
                note,
                quantity,
                ..
            } => {
                self.customer = customer;
                self.note = note;
                self.quantity = quantity;
            }
            OrderStream::Changed { by, note, .. } => {
                self.quantity += by;
                self.note = note;
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the order was not placed, or was already")]
struct Refused;

#[derive(Clone)]
struct Place {
    order_id: Uuid,
    placed: Placed,
}

impl Decision for Place {
    type Event = OrderEvent;
    type StateQuery = Order;
    type Error = Refused;

    fn state_query(&self) -> Order {
        Order::new(self.order_id)
    }

    fn process(&self, order: &Order) -> Result<Vec<OrderEvent>, Refused> {
        if !order.customer.is_empty() {
            return Err(Refused);
        }
        Ok(vec![OrderEvent::Placed {
            order_id: self.order_id,
            customer: self.placed.customer.clone(),
            note: self.placed.note.clone(),
            quantity: self.placed.quantity,
        }])
    }
}

#[derive(Clone)]
struct Change {
    order_id: Uuid,
    changed: Changed,
}

impl Decision for Change {
    type Event = OrderEvent;
    type StateQuery = Order;
    type Error = Refused;

    fn state_query(&self) -> Order {
        Order::new(self.order_id)
    }

    fn process(&self, order: &Order) -> Result<Vec<OrderEvent>, Refused> {
        if order.customer.is_empty() {
            return Err(Refused);
        }
        Ok(vec![OrderEvent::Changed {
            order_id: self.order_id,
            by: self.changed.by,
            note: self.changed.note.clone(),
        }])
    }
}

type Store = PgEventStore<OrderEvent, Json<OrderEvent>>;

/// Its event store and decision maker.
#[derive(Clone)]
pub(crate) struct Disintegrate {
    store: Store,
    maker: PgDecisionMaker<OrderEvent, Json<OrderEvent>, NoSnapshot>,
    states: EventSourcedStateStore<PgEventId, OrderEvent, Store, NoSnapshot>,
}

impl Disintegrate {
    /// Makes a decision, again as long as the database finds that it depends on others.
    async fn decide<D>(&self, decision: D) -> Result<u64>
    where
        D: Decision<Event = OrderEvent, StateQuery = Order, Error = Refused> + Clone,
    {
        let mut retries = 0;
        loop {
            match self.maker.make(decision.clone()).await {
                Ok(_) => return Ok(retries),
                Err(DecisionError::Domain(refused)) => return Err(refused.into()),
                Err(DecisionError::EventStore(error) | DecisionError::StateStore(error)) => {
                    if !is_serialization(error.downcast_ref()) {
                        return Err(anyhow!(error));
                    }
                }
            }
            retries += 1;
        }
    }
}

fn is_serialization(error: Option<&Error>) -> bool {
    match error {
        Some(Error::Concurrency) => true,
        Some(Error::Database(sqlx::Error::Database(error))) => {
            error.code().as_deref() == Some("40001")
        }
        _ => false,
    }
}

impl Rival for Disintegrate {
    const TRUNCATE: &'static str = "TRUNCATE event, event_listener, order_total";
    const FILL: &'static [&'static str] = &[concat!(
        "INSERT INTO event (event_type, payload, order_id) SELECT name, \
             convert_to(concat('{\"', name, '\":{\"order_id\":\"', id, '\",', fields, '}}'), \
             'UTF8'), id",
        seeds!()
    )];
    const HOLDS: &'static str = "SELECT count(DISTINCT order_id), count(*), \
         coalesce(sum(coalesce(json->'Placed'->>'quantity', json->'Changed'->>'by')::int8), \
         0)::int8 FROM event, convert_from(payload, 'UTF8') AS text, \
         LATERAL (SELECT text::json AS json) AS parsed";

    async fn setup(pool: &PgPool) -> Result<()> {
        pool.execute(include_str!("../../sql/disintegrate.sql"))
            .await?;
        pool.execute(READ_TABLE).await?;
        Ok(())
    }

    fn open(pool: &PgPool) -> Self {
        let store = PgEventStore::new_uninitialized(pool.clone(), Json::default());
        Self {
            maker: decision_maker(store.clone(), NoSnapshot),
            states: EventSourcedStateStore::new(store.clone(), NoSnapshot),
            store,
        }
    }

    async fn create(&self, placed: Placed) -> Result<u64> {
        self.decide(Place {
            order_id: Uuid::now_v7(),
            placed,
        })
        .await
    }

    async fn change(&self, order: Uuid, changed: Changed) -> Result<u64> {
        self.decide(Change {
            order_id: order,
            changed,
        })
        .await
    }

    async fn load(&self, order: Uuid) -> Result<i64> {
        let loaded = self.states.load(Order::new(order)).await;
        Ok(loaded.map_err(|error| anyhow!(error))?.state().quantity)
    }

    async fn replay(&self, pool: &PgPool, events: u64) -> Result<Duration> {
        let reached = Arc::new(Reached::default());
        let totals = Totals {
            query: disintegrate::query!(OrderStream),
            pool: pool.clone(),
            events,
            reached: Arc::clone(&reached),
        };
        let shutdown = Arc::clone(&reached);
        let begun = Instant::now();
        PgEventListener::builder(self.store.clone())
            .uninitialized()
            .register_listener(totals, PgEventListenerConfig::poller(POLL))
            .start_with_shutdown(async move { shutdown.all.notified().await })
            .await?;
        let elapsed = begun.elapsed();
        let seen = reached.events.load(Ordering::Relaxed);
        if seen != events {
            bail!("the listener saw {seen} events");
        }
        let checkpoint: i64 =
            sqlx::query_scalar("SELECT last_processed_event_id FROM event_listener")
                .fetch_one(pool)
                .await
                .context("the checkpoint")?;
        if checkpoint == 0 {
            bail!("the listener did not keep where it is");
        }
        Ok(elapsed)
    }
}

/// How often the listener looks; it begins at once.
const POLL: Duration = Duration::from_millis(50);

#[derive(Default)]
struct Reached {
    events: AtomicU64,
    all: Notify,
}

/// The pieces of each order, as the listener of its documentation keeps a read model.
struct Totals {
    query: StreamQuery<PgEventId, OrderStream>,
    pool: PgPool,
    events: u64,
    reached: Arc<Reached>,
}

#[async_trait]
impl EventListener<PgEventId, OrderStream> for Totals {
    type Error = sqlx::Error;

    fn id(&self) -> &'static str {
        "order_total"
    }

    fn query(&self) -> &StreamQuery<PgEventId, OrderStream> {
        &self.query
    }

    async fn handle(
        &self,
        event: PersistedEvent<PgEventId, OrderStream>,
    ) -> Result<(), sqlx::Error> {
        let (order, pieces) = match event.into_inner() {
            OrderStream::Placed {
                order_id, quantity, ..
            } => (order_id, quantity),
            OrderStream::Changed { order_id, by, .. } => (order_id, by),
        };
        sqlx::query(UPSERT)
            .bind(order)
            .bind(pieces)
            .execute(&self.pool)
            .await?;
        if self.reached.events.fetch_add(1, Ordering::Relaxed) + 1 == self.events {
            self.reached.all.notify_one();
        }
        Ok(())
    }
}
