//! What a store does for maintenance.

use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::Export;
use crate::aggregate::AggregateRoot;
use crate::consistency::Shadow;
use crate::context::{Metadata, TenantId, TenantScope};
use crate::envelope::Position;
use crate::error::Result;
use crate::history::{Forgotten, RevisionKind};
use crate::integrity::{ContentHash, Hashing, Link, LinkedEvent};
use crate::mapping::{MappingError, RowSource, Table, Value};
use crate::projection::RowProjection;
use crate::schema::SchemaIds;
use crate::specification::{Page, PageRequest, Query, Specification};
use crate::staging::{NewEvent, StagedWrite};
use crate::store::Store;

/// Staged inserts, one after the other; the first error ends them.
pub type BulkWrites<'w> = Box<dyn Iterator<Item = Result<StagedWrite>> + Send + 'w>;

/// A store that can do the bulk work of [`Maintenance`](super::Maintenance). For authors of
/// stores.
///
/// Each function is one transaction of its own, or a read outside of any. None retries.
pub trait BulkStore: Store {
    /// The time of the store's clock.
    fn now(&self) -> DateTime<Utc>;

    /// How it makes the hashes of events. Staged writes that are handed to it in bulk have theirs.
    fn hashing(&self) -> &Hashing;

    /// The ids of the schemas of its events. Staged writes that are handed to it in bulk have theirs.
    fn schema_ids(&self) -> &SchemaIds;

    /// Inserts new aggregates of one type with their events, all or none, by the rules of
    /// [`StagedWrite`]; their events in the order of the writes.
    ///
    /// # Errors
    ///
    /// The first error of `writes`; [`AlreadyExists`](crate::Error::AlreadyExists) where an id is
    /// taken, or was once.
    fn bulk_insert(
        &self,
        writes: BulkWrites<'_>,
        metadata: &Metadata,
    ) -> impl Future<Output = Result<Inserted>> + Send;

    /// Reads what a [`ConsistencyCheck`](crate::ConsistencyCheck) compares, all of one moment, and
    /// hands it over as [`Shadow`] says.
    ///
    /// # Errors
    ///
    /// Those of the check, and a [`Usage`](crate::StoreErrorKind::Usage) error where there is
    /// neither such a subscription nor an inline projection.
    fn compare_rows<P: RowProjection>(
        &self,
        shadow: &mut Shadow<'_, P>,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Makes the change on the first rows behind the key `after`, at most as many as it says, in
    /// the order of their keys: each row and its event, all or none.
    ///
    /// # Errors
    ///
    /// [`Mapping`](crate::Error::Mapping) where the condition cannot be asked.
    fn bulk_change<A: AggregateRoot>(
        &self,
        change: &BulkChange<A>,
        after: Option<&Value>,
    ) -> impl Future<Output = Result<ChangedRows>> + Send;

    /// Writes what `stage` makes of the aggregates that a query finds and locks: each row and its
    /// event, all or none. [`last`](ChangedRows::last) is that of a query that was full.
    ///
    /// # Errors
    ///
    /// Those of `stage`.
    fn bulk_adopt<A: AggregateRoot>(
        &self,
        query: Query<A>,
        rows: &BulkScope,
        metadata: &Metadata,
        stage: &(dyn Fn(A) -> Result<StagedWrite> + Send + Sync),
    ) -> impl Future<Output = Result<ChangedRows>> + Send;

    /// Removes the first revisions behind the id and version `after`, at most `most`, in the order
    /// of their ids and versions: of those that are older than `before` all that
    /// [`Maintenance::remove_history`](super::Maintenance::remove_history) lets go.
    ///
    /// # Errors
    ///
    /// Where the store fails.
    fn bulk_forget<A: AggregateRoot>(
        &self,
        before: DateTime<Utc>,
        after: Option<&(String, u64)>,
        tenants: &TenantScope,
        most: u32,
    ) -> impl Future<Output = Result<Forgotten>> + Send;

    /// As [`Repository::query`](crate::Repository::query), of these rows.
    ///
    /// # Errors
    ///
    /// As there.
    fn bulk_query<A: AggregateRoot>(
        &self,
        rows: &BulkScope,
        query: Query<A>,
    ) -> impl Future<Output = Result<Vec<A>>> + Send;

    /// As [`Repository::page`](crate::Repository::page), of these rows.
    ///
    /// # Errors
    ///
    /// As there.
    fn bulk_page<A: AggregateRoot>(
        &self,
        rows: &BulkScope,
        query: Query<A>,
        request: PageRequest,
    ) -> impl Future<Output = Result<Page<A>>> + Send;

    /// As [`Repository::count`](crate::Repository::count), of these rows.
    ///
    /// # Errors
    ///
    /// As there.
    fn bulk_count<A: AggregateRoot>(
        &self,
        rows: &BulkScope,
        specification: Specification<A>,
    ) -> impl Future<Output = Result<u64>> + Send;

    /// The aggregates that the query selects, one after the other, as of one moment.
    fn bulk_export<A: AggregateRoot>(&self, rows: &BulkScope, query: Query<A>) -> Export<A>;
}

/// Which rows count: those that are soft-deleted, or those that are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lifecycle {
    /// Those that are not deleted.
    Living,
    /// Those that are soft-deleted.
    Deleted,
    /// All.
    Any,
}

