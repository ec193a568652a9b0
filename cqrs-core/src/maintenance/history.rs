//! Old revisions.

use chrono::{DateTime, Utc};

use super::{BulkStore, Maintenance};
use crate::history::KeepsHistory;
use crate::store::{BatchError, BatchReceipt};

impl<S: BulkStore, A: KeepsHistory> Maintenance<S, A> {
    /// Removes the [revisions](crate::Revision) that are not needed to say what the aggregates were
    /// from this time on, within the tenant scope.
    ///
    /// Of each aggregate those go that are older, except the last of them. Of one whose row was
    /// deleted before, all go.
    ///
    /// # Transaction
    ///
    /// One for each [batch](Self::batch_size).
    ///
    /// # Errors
    ///
    /// The error of the batch that failed, with what was removed before; run it again to go on.
    ///
    /// # Example
    ///
    /// ```
    /// # use chrono::{TimeDelta, Utc};
    /// # use cqrs_core::maintenance::{BulkStore, Maintain};
    /// # use cqrs_core::*;
    /// # async fn example<S: BulkStore, A: KeepsHistory>(
    /// #     store: S, context: RequestContext,
    /// # ) -> Result<()> {
    /// let two_years_ago = Utc::now() - TimeDelta::days(730);
    /// let removed = store.maintenance::<A>(&context).remove_history(two_years_ago).await?;
    /// println!("{} revisions", removed.items());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn remove_history(&self, before: DateTime<Utc>) -> Result<BatchReceipt, BatchError> {
        let mut done = BatchReceipt::default();
        if let Err(cause) = self.check() {
            return Err(BatchError::new(done, cause));
        }
        let (scope, most) = (self.context.scope(), self.batch_size);
        let mut after = None;
        loop {
            let batch = self.retried(|| {
                let after = after.as_ref();
                self.store.bulk_forget::<A>(before, after, scope, most)
            });
            let forgotten = match batch.await {
                Ok(forgotten) => forgotten,
                Err(cause) => return Err(BatchError::new(done, cause)),
            };
            if forgotten.rows > 0 {
                done.add_commit(forgotten.rows, None);
            }
            if forgotten.last.is_none() {
                return Ok(done);
            }
            after = forgotten.last;
        }
    }
}
