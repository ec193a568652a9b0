#[path = "../support.rs"]
mod support;

use cqrs_core::{Id, Result, Store};
use support::*;

async fn from_the_type(id: Id<RoutePlan>) -> Result<RoutePlan> {
    RoutePlan::get(id).await
}

async fn from_the_store<S: Store>(store: S, id: Id<RoutePlan>) -> Result<RoutePlan> {
    store.get(id).await
}

async fn saved_to_the_store<S: Store>(store: S, plan: RoutePlan) -> Result<()> {
    store.save(plan)
}

fn main() {}
