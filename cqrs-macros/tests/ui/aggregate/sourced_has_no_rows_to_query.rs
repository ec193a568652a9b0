#[path = "../support.rs"]
mod support;

use cqrs_core::{
    Aggregate, Id, InMemoryStore, Query, RequestContext, Root, Sourced, Store, UnitOfWork,
};
use support::*;

#[derive(Debug, Clone, Aggregate)]
#[aggregate(sourced, event = RoutePlanEvent)]
struct Plan {
    #[aggregate(id)]
    id: Id<Plan>,
    #[aggregate(root)]
    root: Root<RoutePlanEvent>,
}

impl Sourced for Plan {
    fn apply(&mut self, _: &RoutePlanEvent) {}
}

fn main() {
    let mut uow = InMemoryStore::new().unit_of_work(&RequestContext::system());
    let _ = uow.query::<Plan>(Query::all());
}
