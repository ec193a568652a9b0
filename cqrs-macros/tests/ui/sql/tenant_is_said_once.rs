#[path = "../support.rs"]
mod support;

use cqrs_core::{Repository, Result, SqlQueries, repository};
use support::*;

#[repository]
trait RoutePlans: Repository<RoutePlan> + SqlQueries {
    #[sql("SELECT priority FROM route_plan WHERE tenant_id = :tenant", all_tenants)]
    async fn a(&mut self) -> Result<Vec<i32>>;

    #[sql("SELECT priority FROM route_plan", all_tenants, without_tenant)]
    async fn b(&mut self) -> Result<Vec<i32>>;

    #[sql(
        postgres = "SELECT priority FROM route_plan WHERE tenant_id = :tenant",
        sqlite = "SELECT priority FROM route_plan"
    )]
    async fn c(&mut self) -> Result<Vec<i32>>;
}

fn main() {}
