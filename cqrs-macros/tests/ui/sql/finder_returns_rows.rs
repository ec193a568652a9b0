#[path = "../support.rs"]
mod support;

use cqrs_core::{Page, Repository, Result, SqlQueries, repository};
use support::*;

#[repository]
trait RoutePlans: Repository<RoutePlan> + SqlQueries {
    #[sql("SELECT * FROM route_plan WHERE tenant_id = :tenant")]
    async fn a(&mut self) -> Result<Page<RoutePlan>>;

    #[sql("SELECT * FROM route_plan WHERE tenant_id = :tenant")]
    async fn b(&mut self) -> Vec<RoutePlan>;

    #[sql("SELECT * FROM route_plan WHERE tenant_id = :tenant")]
    async fn c(&mut self);
}

fn main() {}
