use cqrs_core::{DomainEvent, EventSet};
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "order")]
enum OrderEvent {
    Placed,
}

#[derive(EventSet)]
enum Inner {
    Order(OrderEvent),
}

#[derive(EventSet)]
enum Outer {
    Inner(Inner),
}

fn main() {}
