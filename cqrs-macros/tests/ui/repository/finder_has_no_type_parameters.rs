#[path = "../support.rs"]
mod support;

use cqrs_core::{Repository, Result, repository};
use support::*;

#[repository]
trait RoutePlans: Repository<RoutePlan> {
    #[find(priority == value)]
    async fn by<T: Into<i32> + Send>(&mut self, value: T) -> Result<Vec<RoutePlan>>;
}

fn main() {}
