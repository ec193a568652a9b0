#[path = "../support.rs"]
mod support;

use cqrs_core::{Aggregate, Id, Root, Sourced};
use support::*;

#[derive(Debug, Clone)]
enum Status {
    Ready,
}

#[derive(Debug, Clone, Aggregate)]
#[aggregate(sourced, event = RoutePlanEvent)]
struct Plan {
    #[aggregate(id)]
    id: Id<Plan>,
    #[aggregate(root)]
    root: Root<RoutePlanEvent>,
    status: Status,
}

impl Sourced for Plan {
    fn apply(&mut self, _: &RoutePlanEvent) {
        self.status = Status::Ready;
    }
}

fn main() {}
