#[path = "../support.rs"]
mod support;

use cqrs_core::{Aggregate, Root};
use support::*;

#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "plan", event = RoutePlanEvent)]
struct Plan {
    #[aggregate(id, root)]
    id: Root<RoutePlanEvent>,
}

fn main() {}
