#[path = "../support.rs"]
mod support;

use cqrs_core::{Repository, repository};
use support::*;

#[repository(table = "x")]
trait RoutePlans: Repository<RoutePlan> {}

fn main() {}
