//! Staged writes: what a save or a remove becomes before any backend sees it.
//!
//! For authors of backends. The rules that must be the same everywhere are here: which version a
//! write expects and which one it leaves, the tenant it carries, and which events it appends.

mod children;
mod events;

use std::collections::HashSet;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::aggregate::AggregateRoot;
use crate::context::{Metadata, RequestContext, TenantId};
use crate::error::{Error, Result, StoreErrorKind};
use crate::integrity::{self, Chain, ContentHash, Hashing, LinkedStream};
use crate::mapping::{ColumnError, ColumnRole, ColumnValue, MappingError, Table, Value};
use crate::schema::SchemaIds;
use crate::sourced::{self, DueSnapshot};

pub use self::children::ChildWrite;
use self::children::Family;
pub(crate) use self::children::primary_key;
pub(crate) use self::events::misapplied;
use self::events::{check_applied, new_events};

/// What a staged write does to its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Adds it.
    Insert,
    /// Replaces it.
    Update,
    /// Replaces it only if a value differs: a save that raised no event.
    UpdateIfChanged,
    /// Deletes it, or marks it as deleted where the table has
    /// [soft delete](Table::is_soft_delete).
    Remove,
}

/// The event that the framework writes for a change that raised none, so that every version of
/// every aggregate has exactly one event in the log; and behind those of a removal, also where it
/// raised some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeMarker {
    /// An aggregate was created.
    Created,
    /// An aggregate was changed.
    Changed,
    /// An aggregate was removed.
    Removed,
    /// An aggregate that was removed softly is back.
    Restored,
    /// The row of an aggregate was deleted for good.
    Purged,
}

impl ChangeMarker {
    /// The event type in the log.
    #[must_use]
    pub const fn event_type(self) -> &'static str {
        match self {
            Self::Created => "cqrs.created",
            Self::Changed => "cqrs.changed",
            Self::Removed => "cqrs.removed",
            Self::Restored => "cqrs.restored",
            Self::Purged => "cqrs.purged",
        }
    }

    /// Whether this event type is one of the markers.
    #[must_use]
    pub fn is_marker(event_type: &str) -> bool {
        [
            Self::Created,
            Self::Changed,
            Self::Removed,
            Self::Restored,
            Self::Purged,
        ]
        .iter()
        .any(|marker| marker.event_type() == event_type)
    }
}

/// An event on its way into the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// Its id.
    pub event_id: Uuid,
    /// The version that the aggregate reaches with it.
    pub aggregate_version: u64,
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

/// A write that waits for the commit: one aggregate and its events, without their Rust types.
#[derive(Debug, Clone, PartialEq)]
pub struct StagedWrite {
    /// The aggregate's type.
    pub aggregate_type: &'static str,
    /// The aggregate's id as the log holds it.
    pub aggregate_id: String,
    /// Its table.
    pub table: &'static Table,
    /// What happens to its row.
    pub operation: Operation,
    /// The value of the key column.
    pub key: Value,
    /// The tenant that the row must have; `None` where the table has none.
    pub tenant: Option<TenantId>,
    /// The version that the row must be at; 0 for an insert, and for a row that was there before
    /// the framework.
    pub expected_version: u64,
    /// The version that the row will be at: [`expected_version`](Self::expected_version) and the
    /// number of [`events`](Self::events).
    pub new_version: u64,
    /// The values of [all columns](Table::columns) of the row after the write. Where a row is
    /// replaced, its `created` columns and its tenant stay what they are in the store.
    pub row: Vec<Value>,
    /// What changes in the tables of its children, each at most once; empty where nothing does. A
    /// write that changes children is no [`UpdateIfChanged`](Operation::UpdateIfChanged).
    pub children: Vec<ChildWrite>,
    /// Its events, at least one; none of an event-sourced aggregate that raised nothing, and of a
    /// [guard](Self::guard).
    pub events: Vec<NewEvent>,
    /// That a snapshot of an event-sourced aggregate is due with it, to be made after the commit.
    pub snapshot: Option<DueSnapshot>,
}

