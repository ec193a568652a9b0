//! Interceptors: what a store does around every write of its units of work.

use std::any::Any;
use std::collections::HashSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use uuid::Uuid;

use crate::aggregate::AggregateRoot;
use crate::context::{RequestContext, TenantId};
use crate::error::Result;
use crate::event::DomainEvent;
use crate::mapping::{ColumnRole, ColumnValue, Value, ValueRow};
use crate::specification::Field;
use crate::staging::{NewEvent, Operation, StagedWrite};
use crate::unit_of_work::CommitReceipt;

/// Sees what the units of work of a store write, whichever handler they belong to: a rule for all
/// aggregates, a check across them, a notification. It is registered with the store.
///
/// # Order
///
/// Interceptors run in the order in which they were registered, each step for all of them before
/// the next step:
///
/// 1. `before_insert`, `before_update`, `before_remove` when an aggregate is saved or removed,
///    before the framework stamps it (version, tenant, audit) and stages it. They may change the
///    aggregate and raise events of it.
/// 2. `before_commit`, after the [hooks](crate::UnitOfWork::before_commit) of the unit of work, where
///    it has staged or sent any write. It sees all of them and changes none. A save that will change
///    nothing is among them, in either form.
/// 3. `after_insert`, `after_update`, `after_remove` when the commit is done, for each aggregate that
///    was written, in the order of staging; then `after_commit`; then the
///    [hooks](crate::UnitOfWork::after_commit).
///
/// What comes before may refuse: the error is the one of `save`, `remove` or `commit`, a
/// [domain error](crate::DomainError) stays one, and where it is passed on nothing is committed. What
/// comes after cannot undo anything; it does not run where nothing was written, nor for what a
/// savepoint has undone, nor for a save that turned out to change nothing.
///
/// Interceptors do no I/O. What needs it is a hook of the unit of work, or, where it must not be lost,
/// a projection. They run again where the work does.
///
/// # Panics
///
/// A panic before the commit is that of `save`, `remove` or `commit`: nothing is committed. A panic
/// after it is caught and traced; the commit stands, and all others run.
///
/// # Example
///
/// ```
/// # use cqrs_core::*;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
/// # #[event(aggregate = "order")]
/// # enum OrderEvent { Placed }
/// # #[derive(Debug, Clone, Aggregate)]
/// # #[aggregate(table = "orders", event = OrderEvent)]
/// # struct Order {
/// #     #[aggregate(id)]
/// #     id: i64,
/// #     #[aggregate(root)]
/// #     root: Root<OrderEvent>,
/// #     customer: String,
/// # }
/// # #[derive(Debug)]
/// # struct NoCustomer;
/// # impl std::fmt::Display for NoCustomer {
/// #     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str("no customer") }
/// # }
/// # impl std::error::Error for NoCustomer {}
/// # impl DomainError for NoCustomer {}
/// /// Customers are written in one way, and there is one.
/// struct Customers;
///
/// impl Interceptor for Customers {
///     fn before_insert(&self, write: &mut Intercepted<'_>) -> Result<()> {
///         let Some(order) = write.aggregate_mut::<Order>() else {
///             return Ok(());
///         };
///         order.customer = order.customer.trim().to_uppercase();
///         if order.customer.is_empty() {
///             return Err(NoCustomer.into());
///         }
///         Ok(())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// let store = InMemoryStore::new().with_interceptor(Customers);
/// let order = |id, customer: &str| Order { id, root: Root::new(), customer: customer.into() };
/// let context = RequestContext::system();
/// let mut uow = store.unit_of_work(&context);
/// uow.save(order(1, " Ada "))?;
/// let error = uow.save(order(2, " ")).unwrap_err();
/// assert!(error.domain::<NoCustomer>().is_some());
/// assert_eq!(uow.get::<Order>(1).await?.customer, "ADA");
/// # Ok(())
/// # }
/// ```
#[expect(unused_variables, reason = "the names are for those who implement it")]
pub trait Interceptor: Send + Sync + 'static {
    /// A new aggregate is about to be staged.
    ///
    /// # Errors
    ///
    /// Whatever refuses it.
    fn before_insert(&self, write: &mut Intercepted<'_>) -> Result<()> {
        Ok(())
    }

    /// An aggregate that was loaded is about to be staged: changed or not, with events or without.
    ///
    /// # Errors
    ///
    /// Whatever refuses it.
    fn before_update(&self, write: &mut Intercepted<'_>) -> Result<()> {
        Ok(())
    }

    /// The removal of an aggregate is about to be staged.
    ///
    /// # Errors
    ///
    /// Whatever refuses it.
    fn before_remove(&self, write: &mut Intercepted<'_>) -> Result<()> {
        Ok(())
    }

    /// A unit of work is about to be committed.
    ///
    /// # Errors
    ///
    /// Whatever refuses it.
    fn before_commit(&self, commit: &InterceptedCommit<'_>) -> Result<()> {
        Ok(())
    }

    /// A new aggregate was committed.
    fn after_insert(&self, change: &Change<'_>) {}

    /// A change of an aggregate was committed.
    fn after_update(&self, change: &Change<'_>) {}

    /// The removal of an aggregate was committed.
    fn after_remove(&self, change: &Change<'_>) {}

    /// A unit of work that wrote something was committed.
    fn after_commit(&self, commit: &InterceptedCommit<'_>, receipt: &CommitReceipt) {}
}

/// An aggregate on its way into a unit of work, as the work left it.
pub struct Intercepted<'a> {
    aggregate: &'a mut dyn AnyAggregate,
    context: &'a RequestContext,
    operation: Operation,
}

impl Intercepted<'_> {
    /// The context of the unit of work: tenant scope and actor.
    #[must_use]
    pub fn context(&self) -> &RequestContext {
        self.context
    }

    /// What happens to its row: an insert, an update or a removal.
    #[must_use]
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// The aggregate's type in the log.
    #[must_use]
    pub fn aggregate_type(&self) -> &'static str {
        self.aggregate.aggregate_type()
    }

    /// The aggregate's id.
    #[must_use]
    pub fn id(&self) -> String {
        self.aggregate.id()
    }

    /// The tenant that owns the aggregate, or will; `None` where it is everyone's.
    #[must_use]
    pub fn tenant(&self) -> Option<&TenantId> {
        if !self.aggregate.is_of_tenants() {
            return None;
        }
        self.aggregate.tenant().or(self.context.scope().tenant())
    }

    /// The version that the aggregate was loaded at; 0 for a new one.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.aggregate.version()
    }

    /// The types of the events that it has raised.
    #[must_use]
    pub fn event_types(&self) -> Vec<&'static str> {
        self.aggregate.event_types()
    }

    /// The aggregate, where it is an `A`.
    #[must_use]
    pub fn aggregate<A: AggregateRoot>(&self) -> Option<&A> {
        self.aggregate.as_any().downcast_ref()
    }

    /// The aggregate, where it is an `A`, to change it and to raise events.
    #[must_use]
    pub fn aggregate_mut<A: AggregateRoot>(&mut self) -> Option<&mut A> {
        self.aggregate.as_any_mut().downcast_mut()
    }
}