impl Lifecycle {
    /// Whether a row with this deletion stamp counts.
    #[must_use]
    pub fn admits(self, is_deleted: bool) -> bool {
        match self {
            Self::Living => !is_deleted,
            Self::Deleted => is_deleted,
            Self::Any => true,
        }
    }
}

/// The rows that bulk work may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BulkScope {
    /// Whose.
    pub tenants: TenantScope,
    /// Whether deleted.
    pub lifecycle: Lifecycle,
}

/// The event of every row that a bulk change reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BulkEvent {
    /// Its type.
    pub event_type: &'static str,
    /// The version of its payload's schema.
    pub schema_version: u32,
    /// The id of that schema in a registry.
    pub schema_id: Option<Arc<str>>,
    /// Its canonical JSON.
    pub payload: String,
    /// The hash of the payload.
    pub content_hash: ContentHash,
    /// When it happened.
    pub occurred_at: DateTime<Utc>,
}

/// A change of all rows for which a condition is true: each goes up by one version, and has one
/// event.
#[derive(Debug)]
pub struct BulkChange<A> {
    /// The condition.
    pub specification: Specification<A>,
    /// The rows that it may reach.
    pub rows: BulkScope,
    /// The columns that are set, by their position among
    /// [all columns](Table::columns); not the version.
    pub assignments: Vec<(usize, Value)>,
    /// How many of the assignments, from the first on, are the user's. Where there are any, a row
    /// that has all these values already is left alone.
    pub compared: usize,
    /// Whether the rows are deleted instead.
    pub deletes: bool,
    /// What it does to them.
    pub kind: RevisionKind,
    /// Their event.
    pub event: BulkEvent,
    /// What goes with the events.
    pub metadata: Metadata,
    /// How the hashes of their events are made.
    pub hashing: Hashing,
    /// The most rows of one transaction.
    pub batch_size: u32,
}

impl<A: AggregateRoot> BulkChange<A> {
    /// The hash of the event of a row.
    #[must_use]
    pub fn hash_of(&self, row: &ChosenRow<A>, event_id: Uuid) -> ContentHash {
        if !A::table().is_chained() {
            return self.event.content_hash;
        }
        let linked = LinkedEvent {
            event_id,
            tenant: row.tenant.as_ref(),
            aggregate_type: A::TYPE,
            aggregate_id: &row.aggregate_id,
            aggregate_version: row.version + 1,
            event_type: self.event.event_type,
            schema_version: self.event.schema_version,
            schema_id: self.event.schema_id.as_deref(),
            metadata: &self.metadata,
            occurred_at: self.event.occurred_at,
            is_sourced: false,
            content: self.event.content_hash.content(),
        };
        let link = linked.link(row.link.as_ref(), self.hashing.key());
        self.event.content_hash.linked(link)
    }