impl StagedWrite {
    /// Stages a save.
    ///
    /// # Errors
    ///
    /// [`Error::TenantRequired`], [`Error::Mapping`], [`Error::Payload`]; [`Error::NotFound`]
    /// where the aggregate belongs to another tenant than the context's; a
    /// [`Usage`](StoreErrorKind::Usage) error of one that was loaded from a row which was there
    /// before the framework and has no event yet.
    pub fn save<A: AggregateRoot>(
        aggregate: A,
        context: &RequestContext,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        check_adopted(&aggregate)?;
        let root = aggregate.root();
        let (operation, marker) = match (root.version(), root.raised().is_empty()) {
            (0, _) => (Operation::Insert, ChangeMarker::Created),
            (_, true) => (Operation::UpdateIfChanged, ChangeMarker::Changed),
            (_, false) => (Operation::Update, ChangeMarker::Changed),
        };
        Self::stage(aggregate, operation, marker, context, now)
    }

    /// Stages the first event of an aggregate whose row was there before, at version 0.
    pub(crate) fn adopt<A: AggregateRoot>(
        mut aggregate: A,
        event: A::Event,
        context: &RequestContext,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        aggregate.root_mut().raise(event);
        Self::stage(
            aggregate,
            Operation::Update,
            ChangeMarker::Changed,
            context,
            now,
        )
    }

    /// Stages the removal of an aggregate that was loaded.
    ///
    /// # Errors
    ///
    /// As [`save`](Self::save), and [`Error::NotFound`] for one that was never saved.
    pub fn remove<A: AggregateRoot>(
        aggregate: A,
        context: &RequestContext,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        check_adopted(&aggregate)?;
        if aggregate.root().version() == 0 {
            return Err(not_found::<A>(aggregate.id()));
        }
        Self::stage(
            aggregate,
            Operation::Remove,
            ChangeMarker::Removed,
            context,
            now,
        )
    }

    /// Stages a guard: that an aggregate which is only read is still at the version at which it was
    /// loaded. It has neither values nor events.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] for one that was never saved, and where the aggregate belongs to another
    /// tenant than the context's; [`Error::Mapping`] where its id cannot be stored; a
    /// [`Usage`](StoreErrorKind::Usage) error as in [`save`](Self::save).
    pub fn guard<A: AggregateRoot>(aggregate: &A, context: &RequestContext) -> Result<Self> {
        check_adopted(aggregate)?;
        let version = aggregate.root().version();
        if version == 0 {
            return Err(not_found::<A>(aggregate.id()));
        }
        let table = A::table();
        let key = aggregate.id().to_value();
        Ok(Self {
            aggregate_type: A::TYPE,
            aggregate_id: checked_id::<A>(aggregate.id())?,
            table,
            operation: Operation::Update,
            key: key.map_err(|reason| table.key_error(reason))?,
            tenant: owner(aggregate, context)?,
            expected_version: version,
            new_version: version,
            row: Vec::new(),
            children: Vec::new(),
            events: Vec::new(),
            snapshot: None,
        })
    }

