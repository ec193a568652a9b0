use cqrs_core::DomainEvent;
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize, DomainEvent)]
#[event(agregate = "plan")]
enum Event {
    #[event(colour = "red")]
    Created,
}

fn main() {}
