//! What one can ask of a plan: a command each, handled the same on every store.

use cqrs_core::{CommandHandler, Result, UnitOfWork};

use crate::plan::{RoutePlan, RoutePlanId};

/// Send a driver off.
#[derive(Debug, Clone)]
pub(crate) struct Dispatch {
    pub(crate) plan: RoutePlanId,
    pub(crate) driver: String,
}

/// The driver is back.
#[derive(Debug, Clone)]
pub(crate) struct Complete {
    pub(crate) plan: RoutePlanId,
}

/// Give the plan up.
#[derive(Debug, Clone)]
pub(crate) struct Cancel {
    pub(crate) plan: RoutePlanId,
    pub(crate) reason: String,
}

/// Handles the commands.
pub(crate) struct Commands;

impl<U: UnitOfWork> CommandHandler<U, Dispatch> for Commands {
    type Output = ();

    async fn handle(&self, uow: &mut U, command: Dispatch) -> Result<()> {
        let mut plan = uow.get::<RoutePlan>(command.plan).await?;
        plan.dispatch(&command.driver)?;
        uow.save(plan)
    }
}

impl<U: UnitOfWork> CommandHandler<U, Complete> for Commands {
    type Output = ();

    async fn handle(&self, uow: &mut U, command: Complete) -> Result<()> {
        let mut plan = uow.get::<RoutePlan>(command.plan).await?;
        plan.complete()?;
        uow.save(plan)
    }
}

impl<U: UnitOfWork> CommandHandler<U, Cancel> for Commands {
    type Output = ();

    async fn handle(&self, uow: &mut U, command: Cancel) -> Result<()> {
        let mut plan = uow.get::<RoutePlan>(command.plan).await?;
        plan.cancel(&command.reason)?;
        uow.save(plan)
    }
}

#[cfg(test)]
mod tests {
    use cqrs_core::{AggregateRoot, Error, InMemoryStore, Store};

    use super::*;
    use crate::plan::{NewRoute, PlanError, RouteStatus};
    use crate::schedule::{Depot, Stop};
    use crate::tenant;

    fn plan() -> RoutePlan {
        let (x, y, ready, due) = (3.0, 4.0, 0.0, 100.0);
        RoutePlan::plan(NewRoute {
            id: RoutePlanId::new(),
            instance: "0025_C101".to_owned(),
            route: 1,
            capacity: 10,
            depot: Depot { x, y, ready, due },
            stops: vec![Stop {
                customer: 1,
                x,
                y,
                demand: 10,
                ready,
                due,
                service: 5.0,
            }],
        })
        .unwrap()
    }

    #[tokio::test]
    async fn a_plan_is_dispatched_once_then_completed_and_never_cancelled() {
        let store = InMemoryStore::new();
        let context = tenant::context("short-haul").unwrap();
        let planned = store
            .execute(&context, async |uow| {
                let plan = plan();
                let id = *plan.id();
                uow.save(plan).map(|()| id)
            })
            .await
            .unwrap();
        let plan = planned.into_output();
        let driver = "driver 01".to_owned();
        let refusal = |error: Error| *error.domain::<PlanError>().unwrap();

        let dispatch = Dispatch { plan, driver };
        let nobody = Dispatch {
            plan,
            driver: String::new(),
        };
        let cancel = Cancel {
            plan,
            reason: "rain".to_owned(),
        };
        let complete = Complete { plan };

        let refused = store.dispatch(&context, &Commands, complete.clone()).await;
        let (found, to) = (RouteStatus::Planned, RouteStatus::Completed);
        let expected = PlanError::WrongStatus { found, to };
        assert_eq!(refusal(refused.unwrap_err()), expected);

        let refused = store.dispatch(&context, &Commands, nobody).await;
        assert_eq!(refusal(refused.unwrap_err()), PlanError::NoDriver);

        let accepted = store.dispatch(&context, &Commands, dispatch.clone()).await;
        assert_eq!(accepted.unwrap().events().len(), 1);
        let refused = store.dispatch(&context, &Commands, dispatch).await;
        assert!(refused.unwrap_err().domain::<PlanError>().is_some());

        store.dispatch(&context, &Commands, complete).await.unwrap();
        let refused = store.dispatch(&context, &Commands, cancel).await;
        let (found, to) = (RouteStatus::Completed, RouteStatus::Cancelled);
        let expected = PlanError::WrongStatus { found, to };
        assert_eq!(refusal(refused.unwrap_err()), expected);
    }
}
