//! Repositories.

use std::future::Future;

use crate::aggregate::AggregateRoot;
use crate::envelope::Envelope;
use crate::error::{Error, Result};
use crate::history::{Historic, KeepsHistory, Revision};
use crate::sourced::{AsOf, StateStored};
use crate::specification::{Page, PageRequest, Query, Specification};

/// The aggregates of one type within a unit of work: in its tenant scope, without those that are
/// soft-deleted.
///
/// An [event-sourced](crate::Sourced) aggregate is loaded, saved and removed as any other. What
/// queries takes a [`StateStored`] one.
///
/// Domain repositories extend it with finders that carry meaning: see
/// [`#[repository]`](macro@crate::repository). For a query of which one row is expected,
/// [`find_one`](Self::find_one) and [`get_one`](Self::get_one) say so.
pub trait Repository<A: AggregateRoot>: Send {
    /// Loads an aggregate, if it exists.
    ///
    /// Sees what the unit of work has staged.
    ///
    /// # Errors
    ///
    /// [`Error::Mapping`] where the row does not fit, [`Error::Store`] where the store fails.
    fn find(&mut self, id: A::Id) -> impl Future<Output = Result<Option<A>>> + Send;

    /// Loads the aggregates that a query selects.
    ///
    /// Sees what the unit of work has staged.
    ///
    /// # Transaction
    ///
    /// A query that [locks](Query::lock) opens the transaction of the unit of work.
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find); a [`Usage`](crate::StoreErrorKind::Usage) error, before any I/O, of
    /// a query that locks in a [read-only](crate::Store::read_only) unit of work.
    fn query(&mut self, query: Query<A>) -> impl Future<Output = Result<Vec<A>>> + Send
    where
        A: StateStored;

    /// Loads the one aggregate that a query selects, if there is one.
    ///
    /// Sees what the unit of work has staged.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query); [`Error::NotUnique`] where there is a second, and a
    /// [`Usage`](crate::StoreErrorKind::Usage) error of a query that skips what is locked.
    fn find_one(&mut self, query: Query<A>) -> impl Future<Output = Result<Option<A>>> + Send
    where
        A: StateStored,
    {
        async move {
            let condition = query.specification().clone();
            let found = self.query(query.expecting_one()?).await?;
            at_most_one(A::TYPE, &condition, found)
        }
    }

    /// Loads the one aggregate that a query selects.
    ///
    /// Sees what the unit of work has staged.
    ///
    /// # Errors
    ///
    /// As [`find_one`](Self::find_one); [`Error::NotFound`] where there is none, with the
    /// condition in place of the id.
    fn get_one(&mut self, query: Query<A>) -> impl Future<Output = Result<A>> + Send
    where
        A: StateStored,
    {
        async move {
            let condition = query.specification().clone();
            let found = self.find_one(query).await?;
            found.ok_or_else(|| none_found(A::TYPE, &condition))
        }
    }

    /// Loads a page of the aggregates that a query selects.
    ///
    /// Sees what the unit of work has staged.
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find); a [`Usage`](crate::StoreErrorKind::Usage) error as in
    /// [`Paging::new`](crate::Paging::new).
    fn page(
        &mut self,
        query: Query<A>,
        request: PageRequest,
    ) -> impl Future<Output = Result<Page<A>>> + Send
    where
        A: StateStored;

    /// Counts the aggregates for which the specification is true.
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find).
    fn count(
        &mut self,
        specification: Specification<A>,
    ) -> impl Future<Output = Result<u64>> + Send
    where
        A: StateStored;

    /// Whether the specification is true for any aggregate. Loads none.
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find).
    fn exists(
        &mut self,
        specification: Specification<A>,
    ) -> impl Future<Output = Result<bool>> + Send
    where
        A: StateStored;

    /// Stages the aggregate to be written when the unit of work commits: inserted if it is new,
    /// else replaced if it is still at the version at which it was loaded. No I/O.
    ///
    /// One that is unchanged and raised no event is not written. One that changed without an
    /// event is written with a [change marker](crate::staging::ChangeMarker) in the log. An
    /// event-sourced one that raised no event is not written; if it has moved on, that is a conflict
    /// all the same.
    ///
    /// # Errors
    ///
    /// [`Error::Mapping`] or [`Error::Payload`] where a value cannot be stored,
    /// [`Error::TenantRequired`], [`Error::NotFound`] where it belongs to another tenant, and a
    /// [`Usage`](crate::StoreErrorKind::Usage) error where it is staged already, whether by a save
    /// that changes something or by one that does not: make all changes, then save it once. What was
    /// staged before stays staged. After a read it can be loaded and saved again.
    fn save(&mut self, aggregate: A) -> Result<()>;

    /// Stages the removal of the aggregate: marked as deleted where it has `soft_delete`, else
    /// deleted. A [change marker](crate::staging::ChangeMarker) is its last event, behind those that it
    /// has raised. Its events stay in the log, and its id is not used again. No I/O.
    ///
    /// # Errors
    ///
    /// As [`save`](Self::save); [`Error::NotFound`] for one that was never saved.
    fn remove(&mut self, aggregate: A) -> Result<()>;

    /// Has the commit make sure that an aggregate which is only read has not changed since it was
    /// loaded, and does not until the commit is over: what was decided by it holds when what follows
    /// is written. No I/O.
    ///
    /// A [save](Self::save) guards the aggregate that it writes; this is for the others that a
    /// decision looked at. If one of them has moved on, the commit is a [conflict](Error::Conflict)
    /// with the expected and the found version, and nothing is written; if it is gone, it is
    /// [`NotFound`](Error::NotFound). Guards of event-sourced and of stored aggregates are the same.
    ///
    /// A read does not bring this about: guards alone wait for the commit. Where something was saved
    /// too, or the transaction is open, the next read sends guards with what is staged, and tells of
    /// one that has moved on.
    ///
    /// ```
    /// # use cqrs_core::conformance::fixtures::{Account, AccountForm, Ledger};
    /// # use cqrs_core::*;
    /// /// Pays out of a ledger, as long as the account behind it is open.
    /// async fn pay_out<U: UnitOfWork>(uow: &mut U, account: &str, ledger: &str) -> Result<()> {
    ///     let account: Account = uow.get(account.to_owned()).await?;
    ///     let mut ledger: Ledger = uow.get(ledger.to_owned()).await?;
    ///     if account.closed {
    ///         return Err(Error::other("the account is closed"));
    ///     }
    ///     ledger.transfer(-10);
    ///     uow.guard(&account)?;
    ///     uow.save(ledger)
    /// }
    /// ```
    ///
    /// # Transaction
    ///
    /// A commit with guards is a transaction. On Postgres it locks what is guarded against changes,
    /// not against other guards, all of it in one order together with what is written.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] for one that was never saved, or belongs to another tenant, and a
    /// [`Usage`](crate::StoreErrorKind::Usage) error in a [read-only](crate::Store::read_only) unit
    /// of work.
    fn guard(&mut self, aggregate: &A) -> Result<()>;

    /// Loads an aggregate.
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find); [`Error::NotFound`] where it does not exist in the tenant scope.
    fn get(&mut self, id: A::Id) -> impl Future<Output = Result<A>> + Send {
        async move {
            let text = id.to_string();
            self.find(id).await?.ok_or(Error::NotFound {
                aggregate: A::TYPE,
                id: text,
            })
        }
    }
}

