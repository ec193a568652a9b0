use cqrs_core::DomainEvent;
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "plan")]
enum Event {
    #[event(version = 0)]
    Created,
    #[event(version = -1)]
    Changed,
    #[event(version = "2")]
    Closed,
}

fn main() {}
