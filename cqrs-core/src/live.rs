//! Projections that are folded when they are read.

use std::collections::HashMap;
use std::fmt;

use tracing::Instrument;

use crate::aggregate::AggregateRoot;
use crate::context::RequestContext;
use crate::envelope::{Envelope, RawPayload};
use crate::error::{Error, Result, StoreErrorKind};
use crate::event::EventSet;
use crate::projection::{RowAddress, RowProjection};
use crate::read_model::{ReadModel, RowKey};
use crate::store::Store;

/// A part of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogSlice {
    /// Only events of these aggregate types; `None` for all.
    pub aggregate_types: Option<Vec<&'static str>>,
    /// Only events of aggregates with this id.
    pub aggregate_id: Option<String>,
}

impl LogSlice {
    /// Whether an event is in it.
    #[must_use]
    pub fn contains<P>(&self, event: &Envelope<P>) -> bool {
        let types = self.aggregate_types.as_ref();
        types.is_none_or(|types| types.contains(&event.aggregate_type()))
            && self
                .aggregate_id
                .as_ref()
                .is_none_or(|id| id == event.aggregate_id_str())
    }
}

/// Folds projections from the log when they are asked for. Made by [`Store::live`].
///
/// There is no table and nothing to keep up to date: each call reads the events that it needs with
/// one statement, so that it sees one moment, and folds them as they arrive. It sees every commit
/// that had returned before. Events that are no longer in the log it does not see.
///
/// # Transaction
///
/// None.
///
/// # Errors
///
/// Each method: [`Undecodable`](Error::Undecodable) where an event cannot be read, the error of
/// the projection, [`Store`](Error::Store) where the store fails.
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
/// struct Activities;
///
/// impl RowProjection for Activities {
///     type Event = AccountEvent;
///     type Row = Activity;
///     const NAME: &'static str = "activity";
///
///     fn key(&self, event: &Envelope<AccountEvent>) -> Result<Option<i64>> {
///         Ok(Some(event.aggregate_id()?))
///     }
///
///     fn apply(&self, row: &mut Option<Activity>, event: &Envelope<AccountEvent>) -> Result<()> {
///         let AccountEvent::Deposited { cents } = event.payload();
///         let number = event.aggregate_id()?;
///         row.get_or_insert(Activity { number, cents: 0 }).cents += cents;
///         Ok(())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// let store = InMemoryStore::new();
/// let ctx = RequestContext::system();
/// store
///     .execute(&ctx, async |uow| {
///         let mut root = Root::new();
///         root.raise(AccountEvent::Deposited { cents: 5 });
///         root.raise(AccountEvent::Deposited { cents: 7 });
///         uow.save(Account { number: 1, root })
///     })
///     .await?;
/// let activity = store.live(&ctx).of_aggregate::<Account, _>(&Activities, &1).await?;
/// assert_eq!(activity, [Activity { number: 1, cents: 12 }]);
/// # Ok(())
/// # }
/// ```
pub struct Live<'s, S> {
    store: &'s S,
    context: &'s RequestContext,
}

impl<'s, S: Store> Live<'s, S> {
    pub(crate) fn new(store: &'s S, context: &'s RequestContext) -> Self {
        Self { store, context }
    }

    /// The rows that the events of one aggregate make, as far as they are within the tenant scope.
    /// Events of other aggregates that belong to the same rows are not among them.
    ///
    /// Costs as much as the aggregate has events.
    ///
    /// # Errors
    ///
    /// As [`Live`], and a [`Usage`](StoreErrorKind::Usage) error where the projection reads no
    /// events of this type.
    pub async fn of_aggregate<A: AggregateRoot, P: RowProjection>(
        &self,
        projection: &P,
        id: &A::Id,
    ) -> Result<Vec<P::Row>> {
        if P::Event::aggregate_types().is_some_and(|types| !types.contains(&A::TYPE)) {
            return Err(Error::store(
                StoreErrorKind::Usage,
                format!("projection {:?} reads no events of {}", P::NAME, A::TYPE),
            ));
        }
        let slice = LogSlice {
            aggregate_types: Some(vec![A::TYPE]),
            aggregate_id: Some(id.to_string()),
        };
        let fold = self.fold(projection, slice, |_| true).await?;
        Ok(fold.into_rows().map(|(_, row)| row).collect())
    }

    /// The row with this key, folded from all events that belong to it. Across tenants the first
    /// in the order of tenants, as with [`ReadModels::find`](crate::ReadModels::find).
    ///
    /// Reads all events of the aggregate types that the projection reads: for small logs, and for
    /// looking into a matter.
    ///
    /// # Errors
    ///
    /// As [`Live`], and [`Mapping`](Error::Mapping) where no column can hold the key.
    pub async fn find<P: RowProjection>(
        &self,
        projection: &P,
        key: <P::Row as ReadModel>::Key,
    ) -> Result<Option<P::Row>> {
        let table = <P::Row as crate::Entity>::table();
        let wanted = key.to_values().map_err(|reason| table.key_error(reason))?;
        let slice = slice_of::<P>();
        let is_wanted = |address: &RowAddress| address.key() == wanted;
        let fold = self.fold(projection, slice, is_wanted).await?;
        let first = fold
            .into_rows()
            .min_by(|(a, _), (b, _)| a.tenant().cmp(&b.tenant()));
        Ok(first.map(|(_, row)| row))
    }

    /// All rows, in no order. They are in memory at once.
    ///
    /// # Errors
    ///
    /// As [`Live`].
    pub async fn rows<P: RowProjection>(&self, projection: &P) -> Result<Vec<P::Row>> {
        let fold = self.fold(projection, slice_of::<P>(), |_| true).await?;
        Ok(fold.into_rows().map(|(_, row)| row).collect())
    }

    async fn fold<P: RowProjection>(
        &self,
        projection: &P,
        slice: LogSlice,
        is_wanted: impl Fn(&RowAddress) -> bool + Send + Sync,
    ) -> Result<Fold<P>> {
        let mut fold = Fold {
            rows: HashMap::new(),
        };
        let each = |raw: Envelope<RawPayload>| {
            let decoded = P::Event::decode(&raw).map_err(|reason| Error::Undecodable {
                position: raw.position(),
                reason,
            })?;
            let Some(event) = decoded else { return Ok(()) };
            let event = raw.with_payload(event);
            let Some(key) = projection.key(&event)? else {
                return Ok(());
            };
            let address = RowAddress::of::<P::Row>(event.tenant(), &key)?;
            if !is_wanted(&address) {
                return Ok(());
            }
            projection.apply(fold.rows.entry(address).or_default(), &event)
        };
        let scan = self.store.scan_log(self.context, slice, each);
        scan.instrument(self.context.span("live projection"))
            .await?;
        Ok(fold)
    }
}

fn slice_of<P: RowProjection>() -> LogSlice {
    LogSlice {
        aggregate_types: P::Event::aggregate_types().map(<[_]>::to_vec),
        aggregate_id: None,
    }
}

struct Fold<P: RowProjection> {
    rows: HashMap<RowAddress, Option<P::Row>>,
}

impl<P: RowProjection> Fold<P> {
    fn into_rows(self) -> impl Iterator<Item = (RowAddress, P::Row)> {
        self.rows
            .into_iter()
            .filter_map(|(address, row)| Some((address, row?)))
    }
}

impl<S: fmt::Debug> fmt::Debug for Live<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live")
            .field("store", &self.store)
            .field("context", &self.context)
            .finish()
    }
}
