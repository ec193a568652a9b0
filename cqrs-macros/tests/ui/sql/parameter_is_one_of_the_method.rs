#[path = "../support.rs"]
mod support;

use cqrs_core::{Repository, Result, SqlQueries, repository};
use support::*;

#[repository]
trait RoutePlans: Repository<RoutePlan> + SqlQueries {
    #[sql("SELECT priority FROM route_plan WHERE tenant_id = :tenant AND priority > :mim")]
    async fn a(&mut self, min: i32) -> Result<Vec<i32>>;
}

fn main() {}
