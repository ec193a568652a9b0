#[path = "../support.rs"]
mod support;

use cqrs_core::{Repository, Result, repository};
use support::*;

#[repository]
trait RoutePlans: Repository<RoutePlan> {
    #[find]
    async fn all(&self) -> Result<Vec<RoutePlan>>;

    #[find]
    async fn each() -> Result<Vec<RoutePlan>>;

    async fn by_hand(&self) -> Result<()> {
        Ok(())
    }
}

fn main() {}
