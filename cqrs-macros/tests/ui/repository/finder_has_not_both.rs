#[path = "../support.rs"]
mod support;

use cqrs_core::{Repository, Result, repository};
use support::*;

#[repository]
trait RoutePlans: Repository<RoutePlan> {
    #[find]
    async fn all(&mut self) -> Result<Vec<RoutePlan>> {
        Ok(Vec::new())
    }
}

fn main() {}
