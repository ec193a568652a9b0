#[path = "../support.rs"]
mod support;

use cqrs_core::{Repository, Result, repository};
use support::*;

#[repository]
trait RoutePlans: Repository<RoutePlan> {
    #[find(specification)]
    async fn all(&mut self) -> Result<Vec<RoutePlan>>;
}

fn main() {}