    fn stage<A: AggregateRoot>(
        mut aggregate: A,
        mut operation: Operation,
        marker: ChangeMarker,
        context: &RequestContext,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        let table = A::table();
        let tenant = owner(&aggregate, context)?;
        let expected_version = aggregate.root().version();
        if table.is_sourced() {
            check_applied(&aggregate)?;
            // There is nothing to replace: the events are all that is written.
            operation = match operation {
                Operation::UpdateIfChanged => Operation::Update,
                operation => operation,
            };
        }
        let link = aggregate.root().link_value();
        let raised = aggregate.root_mut().take_raised();
        let events = new_events(&raised, marker, table.is_sourced(), expected_version, now)?;
        let new_version = expected_version + events.len() as u64;
        let snapshot = match operation {
            _ if events.is_empty() => None,
            Operation::Remove => None,
            _ => sourced::due(&aggregate, new_version, now),
        };
        let key = table
            .key_columns()
            .next()
            .map(|column| column.name().to_owned());
        let own = aggregate.to_row()?;
        let key = table
            .own_columns()
            .iter()
            .position(|column| Some(column.name()) == key.as_deref())
            .map_or(Value::Null, |index| own[index].clone());
        let family = Family {
            key: &key,
            tenant: tenant.as_ref(),
        };
        let children = children::changes(&aggregate, operation, &family)?;
        if operation == Operation::UpdateIfChanged && !children.is_empty() {
            operation = Operation::Update;
        }
        let aggregate_id = checked_id::<A>(aggregate.id())?;
        check_metadata(context.metadata())?;
        let mut row = framework_row(table, operation, context, &tenant, new_version, &link, now)?;
        row.extend(own);
        Ok(Self {
            aggregate_type: A::TYPE,
            aggregate_id,
            table,
            operation,
            key,
            tenant,
            expected_version,
            new_version,
            row,
            children,
            events,
            snapshot,
        })
    }

    /// Gives its events the ids of their schemas. A store does this once with each write, before
    /// their hashes are made.
    #[must_use]
    pub fn identified(mut self, ids: &SchemaIds) -> Self {
        for event in &mut self.events {
            event.schema_id = ids.find(self.aggregate_type, event.event_type, event.schema_version);
        }
        self
    }

    /// Makes the hashes of its events, as the store makes them: under a key, and linked where the
    /// aggregate is chained. A store does this once with each write, before it sends or keeps it.
    #[must_use]
    pub fn hashed(mut self, hashing: &Hashing, metadata: &Metadata) -> Self {
        let head = self.table.index_of(ColumnRole::ChainHead);
        if head.is_none() && hashing.keys.is_none() {
            return self;
        }
        let stream = LinkedStream {
            tenant: self.tenant.as_ref(),
            aggregate_type: self.aggregate_type,
            aggregate_id: &self.aggregate_id,
            is_sourced: self.table.is_sourced(),
            metadata,
        };
        let link = head.and_then(|head| integrity::read_link(&self.row[head]));
        let mut chain = Chain::new(hashing, head.is_some(), link);
        for event in &mut self.events {
            chain.add(&stream, event);
        }
        if let Some(head) = head {
            self.row[head] = chain.head();
        }
        self
    }

    /// Whether it is of an event-sourced aggregate: its events are all that is written.
    #[must_use]
    pub fn is_sourced(&self) -> bool {
        self.table.is_sourced()
    }

    /// Whether it writes nothing: a [guard](Self::guard), or the save of an event-sourced aggregate
    /// that raised nothing, which is checked as a guard is.
    #[must_use]
    pub fn is_check(&self) -> bool {
        self.events.is_empty()
    }

    /// When it was staged, by the clock of the store.
    #[must_use]
    pub fn staged_at(&self) -> DateTime<Utc> {
        let first = self.events.first();
        first.map_or_else(DateTime::default, |event| event.occurred_at)
    }

    /// The tables in which it may change rows.
    pub fn tables(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.table.with_children().map(Table::name)
    }

    /// The error of a write whose row is absent.
    #[must_use]
    pub fn not_found(&self) -> Error {
        Error::NotFound {
            aggregate: self.aggregate_type,
            id: self.aggregate_id.clone(),
        }
    }

    /// The error of a write whose row is at version `found`.
    #[must_use]
    pub fn conflict(&self, found: u64) -> Error {
        Error::Conflict {
            aggregate: self.aggregate_type,
            id: self.aggregate_id.clone(),
            expected: self.expected_version,
            found,
        }
    }

    /// The error of an insert whose id is taken, or was once.
    #[must_use]
    pub fn already_exists(&self) -> Error {
        Error::AlreadyExists {
            aggregate: self.aggregate_type,
            id: self.aggregate_id.clone(),
        }
    }

