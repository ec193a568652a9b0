#[path = "../support.rs"]
mod support;

use cqrs_core::{Id, Result, Store, UnitOfWork};
use support::*;

async fn load<S: Store>(store: S, id: Id<RoutePlan>) -> Result<RoutePlan> {
    store.unit_of_work().get(id).await
}

async fn read<S: Store>(store: S) {
    let _ = store.read_models();
}

fn main() {}
