//! The framework's side: what an application writes.

use std::sync::Arc;

use cqrs_core::{
    Envelope, EventHandler, Owned, Position, Projection, ProjectionTransaction, ReadModel, Result,
    RowProjection, Rows, TenantId,
};
use cqrs_sqlx::{Postgres, SqlTransaction};
use tokio::sync::watch;

use super::by_hand::{SEEN_SQL, driver_error};
use crate::domain::{OrderEvent, OrderId};

/// What was last seen of an order.
#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(table = "bench_seen", tenant)]
pub(super) struct Seen {
    #[read_model(key)]
    pub(super) id: OrderId,
    /// The position of the event.
    pub(super) last: i64,
    /// The quantity that it was about.
    pub(super) amount: i64,
}

impl Seen {
    fn of(event: &Envelope<OrderEvent>) -> Result<Self> {
        Ok(Self {
            id: event.aggregate_id()?,
            last: event.position().0,
            amount: match event.payload() {
                OrderEvent::Placed { quantity, .. } => *quantity,
                OrderEvent::Changed { by, .. } => *by,
            },
        })
    }
}

/// Says how far the log was applied.
#[derive(Debug, Clone)]
pub(super) struct Reached(Arc<watch::Sender<(Position, u64)>>);

impl Default for Reached {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new((Position::START, 0))))
    }
}

impl Reached {
    fn tell<E>(&self, page: &[Envelope<E>]) {
        if let Some(last) = page.last() {
            self.0.send_modify(|(position, events)| {
                *position = last.position().max(*position);
                *events += page.len() as u64;
            });
        }
    }

    /// Returns when a page up to this position, or behind it, was applied.
    pub(super) async fn position(&self, position: i64) {
        let mut reached = self.0.subscribe();
        // The sender is this value's own.
        let _ = reached.wait_for(|(at, _)| at.0 >= position).await;
    }

    /// Returns when so many events were applied.
    pub(super) async fn events(&self, events: u64) {
        let mut reached = self.0.subscribe();
        let _ = reached.wait_for(|(_, seen)| *seen >= events).await;
    }
}

/// A page, one statement.
#[derive(Debug, Default)]
pub(super) struct Bulk(pub(super) Reached);

impl<T: ProjectionTransaction> Projection<T> for Bulk {
    type Event = OrderEvent;

    fn name(&self) -> &str {
        "bench_bulk"
    }

    fn is_splittable(&self) -> bool {
        true
    }

    fn writes_rows_alone(&self) -> bool {
        true
    }

    async fn apply(&self, page: &[Envelope<OrderEvent>], transaction: &mut T) -> Result<()> {
        let mut rows = Vec::with_capacity(page.len());
        for event in page {
            rows.push(Owned {
                tenant: event.tenant().cloned(),
                row: Seen::of(event)?,
            });
        }
        transaction.upsert(&rows).await?;
        self.0.tell(page);
        Ok(())
    }
}

/// A fold: the framework loads and writes the rows.
#[derive(Debug)]
pub(super) struct Fold;

impl RowProjection for Fold {
    type Event = OrderEvent;
    type Row = Seen;

    const NAME: &'static str = "bench_fold";
    const ROW_PER_AGGREGATE: bool = true;

    fn key(&self, event: &Envelope<OrderEvent>) -> Result<Option<OrderId>> {
        Ok(Some(event.aggregate_id()?))
    }

    fn apply(&self, row: &mut Option<Seen>, event: &Envelope<OrderEvent>) -> Result<()> {
        *row = Some(Seen::of(event)?);
        Ok(())
    }
}

/// A fold that says how far it has come.
#[derive(Debug)]
pub(super) struct Folding(pub(super) Reached);

impl<T: ProjectionTransaction> Projection<T> for Folding {
    type Event = OrderEvent;

    fn name(&self) -> &str {
        Fold::NAME
    }

    fn is_splittable(&self) -> bool {
        true
    }

    fn writes_rows_alone(&self) -> bool {
        true
    }

    async fn apply(&self, page: &[Envelope<OrderEvent>], transaction: &mut T) -> Result<()> {
        Rows(Fold).apply(page, transaction).await?;
        self.0.tell(page);
        Ok(())
    }
}

/// An event, one statement.
#[derive(Debug)]
pub(super) struct Each;

impl EventHandler<SqlTransaction<Postgres>> for Each {
    type Event = OrderEvent;

    fn name(&self) -> &str {
        "bench_each"
    }

    async fn handle(
        &self,
        event: &Envelope<OrderEvent>,
        transaction: &mut SqlTransaction<Postgres>,
    ) -> Result<()> {
        let seen = Seen::of(event)?;
        sqlx::query(SEEN_SQL)
            .bind(event.tenant().map(TenantId::as_str))
            .bind(seen.id.uuid())
            .bind(seen.last)
            .bind(seen.amount)
            .execute(transaction.connection())
            .await
            .map_err(driver_error)?;
        Ok(())
    }
}
