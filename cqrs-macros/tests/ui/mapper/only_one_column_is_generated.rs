#[path = "../support.rs"]
mod support;

use cqrs_core::{Aggregate, Child, Id, Root, ValueObject};
use support::*;

#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "plan", event = RoutePlanEvent)]
struct Plan {
    #[aggregate(id)]
    id: Id<Plan>,
    #[aggregate(root)]
    root: Root<RoutePlanEvent>,
    #[mapper(flatten, generated)]
    depot: Depot,
    #[mapper(children(table = "plan_stop"), read_only)]
    stops: Vec<Stop>,
    #[mapper(generated, read_only)]
    total: i64,
}

#[derive(Debug, Clone, Child)]
struct Stop {
    city: String,
}

#[derive(Debug, Clone, ValueObject)]
struct Depot {
    city: String,
}

fn main() {}
