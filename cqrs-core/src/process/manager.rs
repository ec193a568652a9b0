//! What a user writes of a process manager.

use std::future::Future;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::envelope::Envelope;
use crate::error::Result;
use crate::event::EventSet;
use crate::unit_of_work::UnitOfWork;

/// Follows a process that goes over several aggregates, or over time: it remembers where each
/// instance of the process is, issues commands, and sets deadlines.
///
/// An event belongs to one [instance](Self::instance), by an id of your choice, within the tenant
/// of the event. What the manager makes of it is state: a function of the state so far and the
/// event, without I/O. Commands are values; they are [executed](Self::execute) after that, in units
/// of work of their own.
///
/// # Transaction
///
/// The state of the instances, the commands and the deadlines of a page are one transaction with
/// the checkpoint: each event counts once. A command leaves the database in the transaction of what
/// it writes: so each is executed once, also where the process dies in the middle of it. A deadline
/// that passes is an event in the log, of an aggregate type that has the name of the manager; it is
/// handled in the order of the log, as every other event.
///
/// # Failures
///
/// An event that cannot be handled is left to the [policy](crate::FailurePolicy) of the
/// subscription. A command that fails is tried again as events are, and then parked; later
/// commands of its instance wait behind it, all other instances go on. A refusal that the process has
/// to know of is an event like any other: catch the error in `execute`, and save what tells of it.
///
/// # Example
///
/// ```
/// use chrono::TimeDelta;
/// use cqrs_core::process::{Instance, Next, ProcessManager};
/// use cqrs_core::*;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DomainEvent)]
/// # #[event(aggregate = "order")]
/// # enum OrderEvent { Placed, Paid, Cancelled }
/// # #[derive(Debug, Clone, Aggregate)]
/// # #[aggregate(sourced, event = OrderEvent)]
/// # struct Order {
/// #     #[aggregate(id)] number: String,
/// #     #[aggregate(root)] root: Root<OrderEvent>,
/// #     cancelled: bool,
/// # }
/// # impl Sourced for Order {
/// #     fn apply(&mut self, event: &OrderEvent) { self.cancelled |= *event == OrderEvent::Cancelled; }
/// # }
///
/// /// Cancels orders that are not paid within three days.
/// struct Payment;
///
/// #[derive(Serialize, Deserialize)]
/// struct CancelOrder(String);
///
/// impl ProcessManager for Payment {
///     type Event = OrderEvent;
///     type State = ();
///     type Command = CancelOrder;
///
///     const NAME: &'static str = "payment";
///
///     fn instance(&self, event: &Envelope<OrderEvent>) -> Option<Instance> {
///         let order = event.aggregate_id_str();
///         Some(match event.payload() {
///             OrderEvent::Placed => Instance::starting(order),
///             OrderEvent::Paid | OrderEvent::Cancelled => Instance::running(order),
///         })
///     }
///
///     fn on_event(
///         &self,
///         _: &mut (),
///         event: &Envelope<OrderEvent>,
///         next: &mut Next<CancelOrder>,
///     ) -> Result<()> {
///         match event.payload() {
///             OrderEvent::Placed => next.deadline_in("paid", TimeDelta::days(3)),
///             OrderEvent::Paid | OrderEvent::Cancelled => next.complete(),
///         }
///         Ok(())
///     }
///
///     fn on_deadline(&self, _: &mut (), _: &str, next: &mut Next<CancelOrder>) -> Result<()> {
///         next.command(CancelOrder(next.instance().to_owned()));
///         Ok(())
///     }
///
///     async fn execute<U: UnitOfWork>(&self, command: CancelOrder, uow: &mut U) -> Result<()> {
///         let mut order = uow.get::<Order>(command.0).await?;
///         order.raise(OrderEvent::Cancelled);
///         uow.save(order)
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// # use std::sync::Arc;
/// # let start = chrono::DateTime::UNIX_EPOCH;
/// # let clock = Arc::new(ManualClock::new(start));
/// # let context = RequestContext::system();
/// let store = InMemoryStore::new().with_clock(clock.clone());
/// store.subscribe_process(Payment)?;
/// store
///     .execute(&context, async |uow| {
///         let mut order = Order::blank("A1".to_owned());
///         order.raise(OrderEvent::Placed);
///         uow.save(order)
///     })
///     .await?;
/// store.project().await?;
/// clock.set(start + TimeDelta::days(3));
/// store.project().await?;
/// let order = store.read(&context, async |uow| uow.get::<Order>("A1".to_owned()).await).await?;
/// assert!(order.cancelled);
/// # Ok(())
/// # }
/// ```
pub trait ProcessManager: Send + Sync + 'static {
    /// The events that it reads.
    type Event: EventSet;
    /// What it remembers of an instance; the default when it starts. It is stored as JSON.
    type State: Default + Serialize + DeserializeOwned + Send;
    /// What it has done. Stored as JSON until it is executed.
    type Command: Serialize + DeserializeOwned + Send;

    /// Its name: that of its subscription, and the aggregate type of the deadlines that pass. No
    /// aggregate may have it.
    const NAME: &'static str;

    /// The instance that an event belongs to; `None` skips the event.
    fn instance(&self, event: &Envelope<Self::Event>) -> Option<Instance>;

    /// What follows from an event.
    ///
    /// # Errors
    ///
    /// As in [`Projection::apply`](crate::Projection::apply).
    fn on_event(
        &self,
        state: &mut Self::State,
        event: &Envelope<Self::Event>,
        next: &mut Next<Self::Command>,
    ) -> Result<()>;

    /// What follows from a deadline that has passed. Nothing, unless told.
    ///
    /// # Errors
    ///
    /// As in [`Projection::apply`](crate::Projection::apply).
    fn on_deadline(
        &self,
        state: &mut Self::State,
        deadline: &str,
        next: &mut Next<Self::Command>,
    ) -> Result<()> {
        let _ = (state, deadline, next);
        Ok(())
    }

    /// Executes a command in a unit of work, in the tenant of its instance; the caller commits. It
    /// is run again after a conflict, each time in a new unit of work.
    ///
    /// What it does outside of the unit of work may happen more than once.
    ///
    /// # Errors
    ///
    /// Any error means that nothing is committed, and the command is not done.
    fn execute<U: UnitOfWork>(
        &self,
        command: Self::Command,
        unit_of_work: &mut U,
    ) -> impl Future<Output = Result<()>> + Send;
}

