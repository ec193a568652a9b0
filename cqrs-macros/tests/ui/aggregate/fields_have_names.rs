#![allow(unused_imports, non_camel_case_types)]

#[path = "../support.rs"]
mod support;

use cqrs_core::Aggregate;
use support::*;

#[derive(Aggregate)]
#[aggregate(table = "plan", event = RoutePlanEvent)]
struct Plan(u32);

fn main() {}
