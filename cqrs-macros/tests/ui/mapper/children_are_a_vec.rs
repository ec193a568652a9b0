#[path = "../support.rs"]
mod support;

use cqrs_core::{Aggregate, Child, Id, Root};
use support::*;

#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "plan", event = RoutePlanEvent)]
struct Plan {
    #[aggregate(id)]
    id: Id<Plan>,
    #[aggregate(root)]
    root: Root<RoutePlanEvent>,
    #[mapper(children(table = "plan_stop"))]
    stop: Option<Stop>,
}

#[derive(Debug, Clone, Child)]
struct Stop {
    city: String,
}

fn main() {}
