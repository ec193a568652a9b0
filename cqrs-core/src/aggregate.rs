//! Aggregate roots.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::context::TenantId;
use crate::error::{Error, Result};
use crate::event::DomainEvent;
use crate::id::AggregateId;
use crate::integrity::Link;
use crate::mapping::{
    ChildRows, ColumnRole, Entity, LoadedChild, MappingError, RowCursor, RowSource, Table, Value,
};
use crate::sourced::{SnapshotMark, Sourcing};

/// The root of an aggregate: the one object through which its state changes, and the unit that is
/// saved as a whole.
///
/// Derive it with [`#[derive(Aggregate)]`](derive@crate::Aggregate).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an aggregate root",
    note = "write `#[derive(Aggregate)]` on it"
)]
pub trait AggregateRoot: Entity {
    /// Its identity.
    type Id: AggregateId;
    /// What happens to it.
    type Event: DomainEvent;

    /// The name of its type in the log.
    const TYPE: &'static str = Self::Event::AGGREGATE_TYPE;

    /// How it is made of its events, where it is [event-sourced](crate::Sourced); `None` where it is
    /// stored as a row.
    const SOURCING: Option<Sourcing<Self>> = None;

    /// Its identity.
    fn id(&self) -> &Self::Id;

    /// What the framework keeps with it.
    fn root(&self) -> &Root<Self::Event>;

    /// What the framework keeps with it, to change.
    fn root_mut(&mut self) -> &mut Root<Self::Event>;

    /// Checks that it was loaded at the version that the caller has seen: that of an `If-Match`
    /// header, or of the form that comes back. Raised events do not count; one that was never saved
    /// is at 0.
    ///
    /// [`execute`](crate::Store::execute) loads an aggregate anew in each try, so without this a
    /// change made on version 7 is applied to whatever is there by then. What comes between the
    /// load and the commit is a [`Conflict`](Error::Conflict): the work runs again, and this is
    /// asked again.
    ///
    /// # Errors
    ///
    /// [`Error::UnexpectedVersion`], a [conflict](Error::is_conflict) that is not retried.
    ///
    /// # Example
    ///
    /// ```
    /// # use cqrs_core::*;
    /// # #[derive(Debug, Clone, serde::Serialize, serde::Deserialize, DomainEvent)]
    /// # #[event(aggregate = "order")]
    /// # enum OrderEvent { Renamed { name: String } }
    /// # #[derive(Debug, Clone, Aggregate)]
    /// # #[aggregate(table = "orders", event = OrderEvent)]
    /// # struct Order { #[aggregate(id)] number: i64, name: String, #[aggregate(root)] root: Root<OrderEvent> }
    /// # impl Order {
    /// #     fn rename(&mut self, name: &str) {
    /// #         self.name = name.to_owned();
    /// #         self.root.raise(OrderEvent::Renamed { name: name.to_owned() });
    /// #     }
    /// # }
    /// # async fn example(store: &impl Store, context: &RequestContext) -> Result<()> {
    /// let seen = 7; // of the form
    /// let renamed = store
    ///     .execute(context, async |uow| {
    ///         let mut order: Order = uow.get(1).await?;
    ///         order.expect_version(seen)?;
    ///         order.rename("Kim");
    ///         uow.save(order)
    ///     })
    ///     .await;
    /// match renamed {
    ///     Err(Error::UnexpectedVersion { found, .. }) => println!("412: it is at {found}"),
    ///     other => drop(other?),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    fn expect_version(&self, version: u64) -> Result<()> {
        let found = self.root().version();
        if found == version {
            return Ok(());
        }
        Err(Error::UnexpectedVersion {
            aggregate: Self::TYPE,
            id: self.id().to_string(),
            expected: version,
            found,
        })
    }
}

/// What the framework keeps with an aggregate: the version it was loaded at, the events raised
/// since, its tenant, and who created and changed it.
///
/// # Example
///
/// ```
/// # use cqrs_core::*;
/// # #[derive(Clone, serde::Serialize, serde::Deserialize)] enum E { Opened }
/// # impl DomainEvent for E {
/// #   const AGGREGATE_TYPE: &'static str = "account";
/// #   const EVENT_TYPES: &'static [EventType] = &[EventType { name: "account.opened", schema_version: 1 }];
/// #   fn variant(&self) -> usize { 0 }
/// # }
/// let mut root = Root::new();
/// root.raise(E::Opened);
/// assert_eq!(root.version(), 0);
/// assert_eq!(root.raised().len(), 1);
/// ```
#[derive(Debug, Clone)]
pub struct Root<E> {
    version: u64,
    /// Whether it is of a row that was there before the framework, and has no event yet.
    is_unadopted: bool,
    raised: Vec<E>,
    /// How many of them were applied to the state of an event-sourced aggregate.
    applied: usize,
    /// Whether applying one did more than change the state.
    is_misapplied: bool,
    tenant: Option<TenantId>,
    stamps: AuditStamps,
    /// The snapshot that an event-sourced aggregate was loaded from.
    snapshot: Option<SnapshotMark>,
    /// The link of the last event of a chained aggregate.
    link: Option<Link>,
    /// The children as they were loaded, for each of their tables; `None` where there are none.
    children: Option<Arc<Vec<Vec<LoadedChild>>>>,
}

