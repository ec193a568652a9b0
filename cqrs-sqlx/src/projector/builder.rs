//! Setting a projector up.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cqrs_core::process::{ProcessManager, ProcessSubscription};
use cqrs_core::{
    Each, Error, EventBus, EventHandler, Projection, Result, RowProjection, Rows, StoreErrorKind,
    SubscribedName, Subscription,
};

use super::handle::ProjectorHandle;
use super::pace::{Polling, RetryDelays};
use super::processes::{self, Manager, Running};
use super::transaction::SqlTransaction;
use super::worker::{Rules, Worker};
use super::{building, builds, horizon, idle, register, subscription};
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
    rules: Rules,
    workers: Option<usize>,
    polling: Polling,
    processes: Vec<Arc<dyn Running<B>>>,
}

impl<B: Backend> ProjectorBuilder<B> {
    pub(crate) fn new(store: SqlStore<B>) -> Self {
        Self {
            shared: Arc::clone(store.shared()),
            subscriptions: Vec::new(),
            rules: Rules {
                page_size: 1000,
                delays: RetryDelays::default(),
                deadline: Duration::from_secs(60),
            },
            workers: None,
            polling: Polling::new(B::POLL_INTERVAL),
            processes: Vec::new(),
        }
    }

    /// Adds a read model with one row per key.
    pub fn rows(self, projection: impl RowProjection) -> Self {
        self.projection(Rows(projection))
    }

    /// Adds a projection.
    pub fn projection(self, projection: impl Projection<SqlTransaction<B>>) -> Self {
        self.subscribe(Subscription::new(projection))
    }

    /// Adds a handler of single events.
    pub fn each(self, handler: impl EventHandler<SqlTransaction<B>>) -> Self {
        self.projection(Each(handler))
    }

    /// Publishes all events to a bus, at least once; the checkpoint is kept under `name`.
    pub fn relay(self, name: impl Into<String>, bus: impl EventBus) -> Self {
        self.subscribe(Subscription::named(name).relay(bus))
    }

    /// Adds a subscription: for several handlers with one checkpoint, for another beginning than
    /// that of the log, for several segments, or for another policy than to halt.
    pub fn subscribe(mut self, subscription: Subscription<SqlTransaction<B>>) -> Self {
        self.subscriptions.push(Arc::new(subscription));
        self
    }

    /// Adds a process manager. Its deadlines pass and its commands are executed as long as the
    /// projector runs, by any of the processes that run it.
    ///
    /// A command that fails is tried again after the [delays](Self::retry_delays), and then parked
    /// with those of its instance behind it; it may take as long as the
    /// [deadline](Self::deadline) says.
    pub fn process<P: ProcessManager>(self, manager: P) -> Self {
        self.subscribe_process(ProcessSubscription::of(manager))
    }

    /// As [`process`](Self::process), for another beginning than that of the log, or for another
    /// policy than to halt.
    pub fn subscribe_process<P: ProcessManager>(mut self, process: ProcessSubscription<P>) -> Self {
        let manager = Manager(Arc::clone(process.manager()));
        self.processes.push(Arc::new(manager));
        self.subscribe(process.subscription())
    }

