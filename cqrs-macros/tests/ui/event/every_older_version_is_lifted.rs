use cqrs_core::DomainEvent;
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "plan")]
enum PlanEvent {
    #[event(version = 2)]
    Created,
    #[event(version = 4, upcast(2 = same))]
    Sent,
    #[event(version = 4, since = 2, upcast(1 = same, 2 = same, 2 = same))]
    Closed,
    #[event(version = 2, since = 3)]
    Lost,
    #[event(upcast(1 = same))]
    Found,
    #[event(version = 2, upcast)]
    Moved,
}

fn same(old: Value) -> Value {
    old
}

fn main() {}