    /// The event of a row.
    #[must_use]
    pub fn event_of(&self, row: &ChosenRow<A>) -> NewEvent {
        let event_id = Uuid::now_v7();
        NewEvent {
            event_id,
            aggregate_version: row.version + 1,
            event_type: self.event.event_type,
            schema_version: self.event.schema_version,
            schema_id: self.event.schema_id.clone(),
            payload: self.event.payload.clone(),
            content_hash: self.hash_of(row, event_id),
            occurred_at: self.event.occurred_at,
        }
    }
}

/// What was inserted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Inserted {
    /// How many aggregates.
    pub rows: usize,
    /// A position that no event of them is behind; `None` where there are none.
    pub position: Option<Position>,
}

/// What one transaction of a bulk change did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChangedRows {
    /// How many rows were changed.
    pub rows: usize,
    /// The position of the last event; `None` where no row was changed.
    pub position: Option<Position>,
    /// The key of the last row, where there may be more behind it.
    pub last: Option<Value>,
}

/// A row that is about to be changed: what its event needs to know.
#[derive(Debug, Clone)]
pub struct ChosenRow<A> {
    /// The value of the key column.
    pub key: Value,
    /// The aggregate's id as the log holds it.
    pub aggregate_id: String,
    /// The version that the row is at.
    pub version: u64,
    /// Its tenant, where the table has one.
    pub tenant: Option<TenantId>,
    /// The link of its last event, where it is chained.
    link: Option<Link>,
    of: PhantomData<fn() -> A>,
}

impl<A: AggregateRoot> ChosenRow<A> {
    /// Reads key, version and, where the table has them, tenant and the head of the chain from these
    /// columns of a row.
    ///
    /// # Errors
    ///
    /// [`MappingError`] where a column does not fit.
    pub fn read<R: RowSource + ?Sized>(
        row: &R,
        key: usize,
        version: usize,
        tenant: Option<usize>,
        head: Option<usize>,
    ) -> Result<Self> {
        use crate::mapping::{ColumnError, ColumnValue, read_value};
        let table: &Table = A::table();
        let refused = |column: &str, reason| MappingError {
            table: table.name().to_owned(),
            column: column.to_owned(),
            reason,
        };
        let column = table.key_columns().next();
        let name = column.map_or("id", |column| column.name());
        let read_key = || {
            let id = A::Id::read_column(row, key)?.ok_or(ColumnError::UnexpectedNull)?;
            Ok((read_value(row, key, A::Id::TYPE)?, id.to_string()))
        };
        let (key, aggregate_id) = read_key().map_err(|reason| refused(name, reason))?;
        let version = u64::read_column(row, version)
            .and_then(|version| version.ok_or(ColumnError::UnexpectedNull))
            .map_err(|reason| refused("version", reason))?;
        let tenant = tenant
            .map(|index| {
                let text = row.read_text(index)?.ok_or(ColumnError::UnexpectedNull)?;
                TenantId::new(text).map_err(ColumnError::invalid)
            })
            .transpose()
            .map_err(|reason| refused("tenant", reason))?;
        let link = match head {
            None => None,
            Some(index) => row
                .read_bytes(index)
                .and_then(|link| {
                    link.map(Link::try_from)
                        .transpose()
                        .map_err(ColumnError::invalid)
                })
                .map_err(|reason| refused("chain_head", reason))?,
        };
        Ok(Self {
            key,
            aggregate_id,
            version,
            tenant,
            link,
            of: PhantomData,
        })
    }
}
