//! The list of plans that people look at, kept by a projection.

use chrono::{DateTime, Utc};
use cqrs_core::{Envelope, ReadModel, Result, RowProjection};

use crate::plan::{RoutePlanEvent, RoutePlanId, RouteStatus};

/// A line of the list.
#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(table = "route_plan_list", tenant)]
pub(crate) struct RoutePlanRow {
    #[read_model(key)]
    pub(crate) id: RoutePlanId,
    pub(crate) instance: String,
    pub(crate) route: u32,
    pub(crate) status: RouteStatus,
    pub(crate) stops: u32,
    pub(crate) distance: f64,
    pub(crate) driver: Option<String>,
    pub(crate) planned_at: DateTime<Utc>,
    pub(crate) changed_at: DateTime<Utc>,
}

/// Keeps [`RoutePlanRow`]s.
pub(crate) struct RoutePlanList;

impl RowProjection for RoutePlanList {
    type Event = RoutePlanEvent;
    type Row = RoutePlanRow;

    const NAME: &'static str = "route_plan_list";

    fn key(&self, event: &Envelope<RoutePlanEvent>) -> Result<Option<RoutePlanId>> {
        Ok(Some(event.aggregate_id()?))
    }

    fn apply(
        &self,
        row: &mut Option<RoutePlanRow>,
        event: &Envelope<RoutePlanEvent>,
    ) -> Result<()> {
        if let RoutePlanEvent::Planned {
            instance,
            route,
            customers,
            distance,
            ..
        } = event.payload()
        {
            *row = Some(RoutePlanRow {
                id: event.aggregate_id()?,
                instance: instance.clone(),
                route: *route,
                status: RouteStatus::Planned,
                stops: customers
                    .len()
                    .try_into()
                    .map_err(cqrs_core::Error::other)?,
                distance: *distance,
                driver: None,
                planned_at: event.occurred_at(),
                changed_at: event.occurred_at(),
            });
        } else if let Some(row) = row {
            row.changed_at = event.occurred_at();
            match event.payload() {
                RoutePlanEvent::Planned { .. } => {}
                RoutePlanEvent::Dispatched { driver } => {
                    row.status = RouteStatus::Dispatched;
                    row.driver = Some(driver.clone());
                }
                RoutePlanEvent::Completed => row.status = RouteStatus::Completed,
                RoutePlanEvent::Cancelled { .. } => row.status = RouteStatus::Cancelled,
            }
        }
        Ok(())
    }
}
