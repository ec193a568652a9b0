#[path = "../support.rs"]
mod support;

use cqrs_core::{Repository, Result, repository};
use support::*;

#[repository]
trait RoutePlans: Repository<RoutePlan> {
    #[find(priority > 1, priority < 3)]
    async fn all(&mut self) -> Result<Vec<RoutePlan>>;
}

fn main() {}
