//! What is written: orders that are placed and changed.

use cqrs_core::{Aggregate, DomainEvent, Id, Repository, Result, Root, repository};
use serde::{Deserialize, Serialize};

/// What happens to an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "order")]
pub(crate) enum OrderEvent {
    /// It was placed.
    Placed {
        /// By whom.
        customer: String,
        /// What the customer asks for.
        note: String,
        /// How many pieces.
        quantity: i64,
    },
    /// Its quantity changed.
    Changed {
        /// By how many pieces.
        by: i64,
        /// Why.
        note: String,
    },
}

/// The id of an order.
pub(crate) type OrderId = Id<Order>;

/// An order. It has every column that the framework can keep with an aggregate.
#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "bench_order", event = OrderEvent, tenant, audit, soft_delete)]
pub(crate) struct Order {
    #[aggregate(id)]
    id: OrderId,
    #[aggregate(root)]
    root: Root<OrderEvent>,
    customer: String,
    note: String,
    quantity: i64,
}

/// The command to place an order.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// By whom.
    pub(crate) customer: String,
    /// What the customer asks for.
    pub(crate) note: String,
    /// How many pieces.
    pub(crate) quantity: i64,
}

/// The command to change an order.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    /// Which order.
    pub(crate) id: OrderId,
    /// By how many pieces.
    pub(crate) by: i64,
    /// Why.
    pub(crate) note: String,
}

impl Order {
    /// Places an order.
    pub(crate) fn place(command: &Place) -> Self {
        let mut root = Root::new();
        root.raise(OrderEvent::Placed {
            customer: command.customer.clone(),
            note: command.note.clone(),
            quantity: command.quantity,
        });
        Self {
            id: Id::new(),
            root,
            customer: command.customer.clone(),
            note: command.note.clone(),
            quantity: command.quantity,
        }
    }

    /// How many pieces.
    pub(crate) fn quantity(&self) -> i64 {
        self.quantity
    }

    /// Changes the order.
    pub(crate) fn change(&mut self, command: &Change) {
        self.quantity += command.by;
        self.note.clone_from(&command.note);
        self.root.raise(OrderEvent::Changed {
            by: command.by,
            note: command.note.clone(),
        });
    }
}

/// Orders.
#[repository]
pub(crate) trait Orders: Repository<Order> {
    /// The smallest first.
    #[find(quantity > 0, order_by(quantity.asc()))]
    async fn find_placed(&mut self, limit: u32) -> Result<Vec<Order>>;
}
