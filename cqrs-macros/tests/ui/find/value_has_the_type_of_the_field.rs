#[path = "../support.rs"]
mod support;

use cqrs_core::{Repository, Result, repository};
use support::*;

#[repository]
trait RoutePlans: Repository<RoutePlan> {
    #[find(priority == name)]
    async fn by(&mut self, name: String) -> Result<Vec<RoutePlan>>;
}

fn main() {}
