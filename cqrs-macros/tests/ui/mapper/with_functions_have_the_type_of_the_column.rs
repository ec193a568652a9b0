#[path = "../support.rs"]
mod support;

use cqrs_core::{Aggregate, Id, Root};
use support::*;

#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "plan", event = RoutePlanEvent)]
struct Plan {
    #[aggregate(id)]
    id: Id<Plan>,
    #[aggregate(root)]
    root: Root<RoutePlanEvent>,
    #[mapper(with = module, as = i64)]
    priority: i32,
}

mod module {
    pub fn to_column(value: &i32) -> String {
        value.to_string()
    }

    pub fn from_column(column: i64) -> Result<i32, String> {
        i32::try_from(column).map_err(|error| error.to_string())
    }
}

fn main() {}
