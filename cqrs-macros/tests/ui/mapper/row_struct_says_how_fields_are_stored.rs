#[path = "../support.rs"]
mod support;

use cqrs_core::mapping::RowMapper;
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
    #[mapper(json)]
    priority: i32,
}

#[derive(Record)]
struct PlanRow {
    #[record(key)]
    id: Id<Plan>,
}

impl RowMapper<Plan> for PlanRow {
    type Error = std::convert::Infallible;

    fn from_aggregate(_: &Plan) -> Self {
        loop {}
    }

    fn into_aggregate(self, _: Root<RoutePlanEvent>) -> Result<Plan, Self::Error> {
        loop {}
    }
}

fn main() {}
