use cqrs_core::DomainEvent;
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "plan", name = "plan.x")]
enum Event {
    Created,
}

fn main() {}
