#[path = "../support.rs"]
mod support;

use cqrs_core::{Repository, Result, repository};
use support::*;

#[repository]
trait RoutePlans: Repository<RoutePlan> {
    #[find]
    async fn all(&mut self, limit: i32) -> Result<Vec<RoutePlan>>;
}

fn main() {}
