#[path = "../support.rs"]
mod support;

use cqrs_core::{Aggregate, Id, Root};
use support::*;

#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "plan", event = RoutePlanEvent, audit)]
struct Plan {
    #[aggregate(id)]
    id: Id<Plan>,
    #[aggregate(root)]
    root: Root<RoutePlanEvent>,
    created_at: i64,
    #[mapper(column = "updated_by")]
    editor: String,
}

fn main() {}
