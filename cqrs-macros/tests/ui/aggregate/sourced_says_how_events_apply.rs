#[path = "../support.rs"]
mod support;

use cqrs_core::{Aggregate, Id, Root};
use support::*;

#[derive(Debug, Clone, Aggregate)]
#[aggregate(sourced, event = RoutePlanEvent)]
struct Plan {
    #[aggregate(id)]
    id: Id<Plan>,
    #[aggregate(root)]
    root: Root<RoutePlanEvent>,
}

fn main() {}
