#[path = "../support.rs"]
mod support;

use cqrs_core::{Page, PageRequest, Repository, Result, repository};
use support::*;

#[repository]
trait RoutePlans: Repository<RoutePlan> {
    #[find(lock)]
    async fn a(&mut self) -> Result<u64>;

    #[find(lock, skip_locked)]
    async fn b(&mut self) -> Result<bool>;

    #[find(lock)]
    async fn c(&mut self, page: PageRequest) -> Result<Page<RoutePlan>>;
}

fn main() {}
