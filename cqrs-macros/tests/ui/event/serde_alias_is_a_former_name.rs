use cqrs_core::DomainEvent;
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "plan")]
enum Event {
    Created,
    #[serde(alias = "Altered")]
    Changed,
}

fn main() {}
