#[path = "../support.rs"]
mod support;

use cqrs_core::{Repository, Result, repository};
use support::*;

#[repository]
trait RoutePlans: Repository<RoutePlan> {
    #[find(order_by(priority))]
    async fn a(&mut self) -> Result<Vec<RoutePlan>>;

    #[find(order_by(priority.descending()))]
    async fn b(&mut self) -> Result<Vec<RoutePlan>>;

    #[find(order_by())]
    async fn c(&mut self) -> Result<Vec<RoutePlan>>;
}

fn main() {}
