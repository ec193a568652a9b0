//! The store's own connections.
//!
//! sqlx's pool pings a connection each time it is released, and by default before each acquire; a
//! command that costs one statement would cost two or three round trips. It also does not say
//! which server process a connection belongs to, which a commit whose answer was lost must know.
//! So the store keeps its connections itself: a stack of idle ones behind a semaphore. A dead one
//! is found by the statement that it fails.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cqrs_core::{Error, Result, StoreErrorKind};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio::time::{Instant, timeout_at};

use crate::metrics;

/// How long an answer is waited for at least, also by who waits for no connection.
const LEAST_PATIENCE: Duration = Duration::from_secs(3);

/// Opens and repairs connections.
pub(crate) trait Connect: Send + Sync + 'static {
    /// A connection.
    type Connection: Send + 'static;

    /// Whether the database ends with its connection, as one in memory does: then it is repaired, and
    /// not closed before the store is, unless that fails or is given up.
    fn is_the_database(&self) -> bool {
        false
    }

    /// Opens one.
    fn connect(&self) -> impl Future<Output = Result<Self::Connection>> + Send;

    /// Whether it is in no transaction, as far as it knows.
    fn is_idle(connection: &Self::Connection) -> bool;

    /// Repairs one that was left in the middle of a statement or transaction; `None` where it is
    /// better closed.
    fn repair(
        &self,
        connection: Self::Connection,
    ) -> impl Future<Output = Option<Self::Connection>> + Send;
}

/// A bounded set of connections.
pub(crate) struct Connections<C: Connect> {
    shared: Arc<Shared<C>>,
}

struct Shared<C: Connect> {
    connect: C,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Idle<C::Connection>>>,
    breaks: AtomicU64,
    size: usize,
    acquire_timeout: Duration,
}

struct Idle<T> {
    connection: T,
    clean: bool,
}

impl<C: Connect> Clone for Connections<C> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<C: Connect> Connections<C> {
    /// At most `size` connections, opened when they are first needed.
    pub(crate) fn new(connect: C, size: usize, acquire_timeout: Duration) -> Self {
        Self {
            shared: Arc::new(Shared {
                connect,
                permits: Arc::new(Semaphore::new(size)),
                idle: Mutex::new(Vec::new()),
                breaks: AtomicU64::new(0),
                size,
                acquire_timeout,
            }),
        }
    }

    /// Takes an idle connection, or opens one.
    ///
    /// # Errors
    ///
    /// `PoolTimedOut` where all are in use for too long, `Unavailable` where none can be opened.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when the future is dropped.
    pub(crate) async fn acquire(&self) -> Result<Connection<C>> {
        let shared = &self.shared;
        let deadline = Instant::now() + shared.acquire_timeout;
        let permit = match Arc::clone(&shared.permits).try_acquire_owned() {
            Ok(permit) => permit,
            Err(TryAcquireError::Closed) => return Err(closed()),
            Err(TryAcquireError::NoPermits) => {
                timeout_at(deadline, Arc::clone(&shared.permits).acquire_owned())
                    .await
                    .map_err(|_| shared.all_in_use())?
                    .map_err(|_| closed())?
            }
        };
        let connection = match shared.pop_clean() {
            Some(connection) => connection,
            None => timeout_at(deadline, shared.repaired_or_new())
                .await
                .map_err(|_| no_answer(shared.acquire_timeout))??,
        };
        Ok(Connection {
            connection: Some(connection),
            clean: true,
            left: None,
            shared: Arc::clone(shared),
            permit: Some(permit),
        })
    }

    /// As [`acquire`](Self::acquire), where none has to be waited for.
    pub(crate) async fn acquire_spare(&self) -> Option<Connection<C>> {
        let shared = &self.shared;
        let permit = Arc::clone(&shared.permits).try_acquire_owned().ok()?;
        let connection = match shared.pop_clean() {
            Some(connection) => connection,
            None => shared.repaired_or_new().await.ok()?,
        };
        Some(Connection {
            connection: Some(connection),
            clean: true,
            left: None,
            shared: Arc::clone(shared),
            permit: Some(permit),
        })
    }

    /// Whether one is there that nobody uses.
    pub(crate) fn has_idle(&self) -> bool {
        self.shared.idle().iter().any(|idle| idle.clean)
    }

    /// Closes the idle connections and refuses new ones; those in use are closed when they are
    /// given back.
    pub(crate) fn close(&self) {
        self.shared.permits.close();
        self.shared.idle().clear();
    }

