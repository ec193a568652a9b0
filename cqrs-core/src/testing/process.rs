//! Given events, when something happens or time passes, then commands.

use std::fmt::{self, Debug, Display};

use chrono::{DateTime, TimeDelta, Utc};

use super::diff::diff;
use super::recorder::Recorder;
use super::unasked::Unasked;
use crate::context::TenantId;
use crate::envelope::{Envelope, RawPayload};
use crate::error::Error;
use crate::event::DomainEvent;
use crate::process::{DEADLINE_PASSED, Instances, ProcessManager};

/// A process manager to which nothing has happened yet, at the beginning of 1970.
///
/// Ids are the same in each run: an event has its position (1, 2, 3, ...) as its `event_id`, and a
/// `correlation_id` of zeros.
///
/// # Example
///
/// ```
/// use chrono::TimeDelta;
/// use cqrs_core::process::{Instance, Next, ProcessManager};
/// use cqrs_core::testing::process;
/// use cqrs_core::*;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DomainEvent)]
/// # #[event(aggregate = "order")]
/// # enum OrderEvent { Placed, Paid }
/// # struct Payment;
/// # #[derive(Debug, PartialEq, Serialize, Deserialize)]
/// # struct CancelOrder(String);
/// # impl ProcessManager for Payment {
/// #     type Event = OrderEvent;
/// #     type State = ();
/// #     type Command = CancelOrder;
/// #     const NAME: &'static str = "payment";
/// #     fn instance(&self, event: &Envelope<OrderEvent>) -> Option<Instance> {
/// #         Some(Instance::starting(event.aggregate_id_str()))
/// #     }
/// #     fn on_event(&self, _: &mut (), event: &Envelope<OrderEvent>, next: &mut Next<'_, CancelOrder>) -> Result<()> {
/// #         match event.payload() {
/// #             OrderEvent::Placed => next.deadline_in("paid", TimeDelta::days(3)),
/// #             OrderEvent::Paid => next.complete(),
/// #         }
/// #         Ok(())
/// #     }
/// #     fn on_deadline(&self, _: &mut (), _: &str, next: &mut Next<'_, CancelOrder>) -> Result<()> {
/// #         next.command(CancelOrder(next.instance().to_owned()));
/// #         Ok(())
/// #     }
/// #     async fn execute<U: UnitOfWork>(&self, _: CancelOrder, _: &mut U) -> Result<()> { Ok(()) }
/// # }
/// process(Payment)
///     .given("A1", [OrderEvent::Placed])
///     .when_time_passes(TimeDelta::days(3))
///     .then([CancelOrder("A1".to_owned())]);
/// process(Payment)
///     .given("A1", [OrderEvent::Placed])
///     .when("A1", OrderEvent::Paid)
///     .then_nothing()
///     .then_complete("A1")
///     .when_time_passes(TimeDelta::days(3))
///     .then_nothing();
/// ```
pub fn process<P: ProcessManager>(manager: P) -> ProcessScenario<P> {
    ProcessScenario {
        instances: Instances::new(manager),
        recorder: Recorder::new(),
        issued: Vec::new(),
        failure: None,
        unasked: Unasked::default(),
    }
}

/// A process manager in a test. No store is needed, and no command is executed. Its methods panic
/// where something is not as expected, or the manager fails and that is not
/// [expected](Self::then_error_if). It panics also when it is dropped after a step of which nothing
/// is expected: a test that forgets to look does not pass.
///
/// Events may be of any aggregate: a manager of [several](trait@crate::EventSet) is given those of
/// each by their own type.
pub struct ProcessScenario<P: ProcessManager> {
    instances: Instances<P>,
    recorder: Recorder,
    /// What was issued in the last step.
    issued: Vec<P::Command>,
    /// Why the last step failed, until it is expected.
    failure: Option<Error>,
    unasked: Unasked,
}

impl<P: ProcessManager> ProcessScenario<P> {
    /// What follows happens at this time.
    #[must_use]
    pub fn at(mut self, time: DateTime<Utc>) -> Self {
        self.recorder.now = time;
        self
    }

    /// What follows happens to aggregates of this tenant.
    #[must_use]
    pub fn of_tenant(mut self, tenant: TenantId) -> Self {
        self.recorder.tenant = Some(tenant);
        self
    }

    /// Who does what follows; nobody unless told.
    #[must_use]
    pub fn by(mut self, actor: &str) -> Self {
        self.recorder.actor = Some(actor.to_owned());
        self
    }

    /// These events have happened to an aggregate. The commands that followed are forgotten.
    #[must_use]
    #[track_caller]
    pub fn given<E: DomainEvent>(
        mut self,
        aggregate_id: impl Display,
        events: impl IntoIterator<Item = E>,
    ) -> Self {
        let id = aggregate_id.to_string();
        for event in events {
            self.begin_step();
            let event = self.recorder.event(&id, &event);
            self.handle(&event);
        }
        self.begin_step();
        self
    }

