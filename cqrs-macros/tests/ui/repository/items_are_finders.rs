#[path = "../support.rs"]
mod support;

use cqrs_core::{Repository, repository};
use support::*;

#[repository]
trait RoutePlans: Repository<RoutePlan> {
    const MAX: u32;
    type Row;
}

fn main() {}
