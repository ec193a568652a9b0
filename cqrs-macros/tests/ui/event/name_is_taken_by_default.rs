#![allow(unused_imports, non_camel_case_types)]

use cqrs_core::DomainEvent;
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "plan")]
enum Event {
    RouteMade,
    Route_Made,
}

fn main() {}