    /// An event happens to an aggregate.
    #[must_use]
    #[track_caller]
    pub fn when<E: DomainEvent>(mut self, aggregate_id: impl Display, event: E) -> Self {
        self.begin_step();
        let event = self.recorder.event(&aggregate_id.to_string(), &event);
        self.handle(&event);
        self.unasked.step();
        self
    }

    /// So much time passes, and with it deadlines, each at its time. One that the manager fails at ends
    /// the step.
    #[must_use]
    #[track_caller]
    pub fn when_time_passes(mut self, time: TimeDelta) -> Self {
        self.begin_step();
        let until = self.recorder.now + time;
        let tenant = self.recorder.tenant.clone();
        while self.failure.is_none()
            && let Some(passed) = self.instances.pass(until)
        {
            self.recorder.now = self.recorder.now.max(passed.at);
            self.recorder.tenant = passed.tenant;
            let event_type = (DEADLINE_PASSED, 1);
            let (id, payload) = (passed.id, passed.payload);
            let event = self.recorder.raw(P::NAME, &id, event_type, payload);
            self.handle(&event);
        }
        self.recorder.now = until;
        self.recorder.tenant = tenant;
        self.unasked.step();
        self
    }

    /// Expects that these commands were issued in the last step, in this order.
    ///
    /// # Panics
    ///
    /// Where there were others.
    #[track_caller]
    pub fn then(mut self, commands: impl IntoIterator<Item = P::Command>) -> Self
    where
        P::Command: PartialEq + Debug,
    {
        self.check_success();
        let expected: Vec<P::Command> = commands.into_iter().collect();
        assert!(
            self.issued == expected,
            "the commands differ (- expected, + issued):\n{}",
            diff(&expected, &self.issued)
        );
        self.unasked.asked();
        self
    }

    /// Expects that no command was issued in the last step.
    ///
    /// # Panics
    ///
    /// Where there was one.
    #[track_caller]
    pub fn then_nothing(self) -> Self
    where
        P::Command: PartialEq + Debug,
    {
        self.then([])
    }

    /// Hands the commands of the last step to `check`: for those that cannot be written down.
    ///
    /// # Panics
    ///
    /// Where `check` does.
    #[track_caller]
    pub fn then_commands(mut self, check: impl FnOnce(&[P::Command])) -> Self {
        self.check_success();
        check(&self.issued);
        self.unasked.asked();
        self
    }

    /// Expects that the manager failed in the last step, with an error of which `check` asserts what it
    /// likes. The event, or the deadline, has changed nothing then, as in a store.
    ///
    /// # Panics
    ///
    /// Where it did not fail, and where `check` does.
    #[track_caller]
    pub fn then_error_if(mut self, check: impl FnOnce(&Error)) -> Self
    where
        P::Command: Debug,
    {
        match self.failure.take() {
            Some(error) => check(&error),
            None => panic!(
                "expected that the manager fails, but it issued {:#?}",
                self.issued
            ),
        }
        self.unasked.asked();
        self
    }

    /// Hands the state of an instance to `check`.
    ///
    /// # Panics
    ///
    /// Where there is no such instance; and where `check` does.
    #[track_caller]
    pub fn then_state(mut self, instance: impl Display, check: impl FnOnce(&P::State)) -> Self {
        self.check_success();
        let tenant = self.recorder.tenant.as_ref();
        match self.instances.state(tenant, &instance.to_string()) {
            Some((state, _)) => check(state),
            None => panic!("there is no instance {instance}"),
        }
        self.unasked.asked();
        self
    }

    /// Expects that an instance has ended.
    ///
    /// # Panics
    ///
    /// Where it runs, or there is none.
    #[track_caller]
    pub fn then_complete(mut self, instance: impl Display) -> Self {
        self.check_success();
        let tenant = self.recorder.tenant.as_ref();
        match self.instances.state(tenant, &instance.to_string()) {
            Some((_, is_complete)) => assert!(is_complete, "instance {instance} runs"),
            None => panic!("there is no instance {instance}"),
        }
        self.unasked.asked();
        self
    }

    fn handle(&mut self, event: &Envelope<RawPayload>) {
        match self.instances.handle(event) {
            Ok(commands) => self.issued.extend(commands),
            Err(error) => {
                self.issued.clear();
                self.failure = Some(error);
            }
        }
    }

    #[track_caller]
    fn begin_step(&mut self) {
        self.check_success();
        self.issued.clear();
    }

    #[track_caller]
    fn check_success(&self) {
        if let Some(error) = &self.failure {
            panic!("the manager failed: {error}");
        }
    }
}

impl<P: ProcessManager> Debug for ProcessScenario<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessScenario")
            .field("name", &P::NAME)
            .field("recorder", &self.recorder)
            .finish_non_exhaustive()
    }
}
