use cqrs_core::DomainEvent;
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = route_plan)]
enum Event {
    Created,
}

fn main() {}
