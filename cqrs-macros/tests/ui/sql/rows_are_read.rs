#[path = "../support.rs"]
mod support;

use cqrs_core::{Repository, Result, SqlQueries, repository};
use support::*;

struct Priority {
    priority: i32,
}

#[repository]
trait RoutePlans: Repository<RoutePlan> + SqlQueries {
    #[sql("SELECT priority FROM route_plan WHERE tenant_id = :tenant")]
    async fn a(&mut self) -> Result<Vec<Priority>>;
}

fn main() {}
