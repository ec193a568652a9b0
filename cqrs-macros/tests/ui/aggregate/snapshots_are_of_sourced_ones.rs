#[path = "../support.rs"]
mod support;

use cqrs_core::{Aggregate, Id, Root, Sourced};
use support::*;

#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "plan", event = RoutePlanEvent, snapshot(every = 10))]
struct Stored {
    #[aggregate(id)]
    id: Id<Stored>,
    #[aggregate(root)]
    root: Root<RoutePlanEvent>,
}

#[derive(Debug, Clone, Aggregate)]
#[aggregate(sourced, event = RoutePlanEvent, snapshot(every = 0))]
struct TooOften {
    #[aggregate(id)]
    id: Id<TooOften>,
    #[aggregate(root)]
    root: Root<RoutePlanEvent>,
}

impl Sourced for TooOften {
    fn apply(&mut self, _: &RoutePlanEvent) {}
}

#[derive(Debug, Clone, Aggregate)]
#[aggregate(sourced, event = RoutePlanEvent, snapshot(version = 2))]
struct Never {
    #[aggregate(id)]
    id: Id<Never>,
    #[aggregate(root)]
    root: Root<RoutePlanEvent>,
}

impl Sourced for Never {
    fn apply(&mut self, _: &RoutePlanEvent) {}
}

fn main() {}