/// Who created, changed and deleted a row, and when. Each is `None` where the aggregate keeps no
/// such column, or it has not happened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditStamps {
    /// When it was created.
    pub created_at: Option<DateTime<Utc>>,
    /// Who created it.
    pub created_by: Option<String>,
    /// When it was last changed.
    pub updated_at: Option<DateTime<Utc>>,
    /// Who last changed it.
    pub updated_by: Option<String>,
    /// When it was deleted.
    pub deleted_at: Option<DateTime<Utc>>,
    /// Who deleted it.
    pub deleted_by: Option<String>,
}

impl<E> Root<E> {
    /// The root of an aggregate that was never saved.
    ///
    /// Saving it inserts it, for the tenant of the unit of work.
    #[must_use]
    pub fn new() -> Self {
        Self {
            version: 0,
            is_unadopted: false,
            raised: Vec::new(),
            applied: 0,
            is_misapplied: false,
            tenant: None,
            stamps: AuditStamps::default(),
            snapshot: None,
            link: None,
            children: None,
        }
    }

    /// The root of a new aggregate of this tenant; needed under
    /// [`TenantScope::System`](crate::TenantScope::System), which has no tenant of its own.
    #[must_use]
    pub fn for_tenant(tenant: TenantId) -> Self {
        Self {
            tenant: Some(tenant),
            ..Self::new()
        }
    }

    /// Records that something happened. The event is written in the commit that saves the
    /// aggregate, after those raised before it.
    ///
    /// An event-sourced aggregate must also apply it: call
    /// [`Sourced::raise`](crate::Sourced::raise) there.
    pub fn raise(&mut self, event: E) {
        self.raised.push(event);
    }

    /// Records an event that the aggregate has applied.
    pub(crate) fn raise_applied(&mut self, event: E) {
        self.raised.push(event);
        self.applied += 1;
    }

    /// Remembers that applying an event did more than change the state.
    pub(crate) fn misapplied(&mut self) {
        self.is_misapplied = true;
    }

    /// Whether applying an event did more than change the state.
    pub(crate) fn is_misapplied(&self) -> bool {
        self.is_misapplied
    }

    /// Whether every raised event was applied.
    pub(crate) fn is_applied(&self) -> bool {
        self.applied == self.raised.len()
    }

    /// The snapshot that the aggregate was loaded from.
    pub(crate) fn snapshot(&self) -> Option<SnapshotMark> {
        self.snapshot
    }

    /// Makes it the root of an aggregate that was loaded from its events.
    pub(crate) fn loaded(
        &mut self,
        version: u64,
        tenant: Option<TenantId>,
        stamps: AuditStamps,
        snapshot: Option<SnapshotMark>,
    ) {
        *self = Self {
            version,
            tenant,
            stamps,
            snapshot,
            ..Self::new()
        };
    }

    /// The version at which the aggregate was loaded: the number of its events in the log; 0 for
    /// a new one. Raising events does not change it, saving does.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether it is of a row that was there before the framework, and has no event yet.
    pub(crate) fn is_unadopted(&self) -> bool {
        self.is_unadopted
    }

    /// The events raised since it was loaded.
    #[must_use]
    pub fn raised(&self) -> &[E] {
        &self.raised
    }

    /// The tenant that owns the aggregate; `None` for one without tenants, and for a new one whose
    /// tenant will be that of the unit of work.
    #[must_use]
    pub fn tenant(&self) -> Option<&TenantId> {
        self.tenant.as_ref()
    }

    /// Who created and changed it.
    #[must_use]
    pub fn stamps(&self) -> &AuditStamps {
        &self.stamps
    }

    /// Whose it is, and who created and changed it, where a test says so.
    pub(crate) fn ownership_mut(&mut self) -> (&mut Option<TenantId>, &mut AuditStamps) {
        (&mut self.tenant, &mut self.stamps)
    }

