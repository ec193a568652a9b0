#[path = "../support.rs"]
mod support;

use cqrs_core::{Id, ReadModel, ReadModelRepository, Result, SqlQueries, repository};
use support::*;

#[derive(Debug, Clone, ReadModel)]
#[read_model(table = "route_row", tenant)]
struct RouteRow {
    #[read_model(key)]
    id: Id<RoutePlan>,
    priority: i32,
}

#[repository]
trait RoutePlans: ReadModelRepository<RouteRow> + SqlQueries {
    #[sql("SELECT priority FROM route_row WHERE tenant_id = :tenant")]
    async fn a(&self) -> Result<Vec<i32>>;

    #[sql("SELECT priority FROM route_row WHERE tenant_id = :tenant FOR UPDATE", lock)]
    async fn b(&self) -> Result<Vec<i32>>;
}

fn main() {}
