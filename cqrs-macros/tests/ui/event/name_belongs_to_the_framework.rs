use cqrs_core::DomainEvent;
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "plan")]
enum Event {
    #[event(name = "cqrs.created")]
    Created,
}

fn main() {}
