#[path = "../support.rs"]
mod support;

use cqrs_core::{Repository, Result, repository};
use support::*;

#[repository]
trait RoutePlans: Repository<RoutePlan> {
    #[find(stauts == RouteStatus::Ready, order_by(colour.asc()))]
    async fn all(&mut self) -> Result<Vec<RoutePlan>>;
}

fn main() {}
