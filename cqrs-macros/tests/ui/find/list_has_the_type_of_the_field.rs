#[path = "../support.rs"]
mod support;

use cqrs_core::{Repository, Result, repository};
use support::*;

#[repository]
trait RoutePlans: Repository<RoutePlan> {
    #[find(status.in_(["ready"]))]
    async fn a(&mut self) -> Result<Vec<RoutePlan>>;

    #[find(priority.in_(3))]
    async fn b(&mut self) -> Result<Vec<RoutePlan>>;
}

fn main() {}
