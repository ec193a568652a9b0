//! A process manager: an order that has not arrived on the day it was promised for is flagged.

use cqrs_core::process::{Instance, Next, ProcessManager};
use cqrs_core::{Envelope, Result, UnitOfWork};
use serde::{Deserialize, Serialize};

use crate::order::{Order, OrderEvent, Step, StepKind, late_from};

/// Watches each order from when it is placed until it is delivered or cancelled.
pub(crate) struct LateOrders;

/// Flags an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct FlagLate {
    pub(crate) order: String,
    pub(crate) at: chrono::DateTime<chrono::Utc>,
}

impl ProcessManager for LateOrders {
    type Event = OrderEvent;
    type State = ();
    type Command = FlagLate;

    const NAME: &'static str = "late_orders";

    fn instance(&self, event: &Envelope<OrderEvent>) -> Option<Instance> {
        let order = event.aggregate_id_str();
        match event.payload() {
            OrderEvent::Placed { .. } => Some(Instance::starting(order)),
            OrderEvent::Delivered { .. } | OrderEvent::Cancelled { .. } => {
                Some(Instance::running(order))
            }
            OrderEvent::Approved { .. }
            | OrderEvent::Invoiced
            | OrderEvent::PutIntoWork
            | OrderEvent::FoundUnavailable
            | OrderEvent::Shipped { .. }
            | OrderEvent::FlaggedLate { .. } => None,
        }
    }

    fn on_event(
        &self,
        _: &mut (),
        event: &Envelope<OrderEvent>,
        next: &mut Next<'_, FlagLate>,
    ) -> Result<()> {
        match event.payload() {
            OrderEvent::Placed { promised, .. } => next.deadline("promised", late_from(*promised)),
            OrderEvent::Delivered { .. } | OrderEvent::Cancelled { .. } => next.complete(),
            OrderEvent::Approved { .. }
            | OrderEvent::Invoiced
            | OrderEvent::PutIntoWork
            | OrderEvent::FoundUnavailable
            | OrderEvent::Shipped { .. }
            | OrderEvent::FlaggedLate { .. } => {}
        }
        Ok(())
    }

    fn on_deadline(&self, _: &mut (), _: &str, next: &mut Next<'_, FlagLate>) -> Result<()> {
        let (order, at) = (next.instance().to_owned(), next.now());
        next.command(FlagLate { order, at });
        Ok(())
    }

    async fn execute<U: UnitOfWork>(&self, command: FlagLate, uow: &mut U) -> Result<()> {
        let step = Step {
            kind: StepKind::FlagLate,
            known_at: command.at,
            at: None,
        };
        uow.decide::<Order, _>(command.order, step).await
    }
}
