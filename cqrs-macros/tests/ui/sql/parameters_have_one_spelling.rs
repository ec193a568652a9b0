#[path = "../support.rs"]
mod support;

use cqrs_core::{Repository, Result, SqlQueries, repository};
use support::*;

#[repository]
trait RoutePlans: Repository<RoutePlan> + SqlQueries {
    #[sql("SELECT priority FROM route_plan WHERE tenant_id = :tenant AND priority > ?")]
    async fn a(&mut self) -> Result<Vec<i32>>;

    #[sql(
        postgres = "SELECT priority FROM route_plan WHERE tenant_id = :tenant AND stops ? 'a'",
        sqlite = "SELECT priority FROM route_plan WHERE tenant_id = :tenant AND priority > @least"
    )]
    async fn b(&mut self) -> Result<Vec<i32>>;

    #[sql(sqlite = "SELECT priority FROM route_plan WHERE tenant_id = :tenant AND priority > $least")]
    async fn c(&mut self) -> Result<Vec<i32>>;
}

fn main() {}
