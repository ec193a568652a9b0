#[path = "../support.rs"]
mod support;

use cqrs_core::repository;
use support::*;

#[repository]
trait RoutePlans: Send {}

fn main() {}
