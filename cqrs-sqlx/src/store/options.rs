//! How a store is set up.

use std::sync::Arc;
use std::time::Duration;

use cqrs_core::integrity::{HashKeys, Hashing};
use cqrs_core::schema::SchemaIds;
#[cfg(feature = "sealed")]
use cqrs_core::sealed::{KeyStore, MasterKeys};
use cqrs_core::{Clock, Interceptor, Interceptors, RetryPolicy, SystemClock};

/// How a store is set up.
///
/// # Example
///
/// ```
/// # use std::time::Duration;
/// use cqrs_sqlx::StoreOptions;
///
/// let options = StoreOptions::default()
///     .max_connections(20)
///     .acquire_timeout(Duration::from_secs(2));
/// ```
#[derive(Debug, Clone)]
pub struct StoreOptions {
    pub(crate) max_connections: usize,
    pub(crate) acquire_timeout: Duration,
    pub(crate) wait_timeout: Duration,
    pub(crate) wait_interval: Duration,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) hashing: Hashing,
    pub(crate) schema_ids: SchemaIds,
    pub(crate) retry: RetryPolicy,
    pub(crate) interceptors: Interceptors,
    #[cfg(feature = "sealed")]
    pub(crate) master_keys: Option<MasterKeys>,
    #[cfg(feature = "sealed")]
    pub(crate) key_store: Option<Arc<dyn KeyStore>>,
    pub(crate) row_level_security: bool,
    pub(crate) notifications: bool,
    pub(crate) coalesce: Option<usize>,
}

impl Default for StoreOptions {
    /// Ten connections, 30 seconds to get one, 30 seconds to wait for a projection, the system's
    /// clock, the default [`RetryPolicy`], notifications, and no coalesced commits.
    fn default() -> Self {
        Self {
            max_connections: 10,
            acquire_timeout: Duration::from_secs(30),
            wait_timeout: Duration::from_secs(30),
            wait_interval: Duration::from_millis(1),
            clock: Arc::new(SystemClock),
            hashing: Hashing::default(),
            schema_ids: SchemaIds::default(),
            retry: RetryPolicy::default(),
            interceptors: Interceptors::default(),
            #[cfg(feature = "sealed")]
            master_keys: None,
            #[cfg(feature = "sealed")]
            key_store: None,
            row_level_security: false,
            notifications: true,
            coalesce: None,
        }
    }
}