impl fmt::Debug for Intercepted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intercepted")
            .field("operation", &self.operation)
            .field("aggregate_type", &self.aggregate_type())
            .field("id", &self.id())
            .field("version", &self.version())
            .finish_non_exhaustive()
    }
}

trait AnyAggregate {
    fn aggregate_type(&self) -> &'static str;
    fn id(&self) -> String;
    fn is_of_tenants(&self) -> bool;
    fn tenant(&self) -> Option<&TenantId>;
    fn version(&self) -> u64;
    fn event_types(&self) -> Vec<&'static str>;
    fn as_any(&self) -> &dyn Any;
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

impl<A: AggregateRoot> AnyAggregate for A {
    fn aggregate_type(&self) -> &'static str {
        A::TYPE
    }

    fn id(&self) -> String {
        AggregateRoot::id(self).to_string()
    }

    fn is_of_tenants(&self) -> bool {
        A::table().is_tenant()
    }

    fn tenant(&self) -> Option<&TenantId> {
        self.root().tenant()
    }

    fn version(&self) -> u64 {
        self.root().version()
    }

    fn event_types(&self) -> Vec<&'static str> {
        let events = self.root().raised().iter();
        events.map(|event| event.event_type().name).collect()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

/// A write that is staged, sent or committed.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    write: &'a StagedWrite,
    context: &'a RequestContext,
}

impl<'a> Change<'a> {
    /// The context of the unit of work: tenant scope and actor.
    #[must_use]
    pub fn context(&self) -> &'a RequestContext {
        self.context
    }

    /// What happens to the row.
    #[must_use]
    pub fn operation(&self) -> Operation {
        self.write.operation
    }

    /// The aggregate's type in the log.
    #[must_use]
    pub fn aggregate_type(&self) -> &'static str {
        self.write.aggregate_type
    }

    /// The aggregate's id.
    #[must_use]
    pub fn id(&self) -> &'a str {
        &self.write.aggregate_id
    }

    /// The tenant that owns the aggregate.
    #[must_use]
    pub fn tenant(&self) -> Option<&'a TenantId> {
        self.write.tenant.as_ref()
    }

    /// The version before; 0 for a new one.
    #[must_use]
    pub fn old_version(&self) -> u64 {
        self.write.expected_version
    }

    /// The version after.
    #[must_use]
    pub fn new_version(&self) -> u64 {
        self.write.new_version
    }

    /// The events, at least one; before the commit none of an event-sourced aggregate that raised
    /// nothing.
    #[must_use]
    pub fn events(&self) -> &'a [NewEvent] {
        &self.write.events
    }

    /// What a field of an `A` holds after the write; `None` for another aggregate, and for what only
    /// the store knows: who created a row that is changed, and when.
    #[must_use]
    pub fn field<A: AggregateRoot, V: ColumnValue>(&self, field: &Field<A, V>) -> Option<V> {
        if self.write.aggregate_type != A::TYPE {
            return None;
        }
        let index = self.write.table.index_of_name(field.column())?;
        let column = &self.write.table.columns()[index];
        let kept = StagedWrite::keeps(column.role()) && column.role() != ColumnRole::Key;
        if kept && self.write.operation != Operation::Insert {
            return None;
        }
        let value: &Value = &self.write.row[index];
        let row = ValueRow::new(vec![value.clone()]);
        match V::read_column(&row, 0) {
            Ok(Some(value)) => Some(value),
            Ok(None) | Err(_) => None,
        }
    }
}

