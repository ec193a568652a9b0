#[path = "../support.rs"]
mod support;

use cqrs_core::{Aggregate, Id};
use support::*;

#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "plan", event = RoutePlanEvent)]
struct Plan {
    #[aggregate(id)]
    id: Id<Plan>,
    #[aggregate(root)]
    root: u64,
}

fn main() {}
