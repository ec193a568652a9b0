#[path = "../support.rs"]
mod support;

use cqrs_core::{Repository, Result, SqlQueries, repository};
use support::*;

#[repository]
trait RoutePlans: Repository<RoutePlan> + SqlQueries {
    #[sql("DELETE FROM route_plan WHERE tenant_id = :tenant")]
    async fn a(&mut self) -> Result<Vec<i32>>;

    #[sql("SELECT 1; SELECT priority FROM route_plan WHERE tenant_id = :tenant")]
    async fn b(&mut self) -> Result<Vec<i32>>;

    #[sql("SELECT 'priority FROM route_plan WHERE tenant_id = :tenant")]
    async fn c(&mut self) -> Result<Vec<i32>>;
}

fn main() {}
