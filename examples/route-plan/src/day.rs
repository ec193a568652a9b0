//! A day's work: a share of the plans is dispatched, completed or cancelled.
//!
//! The share follows from the plan's id, so a second run asks for the same. Plans refuse what has
//! been done to them before, and nothing changes.

use cqrs_core::{CommitReceipt, Result, Store};

use crate::commands::{Cancel, Commands, Complete, Dispatch};
use crate::files::Solved;
use crate::import::plan_id;
use crate::plan::{PlanError, RoutePlanId, RouteStatus};
use crate::tenant;

/// How many drivers share the work.
const DRIVERS: u128 = 12;

/// What became of a day's commands.
#[derive(Debug, Default)]
pub(crate) struct Day {
    /// How many were carried out.
    pub(crate) accepted: usize,
    /// How many the plan refused.
    pub(crate) refused: usize,
    /// The last commit.
    pub(crate) receipt: Option<CommitReceipt>,
}

/// Where a plan shall stand at the end of the day: of ten, four are completed, three on the road,
/// two still planned, and one is cancelled.
pub(crate) fn goal(plan: RoutePlanId) -> RouteStatus {
    match plan.uuid().as_u128() % 10 {
        0..4 => RouteStatus::Completed,
        4..7 => RouteStatus::Dispatched,
        7..9 => RouteStatus::Planned,
        _ => RouteStatus::Cancelled,
    }
}

/// Brings the plans of these instances to their goals.
pub(crate) async fn run<S: Store>(store: &S, instances: &[&Solved]) -> anyhow::Result<Day> {
    let mut day = Day::default();
    for solved in instances {
        let name = &solved.instance.name;
        let context = tenant::context(tenant::of_instance(name))?;
        for (route, _) in (1..).zip(&solved.routes) {
            let plan = plan_id(name, route);
            let goal = goal(plan);
            if matches!(goal, RouteStatus::Dispatched | RouteStatus::Completed) {
                let driver = format!("driver {:02}", 1 + plan.uuid().as_u128() / 10 % DRIVERS);
                let command = Dispatch { plan, driver };
                day.count(store.dispatch(&context, &Commands, command).await)?;
            }
            if goal == RouteStatus::Completed {
                let command = Complete { plan };
                day.count(store.dispatch(&context, &Commands, command).await)?;
            }
            if goal == RouteStatus::Cancelled {
                let reason = "no vehicle is free".to_owned();
                let command = Cancel { plan, reason };
                day.count(store.dispatch(&context, &Commands, command).await)?;
            }
        }
    }
    let Day {
        accepted, refused, ..
    } = day;
    eprintln!("commands: {accepted} accepted, {refused} refused");
    Ok(day)
}

impl Day {
    /// Counts a command; an error that is not the plan's own ends the day.
    fn count(&mut self, result: Result<CommitReceipt>) -> Result<()> {
        match result {
            Ok(receipt) => {
                self.accepted += 1;
                self.receipt = Some(receipt);
            }
            Err(error) if error.domain::<PlanError>().is_some() => self.refused += 1,
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
