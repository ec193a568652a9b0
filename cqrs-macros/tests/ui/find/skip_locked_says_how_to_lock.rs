#[path = "../support.rs"]
mod support;

use cqrs_core::{Repository, Result, repository};
use support::*;

#[repository]
trait RoutePlans: Repository<RoutePlan> {
    #[find(skip_locked)]
    async fn a(&mut self) -> Result<Vec<RoutePlan>>;

    #[find(one, lock, skip_locked)]
    async fn b(&mut self) -> Result<Option<RoutePlan>>;
}

fn main() {}
