#[path = "../support.rs"]
mod support;

use cqrs_core::{Repository, Result, SqlQueries, repository};
use support::*;

#[repository]
trait RoutePlans: Repository<RoutePlan> + SqlQueries {
    #[find]
    #[sql("SELECT * FROM route_plan WHERE tenant_id = :tenant")]
    async fn a(&mut self) -> Result<Vec<RoutePlan>>;

    #[sql("SELECT * FROM route_plan WHERE tenant_id = :tenant")]
    async fn b(&mut self) -> Result<Vec<RoutePlan>> {
        Ok(Vec::new())
    }
}

fn main() {}
