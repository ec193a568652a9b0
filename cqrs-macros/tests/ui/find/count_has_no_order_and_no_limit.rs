#[path = "../support.rs"]
mod support;

use cqrs_core::{Repository, Result, repository};
use support::*;

#[repository]
trait RoutePlans: Repository<RoutePlan> {
    #[find(order_by(priority.asc()))]
    async fn count(&mut self) -> Result<u64>;

    #[find(limit(3))]
    async fn any(&mut self) -> Result<bool>;

    #[find]
    async fn first(&mut self, limit: u32) -> Result<Option<RoutePlan>>;
}

fn main() {}
