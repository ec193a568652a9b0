#[path = "../support.rs"]
mod support;

use cqrs_core::{Repository, Result, repository};
use support::*;

#[repository]
trait RoutePlans: Repository<RoutePlan> {
    #[find(lock, lock)]
    async fn a(&mut self) -> Result<Vec<RoutePlan>>;
}

fn main() {}