    /// The error of a write that is stale because the unit of work itself has written the newer
    /// version. No retry would help: the work would do the same again.
    #[must_use]
    pub fn saved_before(&self) -> Error {
        Error::store(
            StoreErrorKind::Usage,
            format!(
                "{} {} was saved before in this unit of work: load it again to change it further",
                self.aggregate_type, self.aggregate_id
            ),
        )
    }

    /// Whether this column keeps the value it has in the store when a row is replaced.
    #[must_use]
    pub fn keeps(role: ColumnRole) -> bool {
        matches!(
            role,
            ColumnRole::Key | ColumnRole::Tenant | ColumnRole::CreatedAt | ColumnRole::CreatedBy
        )
    }
}

/// The writes that a unit of work has staged and not sent yet.
///
/// One aggregate is staged once: of two writes that expect the same version the second is stale
/// as soon as the first is applied, and a statement that writes both at once has no order for
/// them. After a read, which sends what is staged, the aggregate can be loaded and staged again.
#[derive(Debug, Default)]
pub struct StagedWrites {
    guards: Vec<StagedWrite>,
    writes: Vec<StagedWrite>,
    aggregates: HashSet<(&'static str, String)>,
}

impl StagedWrites {
    /// Adds a write. One of an event-sourced aggregate that raised nothing is a [check](StagedWrite::is_check):
    /// a decision on a state that has moved on is a conflict, as that of a row is. It is staged as
    /// any other: what is said of an aggregate that is saved twice holds for it, too. Inserts are
    /// added even where the id is staged already: that is an [`Error::AlreadyExists`] of the commit.
    ///
    /// # Errors
    ///
    /// Of kind [`Usage`](StoreErrorKind::Usage) where the aggregate is staged already, in either form,
    /// whether that wrote something or not; what was staged before stays staged.
    pub fn push(&mut self, write: StagedWrite) -> Result<()> {
        let aggregate = (write.aggregate_type, write.aggregate_id.clone());
        if !self.aggregates.insert(aggregate) && write.operation != Operation::Insert {
            let StagedWrite {
                aggregate_type: name,
                aggregate_id: id,
                ..
            } = write;
            return Err(Error::store(
                StoreErrorKind::Usage,
                format!("{name} {id} is staged already: make all changes, then save it once"),
            ));
        }
        self.writes.push(write);
        Ok(())
    }

    /// Adds a [guard](StagedWrite::guard), which is checked before the writes. Where nothing else is
    /// staged and the unit of work has sent nothing, a read leaves it to the commit.
    pub fn push_guard(&mut self, guard: StagedWrite) {
        self.guards.push(guard);
    }

    /// Takes all guards out.
    pub fn take_guards(&mut self) -> Vec<StagedWrite> {
        std::mem::take(&mut self.guards)
    }

    /// Whether something is to be [checked](StagedWrite::is_check) and not written.
    #[must_use]
    pub fn has_checks(&self) -> bool {
        !self.guards.is_empty() || self.writes.iter().any(StagedWrite::is_check)
    }

    /// Takes all writes out, in the order in which they were staged, [checks](StagedWrite::is_check)
    /// among them.
    pub fn take(&mut self) -> Vec<StagedWrite> {
        self.aggregates.clear();
        std::mem::take(&mut self.writes)
    }

    /// The writes, in the order in which they were staged.
    #[must_use]
    pub fn as_slice(&self) -> &[StagedWrite] {
        &self.writes
    }

