#[path = "../support.rs"]
mod support;

use cqrs_core::{Repository, Result, repository};
use support::*;

#[repository]
trait RoutePlans: Repository<RoutePlan> {
    #[find(one)]
    async fn a(&mut self) -> Result<Vec<RoutePlan>>;

    #[find(one)]
    async fn b(&mut self) -> Result<u64>;

    #[find(one, order_by(priority.asc()))]
    async fn c(&mut self) -> Result<Option<RoutePlan>>;

    #[find(one, limit(1))]
    async fn d(&mut self) -> Result<RoutePlan>;
}

fn main() {}
