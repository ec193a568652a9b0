#[path = "../support.rs"]
mod support;

use cqrs_core::{Aggregate, Id, Root};
use support::*;

#[derive(Debug, Clone, Aggregate)]
#[aggregate(tabel = "plan", event = RoutePlanEvent)]
struct Plan {
    #[aggregate(id)]
    id: Id<Plan>,
    #[aggregate(root)]
    root: Root<RoutePlanEvent>,
    priority: i32,
}

fn is_urgent(plan: &mut Plan) -> bool {
    use cqrs_core::AggregateRoot;
    plan.root_mut().raise(RoutePlanEvent::Created);
    let _ = Plan::fields().priority.ge(3);
    plan.id().to_string().is_empty()
}

fn main() {}