    /// How many workers of this process run each subscription; as many as it
    /// [begins with segments](Subscription::segments), unless told; at least one.
    ///
    /// A worker applies one page at a time, of whichever segment is furthest behind and free.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers.max(1));
        self
    }

    /// How long the handlers of a subscription may take for a page, or for one event while an
    /// event that fails is looked for; a minute unless told. What takes longer is cancelled and
    /// rolled back, and counts as a failure.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.rules.deadline = deadline;
        self
    }

    /// How many events a page holds at most; 1000 unless told, at least 1. A page is one
    /// transaction, and is in memory as a whole.
    pub fn page_size(mut self, events: u32) -> Self {
        self.rules.page_size = events.max(1);
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

    /// The delays before an event that failed is tried again; 100 ms, 1 s and 10 s unless told.
    /// When it has failed once more than there are delays, the subscription's
    /// [policy](cqrs_core::FailurePolicy) decides; its segment stands still meanwhile.
    ///
    /// Attempts are counted in the database: they, and the delays, hold across all processes.
    /// Errors of the database that may pass (it is away, busy, or broke a deadlock) are not
    /// counted.
    pub fn retry_delays(mut self, delays: impl Into<Vec<Duration>>) -> Self {
        self.rules.delays.set_delays(delays.into());
        self
    }

    /// Where the randomness of the delays comes from: numbers from 0 to 1. A delay is up to a
    /// fifth longer, at 1, so that what failed together is not tried again together.
    pub fn jitter(mut self, random: impl Fn() -> f64 + Send + Sync + 'static) -> Self {
        self.rules.delays.set_random(Arc::new(random));
        self
    }

    /// Registers the subscriptions, and runs them in tasks of their own until the handle is
    /// stopped or dropped. A new subscription begins where it [says](Subscription::start_at).
    ///
    /// # Errors
    ///
    /// A [`Usage`](StoreErrorKind::Usage) error where two subscriptions have one name, a name is
    /// empty, not fit for a database or that of an [inline](cqrs_core::Store::inline) projection,
    /// or a subscription [cannot be run](Subscription::check) as it is set up;
    /// [`Store`](Error::Store) where the store fails.
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
        self.register().await?;
        let (mut serving, mut building) = (Vec::new(), Vec::new());
        for subscription in &self.subscriptions {
            let segments = usize::try_from(subscription.initial_segments()).unwrap_or(1);
            let (turns, builds) = (Arc::default(), Arc::default());
            for _ in 0..self.workers.unwrap_or(segments) {
                serving.push(self.worker(subscription).among(&turns));
                let builder = self.builder(subscription);
                building.extend(builder.map(|builder| builder.among(&builds)));
            }
        }
        let follower = horizon::follow(&self.shared, self.polling);
        Ok(ProjectorHandle::spawn(|tasks| {
            for process in self.processes {
                let store = SqlStore::of(Arc::clone(&self.shared));
                let (rules, polling) = (self.rules.clone(), self.polling);
                tasks.spawn(|stopping| processes::run(store, process, rules, polling, stopping));
            }
            for mut worker in serving {
                let (follower, names) = (follower.clone(), Arc::clone(&names));
                tasks.spawn(|stopping| async move {
                    let horizon = follower.horizon();
                    subscription::run(&mut worker, horizon, self.polling, stopping).await;
                    // The whole of it, or the block would hold what it uses alone.
                    drop((follower, names));
                });
            }
            if building.is_empty() {
                return;
            }
            let (tell, builds) = builds::channel();
            for worker in building {
                let (follower, builds) = (follower.clone(), builds.clone());
                tasks.spawn(|stopping| async move {
                    let horizon = follower.horizon();
                    builds::run(worker, builds, horizon, self.polling, stopping).await;
                    drop(follower);
                });
            }
            let shared = Arc::clone(&self.shared);
            tasks.spawn(|stopping| builds::look_again_and_again(shared, tell, stopping));
        }))
    }

    /// Runs the subscriptions, one after the other and within this future, until each has applied
    /// every event and no writer is in flight; how many events were applied. Process managers have
    /// their deadlines pass and their commands executed in between; a command that has failed is
    /// waited for until it is tried again, unless the clock of the store stands still. For tests and
    /// tools.
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
        self.register().await?;
        let mut workers: Vec<_> = self
            .subscriptions
            .iter()
            .flat_map(|subscription| {
                let builder = self.builder(subscription);
                builder.into_iter().chain([self.worker(subscription)])
            })
            .collect();
        let store = SqlStore::of(Arc::clone(&self.shared));
        let mut applied = 0;
        loop {
            let pages = idle::run(&self.shared, &mut workers).await;
            // What was told before a subscription halted is done.
            let executed = processes::run_until_idle(&store, &self.processes, &self.rules).await?;
            applied += pages?;
            if executed == 0 {
                return Ok(applied);
            }
        }
    }

    /// Takes the names of the subscriptions, as long as they run.
    fn names(&self) -> Result<Vec<SubscribedName>> {
        let mut names = HashSet::new();
        for subscription in &self.subscriptions {
            check_name(subscription.name(), &mut names)?;
            subscription.check()?;
        }
        let subscribe = |one: &Arc<Subscription<_>>| self.shared.inline.subscribe(one.name());
        self.subscriptions.iter().map(subscribe).collect()
    }

    async fn register(&self) -> Result<()> {
        for subscription in &self.subscriptions {
            register::ensure(&self.shared, subscription).await?;
        }
        Ok(())
    }

    fn worker(&self, subscription: &Arc<Subscription<SqlTransaction<B>>>) -> Worker<B> {
        let subscription = Arc::clone(subscription);
        Worker::new(Arc::clone(&self.shared), subscription, self.rules.clone())
    }

    /// A worker that builds its rows anew, where that can be asked for.
    fn builder(&self, subscription: &Arc<Subscription<SqlTransaction<B>>>) -> Option<Worker<B>> {
        subscription.rebuilds()?;
        let subscription = Arc::clone(subscription);
        let (shared, rules) = (Arc::clone(&self.shared), self.rules.clone());
        Some(Worker::building(shared, subscription, rules))
    }
}

fn check_name<'n>(name: &'n str, names: &mut HashSet<&'n str>) -> Result<()> {
    let usage = |message| Err(Error::store(StoreErrorKind::Usage, message));
    if name.is_empty() || name.len() > 255 || name.contains('\0') {
        return usage(format!(
            "the name of a subscription is 1 to 255 bytes of text without NUL, not {name:?}"
        ));
    }
    building::refuse_name(name)?;
    if !names.insert(name) {
        return usage(format!("two subscriptions are named {name:?}"));
    }
    Ok(())
}

impl<B: Backend> fmt::Debug for ProjectorBuilder<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProjectorBuilder")
            .field("subscriptions", &self.subscriptions)
            .field("rules", &self.rules)
            .field("workers", &self.workers)
            .field("polling", &self.polling)
            .finish_non_exhaustive()
    }
}
