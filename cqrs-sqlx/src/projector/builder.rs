//! Setting a projector up.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cqrs_core::{
    Error, EventBus, Projection, Relay, Result, RowProjection, Rows, StoreErrorKind,
    SubscribedName, Subscription,
};

use super::handle::ProjectorHandle;
use super::pace::{Polling, RetryDelays};
use super::pass::Worker;
use super::transaction::SqlTransaction;
use super::{checkpoint, horizon, idle, subscription};
use crate::backend::Backend;
use crate::store::{Shared, SqlStore};

/// Which projections a projector runs, and how. Made by
/// [`SqlStore::projector`](crate::SqlStore::projector).
///
/// Any number of processes may run the same subscriptions: for each page one of them claims the
/// checkpoint, and the others wait. Each event is applied once, and in the order of the log.
#[must_use = "a projector does nothing before it is started"]
pub struct ProjectorBuilder<B: Backend> {
    shared: Arc<Shared<B>>,
    subscriptions: Vec<Arc<Subscription<SqlTransaction<B>>>>,
    page_size: u32,
    polling: Polling,
    delays: RetryDelays,
}

impl<B: Backend> ProjectorBuilder<B> {
    pub(crate) fn new(store: SqlStore<B>) -> Self {
        Self {
            shared: Arc::clone(store.shared()),
            subscriptions: Vec::new(),
            page_size: 1000,
            polling: Polling::new(B::POLL_INTERVAL),
            delays: RetryDelays::default(),
        }
    }

    /// Adds a read model with one row per key.
    pub fn rows(self, projection: impl RowProjection) -> Self {
        self.projection(Rows(projection))
    }

    /// Adds a projection.
    pub fn projection(mut self, projection: impl Projection<SqlTransaction<B>>) -> Self {
        self.subscriptions
            .push(Arc::new(Subscription::new(projection)));
        self
    }

    /// Publishes all events to a bus, at least once; the checkpoint is kept under `name`.
    pub fn relay(self, name: impl Into<String>, bus: impl EventBus) -> Self {
        self.projection(Relay::new(name, bus))
    }

    /// How many events a page holds at most; 1000 unless told, at least 1. A page is one
    /// transaction, and is in memory as a whole.
    pub fn page_size(mut self, events: u32) -> Self {
        self.page_size = events.max(1);
        self
    }

    /// How often to look for events that nothing told of; 100 ms unless told, and 10 ms on SQLite.
    ///
    /// Commits of this process wake the projector at once, and those of others do on Postgres,
    /// with [notifications](crate::StoreOptions::notifications). Whatever was missed is found by
    /// looking at the log this often while something happens; the longer nothing does, the longer
    /// it waits, up to ten times as long. So an idle system costs one small query a second, and an
    /// event that comes after a quiet time, and that nothing told of, is late by a second at most.
    ///
    /// The projectors of one store look together, as often as the most impatient of them asks.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.polling = Polling::new(interval);
        self
    }

    /// The delays before a page that failed is tried again; 100 ms, 1 s and 10 s unless told.
    /// Failing once more than there are delays halts the subscription.
    ///
    /// Attempts are counted in the database: they, and the delays, hold across all processes.
    /// Errors of the database that may pass (it is away, busy, or broke a deadlock) are not
    /// counted.
    pub fn retry_delays(mut self, delays: impl Into<Vec<Duration>>) -> Self {
        self.delays = RetryDelays(delays.into());
        self
    }

    /// Registers the subscriptions, and runs them in tasks of their own until the handle is
    /// stopped or dropped. A new subscription begins at the start of the log.
    ///
    /// # Errors
    ///
    /// A [`Usage`](StoreErrorKind::Usage) error where two subscriptions have one name, or a name is
    /// empty, not fit for a database, or that of an [inline](cqrs_core::Store::inline) projection; [`Store`](Error::Store) where the store fails.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, nothing runs; subscriptions may have been registered.
    pub async fn start(self) -> Result<ProjectorHandle> {
        let names = Arc::new(self.names()?);
        let workers = self.workers().await?;
        let follower = horizon::follow(&self.shared, self.polling);
        Ok(ProjectorHandle::spawn(|tasks| {
            for worker in workers {
                let (follower, names) = (follower.clone(), Arc::clone(&names));
                tasks.spawn(|stopping| async move {
                    subscription::run(worker, follower.horizon(), self.polling, stopping).await;
                    // The whole of it, or the block would hold what it uses alone.
                    drop((follower, names));
                });
            }
        }))
    }

    /// Runs the subscriptions, one after the other and within this future, until each has applied
    /// every event and no writer is in flight; how many events were applied. For tests and tools.
    ///
    /// It waits for writers that are in flight and for workers that have claimed a subscription,
    /// however long they take.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start); and [`Error::Other`] with the
    /// [`SubscriptionFailure`](crate::SubscriptionFailure) where a subscription is halted, also
    /// where that happens only now, after all delays.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the page under way is rolled back.
    pub async fn run_until_idle(&self) -> Result<u64> {
        let _names = self.names()?;
        let mut workers = self.workers().await?;
        idle::run(&self.shared, &mut workers).await
    }

    /// Takes the names of the subscriptions, as long as they run.
    fn names(&self) -> Result<Vec<SubscribedName>> {
        let mut names = HashSet::new();
        for subscription in &self.subscriptions {
            check_name(subscription.name(), &mut names)?;
        }
        let subscribe = |one: &Arc<Subscription<_>>| self.shared.inline.subscribe(one.name());
        self.subscriptions.iter().map(subscribe).collect()
    }

    async fn workers(&self) -> Result<Vec<Worker<B>>> {
        let mut workers = Vec::with_capacity(self.subscriptions.len());
        for subscription in &self.subscriptions {
            checkpoint::ensure(&self.shared, subscription.name()).await?;
            workers.push(Worker::new(
                Arc::clone(&self.shared),
                Arc::clone(subscription),
                self.page_size,
                self.delays.clone(),
            ));
        }
        Ok(workers)
    }
}

fn check_name<'n>(name: &'n str, names: &mut HashSet<&'n str>) -> Result<()> {
    let usage = |message| Err(Error::store(StoreErrorKind::Usage, message));
    if name.is_empty() || name.len() > 255 || name.contains('\0') {
        return usage(format!(
            "the name of a subscription is 1 to 255 bytes of text without NUL, not {name:?}"
        ));
    }
    if !names.insert(name) {
        return usage(format!("two subscriptions are named {name:?}"));
    }
    Ok(())
}

impl<B: Backend> fmt::Debug for ProjectorBuilder<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProjectorBuilder")
            .field("subscriptions", &self.subscriptions)
            .field("page_size", &self.page_size)
            .field("polling", &self.polling)
            .field("delays", &self.delays)
            .finish_non_exhaustive()
    }
}
