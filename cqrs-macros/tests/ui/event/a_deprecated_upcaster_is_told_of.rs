#![deny(deprecated)]

use cqrs_core::DomainEvent;
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "plan")]
enum PlanEvent {
    #[event(version = 2, upcast(1 = older))]
    Started,
}

#[deprecated(note = "by another")]
fn older(payload: Value) -> Value {
    payload
}

fn main() {}
