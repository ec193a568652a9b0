#![allow(unused_imports, non_camel_case_types)]

#[path = "../support.rs"]
mod support;

use cqrs_core::{Aggregate, Id, Root};
use support::*;

#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "plan", event = RoutePlanEvent)]
struct Plan {
    #[aggregate(id)]
    id: Id<Plan>,
}

fn main() {}
