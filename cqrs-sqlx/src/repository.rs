//! The repository.

use std::marker::PhantomData;

use cqrs_core::history::{StoredRevision, VersionPaging, not_kept};
use cqrs_core::maintenance::BulkScope;
use cqrs_core::sourced::{decode_events, page_of_events};
use cqrs_core::sql::{Arguments, SqlQueries, SqlRow};
use cqrs_core::staging::StagedWrite;
use cqrs_core::{
    AggregateRoot, AsOf, Envelope, EventHistory, Historic, KeepsHistory, Page, PageRequest, Query,
    Repository, Result, Revision, RevisionKind, Specification,
};

use crate::backend::Backend;
use crate::history;
use crate::select::{self, PageSelect};
use crate::sourced::{self, Stream};
use crate::sql;
use crate::unit_of_work::SqlUnitOfWork;

/// The aggregates of one type within a [`SqlUnitOfWork`].
///
/// # Transaction
///
/// Reads run outside of a transaction as long as the unit of work has sent nothing, else in its
/// transaction. A query that [locks](Query::lock) opens that.
pub struct SqlRepository<'u, B: Backend, A> {
    unit_of_work: &'u mut SqlUnitOfWork<B>,
    of: PhantomData<fn() -> A>,
}

impl<'u, B: Backend, A: AggregateRoot> SqlRepository<'u, B, A> {
    pub(crate) fn new(unit_of_work: &'u mut SqlUnitOfWork<B>) -> Self {
        Self {
            unit_of_work,
            of: PhantomData,
        }
    }

    /// The revision of an aggregate that says what it was; `None` where it did not exist.
    async fn revision_as_of(&mut self, id: &A::Id, at: AsOf) -> Result<Option<StoredRevision>> {
        let scope = self.unit_of_work.scope().clone();
        let select = history::as_of::<A>(&scope, id, at);
        if let Some(last) = self.unit_of_work.revisions(&select).await?.pop() {
            return Ok(Some(last).filter(|last| last.kind.is_living()));
        }
        let select = history::first::<A>(&scope, id);
        let first = self.unit_of_work.revisions(&select).await?.pop();
        match first.map(|first| first.kind) {
            Some(RevisionKind::Created) => Ok(None),
            Some(_) => Err(not_kept::<A>(id)),
            None => {
                let select = select::has_row::<A>(id, &scope, &B::DIALECT)?;
                match self.unit_of_work.exists(&select).await? {
                    true => Err(not_kept::<A>(id)),
                    false => Ok(None),
                }
            }
        }
    }

    fn seen(&self) -> BulkScope {
        select::living(self.unit_of_work.scope())
    }
}

impl<B: Backend, A: AggregateRoot> SqlQueries for SqlRepository<'_, B, A> {
    async fn sql<T: SqlRow>(&mut self, arguments: Arguments) -> Result<Vec<T>> {
        let statement = arguments.statement();
        let select = sql::select(arguments, self.unit_of_work.scope(), &B::DIALECT)?;
        if statement.locks {
            self.unit_of_work.hold_locks().await?;
        }
        self.unit_of_work.sql(statement, &select).await
    }
}