    /// Reads the framework's columns of a row.
    ///
    /// # Errors
    ///
    /// Where a column does not fit.
    #[doc(hidden)]
    pub fn read<R: RowSource + ?Sized>(row: &mut RowCursor<'_, R>) -> Result<Self, MappingError> {
        let mut root = Self::new();
        for column in row.table().framework_columns() {
            match column.role() {
                ColumnRole::Version => {
                    root.version = row.next()?;
                    root.is_unadopted = root.version == 0;
                }
                ColumnRole::Tenant => {
                    let tenant: String = row.next()?;
                    root.tenant =
                        Some(TenantId::new(tenant).map_err(|error| {
                            row.error(crate::mapping::ColumnError::invalid(error))
                        })?);
                }
                ColumnRole::CreatedAt => root.stamps.created_at = row.next()?,
                ColumnRole::CreatedBy => root.stamps.created_by = row.next()?,
                ColumnRole::UpdatedAt => root.stamps.updated_at = row.next()?,
                ColumnRole::UpdatedBy => root.stamps.updated_by = row.next()?,
                ColumnRole::DeletedAt => root.stamps.deleted_at = row.next()?,
                ColumnRole::DeletedBy => root.stamps.deleted_by = row.next()?,
                ColumnRole::ChainHead => {
                    let link: Option<Vec<u8>> = row.next()?;
                    root.link = link.map(Link::try_from).transpose().map_err(|_| {
                        row.error(crate::mapping::ColumnError::invalid("not 32 bytes"))
                    })?;
                }
                ColumnRole::Key | ColumnRole::Data | ColumnRole::Parent | ColumnRole::Order => {
                    unreachable!("not a framework column of an aggregate")
                }
            }
        }
        Ok(root)
    }

    /// The values of the framework's columns.
    #[doc(hidden)]
    #[must_use]
    pub fn framework_row(&self, table: &Table) -> Vec<Value> {
        let time = |time: Option<DateTime<Utc>>| time.map_or(Value::Null, Value::Timestamp);
        let text = |text: &Option<String>| text.clone().map_or(Value::Null, Value::Text);
        table
            .framework_columns()
            .iter()
            .map(|column| match column.role() {
                ColumnRole::Version => i64::try_from(self.version).map_or(Value::Null, Value::Int),
                ColumnRole::Tenant => self.tenant.as_ref().map_or(Value::Null, |tenant| {
                    Value::Text(tenant.as_str().to_owned())
                }),
                ColumnRole::CreatedAt => time(self.stamps.created_at),
                ColumnRole::CreatedBy => text(&self.stamps.created_by),
                ColumnRole::UpdatedAt => time(self.stamps.updated_at),
                ColumnRole::UpdatedBy => text(&self.stamps.updated_by),
                ColumnRole::DeletedAt => time(self.stamps.deleted_at),
                ColumnRole::DeletedBy => text(&self.stamps.deleted_by),
                ColumnRole::ChainHead => self.link_value(),
                ColumnRole::Key | ColumnRole::Data | ColumnRole::Parent | ColumnRole::Order => {
                    Value::Null
                }
            })
            .collect()
    }

    /// The link of the last event, as the column for it holds it.
    pub(crate) fn link_value(&self) -> Value {
        self.link
            .map_or(Value::Null, |link| Value::Bytes(link.to_vec()))
    }

    /// Makes it the root of an aggregate whose last event has this link.
    pub(crate) fn linked(&mut self, link: Option<Link>) {
        self.link = link;
    }

    /// Makes it the root of an aggregate that was saved at this version.
    pub(crate) fn saved(&mut self, version: u64) {
        self.version = version;
        self.is_unadopted = false;
    }

    /// Makes it the root of an aggregate that was never saved, of the same tenant and with the same
    /// raised events.
    pub(crate) fn make_new(&mut self) {
        self.version = 0;
        self.is_unadopted = false;
        self.link = None;
        self.stamps = AuditStamps::default();
        self.children = None;
    }

    /// Takes these children, in these places, for those that are stored.
    #[doc(hidden)]
    pub fn remember_children(&mut self, rows: ChildRows, places: Vec<Vec<i32>>) {
        self.children = Some(Arc::new(LoadedChild::all(rows, places)));
    }

    /// The children in the table at `index` as they were loaded.
    pub(crate) fn loaded_children(&self, index: usize) -> &[LoadedChild] {
        let tables = self.children.as_deref();
        tables
            .and_then(|tables| tables.get(index))
            .map_or(&[], Vec::as_slice)
    }

    /// Takes the raised events out.
    pub(crate) fn take_raised(&mut self) -> Vec<E> {
        self.applied = 0;
        std::mem::take(&mut self.raised)
    }
}

impl<E> Default for Root<E> {
    fn default() -> Self {
        Self::new()
    }
}
