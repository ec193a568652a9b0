use cqrs_core::DomainEvent;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "plan")]
enum PlanEvent {
    #[event(was("plan.sent"))]
    Created,
    #[event(was("plan.left", "plan.left", "cqrs.left"))]
    Sent,
    #[event(was)]
    Lost,
}

fn main() {}