impl<B: Backend, A: AggregateRoot> Repository<A> for SqlRepository<'_, B, A> {
    async fn find(&mut self, id: A::Id) -> Result<Option<A>> {
        if let Some(sourcing) = A::SOURCING {
            let unit = &self.unit_of_work;
            let stream = Stream::of(unit.statements(), unit.scope(), &id, &sourcing);
            return self.unit_of_work.sourced(&id, &stream).await;
        }
        let unit = &self.unit_of_work;
        let select = select::by_key::<A>(unit.statements(), &id, unit.scope(), &B::DIALECT)?;
        self.unit_of_work.entity(&select).await
    }

    async fn query(&mut self, query: Query<A>) -> Result<Vec<A>> {
        let mut select = select::rows(&query, &self.seen(), &B::DIALECT)?;
        if query.row_lock().is_some() {
            self.unit_of_work.hold_locks().await?;
        }
        if let Some(keys) = select::locked_keys(&query, &self.seen(), &B::DIALECT)? {
            let keys = self.unit_of_work.keys::<A>(&keys).await?;
            select = select::rows_of_keys(&query, keys, &self.seen(), &B::DIALECT)?;
        }
        self.unit_of_work.entities(&select).await
    }

    async fn page(&mut self, query: Query<A>, request: PageRequest) -> Result<Page<A>> {
        let select = PageSelect::new(&query, request, &self.seen(), &B::DIALECT)?;
        self.unit_of_work.page(&select).await
    }

    async fn count(&mut self, specification: Specification<A>) -> Result<u64> {
        let select = select::count(&specification, &self.seen(), &B::DIALECT)?;
        self.unit_of_work.count(&select).await
    }

    async fn exists(&mut self, specification: Specification<A>) -> Result<bool> {
        let select = select::exists(&specification, &self.seen(), &B::DIALECT)?;
        self.unit_of_work.exists(&select).await
    }

    fn save(&mut self, mut aggregate: A) -> Result<()> {
        self.unit_of_work.stage(|interceptors, context, now| {
            interceptors.before_save(&mut aggregate, context)?;
            StagedWrite::save(aggregate, context, now)
        })
    }

    fn guard(&mut self, aggregate: &A) -> Result<()> {
        self.unit_of_work.stage_guard(aggregate)
    }

    fn remove(&mut self, mut aggregate: A) -> Result<()> {
        self.unit_of_work.stage(|interceptors, context, now| {
            interceptors.before_remove(&mut aggregate, context)?;
            StagedWrite::remove(aggregate, context, now)
        })
    }
}

impl<B: Backend, A: AggregateRoot> EventHistory<A> for SqlRepository<'_, B, A> {
    async fn find_as_of(&mut self, id: A::Id, at: AsOf) -> Result<Option<A>>
    where
        A: Historic,
    {
        let Some(sourcing) = A::SOURCING else {
            let revision = self.revision_as_of(&id, at).await?;
            return revision.map(|revision| revision.aggregate()).transpose();
        };
        let unit = &self.unit_of_work;
        let stream = Stream::as_of(unit.statements(), unit.scope(), &id, &sourcing, at);
        self.unit_of_work.sourced(&id, &stream).await
    }

    async fn revisions(&mut self, id: A::Id, request: PageRequest) -> Result<Page<Revision<A>>>
    where
        A: KeepsHistory,
    {
        let paging = VersionPaging::new(request)?;
        let scope = self.unit_of_work.scope().clone();
        let select = history::page::<A>(&scope, &id, &paging);
        let found = self.unit_of_work.revisions(&select).await?;
        let total = match paging.wants_total() {
            true => {
                let select = history::count::<A>(&scope, &id);
                Some(self.unit_of_work.count(&select).await?)
            }
            false => None,
        };
        Ok(Revision::page(&paging, found, total))
    }

    async fn events(&mut self, id: A::Id) -> Result<Vec<Envelope<Option<A::Event>>>> {
        let unit = &self.unit_of_work;
        let select = sourced::events::<A>(unit.statements(), unit.scope(), &id);
        decode_events::<A>(self.unit_of_work.events(&select).await?)
    }

    async fn events_page(
        &mut self,
        id: A::Id,
        request: PageRequest,
    ) -> Result<Page<Envelope<Option<A::Event>>>> {
        let paging = VersionPaging::new(request)?;
        let unit = &self.unit_of_work;
        let select = sourced::events_page::<A>(unit.statements(), unit.scope(), &id, &paging);
        let count = sourced::event_count::<A>(unit.statements(), unit.scope(), &id);
        let found = self.unit_of_work.events(&select).await?;
        let total = match paging.wants_total() {
            true => Some(self.unit_of_work.count(&count).await?),
            false => None,
        };
        page_of_events::<A>(&paging, found, total)
    }
}
