//! The fat base repository: bulk work on all aggregates of one type, by condition, which a domain
//! repository never offers.
//!
//! [`Maintain::maintenance`] is the one way to it. Whatever it changes keeps the rules of every
//! other write: a row's version goes up, the log gets one event for it, the tenant scope holds,
//! the audit stamps are set, an id is used once.

mod backfill;
mod bulk;
mod change;
mod export;
mod history;
mod source;

pub use bulk::{
    BulkChange, BulkEvent, BulkScope, BulkStore, BulkWrites, ChangedRows, ChosenRow, Inserted,
    Lifecycle,
};
pub use export::{Export, ExportSink};
pub use source::{Progress, Source};

use std::fmt;
use std::future::Future;
use std::time::Instant;

use self::change::Kind;
use tracing::Instrument;

use crate::aggregate::AggregateRoot;
use crate::changes::Changing;
use crate::context::RequestContext;
use crate::error::{Error, Result, StoreErrorKind};
use crate::mapping::Value;
use crate::sourced::StateStored;
use crate::specification::{Assignment, Page, PageRequest, Query, Specification};
use crate::staging::{self, StagedWrite};
use crate::store::{BatchError, BatchReceipt, nesting};

const DEFAULT_BATCH: u32 = 5_000;

/// Stores that give access to the [`Maintenance`] of their aggregates: all of them.
pub trait Maintain: BulkStore {
    /// Bulk work on the aggregates of one type, in the context's tenant scope. No I/O.
    ///
    /// ```
    /// # use cqrs_core::maintenance::{BulkStore, Maintain};
    /// # use cqrs_core::*;
    /// # async fn example<S: BulkStore, A: StateStored>(
    /// #     store: S, context: RequestContext, priority: Field<A, i32>,
    /// # ) -> Result<()> {
    /// let orders = store.maintenance::<A>(&context);
    /// let done = orders.update(priority.ge(5), [priority.set(4)]).await?;
    /// println!("{} orders in {} transactions", done.items(), done.commits());
    /// # Ok(())
    /// # }
    /// ```
    fn maintenance<A: StateStored>(&self, context: &RequestContext) -> Maintenance<Self, A> {
        Maintenance {
            store: self.clone(),
            context: context.clone(),
            lifecycle: Lifecycle::Living,
            batch_size: DEFAULT_BATCH,
            event: None,
        }
    }
}

impl<S: BulkStore> Maintain for S {}

/// Bulk work on the aggregates of one type, in a tenant scope.
///
/// Made by [`Maintain::maintenance`]. It is not part of any unit of work: each call is one or more
/// transactions of its own, and within the work of [`execute`](crate::Store::execute) it is a
/// [`Usage`](StoreErrorKind::Usage) error.
///
/// # Transaction
///
/// [`insert`](Self::insert) is one. [`import`](Self::import), [`update`](Self::update),
/// [`remove`](Self::remove), [`restore`](Self::restore) and [`purge`](Self::purge) commit after
/// each [batch](Self::batch_size), so that millions of rows hold no lock for long. A batch that
/// meets contention is run again, as the store's [retry policy](crate::RetryPolicy) says.
///
/// A change by condition goes through the rows once, in the order of their keys. A row that comes
/// to satisfy the condition behind its back is not reached.
///
/// # Cancel safety
///
/// Whole batches are committed, or not. The one at work when the future is dropped may still be.
pub struct Maintenance<S, A: AggregateRoot> {
    store: S,
    context: RequestContext,
    lifecycle: Lifecycle,
    batch_size: u32,
    event: Option<A::Event>,
}

impl<S: BulkStore, A: AggregateRoot> Maintenance<S, A> {
    /// Soft-deleted aggregates are seen too: by the reads, by [`update`](Self::update) and by
    /// [`purge`](Self::purge).
    #[must_use]
    pub fn include_deleted(mut self) -> Self {
        self.lifecycle = Lifecycle::Any;
        self
    }

