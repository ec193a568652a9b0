#[path = "../support.rs"]
mod support;

use cqrs_core::{Repository, Result, repository};
use support::*;

#[repository]
trait RoutePlans: Repository<RoutePlan> {
    #[find(3 < priority)]
    async fn a(&mut self) -> Result<Vec<RoutePlan>>;

    #[find(self.priority > 3)]
    async fn b(&mut self) -> Result<Vec<RoutePlan>>;

    #[find("x".is_null())]
    async fn c(&mut self) -> Result<Vec<RoutePlan>>;
}

fn main() {}
