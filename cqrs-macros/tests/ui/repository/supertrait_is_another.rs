#![allow(unused_imports, non_camel_case_types)]

#[path = "../support.rs"]
mod support;

use cqrs_core::repository;
use support::*;

#[repository]
trait RoutePlans: Send {}

fn main() {}
