use cqrs_core::DomainEvent;
use serde::{Deserialize, Serialize};

struct Old;

#[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "plan")]
enum PlanEvent {
    #[event(version = 2, upcast(1 = from_old))]
    Created { number: i64 },
}

fn from_old(_: Old) -> i64 {
    1
}

fn main() {}
