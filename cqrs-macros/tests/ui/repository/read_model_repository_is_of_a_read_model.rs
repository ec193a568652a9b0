#[path = "../support.rs"]
mod support;

use cqrs_core::{ReadModelRepository, Result, repository};
use support::*;

#[repository]
trait RouteRows: ReadModelRepository<RoutePlan> {
    #[find]
    async fn a(&self) -> Result<Vec<RoutePlan>>;
}

fn main() {}
