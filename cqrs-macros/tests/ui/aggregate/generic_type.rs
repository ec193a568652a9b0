#[path = "../support.rs"]
mod support;

use cqrs_core::{Aggregate, Id, Root};
use support::*;

#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "plan", event = RoutePlanEvent)]
struct Plan<T> {
    #[aggregate(id)]
    id: Id<RoutePlan>,
    #[aggregate(root)]
    root: Root<RoutePlanEvent>,
    what: T,
}

fn main() {}
