#[path = "../support.rs"]
mod support;

use cqrs_core::{Aggregate, Id, Root, Sourced};
use support::*;

#[derive(Debug, Clone, Aggregate)]
#[aggregate(sourced, table = "plan", event = RoutePlanEvent, tenant = "org", soft_delete, audit, history)]
struct Plan {
    #[aggregate(id)]
    id: Id<Plan>,
    #[aggregate(root)]
    root: Root<RoutePlanEvent>,
    #[mapper(json)]
    tags: Vec<String>,
}

impl Sourced for Plan {
    fn apply(&mut self, _: &RoutePlanEvent) {}
}

fn main() {}
