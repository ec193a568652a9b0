#![allow(unused_imports, non_camel_case_types)]

#[path = "../support.rs"]
mod support;

use cqrs_core::{Result, repository};
use support::*;

#[repository]
trait RoutePlans {
    #[find]
    async fn all(&mut self) -> Result<Vec<RoutePlan>>;
}

fn main() {}
