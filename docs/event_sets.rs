//! What the page on projections shows of several aggregates.

use cqrs_core::testing::projection;
use cqrs_core::{
    Aggregate, DomainEvent, Entity, Envelope, EventSet, Id, ReadModel, ReadModels, RequestContext,
    Result, Root, RowProjection, Store, TenantId, UnitOfWork,
};
use cqrs_sqlx::SqliteStore;
use serde::{Deserialize, Serialize};

use super::{Order, OrderEvent};

#[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "payment")]
enum PaymentEvent {
    Received { order: Id<Order>, cents: i64 },
    Refunded { order: Id<Order>, cents: i64 },
}

#[derive(Debug, EventSet)]
enum CheckoutEvent {
    Order(OrderEvent),
    Payment(PaymentEvent),
}

impl CheckoutEvent {
    fn order(event: &Envelope<Self>) -> Result<Id<Order>> {
        Ok(match event.payload() {
            Self::Order(_) => event.aggregate_id()?,
            Self::Payment(
                PaymentEvent::Received { order, .. } | PaymentEvent::Refunded { order, .. },
            ) => *order,
        })
    }
}

#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(table = "checkout", tenant)]
struct CheckoutRow {
    #[read_model(key)]
    order: Id<Order>,
    customer: String,
    received: i64,
}

struct Checkouts;

impl RowProjection for Checkouts {
    type Event = CheckoutEvent;
    type Row = CheckoutRow;
    const NAME: &'static str = "checkout";

    fn key(&self, event: &Envelope<CheckoutEvent>) -> Result<Option<Id<Order>>> {
        CheckoutEvent::order(event).map(Some)
    }

    fn apply(&self, row: &mut Option<CheckoutRow>, event: &Envelope<CheckoutEvent>) -> Result<()> {
        let order = CheckoutEvent::order(event)?;
        let row = row.get_or_insert_with(|| CheckoutRow {
            order,
            customer: String::new(),
            received: 0,
        });
        match event.payload() {
            CheckoutEvent::Order(OrderEvent::Placed { customer }) => {
                row.customer.clone_from(customer);
            }
            CheckoutEvent::Order(OrderEvent::Paid) => {}
            CheckoutEvent::Payment(PaymentEvent::Received { cents, .. }) => row.received += cents,
            CheckoutEvent::Payment(PaymentEvent::Refunded { cents, .. }) => row.received -= cents,
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "payment", event = PaymentEvent, tenant)]
struct Payment {
    #[aggregate(id)]
    id: Id<Payment>,
    #[aggregate(root)]
    root: Root<PaymentEvent>,
}

impl Payment {
    fn receive(order: Id<Order>, cents: i64) -> Self {
        let mut root = Root::new();
        root.raise(PaymentEvent::Received { order, cents });
        Self {
            id: Id::new(),
            root,
        }
    }
}

#[test]
fn a_row_is_of_two_aggregates() {
    let (order, customer) = (Id::new(), "Ada".to_owned());
    projection(Checkouts)
        .of_tenant(TenantId::new("north").unwrap())
        .given(order, [OrderEvent::Placed { customer }])
        .given("P1", [PaymentEvent::Received { order, cents: 500 }])
        .given("P2", [PaymentEvent::Refunded { order, cents: 200 }])
        .then_row(order, |row| assert_eq!(row.received, 300));
}

#[tokio::test]
async fn it_is_kept_by_a_projector() -> Result<()> {
    let store = SqliteStore::connect("sqlite::memory:").await?;
    store.migrate().await?;
    let tables = [Order::table(), Payment::table(), CheckoutRow::table()];
    store.create_tables(&tables).await?;
    let ctx = RequestContext::tenant(TenantId::new("north")?);
    let order = Order::place("Ada");
    let id = order.id;
    store
        .execute(&ctx, async |uow| {
            uow.save(order.clone())?;
            uow.save(Payment::receive(id, 500))
        })
        .await?;
    store.projector().rows(Checkouts).run_until_idle().await?;
    let row = store.read_models(&ctx).find::<CheckoutRow>(id).await?;
    let expected = CheckoutRow {
        order: id,
        customer: "Ada".to_owned(),
        received: 500,
    };
    assert_eq!(row, Some(expected));
    Ok(())
}
