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