/// To which instance of a process an event belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    pub(crate) id: String,
    pub(crate) starts: bool,
}

impl Instance {
    /// The instance with this id, which the event starts where there is none. An id is 1 to 255
    /// bytes of text without NUL, unique within the tenant.
    pub fn starting(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            starts: true,
        }
    }

    /// The instance with this id, if it runs; else the event is skipped.
    pub fn running(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            starts: false,
        }
    }
}

/// What follows from an event, or from a deadline that has passed.
#[derive(Debug)]
pub struct Next<'p, C> {
    instance: &'p str,
    now: DateTime<Utc>,
    pub(crate) steps: Steps<C>,
}

/// What was asked for.
#[derive(Debug)]
pub(crate) struct Steps<C> {
    pub(crate) commands: Vec<C>,
    /// Deadlines by name; `None` is one that does not hold any more.
    pub(crate) deadlines: Vec<(String, Option<DateTime<Utc>>)>,
    pub(crate) is_complete: bool,
}

impl<'p, C> Next<'p, C> {
    pub(crate) fn new(instance: &'p str, now: DateTime<Utc>) -> Self {
        Self {
            instance,
            now,
            steps: Steps {
                commands: Vec::new(),
                deadlines: Vec::new(),
                is_complete: false,
            },
        }
    }

    /// The id of the instance.
    #[must_use]
    pub fn instance(&self) -> &str {
        self.instance
    }

    /// When the event happened: the time of the store that wrote it, which is the same however late
    /// it is handled.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        self.now
    }

    /// Issues a command. Those of an instance are executed in the order in which they were issued.
    pub fn command(&mut self, command: C) {
        self.steps.commands.push(command);
    }

    /// Sets a deadline; one of this name that the instance has is replaced. A time outside of the
    /// years 0 to 9999, which a store cannot hold, is taken for the nearest that it can.
    pub fn deadline(&mut self, name: impl Into<String>, at: DateTime<Utc>) {
        self.steps.deadlines.push((name.into(), Some(storable(at))));
    }

    /// Sets a deadline so long after the event [happened](Self::now).
    pub fn deadline_in(&mut self, name: impl Into<String>, after: TimeDelta) {
        let at = self.now.checked_add_signed(after);
        self.deadline(name, at.unwrap_or(DateTime::<Utc>::MAX_UTC));
    }

    /// Cancels the deadline of this name, if there is one: from now on it does not pass, also where
    /// its time has come meanwhile.
    pub fn cancel(&mut self, name: impl Into<String>) {
        self.steps.deadlines.push((name.into(), None));
    }

    /// Ends the instance: its deadlines are cancelled, later events of it are skipped, and its id
    /// is not used again. Commands that were issued are executed all the same.
    pub fn complete(&mut self) {
        self.steps.is_complete = true;
    }
}

/// The nearest time that [can be stored](crate::mapping::Value::checked).
fn storable(at: DateTime<Utc>) -> DateTime<Utc> {
    /// The beginning of the year 0, and the end of 9999, in microseconds.
    const FIRST: i64 = -62_167_219_200_000_000;
    const LAST: i64 = 253_402_300_799_999_999;
    let nearest = at.timestamp_micros().clamp(FIRST, LAST);
    DateTime::from_timestamp_micros(nearest).unwrap_or(at)
}
