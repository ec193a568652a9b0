#[path = "../support.rs"]
mod support;

use cqrs_core::{Repository, Result, repository};
use support::*;

#[repository]
trait RoutePlans: Repository<RoutePlan> {
    #[find(tags.index(0) == "x")]
    async fn a(&mut self) -> Result<Vec<RoutePlan>>;
}

fn main() {}
