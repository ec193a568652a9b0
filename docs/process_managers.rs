//! What the page on process managers shows.

use chrono::{DateTime, TimeDelta};
use cqrs_core::process::{Instance, Next, ProcessManager, ProcessSubscription};
use cqrs_core::testing::process;
use cqrs_core::{
    Aggregate, DomainEvent, Envelope, EventSet, FailurePolicy, Id, ManualClock, Parking,
    RequestContext, Result, Root, Sourced, SourcedState, Store, TenantId, UnitOfWork,
};
use cqrs_sqlx::{ProjectorHandle, SqliteStore, StoreOptions};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "purchase")]
enum PurchaseEvent {
    Placed,
    Reminded,
    Paid,
    Cancelled,
}

#[derive(Debug, Clone, Aggregate)]
#[aggregate(sourced, event = PurchaseEvent, tenant)]
struct Purchase {
    #[aggregate(id)]
    number: String,
    #[aggregate(root)]
    root: Root<PurchaseEvent>,
    is_open: bool,
}

impl Sourced for Purchase {
    fn apply(&mut self, event: &PurchaseEvent) {
        match event {
            PurchaseEvent::Placed => self.is_open = true,
            PurchaseEvent::Reminded => {}
            PurchaseEvent::Paid | PurchaseEvent::Cancelled => self.is_open = false,
        }
    }
}

/// Reminds of purchases that are not paid, and cancels them in the end.
struct Payment;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Waiting {
    reminders: u32,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum PaymentCommand {
    Remind(String),
    Cancel(String),
}

impl ProcessManager for Payment {
    type Event = PurchaseEvent;
    type State = Waiting;
    type Command = PaymentCommand;

    const NAME: &'static str = "payment";

    fn instance(&self, event: &Envelope<PurchaseEvent>) -> Option<Instance> {
        let number = event.aggregate_id_str();
        match event.payload() {
            PurchaseEvent::Placed => Some(Instance::starting(number)),
            PurchaseEvent::Reminded => None,
            PurchaseEvent::Paid | PurchaseEvent::Cancelled => Some(Instance::running(number)),
        }
    }

    fn on_event(
        &self,
        _: &mut Waiting,
        event: &Envelope<PurchaseEvent>,
        next: &mut Next<'_, PaymentCommand>,
    ) -> Result<()> {
        match event.payload() {
            PurchaseEvent::Placed => next.deadline_in("payment", TimeDelta::days(7)),
            PurchaseEvent::Reminded => {}
            PurchaseEvent::Paid | PurchaseEvent::Cancelled => next.complete(),
        }
        Ok(())
    }

    fn on_deadline(
        &self,
        state: &mut Waiting,
        _: &str,
        next: &mut Next<'_, PaymentCommand>,
    ) -> Result<()> {
        let number = next.instance().to_owned();
        if state.reminders < 2 {
            state.reminders += 1;
            next.command(PaymentCommand::Remind(number));
            next.deadline_in("payment", TimeDelta::days(3));
        } else {
            next.command(PaymentCommand::Cancel(number));
        }
        Ok(())
    }

    async fn execute<U: UnitOfWork>(&self, command: PaymentCommand, uow: &mut U) -> Result<()> {
        let (number, event) = match command {
            PaymentCommand::Remind(number) => (number, PurchaseEvent::Reminded),
            PaymentCommand::Cancel(number) => (number, PurchaseEvent::Cancelled),
        };
        let mut purchase = uow.get::<Purchase>(number).await?;
        if purchase.is_open {
            purchase.raise(event);
        }
        uow.save(purchase)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "shipment")]
enum ShipmentEvent {
    Sent { purchase: String },
    Delivered { purchase: String },
    Lost { purchase: String },
}

#[derive(Debug, Clone, Aggregate)]
#[aggregate(sourced, event = ShipmentEvent, tenant)]
struct Shipment {
    #[aggregate(id)]
    id: Id<Shipment>,
    #[aggregate(root)]
    root: Root<ShipmentEvent>,
}

impl Sourced for Shipment {
    fn apply(&mut self, event: &ShipmentEvent) {
        match event {
            ShipmentEvent::Sent { .. }
            | ShipmentEvent::Delivered { .. }
            | ShipmentEvent::Lost { .. } => {}
        }
    }
}

#[derive(Debug, EventSet)]
enum FulfilmentEvent {
    Purchase(PurchaseEvent),
    Shipment(ShipmentEvent),
}

/// Sends what is paid, and once more what is lost.
struct Fulfilment;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Ship(String);

impl ProcessManager for Fulfilment {
    type Event = FulfilmentEvent;
    type State = ();
    type Command = Ship;

    const NAME: &'static str = "fulfilment";

    fn instance(&self, event: &Envelope<FulfilmentEvent>) -> Option<Instance> {
        match event.payload() {
            FulfilmentEvent::Purchase(PurchaseEvent::Paid) => {
                Some(Instance::starting(event.aggregate_id_str()))
            }
            FulfilmentEvent::Purchase(
                PurchaseEvent::Placed | PurchaseEvent::Reminded | PurchaseEvent::Cancelled,
            ) => None,
            FulfilmentEvent::Shipment(
                ShipmentEvent::Sent { purchase }
                | ShipmentEvent::Delivered { purchase }
                | ShipmentEvent::Lost { purchase },
            ) => Some(Instance::running(purchase)),
        }
    }