    /// Whether the set was closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.shared.permits.is_closed()
    }

    /// How long to wait for an answer that should come at once.
    pub(crate) fn patience(&self) -> Duration {
        self.shared.acquire_timeout.max(LEAST_PATIENCE)
    }

    /// The error of a database that has not answered for so long. The idle connections are closed.
    pub(crate) fn no_answer_within(&self, patience: Duration) -> Error {
        self.close_idle();
        no_answer(patience)
    }

    /// Closes the idle connections: after one was found broken, its neighbours probably are.
    pub(crate) fn close_idle(&self) {
        self.shared.breaks.fetch_add(1, Ordering::Relaxed);
        if !self.shared.connect.is_the_database() {
            self.shared.idle().clear();
        }
    }

    /// How often one was found broken.
    pub(crate) fn breaks(&self) -> u64 {
        self.shared.breaks.load(Ordering::Relaxed)
    }
}

fn no_answer(patience: Duration) -> Error {
    let message = format!("the database did not answer within {patience:?}");
    Error::store(StoreErrorKind::Unavailable, message)
}

fn closed() -> Error {
    Error::store(StoreErrorKind::Usage, "the store is closed")
}

impl<C: Connect> Shared<C> {
    /// The connection that was given back last, if it is ready for use.
    fn pop_clean(&self) -> Option<C::Connection> {
        self.idle()
            .pop_if(|idle| idle.clean)
            .map(|idle| idle.connection)
    }

    async fn repaired_or_new(&self) -> Result<C::Connection> {
        loop {
            let idle = self.idle().pop();
            match idle {
                Some(idle) if idle.clean => return Ok(idle.connection),
                Some(idle) => {
                    if let Some(connection) = self.connect.repair(idle.connection).await {
                        return Ok(connection);
                    }
                }
                None => return self.connect.connect().await,
            }
        }
    }

    fn all_in_use(&self) -> Error {
        metrics::pool_timed_out();
        Error::store(
            StoreErrorKind::PoolTimedOut,
            format!(
                "all {} connections of the store were in use for {:?}; an open unit of work holds \
                 one, also from other work of the same task",
                self.size, self.acquire_timeout
            ),
        )
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle<C::Connection>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self, connection: C::Connection, clean: bool) {
        if !self.permits.is_closed() {
            self.idle().push(Idle { connection, clean });
        }
    }
}

/// A connection in use.
///
/// It is given back when it is dropped. One that is dropped between [`begin_work`] and
/// [`end_work`], in the middle of a statement or transaction, is repaired before it is used again.
///
/// [`begin_work`]: Self::begin_work
/// [`end_work`]: Self::end_work
pub(crate) struct Connection<C: Connect> {
    connection: Option<C::Connection>,
    clean: bool,
    /// Set where it is left in the middle of something.
    left: Option<Arc<AtomicBool>>,
    shared: Arc<Shared<C>>,
    permit: Option<OwnedSemaphorePermit>,
}

impl<C: Connect> Connection<C> {
    /// Says, once it is dropped, whether it was left in the middle of something: the database may still
    /// be at that then. Else the connection works for others.
    pub(crate) fn watch(&mut self) -> Arc<AtomicBool> {
        Arc::clone(self.left.get_or_insert_default())
    }

    /// The connection below, about to be left in the middle of something.
    pub(crate) fn begin_work(&mut self) -> &mut C::Connection {
        self.clean = false;
        self.get()
    }

    /// The connection below.
    pub(crate) fn get(&mut self) -> &mut C::Connection {
        self.connection
            .as_mut()
            .expect("a connection is only taken out when it is dropped or discarded")
    }

    /// The connection is between statements and in no transaction.
    pub(crate) fn end_work(&mut self) {
        self.clean = true;
    }

    /// Closes the connection instead of giving it back.
    pub(crate) fn discard(mut self) {
        self.clean = false;
        if !self.shared.connect.is_the_database() {
            self.connection = None;
        }
    }
}

impl<C: Connect> Drop for Connection<C> {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        if self.clean && C::is_idle(&connection) {
            self.shared.give_back(connection, true);
            return;
        }
        if let Some(left) = &self.left {
            left.store(true, Ordering::Release);
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            self.shared.give_back(connection, false);
            return;
        };
        let shared = Arc::clone(&self.shared);
        let permit = self.permit.take();
        runtime.spawn(async move {
            if let Some(connection) = shared.connect.repair(connection).await {
                shared.give_back(connection, true);
            }
            drop(permit);
        });
    }
}
