#![allow(dead_code)]

use cqrs_core::{Aggregate, DomainEvent, Id, Root, ValueObject};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "route_plan")]
pub enum RoutePlanEvent {
    Created,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueObject)]
pub enum RouteStatus {
    Draft,
    Ready,
}

#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "route_plan", event = RoutePlanEvent, tenant)]
pub struct RoutePlan {
    #[aggregate(id)]
    pub id: Id<RoutePlan>,
    #[aggregate(root)]
    pub root: Root<RoutePlanEvent>,
    pub status: RouteStatus,
    pub priority: i32,
    pub note: Option<String>,
    #[mapper(json)]
    pub tags: Vec<String>,
}
