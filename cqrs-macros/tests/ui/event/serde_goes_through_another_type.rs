use cqrs_core::DomainEvent;
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "plan")]
#[serde(from = "String", into = "String")]
enum Event {
    Created,
}

impl From<String> for Event {
    fn from(_: String) -> Self {
        Self::Created
    }
}

impl From<Event> for String {
    fn from(_: Event) -> Self {
        Self::new()
    }
}

fn main() {}
