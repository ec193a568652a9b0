//! How a manager is run.

use std::fmt;
use std::sync::Arc;

use super::manager::ProcessManager;
use crate::projection::ProjectionTransaction;
use crate::subscription::{FailurePolicy, StartAt, Subscription};

/// A [`ProcessManager`], with where it begins in the log and what becomes of events that it cannot
/// handle.
///
/// # Example
///
/// ```
/// use cqrs_core::process::{ProcessManager, ProcessSubscription};
/// use cqrs_core::{FailurePolicy, Parking, StartAt};
///
/// fn from_now_on<P: ProcessManager>(manager: P) -> ProcessSubscription<P> {
///     ProcessSubscription::of(manager)
///         .start_at(StartAt::Now)
///         .on_failure(FailurePolicy::Park(Parking::at_most(100)))
/// }
/// ```
pub struct ProcessSubscription<P> {
    manager: Arc<P>,
    start: StartAt,
    policy: FailurePolicy,
}

impl<P: ProcessManager> ProcessSubscription<P> {
    /// That of a manager: from the beginning of the log, and halted by an event that fails.
    pub fn of(manager: P) -> Self {
        Self {
            manager: Arc::new(manager),
            start: StartAt::default(),
            policy: FailurePolicy::default(),
        }
    }

    /// As [`Subscription::start_at`].
    #[must_use]
    pub fn start_at(mut self, start: StartAt) -> Self {
        self.start = start;
        self
    }

    /// As [`Subscription::on_failure`]. Events are parked by aggregate: events of other aggregates
    /// go on, also those of the same instance.
    #[must_use]
    pub fn on_failure(mut self, policy: FailurePolicy) -> Self {
        self.policy = policy;
        self
    }

    /// The manager. For authors of stores.
    #[must_use]
    pub fn manager(&self) -> &Arc<P> {
        &self.manager
    }

    /// The subscription that keeps its instances. For authors of stores, who also do its tasks.
    pub fn subscription<T: ProjectionTransaction>(&self) -> Subscription<T> {
        Subscription::of_process(Arc::clone(&self.manager))
            .start_at(self.start)
            .on_failure(self.policy.clone())
    }
}

impl<P: ProcessManager> fmt::Debug for ProcessSubscription<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessSubscription")
            .field("name", &P::NAME)
            .field("start", &self.start)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}
