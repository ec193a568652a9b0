#[path = "../support.rs"]
mod support;

use cqrs_core::{Repository, Result, repository};
use support::*;

#[repository]
trait RoutePlans: Repository<RoutePlan> {
    #[sql("SELECT priority FROM route_plan WHERE tenant_id = :tenant")]
    async fn a(&mut self) -> Result<Vec<i32>>;
}

fn main() {}
