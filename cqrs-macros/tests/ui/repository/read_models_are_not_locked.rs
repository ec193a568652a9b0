#[path = "../support.rs"]
mod support;

use cqrs_core::{Id, ReadModel, ReadModelRepository, Result, repository};
use support::*;

#[derive(Debug, Clone, ReadModel)]
#[read_model(table = "route_row", tenant)]
struct RouteRow {
    #[read_model(key)]
    id: Id<RoutePlan>,
    priority: i32,
}

#[repository]
trait RouteRows: ReadModelRepository<RouteRow> {
    #[find(priority > 3, lock)]
    async fn a(&self) -> Result<Vec<RouteRow>>;
}

fn main() {}