/// What happened to the aggregates of one type: part of every repository of a unit of work.
pub trait EventHistory<A: AggregateRoot>: Repository<A> {
    /// Loads an aggregate as it was at a version or at a time, if it existed then: one that is
    /// event-sourced, or has `#[aggregate(history)]`.
    ///
    /// An event-sourced one is loaded from its first event on, without snapshots; another from the
    /// last of its [revisions](Self::revisions) up to then. To save it is a
    /// [conflict](Error::Conflict), unless it is as it was.
    ///
    /// Sees what the unit of work has staged.
    ///
    /// # Errors
    ///
    /// As [`find`](Repository::find); [`Error::Mapping`] also where a revision does not fit the type
    /// as that is now, [`Error::NotInHistory`] where the aggregate existed and no revision says what
    /// it was.
    fn find_as_of(&mut self, id: A::Id, at: AsOf) -> impl Future<Output = Result<Option<A>>> + Send
    where
        A: Historic;

    /// A page of the revisions of one aggregate, from the youngest on: what was changed, when and by
    /// whom, and what the aggregate was then.
    ///
    /// Also those of an aggregate that was removed. Sees what the unit of work has staged.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] where the store fails; a [`Usage`](crate::StoreErrorKind::Usage) error where
    /// the cursor is not one of revisions.
    fn revisions(
        &mut self,
        id: A::Id,
        request: PageRequest,
    ) -> impl Future<Output = Result<Page<Revision<A>>>> + Send
    where
        A: KeepsHistory;

    /// The events of one aggregate, sourced or not, in order: what happened, and in the envelope
    /// when, by whom, and what for. `None` is a change that the framework recorded without an event
    /// of the domain: a removal, say; [`event_type`](Envelope::event_type) names it.
    ///
    /// Also those of an aggregate that was removed. Events that retention has removed are not among
    /// them. Sees what the unit of work has staged.
    ///
    /// # Errors
    ///
    /// [`Error::Undecodable`] where one cannot be read, [`Error::Store`] where the store fails.
    fn events(
        &mut self,
        id: A::Id,
    ) -> impl Future<Output = Result<Vec<Envelope<Option<A::Event>>>>> + Send;

    /// A page of its [events](Self::events), from the youngest on: for aggregates with many.
    ///
    /// # Errors
    ///
    /// As [`events`](Self::events), for those of the page; a [`Usage`](crate::StoreErrorKind::Usage)
    /// error where the cursor is none of versions.
    fn events_page(
        &mut self,
        id: A::Id,
        request: PageRequest,
    ) -> impl Future<Output = Result<Page<Envelope<Option<A::Event>>>>> + Send;
}

/// The one that was found, if any.
pub(crate) fn at_most_one<T>(
    entity: &'static str,
    condition: &Specification<T>,
    mut found: Vec<T>,
) -> Result<Option<T>> {
    if found.len() > 1 {
        let condition = condition.describe();
        return Err(Error::NotUnique { entity, condition });
    }
    Ok(found.pop())
}

/// The error of a condition that nothing fulfils.
pub(crate) fn none_found<T>(aggregate: &'static str, condition: &Specification<T>) -> Error {
    Error::NotFound {
        aggregate,
        id: format!("where {condition}"),
    }
}
