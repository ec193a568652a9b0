#[path = "../support.rs"]
mod support;

use cqrs_core::{Repository, Result, repository};
use support::*;

#[repository]
trait RoutePlans: Repository<RoutePlan> {
    #[find(priority == *value)]
    async fn by(&mut self, value: std::rc::Rc<i32>) -> Result<Vec<RoutePlan>>;
}

fn main() {}
