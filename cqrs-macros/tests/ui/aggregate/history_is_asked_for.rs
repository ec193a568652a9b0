#[path = "../support.rs"]
mod support;

use cqrs_core::{
    Aggregate, AsOf, EventHistory, Id, InMemoryStore, PageRequest, RequestContext, Root, Store,
    UnitOfWork,
};
use support::*;

#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "plan", event = RoutePlanEvent)]
struct Plan {
    #[aggregate(id)]
    id: Id<Plan>,
    #[aggregate(root)]
    root: Root<RoutePlanEvent>,
}

fn main() {
    let mut uow = InMemoryStore::new().unit_of_work(&RequestContext::system());
    let mut plans = uow.repository::<Plan>();
    let _ = plans.find_as_of(Id::new(), AsOf::Version(1));
    let _ = plans.revisions(Id::new(), PageRequest::first(10));
}