/// All writes of a unit of work that is about to be committed, or was.
#[derive(Debug)]
pub struct InterceptedCommit<'a> {
    context: &'a RequestContext,
    writes: Vec<&'a StagedWrite>,
}

impl<'a> InterceptedCommit<'a> {
    /// The context of the unit of work: tenant scope and actor.
    #[must_use]
    pub fn context(&self) -> &'a RequestContext {
        self.context
    }

    /// The writes, in the order of staging. Before the commit saves are among them that may turn out
    /// to change nothing.
    pub fn changes(&self) -> impl Iterator<Item = Change<'a>> {
        let context = self.context;
        self.writes
            .iter()
            .map(move |write| Change { write, context })
    }
}

/// The interceptors of a store, in their order. For authors of backends: users give them to the
/// store.
#[derive(Clone, Default)]
pub struct Interceptors(Arc<Vec<Arc<dyn Interceptor>>>);

impl Interceptors {
    /// Adds one, which runs after those that are there.
    #[must_use]
    pub fn with(self, interceptor: impl Interceptor) -> Self {
        let mut all = Vec::clone(&self.0);
        all.push(Arc::new(interceptor));
        Self(Arc::new(all))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Before a save is staged.
    ///
    /// # Errors
    ///
    /// That of the first that refuses.
    pub fn before_save<A: AggregateRoot>(
        &self,
        aggregate: &mut A,
        context: &RequestContext,
    ) -> Result<()> {
        let operation = match aggregate.root().version() {
            0 => Operation::Insert,
            _ => Operation::Update,
        };
        self.before(aggregate, context, operation)
    }

    /// Before a removal is staged.
    ///
    /// # Errors
    ///
    /// That of the first that refuses.
    pub fn before_remove<A: AggregateRoot>(
        &self,
        aggregate: &mut A,
        context: &RequestContext,
    ) -> Result<()> {
        self.before(aggregate, context, Operation::Remove)
    }

    fn before<A: AggregateRoot>(
        &self,
        aggregate: &mut A,
        context: &RequestContext,
        operation: Operation,
    ) -> Result<()> {
        for interceptor in self.0.iter() {
            let mut write = Intercepted {
                aggregate: &mut *aggregate,
                context,
                operation,
            };
            match operation {
                Operation::Insert => interceptor.before_insert(&mut write)?,
                Operation::Update | Operation::UpdateIfChanged => {
                    interceptor.before_update(&mut write)?;
                }
                Operation::Remove => interceptor.before_remove(&mut write)?,
            }
        }
        Ok(())
    }

    /// Before a commit of these writes.
    ///
    /// # Errors
    ///
    /// That of the first that refuses.
    pub fn before_commit<'a>(
        &self,
        context: &'a RequestContext,
        writes: impl IntoIterator<Item = &'a StagedWrite>,
    ) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let writes: Vec<_> = writes.into_iter().collect();
        if writes.is_empty() {
            return Ok(());
        }
        let commit = InterceptedCommit { context, writes };
        self.0
            .iter()
            .try_for_each(|interceptor| interceptor.before_commit(&commit))
    }

    /// After the commit of these writes. Those whose events are not in the receipt were not written.
    pub fn after_commit(
        &self,
        context: &RequestContext,
        writes: &[StagedWrite],
        receipt: &CommitReceipt,
    ) {
        if self.is_empty() || receipt.events().is_empty() {
            return;
        }
        let events: HashSet<&Uuid> = receipt.events().iter().collect();
        let is_written = |write: &&StagedWrite| {
            let first = write.events.first();
            first.is_some_and(|event| events.contains(&event.event_id))
        };
        let writes = writes.iter().filter(is_written).collect();
        let commit = InterceptedCommit { context, writes };
        for change in commit.changes() {
            for interceptor in self.0.iter() {
                guarded(|| match change.operation() {
                    Operation::Insert => interceptor.after_insert(&change),
                    Operation::Update | Operation::UpdateIfChanged => {
                        interceptor.after_update(&change);
                    }
                    Operation::Remove => interceptor.after_remove(&change),
                });
            }
        }
        for interceptor in self.0.iter() {
            guarded(|| interceptor.after_commit(&commit, receipt));
        }
    }
}

/// What is committed cannot be refused any more, and the others must run.
fn guarded(step: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(step)).is_err() {
        tracing::error!("an interceptor panicked after a commit, which stands");
    }
}

impl fmt::Debug for Interceptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Interceptors").field(&self.0.len()).finish()
    }
}
