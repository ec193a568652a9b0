use cqrs_core::{DomainEvent, EventSet};
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "order")]
enum OrderEvent {
    Placed,
}

#[derive(EventSet)]
struct Checkout {
    order: OrderEvent,
}

fn main() {}
