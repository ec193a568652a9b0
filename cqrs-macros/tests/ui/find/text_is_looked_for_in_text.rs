#[path = "../support.rs"]
mod support;

use cqrs_core::{Repository, Result, repository};
use support::*;

#[repository]
trait RoutePlans: Repository<RoutePlan> {
    #[find(priority.like("1%"))]
    async fn a(&mut self) -> Result<Vec<RoutePlan>>;

    #[find(status.starts_with("dr"))]
    async fn b(&mut self) -> Result<Vec<RoutePlan>>;
}

fn main() {}
