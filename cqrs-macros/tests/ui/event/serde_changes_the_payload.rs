use cqrs_core::DomainEvent;
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "plan")]
#[serde(tag = "type", content = "content")]
enum Event {
    Created,
}

fn main() {}
