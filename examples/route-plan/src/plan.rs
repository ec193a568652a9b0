//! The aggregate: a route that a vehicle is to drive, from its planning to its completion.

use std::fmt;

use cqrs_core::{
    Aggregate, DomainError, DomainEvent, Id, Repository, Result, Root, ValueObject, repository,
};
use serde::{Deserialize, Serialize};

use crate::schedule::{Depot, Schedule, Stop};
use crate::violation::Violation;

/// The id of a plan.
pub(crate) type RoutePlanId = Id<RoutePlan>;

/// What happens to a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "route_plan")]
pub(crate) enum RoutePlanEvent {
    /// A route was found feasible and planned.
    Planned {
        instance: String,
        route: u32,
        /// Whom it visits, in this order.
        customers: Vec<u32>,
        load: u32,
        distance: f64,
    },
    /// A driver set off.
    Dispatched { driver: String },
    /// The driver came back.
    Completed,
    /// It will not be driven.
    Cancelled { reason: String },
}

/// Where a plan stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueObject)]
pub(crate) enum RouteStatus {
    Planned,
    Dispatched,
    Completed,
    Cancelled,
}

/// A plan to drive one route of an instance.
#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "route_plan", event = RoutePlanEvent, tenant, soft_delete, audit)]
pub(crate) struct RoutePlan {
    #[aggregate(id)]
    id: RoutePlanId,
    #[aggregate(root)]
    root: Root<RoutePlanEvent>,
    instance: String,
    route: u32,
    status: RouteStatus,
    capacity: u32,
    #[mapper(flatten)]
    depot: Depot,
    #[mapper(json)]
    stops: Vec<Stop>,
    load: u32,
    distance: f64,
    driver: Option<String>,
}

/// What a plan is made of.
#[derive(Debug, Clone)]
pub(crate) struct NewRoute {
    pub(crate) id: RoutePlanId,
    pub(crate) instance: String,
    /// Number of the route within its instance, from 1.
    pub(crate) route: u32,
    pub(crate) capacity: u32,
    pub(crate) depot: Depot,
    pub(crate) stops: Vec<Stop>,
}

impl RoutePlan {
    /// Plans a route.
    ///
    /// # Errors
    ///
    /// The first rule of a [`Schedule`] that the route breaks.
    pub(crate) fn plan(new: NewRoute) -> Result<Self, Violation> {
        let schedule = Schedule::check(&new.depot, new.capacity, &new.stops)?;
        let mut root = Root::new();
        root.raise(RoutePlanEvent::Planned {
            instance: new.instance.clone(),
            route: new.route,
            customers: new.stops.iter().map(|stop| stop.customer).collect(),
            load: schedule.load,
            distance: schedule.distance,
        });
        Ok(Self {
            id: new.id,
            root,
            instance: new.instance,
            route: new.route,
            status: RouteStatus::Planned,
            capacity: new.capacity,
            depot: new.depot,
            stops: new.stops,
            load: schedule.load,
            distance: schedule.distance,
            driver: None,
        })
    }

    /// Sends a driver off.
    ///
    /// # Errors
    ///
    /// [`PlanError::NoDriver`] where the name is empty, [`PlanError::WrongStatus`] unless the plan
    /// is planned.
    pub(crate) fn dispatch(&mut self, driver: &str) -> Result<(), PlanError> {
        if driver.trim().is_empty() {
            return Err(PlanError::NoDriver);
        }
        self.change(RouteStatus::Planned, RouteStatus::Dispatched)?;
        self.driver = Some(driver.to_owned());
        self.root.raise(RoutePlanEvent::Dispatched {
            driver: driver.to_owned(),
        });
        Ok(())
    }

    /// Notes that the driver is back.
    ///
    /// # Errors
    ///
    /// [`PlanError::WrongStatus`] unless the plan is dispatched.
    pub(crate) fn complete(&mut self) -> Result<(), PlanError> {
        self.change(RouteStatus::Dispatched, RouteStatus::Completed)?;
        self.root.raise(RoutePlanEvent::Completed);
        Ok(())
    }

    /// Gives the plan up before anybody drives it.
    ///
    /// # Errors
    ///
    /// [`PlanError::WrongStatus`] unless the plan is planned.
    pub(crate) fn cancel(&mut self, reason: &str) -> Result<(), PlanError> {
        self.change(RouteStatus::Planned, RouteStatus::Cancelled)?;
        self.root.raise(RoutePlanEvent::Cancelled {
            reason: reason.to_owned(),
        });
        Ok(())
    }

    /// Its instance, its route and the length of it, for people.
    pub(crate) fn label(&self) -> String {
        format!("{}/{} ({:.3})", self.instance, self.route, self.distance)
    }

    /// Goes from one status to the next.
    fn change(&mut self, from: RouteStatus, to: RouteStatus) -> Result<(), PlanError> {
        if self.status != from {
            let found = self.status;
            return Err(PlanError::WrongStatus { found, to });
        }
        self.status = to;
        Ok(())
    }
}

/// The plans of a tenant.
#[repository]
pub(crate) trait RoutePlans: Repository<RoutePlan> {
    /// The longest of those that nobody drives yet.
    #[find(status == RouteStatus::Planned, order_by(distance.desc()))]
    async fn find_next_to_dispatch(&mut self, limit: u32) -> Result<Vec<RoutePlan>>;

    /// How many of this status there are.
    #[find(status == status)]
    async fn count_by_status(&mut self, status: RouteStatus) -> Result<u64>;
}

/// What a plan refuses to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PlanError {
    /// There is no way from its status to the one asked for.
    #[error("a plan that is {found} cannot become {to}")]
    WrongStatus { found: RouteStatus, to: RouteStatus },
    /// Nobody would drive.
    #[error("a dispatch needs a driver")]
    NoDriver,
}

impl DomainError for PlanError {}

impl fmt::Display for RouteStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Planned => "planned",
            Self::Dispatched => "dispatched",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
        })
    }
}