    fn on_event(
        &self,
        _: &mut (),
        event: &Envelope<FulfilmentEvent>,
        next: &mut Next<'_, Ship>,
    ) -> Result<()> {
        match event.payload() {
            FulfilmentEvent::Purchase(PurchaseEvent::Paid)
            | FulfilmentEvent::Shipment(ShipmentEvent::Lost { .. }) => {
                next.command(Ship(next.instance().to_owned()));
            }
            FulfilmentEvent::Purchase(
                PurchaseEvent::Placed | PurchaseEvent::Reminded | PurchaseEvent::Cancelled,
            )
            | FulfilmentEvent::Shipment(ShipmentEvent::Sent { .. }) => {}
            FulfilmentEvent::Shipment(ShipmentEvent::Delivered { .. }) => next.complete(),
        }
        Ok(())
    }

    async fn execute<U: UnitOfWork>(&self, Ship(purchase): Ship, uow: &mut U) -> Result<()> {
        let mut shipment = Shipment::blank(Id::new());
        shipment.raise(ShipmentEvent::Sent { purchase });
        uow.save(shipment)
    }
}

#[test]
fn what_is_lost_is_sent_again() {
    let purchase = || "P1".to_owned();
    process(Fulfilment)
        .given("P1", [PurchaseEvent::Placed])
        .when("P1", PurchaseEvent::Paid)
        .then([Ship(purchase())])
        .given(
            "S1",
            [ShipmentEvent::Sent {
                purchase: purchase(),
            }],
        )
        .when(
            "S1",
            ShipmentEvent::Lost {
                purchase: purchase(),
            },
        )
        .then([Ship(purchase())])
        .when(
            "S2",
            ShipmentEvent::Delivered {
                purchase: purchase(),
            },
        )
        .then_nothing()
        .then_complete("P1");
}

async fn run(store: &SqliteStore) -> Result<ProjectorHandle> {
    store.projector().process(Payment).start().await
}

fn parking() -> ProcessSubscription<Payment> {
    let policy = FailurePolicy::Park(Parking::at_most(100));
    ProcessSubscription::of(Payment).on_failure(policy)
}

async fn repair(store: &SqliteStore, ctx: &RequestContext) -> Result<()> {
    let operations = store.operations(ctx)?;
    for command in operations.parked_commands("payment", 100).await? {
        println!(
            "{}: {:?} failed {} times, {:?}",
            command.instance, command.command, command.attempts, command.error
        );
        operations.retry_command(&command).await?;
    }
    Ok(())
}

#[test]
fn a_purchase_is_cancelled_after_two_reminders() {
    let number = || "P1".to_owned();
    process(Payment)
        .given("P1", [PurchaseEvent::Placed])
        .when_time_passes(TimeDelta::days(7))
        .then([PaymentCommand::Remind(number())])
        .when_time_passes(TimeDelta::days(6))
        .then([
            PaymentCommand::Remind(number()),
            PaymentCommand::Cancel(number()),
        ])
        .when("P1", PurchaseEvent::Cancelled)
        .then_nothing()
        .then_complete("P1");
    process(Payment)
        .given("P1", [PurchaseEvent::Placed, PurchaseEvent::Paid])
        .when_time_passes(TimeDelta::days(30))
        .then_nothing();
}

#[tokio::test]
async fn it_does_so_in_a_store() -> Result<()> {
    let start = DateTime::UNIX_EPOCH;
    let clock = std::sync::Arc::new(ManualClock::new(start));
    let options = StoreOptions::default().clock(clock.clone());
    let memory = "sqlite::memory:".parse().expect("a URL");
    let store = SqliteStore::connect_with(memory, options).await?;
    store.migrate().await?;
    let ctx = RequestContext::tenant(TenantId::new("north")?);
    let mut uow = store.unit_of_work(&ctx);
    let mut purchase = Purchase::blank("P1".to_owned());
    purchase.raise(PurchaseEvent::Placed);
    uow.save(purchase)?;
    let _ = uow.commit().await?;

    for days in [0, 7, 10] {
        clock.set(start + TimeDelta::days(days));
        let projector = store.projector().subscribe_process(parking());
        projector.run_until_idle().await?;
    }
    let payment = store.process::<Payment>(&ctx, "P1").await?;
    let payment = payment.expect("it runs");
    assert_eq!(payment.state.reminders, 2);
    let cancelled = start + TimeDelta::days(13);
    assert_eq!(payment.deadlines["payment"], cancelled);
    repair(&store, &RequestContext::system()).await?;

    clock.set(cancelled);
    let running = run(&store).await?;
    let is_open = async || {
        let mut uow = store.unit_of_work(&ctx);
        let purchase = uow.get::<Purchase>("P1".to_owned()).await?;
        Ok::<bool, cqrs_core::Error>(purchase.is_open)
    };
    while is_open().await? {
        tokio::task::yield_now().await;
    }
    running.stop(std::time::Duration::from_secs(10)).await;
    Ok(())
}
