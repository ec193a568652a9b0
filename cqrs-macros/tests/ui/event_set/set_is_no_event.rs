use cqrs_core::{DomainEvent, EventSet};
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize, DomainEvent, EventSet)]
#[event(aggregate = "order")]
enum OrderEvent {
    Placed,
}

fn main() {}
