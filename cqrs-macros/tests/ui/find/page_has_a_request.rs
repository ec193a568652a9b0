#[path = "../support.rs"]
mod support;

use cqrs_core::{Page, PageRequest, Repository, Result, repository};
use support::*;

#[repository]
trait RoutePlans: Repository<RoutePlan> {
    #[find]
    async fn without(&mut self) -> Result<Page<RoutePlan>>;

    #[find]
    async fn twice(&mut self, one: PageRequest, other: PageRequest) -> Result<Page<RoutePlan>>;

    #[find]
    async fn in_vain(&mut self, page: PageRequest) -> Result<Vec<RoutePlan>>;

    #[find(limit(3))]
    async fn limited(&mut self, page: PageRequest) -> Result<Page<RoutePlan>>;
}

fn main() {}
