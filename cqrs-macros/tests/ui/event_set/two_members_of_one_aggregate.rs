use cqrs_core::{DomainEvent, EventSet};
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "order")]
enum OrderEvent {
    Placed,
}

#[derive(Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "order")]
enum ShippedOrderEvent {
    Shipped,
}

#[derive(EventSet)]
enum Checkout {
    Order(OrderEvent),
    Shipping(ShippedOrderEvent),
}

fn main() {}
