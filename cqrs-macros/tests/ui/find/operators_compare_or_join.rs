#[path = "../support.rs"]
mod support;

use cqrs_core::{Repository, Result, repository};
use support::*;

#[repository]
trait RoutePlans: Repository<RoutePlan> {
    #[find(priority + 1)]
    async fn a(&mut self) -> Result<Vec<RoutePlan>>;

    #[find(priority > 1 & priority < 3)]
    async fn b(&mut self) -> Result<Vec<RoutePlan>>;

    #[find("ready")]
    async fn c(&mut self) -> Result<Vec<RoutePlan>>;
}

fn main() {}
