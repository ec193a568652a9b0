#[path = "../support.rs"]
mod support;

use cqrs_core::{Repository, Result, repository};
use support::*;

#[repository]
trait RoutePlans: Repository<RoutePlan> {
    #[find]
    async fn a(&mut self) -> Result<RoutePlan>;

    #[find]
    async fn b(&mut self) -> Vec<RoutePlan>;

    #[find]
    async fn c(&mut self);

    #[find]
    async fn d(&mut self) -> Result<u32>;
}

fn main() {}
