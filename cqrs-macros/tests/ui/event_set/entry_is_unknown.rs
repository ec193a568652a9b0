use cqrs_core::{DomainEvent, EventSet};
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "order")]
enum OrderEvent {
    Placed,
}

#[derive(EventSet)]
#[event_set(name = "checkout")]
enum Checkout {
    #[event_set(crate = "cqrs_core")]
    Order(OrderEvent),
}

fn main() {}
