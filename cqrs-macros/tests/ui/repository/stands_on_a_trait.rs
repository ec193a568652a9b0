#[path = "../support.rs"]
mod support;

use cqrs_core::repository;
use support::*;

#[repository]
struct RoutePlans;

fn main() {}