    /// The most rows of one transaction: 5,000 unless told otherwise, and at least one.
    #[must_use]
    pub fn batch_size(mut self, rows: u32) -> Self {
        self.batch_size = rows.max(1);
        self
    }

    /// The event that each row gets which is updated, removed, restored or purged, in place of a
    /// [change marker](crate::staging::ChangeMarker). Typed projections see it; they do not see
    /// markers.
    #[must_use]
    pub fn raising(mut self, event: A::Event) -> Self {
        self.event = Some(event);
        self
    }

    /// Loads the aggregates that a query selects.
    ///
    /// # Errors
    ///
    /// As [`Repository::query`](crate::Repository::query).
    pub async fn query(&self, query: Query<A>) -> Result<Vec<A>> {
        self.check()?;
        query.check_lock_free()?;
        let seen = self.seen();
        self.traced(self.store.bulk_query(&seen, query)).await
    }

    /// Loads a page of the aggregates that a query selects.
    ///
    /// # Errors
    ///
    /// As [`Repository::page`](crate::Repository::page).
    pub async fn page(&self, query: Query<A>, request: PageRequest) -> Result<Page<A>> {
        self.check()?;
        let seen = self.seen();
        self.traced(self.store.bulk_page(&seen, query, request))
            .await
    }

    /// Counts the aggregates for which the specification is true.
    ///
    /// # Errors
    ///
    /// As [`Repository::count`](crate::Repository::count).
    pub async fn count(&self, specification: Specification<A>) -> Result<u64> {
        self.check()?;
        let seen = self.seen();
        self.traced(self.store.bulk_count(&seen, specification))
            .await
    }

    /// The aggregates that a query selects, one after the other, as of one moment. Each is decoded
    /// when it is asked for; no more than one is held. No I/O before that.
    pub fn export(&self, query: Query<A>) -> Export<A> {
        match self.check().and_then(|()| query.check_lock_free()) {
            Ok(()) => {
                let export = self.store.bulk_export(&self.seen(), query);
                export.instrumented(self.context.span("maintenance"))
            }
            Err(error) => Export::new(|_| async { Err(error) }),
        }
    }

    /// Inserts new aggregates with the events that they raised, or a marker each: all in one
    /// transaction, or none.
    ///
    /// # Errors
    ///
    /// As a commit of as many [`save`](crate::Repository::save)s:
    /// [`AlreadyExists`](Error::AlreadyExists), [`Mapping`](Error::Mapping),
    /// [`Payload`](Error::Payload), [`TenantRequired`](Error::TenantRequired); a
    /// [`Usage`](StoreErrorKind::Usage) error for an aggregate that was loaded.
    pub async fn insert<I>(&self, aggregates: I) -> Result<BatchReceipt>
    where
        I: IntoIterator<Item = A, IntoIter: Send>,
    {
        self.check()?;
        let mut done = BatchReceipt::default();
        let inserted = self.insert_batch(aggregates.into_iter()).await?;
        if inserted.rows > 0 {
            done.add_commit(inserted.rows, inserted.position);
        }
        Ok(done)
    }

