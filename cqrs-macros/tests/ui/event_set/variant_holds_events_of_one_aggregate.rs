use cqrs_core::{DomainEvent, EventSet};
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "order")]
enum OrderEvent {
    Placed,
}

#[derive(EventSet)]
enum Checkout {
    Order(OrderEvent),
    Nothing,
    Both(OrderEvent, OrderEvent),
    Named { event: OrderEvent },
    None(),
}

fn main() {}
