//! What is written: orders that are placed and changed.

use cqrs_core::{Aggregate, Child, DomainEvent, Id, Repository, Result, Root, repository};
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

    /// How many are smaller.
    #[find(quantity < pieces)]
    async fn count_below(&mut self, pieces: i64) -> Result<u64>;
}

/// What happens to a basket.
#[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "basket")]
pub(crate) enum BasketEvent {
    /// It was filled.
    Filled,
}

/// A line of a basket.
#[derive(Debug, Clone, PartialEq, Child)]
pub(crate) struct Line {
    article: String,
    pieces: i64,
}

/// A basket, with its lines in a table of their own.
#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "bench_basket", event = BasketEvent, tenant)]
pub(crate) struct Basket {
    #[aggregate(id)]
    id: Id<Basket>,
    #[aggregate(root)]
    root: Root<BasketEvent>,
    number: i64,
    #[mapper(children(table = "bench_line", order = "seq", parent = "basket_id"))]
    lines: Vec<Line>,
}

impl Basket {
    /// Fills one with so many lines.
    pub(crate) fn fill(number: i64, lines: i64) -> Self {
        let mut root = Root::new();
        root.raise(BasketEvent::Filled);
        let lines = (1..=lines).map(|line| Line {
            article: format!("article {line}"),
            pieces: line,
        });
        Self {
            id: Id::new(),
            root,
            number,
            lines: lines.collect(),
        }
    }

    /// The sum of the pieces of its lines.
    pub(crate) fn pieces(&self) -> i64 {
        self.lines.iter().map(|line| line.pieces).sum()
    }
}
