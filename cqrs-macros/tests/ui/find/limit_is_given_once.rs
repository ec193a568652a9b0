#[path = "../support.rs"]
mod support;

use cqrs_core::{Repository, Result, repository};
use support::*;

#[repository]
trait RoutePlans: Repository<RoutePlan> {
    #[find(limit(1), limit(2))]
    async fn a(&mut self) -> Result<Vec<RoutePlan>>;

    #[find(limit())]
    async fn b(&mut self) -> Result<Vec<RoutePlan>>;
}

fn main() {}