impl StoreOptions {
    /// How many connections the store opens at most; at least one.
    #[must_use]
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections.max(1);
        self
    }

    /// How long an operation waits for a connection before it fails with
    /// [`PoolTimedOut`](cqrs_core::StoreErrorKind::PoolTimedOut); 30 seconds unless told. A projector
    /// waits as long, or three seconds, for answers that should come at once.
    #[must_use]
    pub fn acquire_timeout(mut self, timeout: Duration) -> Self {
        self.acquire_timeout = timeout;
        self
    }

    /// How long [`wait_for`](cqrs_core::Store::wait_for) waits before it fails with
    /// [`TimedOut`](cqrs_core::StoreErrorKind::TimedOut).
    #[must_use]
    pub fn wait_timeout(mut self, timeout: Duration) -> Self {
        self.wait_timeout = timeout;
        self
    }

    /// How soon [`wait_for`](cqrs_core::Store::wait_for) asks the database again where a subscription stands
    /// that another process runs; 1 ms unless told.
    ///
    /// Each pause is twice as long as the one before, up to 100 ms, or to this where it is longer.
    /// With [notifications](Self::notifications) the process that runs the subscription tells when
    /// it is there; where that is known to work, the pauses are from 100 ms to 1 s.
    #[must_use]
    pub fn wait_interval(mut self, interval: Duration) -> Self {
        self.wait_interval = interval;
        self
    }

    /// Where the times in events and audit columns come from.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// How [`execute`](cqrs_core::Store::execute) retries.
    #[must_use]
    pub fn retry_policy(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Tells the database in each transaction whose rows it may see, so that policies of row-level
    /// security hold, also for SQL of your own: a second wall behind the conditions of every
    /// statement. On Postgres alone, with the policies of `PgStore::row_level_security_sql`.
    /// [`verify`](crate::SqlStore::verify) then reports tables that have none, and a role that they do not
    /// hold for.
    ///
    /// A read alone and the commit of one aggregate then run in a transaction of their own: four
    /// round trips instead of one.
    #[must_use]
    pub fn row_level_security(mut self) -> Self {
        self.row_level_security = true;
        self
    }

    /// Makes the hashes of events with a key, so that who can write to the database alone cannot make
    /// them. Without keys they are plain.
    #[must_use]
    pub fn hash_keys(mut self, keys: HashKeys) -> Self {
        self.hashing.keys = Some(keys);
        self
    }

    /// Compares each event with its hash when it is read: by aggregates, projections and relays, by
    /// histories and exports of the log. One that was altered is
    /// [`Undecodable`](cqrs_core::Error::Undecodable); a subscription does with it what its failure
    /// policy says. It costs a hash of the payload for each event.
    ///
    /// It does not look at what stands around the payload, nor for events that are missing:
    /// [`check_log`](crate::SqlStore::check_log) does.
    #[must_use]
    pub fn verify_hashes(mut self) -> Self {
        self.hashing.verifies = true;
        self
    }

    /// Gives each event the id of its [schema](cqrs_core::schema), in the column `schema_id` of the
    /// log, where consumers and relays find it. Events without an id here have none.
    #[must_use]
    pub fn schema_ids(mut self, ids: SchemaIds) -> Self {
        self.schema_ids = ids;
        self
    }

    /// Keeps the keys of sealed fields under master keys, so that who can read the database alone opens
    /// nothing. Without them they are in the table in clear.
    #[cfg(feature = "sealed")]
    #[must_use]
    pub fn master_keys(mut self, keys: MasterKeys) -> Self {
        self.master_keys = Some(keys);
        self
    }

    /// Keeps the keys of sealed fields there, for example in a key service, in place of a table of
    /// the database.
    #[cfg(feature = "sealed")]
    #[must_use]
    pub fn key_store(mut self, keys: Arc<dyn KeyStore>) -> Self {
        self.key_store = Some(keys);
        self
    }

    /// Adds an [`Interceptor`], which runs after those that were added before.
    #[must_use]
    pub fn interceptor(mut self, interceptor: impl Interceptor) -> Self {
        self.interceptors = self.interceptors.with(interceptor);
        self
    }

    /// These interceptors, in place of those that were added before.
    #[must_use]
    pub fn interceptors(mut self, interceptors: Interceptors) -> Self {
        self.interceptors = interceptors;
        self
    }

    /// Whether the store tells other processes that it has committed, and for which subscription
    /// it waits, and listens to them; it does unless told.
    ///
    /// On Postgres that is `NOTIFY` and `LISTEN`, on one more connection of a process that commits
    /// or waits, on one more of a process with projectors, and on one more of a process that
    /// [waits](cqrs_core::Store::wait_for) for subscriptions of others, until half a minute after. A commit is
    /// told of after it, never in its transaction, at once where commits are few and every few
    /// milliseconds where they are many. That a subscription has moved is told where somebody waits.
    /// Nothing relies on it: without it, and behind a connection pooler, where nobody can
    /// listen, the projectors of other processes find events by polling. On SQLite
    /// there is no such thing, and they always do.
    #[must_use]
    pub fn notifications(mut self, notifications: bool) -> Self {
        self.notifications = notifications;
        self
    }

    /// Sends commits of this process that are under way at the same moment together, up to `most` in
    /// one statement; at least 2, at most 1,000. For services with many writers at a time, where the
    /// server or its disk is what limits them. On SQLite it does nothing.
    ///
    /// Each caller gets a receipt or an error of its own, as from a commit alone, when the commit is
    /// durable. Nobody waits for others to come: a commit that is alone goes out at once, and those
    /// that come while flushes are under way are the next one.
    ///
    /// Commits of one aggregate are sent together, with any number of events: of the same table,
    /// all of them creations, changes or removals, of any tenants. What needs more than that goes out
    /// alone, as without this option: several aggregates, guards, children, aggregates that are
    /// event-sourced or keep a history, a transaction that is open already, idempotency keys, inline
    /// projections of its events, [row-level security](Self::row_level_security), and rows and events
    /// of more than 64 KiB.
    ///
    /// So does each commit that a flush could not write, because its version was stale or its row
    /// locked, and, where a lock was not to be had in 50 ms, all of that flush. One in which a
    /// constraint was violated is sent again in halves, until four or fewer go out alone with the one
    /// that violates it. Where many commits fail it does not pay.
    ///
    /// Loads of one aggregate by its id, outside of a transaction, are sent together too, where more
    /// than a few of one table are under way: those of aggregates that are stored as a row, have no
    /// children, and are under no policies. Each sees what was committed before it was asked for, and
    /// gets what a load alone gives; where the statement fails, each is loaded alone.
    ///
    /// Flushes have up to four connections of their own, besides
    /// [`max_connections`](Self::max_connections). Who waits behind one that gets no connection, or no
    /// answer, goes out alone after a quarter of [`acquire_timeout`](Self::acquire_timeout), a second
    /// at most; a connection that comes later is used from then on. One that has no answer after
    /// `acquire_timeout`, a second at least, is given up, and its commits are looked for as those of a
    /// broken connection.
    ///
    /// What the database checks or does once a statement, it does once for all of a flush: two
    /// commits may exchange values of a `DEFERRABLE` key, or add rows that refer to each other, which
    /// separate commits could not; a trigger `FOR EACH STATEMENT` fires once; `now()` and the id of the
    /// transaction are the same. Leave the option off for tables that rely on any of that.
    ///
    /// A flush runs on the tokio runtime of the commit that began it. Do not commit on a runtime that
    /// is driven now and then, as by `block_on`, to a store that others use at the same time: they
    /// would wait for it.
    ///
    /// # Cancel safety
    ///
    /// A commit whose future is dropped may still happen, as without this option.
    ///
    /// # Example
    ///
    /// ```
    /// use cqrs_sqlx::StoreOptions;
    ///
    /// let options = StoreOptions::default().coalesce(128);
    /// ```
    #[must_use]
    pub fn coalesce(mut self, most: usize) -> Self {
        self.coalesce = Some(most.clamp(2, 1000));
        self
    }
}
