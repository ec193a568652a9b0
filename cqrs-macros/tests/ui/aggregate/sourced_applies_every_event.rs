use cqrs_core::{Aggregate, DomainEvent, Root, Sourced};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "plan")]
enum PlanEvent {
    Created,
    Closed,
}

#[derive(Debug, Clone, Aggregate)]
#[aggregate(sourced, event = PlanEvent)]
struct Plan {
    #[aggregate(id)]
    id: i64,
    #[aggregate(root)]
    root: Root<PlanEvent>,
    is_there: bool,
}

impl Sourced for Plan {
    fn apply(&mut self, event: &PlanEvent) {
        match event {
            PlanEvent::Created => self.is_there = true,
        }
    }
}

fn main() {}
