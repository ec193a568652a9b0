//! The framework's orders: event-sourced, with and without snapshots, and what reads their events.
//! Those that are stored as a row are those of the other parts.

use std::collections::BTreeMap;

use cqrs_core::{
    Aggregate, AggregateRoot, Envelope, EventHandler, Id, Projection, ReadModel, Result, Root,
    RowProjection, Sourced, SourcedState as _, TenantId,
};
use cqrs_sqlx::{Postgres, SqlTransaction};

use super::protocol::{Changed, Placed};
use crate::domain::{Change, Order, OrderEvent, Place};

/// An order, in whatever form.
pub(super) trait AnyOrder: AggregateRoot<Id = Id<Self>> {
    /// Places an order.
    fn place(placed: Placed) -> Self;

    /// Changes the order.
    fn change(&mut self, changed: Changed);

    /// How many pieces.
    fn quantity(&self) -> i64;
}

impl AnyOrder for Order {
    fn place(placed: Placed) -> Self {
        Self::place(&Place {
            customer: placed.customer,
            note: placed.note,
            quantity: placed.quantity,
        })
    }

    fn change(&mut self, changed: Changed) {
        let change = Change {
            id: *self.id(),
            by: changed.by,
            note: changed.note,
        };
        Self::change(self, &change);
    }

    fn quantity(&self) -> i64 {
        Self::quantity(self)
    }
}

macro_rules! order {
    ($name:ident $($snapshot:tt)*) => {
        #[derive(Debug, Clone, Aggregate)]
        #[aggregate(sourced, event = OrderEvent, tenant $($snapshot)*)]
        pub(super) struct $name {
            #[aggregate(id)]
            id: Id<$name>,
            #[aggregate(root)]
            root: Root<OrderEvent>,
            customer: String,
            note: String,
            quantity: i64,
        }

        impl Sourced for $name {
            fn apply(&mut self, event: &OrderEvent) {
                match event {
                    OrderEvent::Placed {
                        customer,
                        note,
                        quantity,
                    } => {
                        self.customer.clone_from(customer);
                        self.note.clone_from(note);
                        self.quantity = *quantity;
                    }
                    OrderEvent::Changed { by, note } => {
                        self.quantity += by;
                        self.note.clone_from(note);
                    }
                }
            }
        }

        impl AnyOrder for $name {
            fn place(placed: Placed) -> Self {
                let mut order = Self::blank(Id::new());
                order.raise(OrderEvent::Placed {
                    customer: placed.customer,
                    note: placed.note,
                    quantity: placed.quantity,
                });
                order
            }

            fn change(&mut self, changed: Changed) {
                self.raise(OrderEvent::Changed {
                    by: changed.by,
                    note: changed.note,
                });
            }

            fn quantity(&self) -> i64 {
                self.quantity
            }
        }
    };
}

order!(SourcedOrder);
order!(KeptOrder, snapshot(every = 100));

fn pieces(event: &OrderEvent) -> i64 {
    match event {
        OrderEvent::Placed { quantity, .. } => *quantity,
        OrderEvent::Changed { by, .. } => *by,
    }
}

/// The pieces of an order.
#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(table = "order_total", tenant)]
pub(super) struct OrderTotal {
    #[read_model(key)]
    id: Id<SourcedOrder>,
    quantity: i64,
}

/// A fold: the framework loads and writes the rows.
#[derive(Debug)]
pub(super) struct Totals;

impl RowProjection for Totals {
    type Event = OrderEvent;
    type Row = OrderTotal;

    const NAME: &'static str = "order_total";

    fn key(&self, event: &Envelope<OrderEvent>) -> Result<Option<Id<SourcedOrder>>> {
        Ok(Some(event.aggregate_id()?))
    }

    fn apply(&self, row: &mut Option<OrderTotal>, event: &Envelope<OrderEvent>) -> Result<()> {
        let id = event.aggregate_id()?;
        row.get_or_insert(OrderTotal { id, quantity: 0 }).quantity += pieces(event.payload());
        Ok(())
    }
}

/// A statement for each event, as the handlers of the rivals have it.
#[derive(Debug)]
pub(super) struct EachTotal;

impl EventHandler<SqlTransaction<Postgres>> for EachTotal {
    type Event = OrderEvent;

    fn name(&self) -> &str {
        "order_total_each"
    }

    async fn handle(
        &self,
        event: &Envelope<OrderEvent>,
        transaction: &mut SqlTransaction<Postgres>,
    ) -> Result<()> {
        let id: Id<SourcedOrder> = event.aggregate_id()?;
        sqlx::query(
            "INSERT INTO order_total (tenant_id, id, quantity) VALUES ($1, $2, $3) \
             ON CONFLICT (tenant_id, id) \
             DO UPDATE SET quantity = order_total.quantity + excluded.quantity",
        )
        .bind(event.tenant().map(TenantId::as_str))
        .bind(id.uuid())
        .bind(pieces(event.payload()))
        .execute(transaction.connection())
        .await
        .map_err(cqrs_core::Error::other)?;
        Ok(())
    }
}

/// A statement for each page, which adds to the rows, as the handler of obix has one.
#[derive(Debug)]
pub(super) struct BulkTotal;

impl Projection<SqlTransaction<Postgres>> for BulkTotal {
    type Event = OrderEvent;

    fn name(&self) -> &str {
        "order_total_bulk"
    }

    async fn apply(
        &self,
        page: &[Envelope<OrderEvent>],
        transaction: &mut SqlTransaction<Postgres>,
    ) -> Result<()> {
        let mut added: BTreeMap<(&str, Id<SourcedOrder>), i64> = BTreeMap::new();
        for event in page {
            let tenant = event.tenant().map_or("", TenantId::as_str);
            let key = (tenant, event.aggregate_id()?);
            *added.entry(key).or_default() += pieces(event.payload());
        }
        let tenants: Vec<&str> = added.keys().map(|(tenant, _)| *tenant).collect();
        let ids: Vec<_> = added.keys().map(|(_, id)| id.uuid()).collect();
        let quantities: Vec<i64> = added.into_values().collect();
        sqlx::query(
            "INSERT INTO order_total (tenant_id, id, quantity) \
             SELECT * FROM unnest($1::text[], $2::uuid[], $3::int8[]) \
             ON CONFLICT (tenant_id, id) \
             DO UPDATE SET quantity = order_total.quantity + excluded.quantity",
        )
        .bind(tenants)
        .bind(ids)
        .bind(quantities)
        .execute(transaction.connection())
        .await
        .map_err(cqrs_core::Error::other)?;
        Ok(())
    }
}
