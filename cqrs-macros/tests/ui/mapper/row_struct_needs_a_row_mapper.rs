#[path = "../support.rs"]
mod support;

use cqrs_core::{Aggregate, Id, Record, Root};
use support::*;

#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "plan", event = RoutePlanEvent)]
#[mapper(row = PlanRow)]
struct Plan {
    #[aggregate(id)]
    id: Id<Plan>,
    #[aggregate(root)]
    root: Root<RoutePlanEvent>,
    priority: i32,
}

#[derive(Record)]
struct PlanRow {
    #[record(key)]
    id: Id<Plan>,
}

fn main() {}
