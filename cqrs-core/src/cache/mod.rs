//! Caches in front of a store's reads (feature `cache`).
//!
//! [`Cached`] wraps a store and answers reads of read models, and of aggregates on the query side,
//! from memory. Answers are kept by tenant scope, type and question, are bounded in number and in
//! age, and are not given any more once a commit or a projection of this process has changed
//! their table. Several who miss the same answer at once load it once.
//!
//! A [`RemoteCache`] can stand between the memory of a process and its store.

mod options;
mod question;
mod read_models;
mod remote;
mod repository;
mod values;

pub use options::CacheOptions;
pub use read_models::CachedReadModels;
pub use remote::{RemoteCache, RemoteRead};
pub use repository::CachedRepository;

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use self::remote::Remote;
use self::values::Values;
use crate::aggregate::AggregateRoot;
use crate::context::RequestContext;
use crate::error::{Error, Result, StoreErrorKind};
use crate::handler::QueryHandler;
use crate::mapping::Entity;
use crate::store::Store;

/// A store's reads, cached.
///
/// Clones share what is cached. Make one for each store: it knows what this process changes
/// through the store that it wraps, and through its clones.
///
/// # Freshness
///
/// - Who has seen a commit of this process return, or has waited for a projection that runs in
///   this process, does not get an older answer. An answer whose load began before a commit is not
///   kept after it.
/// - What another process changes is seen after the [time to live](CacheOptions::time_to_live) at
///   the latest.
/// - What SQL of your own changes is seen after [`invalidate`](Self::invalidate), or the time to
///   live.
/// - A commit whose future was dropped, or whose outcome is unknown, counts as a change at that
///   moment. If the database carries it out only after that, it is as one of another process.
///
/// # Not in a unit of work
///
/// Units of work never read from a cache: what is saved must be based on what is stored. Within the
/// work of [`execute`](Store::execute) and [`read`](Store::read) a cached read of the same store is
/// a [`Usage`](StoreErrorKind::Usage) error. An aggregate that was read here can be shown, not
/// trusted: a save based on it is a conflict where it is stale.
///
/// # Errors
///
/// Reads have the errors of the store. An error is given to all who waited for that load, and is
/// not kept; those who did not begin the load get it with the original as its source.
///
/// # Cancel safety
///
/// Where the future of a read is dropped, nothing is kept, and another who waits for the same
/// answer loads it.
pub struct Cached<S> {
    store: S,
    values: Values,
    remote: Option<Arc<Remote>>,
}

impl<S: Store> Cached<S> {
    /// A cache in front of this store.
    #[must_use]
    pub fn new(store: S, options: CacheOptions) -> Self {
        Self {
            store,
            values: Values::new(&options),
            remote: options
                .remote
                .map(|port| Arc::new(Remote::new(port, options.time_to_live))),
        }
    }

    /// The store below, for everything but cached reads.
    #[must_use]
    pub fn store(&self) -> &S {
        &self.store
    }

    /// The read models within the context's tenant scope. No I/O.
    #[must_use]
    pub fn read_models(&self, context: &RequestContext) -> CachedReadModels<S> {
        CachedReadModels::new(self.clone(), context.clone())
    }

    /// A repository that only reads, each time in a unit of work of its own. Finders of
    /// [`#[repository]`](macro@crate::repository) traits work on it. No I/O.
    #[must_use]
    pub fn repository<A: AggregateRoot + Clone>(
        &self,
        context: &RequestContext,
    ) -> CachedRepository<S, A> {
        CachedRepository::new(self.clone(), context.clone())
    }

    /// Runs a query handler on the cached read models. See [`Store::ask`].
    ///
    /// # Errors
    ///
    /// Those of the handler.
    pub async fn ask<H, Q>(
        &self,
        context: &RequestContext,
        handler: &H,
        query: Q,
    ) -> Result<H::Output>
    where
        H: QueryHandler<CachedReadModels<S>, Q>,
        Q: Send,
    {
        handler.handle(&self.read_models(context), query).await
    }

    /// Forgets all answers from the table of `T`, after something that the framework does not see
    /// has changed it.
    pub fn invalidate<T: Entity>(&self) {
        self.store.changes().changed([T::table().name()]);
    }

    /// Tells the remote cache which tables this process changes, until it is dropped: run it in a
    /// task of its own. Without a remote cache it waits for ever.
    ///
    /// Where the remote cache does not answer, the changes are told with the next ones, or when a
    /// read needs the table; until then this process does not use the remote cache for it.
    pub async fn forward_changes(&self) {
        let Some(remote) = &self.remote else {
            return std::future::pending().await;
        };
        let changes = self.store.changes();
        let mut seen = 0;
        loop {
            seen = changes.after(seen).await;
            for (table, count) in changes.counts() {
                remote.is_told(table, count).await;
            }
        }
    }

    /// The answer to a question about `T`'s table, from the memory or else from `load`.
    async fn answer<V: Clone + Send + Sync + 'static>(
        &self,
        question: question::Question,
        rows: fn(&V) -> usize,
        load: impl Future<Output = Result<V>> + Send,
    ) -> Result<V> {
        if crate::store::is_working(self.store.id()) {
            return Err(Error::store(
                StoreErrorKind::Usage,
                "a cached read within the work of a unit of work: read through that",
            ));
        }
        // Before the load begins: what is loaded may be older than a change that is counted
        // meanwhile, and then it is kept under a count that nobody asks for any more.
        let count = self.store.changes().count(question.table);
        self.values.get(question.at(count), rows, load).await
    }
}

impl<S: Clone> Clone for Cached<S> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            values: self.values.clone(),
            remote: self.remote.clone(),
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for Cached<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cached")
            .field("store", &self.store)
            .field("values", &self.values)
            .finish_non_exhaustive()
    }
}
