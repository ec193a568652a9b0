//! A store whose reads can be counted, held and failed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use cqrs_core::memory::{InMemoryReadModels, InMemoryTransaction, InMemoryUnitOfWork};
use cqrs_core::{
    CommitReceipt, Envelope, Error, InMemoryStore, LogSlice, Page, PageRequest, Projection, Query,
    RawPayload, ReadModel, ReadModels, RequestContext, Result, RetryPolicy, RowProjection,
    Specification, Store, StoreErrorKind, StoreId, TableChanges,
};
use tokio::sync::{Notify, Semaphore};

/// What the test decides about reads.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Reads, begun or not.
    pub(crate) loads: AtomicUsize,
    /// Each read has its answer and waits for a permit, which it gives back.
    pub(crate) permits: Semaphore,
    /// Signalled by each read that has its answer.
    pub(crate) reached: Notify,
    pub(crate) fails: AtomicBool,
    /// The next read panics.
    pub(crate) panics: AtomicBool,
}

/// As a process of its own: it knows only what is changed through itself.
#[derive(Debug, Clone)]
pub(crate) struct Gated {
    pub(crate) below: InMemoryStore,
    pub(crate) gate: Arc<Gate>,
    changes: Option<Arc<TableChanges>>,
}

impl Gated {
    /// One whose reads pass at once.
    pub(crate) fn new(below: InMemoryStore) -> Self {
        Self {
            below,
            gate: Arc::new(Gate {
                loads: AtomicUsize::new(0),
                permits: Semaphore::new(1),
                reached: Notify::new(),
                fails: AtomicBool::new(false),
                panics: AtomicBool::new(false),
            }),
            changes: None,
        }
    }

    /// The same store, as another process sees it.
    pub(crate) fn elsewhere(&self) -> Self {
        Self {
            changes: Some(Arc::default()),
            ..Self::new(self.below.clone())
        }
    }

    pub(crate) fn loads(&self) -> usize {
        self.gate.loads.load(Ordering::SeqCst)
    }

    /// Holds all reads that come.
    pub(crate) async fn close(&self) {
        self.gate.permits.acquire().await.unwrap().forget();
    }

    /// Lets one more read pass, and whoever comes after it.
    pub(crate) fn open(&self) {
        self.gate.permits.add_permits(1);
    }
}

#[derive(Debug)]
pub(crate) struct GatedReadModels {
    below: InMemoryReadModels,
    gate: Arc<Gate>,
}

impl GatedReadModels {
    async fn pass<T>(&self, answer: Result<T>) -> Result<T> {
        self.gate.loads.fetch_add(1, Ordering::SeqCst);
        self.gate.reached.notify_one();
        let _permit = self.gate.permits.acquire().await.unwrap();
        assert!(
            !self.gate.panics.swap(false, Ordering::SeqCst),
            "the read panics"
        );
        if self.gate.fails.load(Ordering::SeqCst) {
            return Err(Error::store(
                StoreErrorKind::Unavailable,
                "the store is away",
            ));
        }
        answer
    }
}

impl ReadModels for GatedReadModels {
    async fn find<R: ReadModel>(&self, key: R::Key) -> Result<Option<R>> {
        let answer = self.below.find::<R>(key).await;
        self.pass(answer).await
    }

    async fn query<R: ReadModel>(&self, query: Query<R>) -> Result<Vec<R>> {
        let answer = self.below.query(query).await;
        self.pass(answer).await
    }

    async fn page<R: ReadModel>(&self, query: Query<R>, request: PageRequest) -> Result<Page<R>> {
        let answer = self.below.page(query, request).await;
        self.pass(answer).await
    }

    async fn count<R: ReadModel>(&self, specification: Specification<R>) -> Result<u64> {
        let answer = self.below.count(specification).await;
        self.pass(answer).await
    }

    async fn exists<R: ReadModel>(&self, specification: Specification<R>) -> Result<bool> {
        let answer = self.below.exists(specification).await;
        self.pass(answer).await
    }
}

impl Store for Gated {
    type UnitOfWork = InMemoryUnitOfWork;
    type ReadModels = GatedReadModels;
    type Transaction = InMemoryTransaction;

    fn id(&self) -> StoreId {
        self.below.id()
    }

    fn unit_of_work(&self, context: &RequestContext) -> InMemoryUnitOfWork {
        self.below.unit_of_work(context)
    }

    fn read_only(&self, context: &RequestContext) -> InMemoryUnitOfWork {
        self.gate.loads.fetch_add(1, Ordering::SeqCst);
        self.below.read_only(context)
    }

    fn read_models(&self, context: &RequestContext) -> GatedReadModels {
        GatedReadModels {
            below: self.below.read_models(context),
            gate: Arc::clone(&self.gate),
        }
    }

    fn inline<P: Projection<InMemoryTransaction>>(&self, projection: P) -> Result<()> {
        self.below.inline(projection)
    }

    async fn rebuild_inline<P: RowProjection>(&self, projection: P) -> Result<u64> {
        self.below.rebuild_inline(projection).await
    }

    async fn scan_log<F>(&self, context: &RequestContext, slice: LogSlice, each: F) -> Result<()>
    where
        F: FnMut(Envelope<RawPayload>) -> Result<()> + Send,
    {
        self.below.scan_log(context, slice, each).await
    }

    fn changes(&self) -> &Arc<TableChanges> {
        self.changes
            .as_ref()
            .unwrap_or_else(|| self.below.changes())
    }

    fn retry_policy(&self) -> RetryPolicy {
        self.below.retry_policy()
    }

    async fn pause(&self, delay: Duration) {
        self.below.pause(delay).await;
    }

    async fn wait_for<T: Sync>(&self, receipt: &CommitReceipt<T>, name: &str) -> Result<()> {
        self.below.wait_for(receipt, name).await
    }
}
