use cqrs_core::DomainEvent;
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "plan")]
#[serde(transparent)]
struct Event {
    stops: u32,
}

fn main() {}