    /// Whether no save or removal is staged. One that writes nothing is one all the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }
}

/// Checks that it is not of a row that was there before the framework and has no event yet: saving it
/// would insert it a second time.
fn check_adopted<A: AggregateRoot>(aggregate: &A) -> Result<()> {
    if !aggregate.root().is_unadopted() {
        return Ok(());
    }
    Err(Error::store(
        StoreErrorKind::Usage,
        format!(
            "{} {} is a row from before the framework, at version 0: give the rows of table {} \
             their first events with `store.maintenance(...).backfill(...)`, then load it again",
            A::TYPE,
            aggregate.id(),
            A::table().name(),
        ),
    ))
}

fn not_found<A: AggregateRoot>(id: &A::Id) -> Error {
    Error::NotFound {
        aggregate: A::TYPE,
        id: id.to_string(),
    }
}

/// The id as the log holds it. What is longer would not fit an index.
pub(crate) fn checked_id<A: AggregateRoot>(id: &A::Id) -> Result<String> {
    let text = id.to_string();
    if (1..=255).contains(&text.len()) {
        return Ok(text);
    }
    let column = A::table().key_columns().next();
    Err(Error::Mapping(MappingError {
        table: A::table().name().to_owned(),
        column: column.map_or("id", |column| column.name()).to_owned(),
        reason: ColumnError::invalid(format!(
            "an id is 1 to 255 bytes of text, not {}",
            text.len()
        )),
    }))
}

/// What goes into the log with every event must be text that every backend can hold.
pub(crate) fn check_metadata(metadata: &Metadata) -> Result<()> {
    let trace = metadata.trace.as_ref();
    let texts = [
        ("actor", metadata.actor.as_ref()),
        ("traceparent", trace.map(|trace| &trace.traceparent)),
        (
            "tracestate",
            trace.and_then(|trace| trace.tracestate.as_ref()),
        ),
    ];
    for (column, text) in texts {
        if text.is_some_and(|text| text.contains('\0')) {
            return Err(Error::Mapping(MappingError {
                table: "cqrs_event".to_owned(),
                column: column.to_owned(),
                reason: ColumnError::invalid("text with a NUL character cannot be stored"),
            }));
        }
    }
    Ok(())
}

/// The tenant of the row, where the table has one.
fn owner<A: AggregateRoot>(aggregate: &A, context: &RequestContext) -> Result<Option<TenantId>> {
    if !A::table().is_tenant() {
        return Ok(None);
    }
    let own = aggregate.root().tenant();
    if !context.scope().admits(own) {
        return Err(not_found::<A>(aggregate.id()));
    }
    match own.or(context.scope().tenant()) {
        Some(tenant) => Ok(Some(tenant.clone())),
        None => Err(Error::TenantRequired {
            aggregate: A::TYPE,
            id: aggregate.id().to_string(),
        }),
    }
}

fn framework_row(
    table: &Table,
    operation: Operation,
    context: &RequestContext,
    tenant: &Option<TenantId>,
    version: u64,
    link: &Value,
    now: DateTime<Utc>,
) -> Result<Vec<Value>> {
    let actor = || {
        context
            .actor()
            .map_or(Value::Null, |actor| Value::Text(actor.to_owned()))
    };
    let removed = operation == Operation::Remove;
    table
        .framework_columns()
        .iter()
        .map(|column| {
            let value = match column.role() {
                ColumnRole::Version => ColumnValue::to_value(&version),
                ColumnRole::Tenant => Ok(tenant.as_ref().map_or(Value::Null, |tenant| {
                    Value::Text(tenant.as_str().to_owned())
                })),
                ColumnRole::CreatedAt | ColumnRole::UpdatedAt => Value::Timestamp(now).checked(),
                ColumnRole::CreatedBy | ColumnRole::UpdatedBy => actor().checked(),
                ColumnRole::DeletedAt if removed => Value::Timestamp(now).checked(),
                ColumnRole::DeletedBy if removed => actor().checked(),
                ColumnRole::ChainHead => Ok(link.clone()),
                _ => Ok(Value::Null),
            };
            value.map_err(|reason| {
                Error::Mapping(MappingError {
                    table: table.name().to_owned(),
                    column: column.name().to_owned(),
                    reason,
                })
            })
        })
        .collect()
}
