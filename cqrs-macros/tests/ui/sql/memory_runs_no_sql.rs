#[path = "../support.rs"]
mod support;

use cqrs_core::memory::InMemoryUnitOfWork;
use cqrs_core::{Repository, Result, SqlQueries, UnitOfWork, repository};
use support::*;

#[repository]
trait RoutePlans: Repository<RoutePlan> + SqlQueries {
    #[sql("SELECT priority FROM route_plan WHERE tenant_id = :tenant")]
    async fn priorities(&mut self) -> Result<Vec<i32>>;
}

async fn ask(uow: &mut InMemoryUnitOfWork) -> Result<Vec<i32>> {
    uow.repository::<RoutePlan>().priorities().await
}

async fn ask_any<U: UnitOfWork>(uow: &mut U) -> Result<Vec<i32>> {
    RoutePlans::priorities(&mut uow.repository::<RoutePlan>()).await
}

fn main() {}
