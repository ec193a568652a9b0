//! Rows that were there before the framework.

use std::future::Future;
use std::time::Instant;

use super::{BulkScope, BulkStore, ChangedRows, Lifecycle, Maintenance, Progress};
use crate::aggregate::AggregateRoot;
use crate::error::Result;
use crate::mapping::{Column, ColumnRole, Value};
use crate::specification::{Field, Query};
use crate::staging::{self, StagedWrite};
use crate::store::{BatchError, BatchReceipt};

impl<S: BulkStore, A: AggregateRoot> Maintenance<S, A> {
    /// Gives each row that the log does not know its first event: for tables that were there before
    /// the framework. Tells after each batch how far it has come.
    ///
    /// Such rows are at version 0: adopt a table by adding the framework's columns to it, the version
    /// with 0. Until a row has its event it can be loaded, and not saved, removed or guarded: that is a
    /// [`Usage`](crate::StoreErrorKind::Usage) error. `event` makes the event of the domain that says all about the
    /// aggregate that its consumers need; the row goes to version 1 with it.
    ///
    /// Run again, it goes on where it stopped, and adds nothing where every row has its event.
    /// Several may run at once. Rows that are inserted at version 0 behind its back are not
    /// reached. Rows that are soft-deleted are passed over; [`restore`](Self::restore) gives them
    /// their first event, as every other change by condition does to the rows that it reaches: run
    /// this before, so that no marker stands in the place of your event.
    ///
    /// # Transaction
    ///
    /// One for each [batch](Self::batch_size), which locks its rows first.
    ///
    /// # Errors
    ///
    /// The error of the batch that failed, with what was committed before:
    /// [`Mapping`](crate::Error::Mapping) where a row cannot be read,
    /// [`Payload`](crate::Error::Payload) where an event cannot be written, and
    /// [`Store`](crate::Error::Store), also where the log has events of the id of such a row.
    ///
    /// # Example
    ///
    /// ```
    /// # use cqrs_core::maintenance::{BulkStore, Maintain};
    /// # use cqrs_core::*;
    /// # async fn example<S: BulkStore, A: StateStored>(
    /// #     store: S, context: RequestContext, imported: impl Fn(&A) -> A::Event + Send + Sync,
    /// # ) -> Result<()> {
    /// let done = store
    ///     .maintenance::<A>(&context)
    ///     .backfill(imported, |progress| println!("{} rows", progress.rows()))
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn backfill(
        &self,
        event: impl Fn(&A) -> A::Event + Send + Sync,
        mut progress: impl FnMut(Progress) + Send,
    ) -> Result<BatchReceipt, BatchError> {
        let begun = Instant::now();
        let mut done = BatchReceipt::default();
        let metadata = self.context.metadata();
        let checked = self
            .check()
            .and_then(|()| staging::check_metadata(metadata));
        if let Err(cause) = checked {
            return Err(BatchError::new(done, cause));
        }
        let stage = |aggregate: A| {
            let event = event(&aggregate);
            let write = StagedWrite::adopt(aggregate, event, &self.context, self.store.now())?;
            let write = write.identified(self.store.schema_ids());
            Ok(write.hashed(self.store.hashing(), metadata))
        };
        let rows = BulkScope {
            tenants: self.context.scope().clone(),
            lifecycle: Lifecycle::Living,
        };
        let mut after = None;
        loop {
            let batch = self.retried(|| {
                let query = unknown::<A>(after.as_ref(), self.batch_size);
                self.store.bulk_adopt(query, &rows, metadata, &stage)
            });
            let adopted: ChangedRows = match batch.await {
                Ok(adopted) => adopted,
                Err(cause) => return Err(BatchError::new(done, cause)),
            };
            if adopted.rows > 0 {
                done.add_commit(adopted.rows, adopted.position);
                progress(Progress::since(begun, done.items()));
            }
            if adopted.last.is_none() {
                return Ok(done);
            }
            after = adopted.last;
        }
    }

    /// Runs a batch, again where that is worth it.
    pub(super) async fn retried<T, W>(&self, mut batch: impl FnMut() -> W + Send) -> Result<T>
    where
        W: Future<Output = Result<T>> + Send,
    {
        let _changing = self.changing();
        let policy = self.store.retry_policy();
        let mut attempt = 1;
        loop {
            match self.traced(batch()).await {
                Err(error) if error.is_retryable() && attempt < policy.attempts => {
                    tracing::debug!(attempt, %error, "retrying a batch");
                    self.store.pause(policy.delay(attempt)).await;
                    attempt += 1;
                }
                result => return result,
            }
        }
    }
}

/// The first rows behind a key that the log does not know.
fn unknown<A: AggregateRoot>(after: Option<&Value>, most: u32) -> Query<A> {
    let table = A::table();
    let version = table.column_with(ColumnRole::Version);
    let version = version.map_or("version", Column::name);
    let mut rows = Field::<A, u64>::new(version).eq(0_u64);
    if let (Some(after), Some(key)) = (after, table.key_columns().next()) {
        let by_key =
            Field::<A, Value>::encoded(key.name(), key.column_type(), |value| Ok(value.clone()));
        rows = rows & by_key.gt(after.clone());
    }
    Query::filter(rows).limit(most.into()).lock()
}
