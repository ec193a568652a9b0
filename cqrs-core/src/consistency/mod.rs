//! Consistency checks: a read model compared with a fold of the log.

mod report;
mod shadow;

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;

pub use report::{ColumnDifference, ConsistencyReport, RowDifference, RowDifferenceKind};
pub use shadow::Shadow;

use crate::context::RequestContext;
use crate::envelope::Position;
use crate::error::{Error, Result, StoreErrorKind};
use crate::maintenance::BulkStore;
use crate::projection::RowProjection;

const ROWS_AT_ONCE: usize = 250_000;
const REPORTED: usize = 100;

/// Compares the table of a [`RowProjection`] with a fold of the log up to the checkpoint of its
/// subscription, and names the rows that differ.
///
/// Rows, checkpoint, dead letters and log are read as of one moment, so that the projector goes on
/// meanwhile and nothing is locked; nothing is written. What is parked or was skipped is left out
/// of the fold, as it is not in the table either.
///
/// The fold is in memory, as many rows at once as [`rows_at_once`](Self::rows_at_once) says. Where
/// there are more, the rows are checked in parts, by a hash of tenant and key, and the log is read
/// once for each part: whoever has a million rows and the default setting reads it up to eight
/// times.
///
/// The projection must be a function of the events. What it takes from elsewhere, as from a clock,
/// is reported as a difference; and so is what was written by other handlers into the same table,
/// events that an operator has [discarded](crate::InMemoryStore::discard), and events that
/// retention has removed from the log.
///
/// # Transaction
///
/// One that reads, as of one moment. On Postgres a transaction that is open for long keeps the
/// server from cleaning up, as any report does, and a rebuild waits with the exchange of the table.
/// A database in memory has one connection, so others wait.
///
/// # Cancel safety
///
/// Nothing is left behind.
///
/// # Example
///
/// ```
/// # use cqrs_core::*;
/// # #[derive(Debug, Clone, serde::Serialize, serde::Deserialize, DomainEvent)]
/// # #[event(aggregate = "account")]
/// # enum AccountEvent { Deposited { cents: i64 } }
/// # #[derive(Debug, Clone, Aggregate)]
/// # #[aggregate(table = "account", event = AccountEvent)]
/// # struct Account { #[aggregate(id)] number: i64, #[aggregate(root)] root: Root<AccountEvent> }
/// # #[derive(Debug, Clone, PartialEq, ReadModel)]
/// # #[read_model(table = "activity")]
/// # struct Activity { #[read_model(key)] number: i64, cents: i64 }
/// # #[derive(Clone)]
/// # struct Activities;
/// # impl RowProjection for Activities {
/// #     type Event = AccountEvent;
/// #     type Row = Activity;
/// #     const NAME: &'static str = "activity";
/// #     fn key(&self, event: &Envelope<AccountEvent>) -> Result<Option<i64>> {
/// #         Ok(Some(event.aggregate_id()?))
/// #     }
/// #     fn apply(&self, row: &mut Option<Activity>, event: &Envelope<AccountEvent>) -> Result<()> {
/// #         let AccountEvent::Deposited { cents } = event.payload();
/// #         let number = event.aggregate_id()?;
/// #         row.get_or_insert(Activity { number, cents: 0 }).cents += cents;
/// #         Ok(())
/// #     }
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// let store = InMemoryStore::new();
/// store.subscribe_rows(Activities)?;
/// # let ctx = RequestContext::system();
/// # store.execute(&ctx, async |uow| {
/// #     let mut root = Root::new();
/// #     root.raise(AccountEvent::Deposited { cents: 5 });
/// #     uow.save(Account { number: 1, root })
/// # }).await?;
/// store.project().await?;
///
/// let report = ConsistencyCheck::of(&Activities)
///     .run(&store, &RequestContext::system())
///     .await?;
/// assert!(report.is_consistent(), "{report}");
/// assert_eq!((report.rows, report.events), (1, 1));
/// # Ok(())
/// # }
/// ```
pub struct ConsistencyCheck<'p, P> {
    projection: &'p P,
    subscription: &'p str,
    after: Position,
    rows_at_once: NonZeroUsize,
    report_at_most: usize,
    progress: Option<Arc<dyn Fn(CheckProgress) + Send + Sync>>,
}

/// How far a [`ConsistencyCheck`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckProgress {
    /// Where the fold of this part is.
    pub position: Position,
    /// Where it ends.
    pub end: Position,
    /// How many parts are done.
    pub parts_done: u64,
    /// How many are left with this one, as far as is known.
    pub parts_left: u64,
}

impl<'p, P: RowProjection> ConsistencyCheck<'p, P> {
    /// Of this projection, whose subscription has its name.
    #[must_use]
    pub fn of(projection: &'p P) -> Self {
        Self {
            projection,
            subscription: P::NAME,
            after: Position::START,
            rows_at_once: NonZeroUsize::new(ROWS_AT_ONCE).unwrap_or(NonZeroUsize::MIN),
            report_at_most: REPORTED,
            progress: None,
        }
    }

    /// The name of the subscription that runs it, where that is another.
    #[must_use]
    pub fn subscription(mut self, name: &'p str) -> Self {
        self.subscription = name;
        self
    }

    /// Folds only events after a position: for a subscription that did not
    /// [begin](crate::StartAt) at the beginning of the log.
    #[must_use]
    pub fn after(mut self, position: Position) -> Self {
        self.after = position;
        self
    }

    /// How many rows are in memory at once; 250,000 unless told.
    #[must_use]
    pub fn rows_at_once(mut self, rows: NonZeroUsize) -> Self {
        self.rows_at_once = rows;
        self
    }

    /// How many rows that differ are named in the report; 100 unless told. All are counted.
    #[must_use]
    pub fn report_at_most(mut self, rows: usize) -> Self {
        self.report_at_most = rows;
        self
    }

    /// Tells how far it is, after each page of the log.
    #[must_use]
    pub fn on_progress(mut self, tell: impl Fn(CheckProgress) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(tell));
        self
    }

    /// Runs the check.
    ///
    /// # Errors
    ///
    /// A [`Usage`](StoreErrorKind::Usage) error where the context is of a tenant, or where there is
    /// neither such a subscription nor an inline projection; [`Undecodable`](Error::Undecodable)
    /// and the errors of the projection where it cannot fold what it has applied;
    /// [`Mapping`](Error::Mapping) where a row of the table cannot be read;
    /// [`Store`](Error::Store) where the store fails.
    pub async fn run<S: BulkStore>(
        &self,
        store: &S,
        context: &RequestContext,
    ) -> Result<ConsistencyReport> {
        if context.scope().tenant().is_some() {
            return Err(Error::store(
                StoreErrorKind::Usage,
                "a consistency check crosses tenants: it takes the scope of the system",
            ));
        }
        let mut shadow = Shadow::new(self);
        store.compare_rows(&mut shadow).await?;
        Ok(shadow.into_report())
    }
}

impl<P> fmt::Debug for ConsistencyCheck<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsistencyCheck")
            .field("subscription", &self.subscription)
            .field("after", &self.after)
            .field("rows_at_once", &self.rows_at_once)
            .field("report_at_most", &self.report_at_most)
            .finish_non_exhaustive()
    }
}