    /// Inserts aggregates from elsewhere, in batches, and tells after each how far it has come.
    ///
    /// Each becomes a new aggregate here: at the version that the events make which it has raised,
    /// or a marker, whatever version it was exported at; with stamps of now, and its own tenant if
    /// it has one.
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert), or the error of the source, with what was committed before:
    /// to go on, skip [so many](BatchReceipt::items) of the source. After
    /// [`OutcomeUnknown`](StoreErrorKind::OutcomeUnknown) the batch that failed may be committed
    /// too: look before you go on.
    pub async fn import<I: Source<A>>(
        &self,
        mut source: I,
        mut progress: impl FnMut(Progress) + Send,
    ) -> Result<BatchReceipt, BatchError> {
        let begun = Instant::now();
        let mut done = BatchReceipt::default();
        let failed = |done: &BatchReceipt, cause| Err(BatchError::new(done.clone(), cause));
        if let Err(cause) = self.check() {
            return failed(&done, cause);
        }
        let size = usize::try_from(self.batch_size).unwrap_or(usize::MAX);
        loop {
            let mut batch = Vec::new();
            while batch.len() < size {
                match source.read_next().await {
                    Ok(Some(mut aggregate)) => {
                        aggregate.root_mut().make_new();
                        batch.push(aggregate);
                    }
                    Ok(None) => break,
                    Err(cause) => return failed(&done, cause),
                }
            }
            let last = batch.len() < size;
            if !batch.is_empty() {
                match self.insert_batch(batch.into_iter()).await {
                    Ok(inserted) => done.add_commit(inserted.rows, inserted.position),
                    Err(cause) => return failed(&done, cause),
                }
                progress(Progress::since(begun, done.items()));
            }
            if last {
                return Ok(done);
            }
        }
    }

    /// Sets fields of all aggregates for which the specification is true. Each that differs goes
    /// up by one version and has one event; one that has these values already is left alone.
    ///
    /// A save that is based on the version before is a [`Conflict`](Error::Conflict) from then on.
    /// The aggregate's own rules do not run: set what has none.
    ///
    /// # Errors
    ///
    /// The error of the batch that failed, with what was committed before; run the update again
    /// to go on. [`Mapping`](Error::Mapping) where a value cannot be stored, and a
    /// [`Usage`](StoreErrorKind::Usage) error for a field that is the key or the framework's.
    pub async fn update(
        &self,
        specification: Specification<A>,
        assignments: impl IntoIterator<Item = Assignment<A>> + Send,
    ) -> Result<BatchReceipt, BatchError> {
        let assigned = change::assigned(assignments);
        self.change(Kind::Update, specification, assigned).await
    }

    /// Removes all aggregates for which the specification is true, as
    /// [`Repository::remove`](crate::Repository::remove) does: marked as deleted where they have
    /// `soft_delete`, else deleted.
    ///
    /// # Errors
    ///
    /// As [`update`](Self::update).
    pub async fn remove(
        &self,
        specification: Specification<A>,
    ) -> Result<BatchReceipt, BatchError> {
        self.change(Kind::Remove, specification, Ok(Vec::new()))
            .await
    }

    /// Brings back all soft-deleted aggregates for which the specification is true.
    ///
    /// # Errors
    ///
    /// As [`update`](Self::update); a [`Usage`](StoreErrorKind::Usage) error where the aggregate
    /// has no `soft_delete`.
    pub async fn restore(
        &self,
        specification: Specification<A>,
    ) -> Result<BatchReceipt, BatchError> {
        let assigned = match A::table().is_soft_delete() {
            true => Ok(Vec::new()),
            false => Err(Error::store(
                StoreErrorKind::Usage,
                format!("{} has no soft_delete: what is removed is gone", A::TYPE),
            )),
        };
        self.change(Kind::Restore, specification, assigned).await
    }

    /// Deletes the rows of all aggregates for which the specification is true, for good; with
    /// [`include_deleted`](Self::include_deleted) also of those that are soft-deleted. Their
    /// events stay in the log, and their ids are not used again.
    ///
    /// # Errors
    ///
    /// As [`update`](Self::update).
    pub async fn purge(&self, specification: Specification<A>) -> Result<BatchReceipt, BatchError> {
        self.change(Kind::Purge, specification, Ok(Vec::new()))
            .await
    }

    /// Refuses work within a unit of work of the same store, which would wait for what that holds.
    fn check(&self) -> Result<()> {
        nesting::check(self.store.id())
    }

    /// Work in the span of the context, which says where it crosses tenants.
    async fn traced<T>(&self, work: impl Future<Output = T> + Send) -> T {
        work.instrument(self.context.span("maintenance")).await
    }

    /// The table counts as changed when the batch is over, however it ends.
    fn changing(&self) -> Changing {
        let mut changing = self.store.changes().changing();
        let tables = A::table().with_children();
        tables.for_each(|table| changing.add(table.name()));
        changing
    }

    fn seen(&self) -> BulkScope {
        BulkScope {
            tenants: self.context.scope().clone(),
            lifecycle: self.lifecycle,
        }
    }

    async fn insert_batch(&self, aggregates: impl Iterator<Item = A> + Send) -> Result<Inserted> {
        let (now, hashing) = (self.store.now(), self.store.hashing());
        let context = &self.context;
        let writes = aggregates.map(|aggregate| {
            if aggregate.root().version() > 0 {
                return Err(Error::store(
                    StoreErrorKind::Usage,
                    format!(
                        "{} {} was loaded: a bulk insert takes new aggregates",
                        A::TYPE,
                        aggregate.id()
                    ),
                ));
            }
            let write = StagedWrite::save(aggregate, context, now)?;
            let write = write.identified(self.store.schema_ids());
            Ok(write.hashed(hashing, context.metadata()))
        });
        let metadata = context.metadata();
        let _changing = self.changing();
        self.traced(self.store.bulk_insert(Box::new(writes), metadata))
            .await
    }

    async fn change(
        &self,
        kind: Kind,
        specification: Specification<A>,
        assigned: Result<Vec<(usize, Value)>>,
    ) -> Result<BatchReceipt, BatchError> {
        let mut done = BatchReceipt::default();
        let change = match self.prepare(kind, specification, assigned) {
            Ok(change) => change,
            Err(cause) => return Err(BatchError::new(done, cause)),
        };
        let mut after = None;
        loop {
            match self.change_batch(&change, after.as_ref()).await {
                Ok(changed) => {
                    if changed.rows > 0 {
                        done.add_commit(changed.rows, changed.position);
                    }
                    if changed.last.is_none() {
                        return Ok(done);
                    }
                    after = changed.last;
                }
                Err(cause) => return Err(BatchError::new(done, cause)),
            }
        }
    }

    fn prepare(
        &self,
        kind: Kind,
        specification: Specification<A>,
        assigned: Result<Vec<(usize, Value)>>,
    ) -> Result<BulkChange<A>> {
        self.check()?;
        let (table, now, hashing) = (A::table(), self.store.now(), self.store.hashing());
        let mut assignments = assigned?;
        specification.predicate().check(table)?;
        staging::check_metadata(self.context.metadata())?;
        let compared = assignments.len();
        let deletes = kind.deletes(table);
        if deletes && table.is_chained() && self.event.is_some() {
            return Err(Error::store(
                StoreErrorKind::Usage,
                format!(
                    "the chain of a {} whose row is deleted ends with a marker: do not raise an event with it",
                    A::TYPE
                ),
            ));
        }
        if !deletes {
            assignments.extend(change::stamps(table, kind, &self.context, now)?);
        }
        Ok(BulkChange {
            specification,
            rows: BulkScope {
                tenants: self.context.scope().clone(),
                lifecycle: kind.reaches(self.lifecycle),
            },
            assignments,
            compared,
            deletes,
            kind: kind.revision(),
            event: change::event::<A>(
                self.event.as_ref(),
                kind,
                now,
                hashing,
                self.store.schema_ids(),
            )?,
            metadata: self.context.metadata().clone(),
            hashing: hashing.clone(),
            batch_size: self.batch_size,
        })
    }

    async fn change_batch(
        &self,
        change: &BulkChange<A>,
        after: Option<&Value>,
    ) -> Result<ChangedRows> {
        self.retried(|| self.store.bulk_change(change, after)).await
    }
}

impl<S, A: AggregateRoot> fmt::Debug for Maintenance<S, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Maintenance")
            .field("aggregate", &A::TYPE)
            .field("context", &self.context)
            .field("lifecycle", &self.lifecycle)
            .field("batch_size", &self.batch_size)
            .finish_non_exhaustive()
    }
}
