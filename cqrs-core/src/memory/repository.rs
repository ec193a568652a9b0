//! The repository in memory.

use std::fmt;
use std::marker::PhantomData;

use super::select;
use super::unit_of_work::InMemoryUnitOfWork;
use crate::aggregate::AggregateRoot;
use crate::envelope::Envelope;
use crate::error::Result;
use crate::history::{Historic, KeepsHistory, Revision, VersionPaging};
use crate::mapping::{ColumnValue, Key};
use crate::repository::{EventHistory, Repository};
use crate::sourced::{self, AsOf};
use crate::specification::{Page, PageRequest, Paging, Query, Specification};
use crate::unit_of_work::UnitOfWork;

/// A repository of an [`InMemoryUnitOfWork`].
pub struct InMemoryRepository<'u, A> {
    unit_of_work: &'u mut InMemoryUnitOfWork,
    of: PhantomData<fn() -> A>,
}

impl<'u, A> InMemoryRepository<'u, A> {
    pub(super) fn new(unit_of_work: &'u mut InMemoryUnitOfWork) -> Self {
        Self {
            unit_of_work,
            of: PhantomData,
        }
    }
}

impl<A> fmt::Debug for InMemoryRepository<'_, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InMemoryRepository")
            .field("unit_of_work", &self.unit_of_work)
            .finish()
    }
}

impl<A: AggregateRoot> Repository<A> for InMemoryRepository<'_, A> {
    async fn find(&mut self, id: A::Id) -> Result<Option<A>> {
        if let Some(sourcing) = A::SOURCING {
            return self.unit_of_work.view(|view| view.load(&sourcing, &id));
        }
        let table = A::table();
        let key = id.to_value().map_err(|reason| table.key_error(reason))?;
        let row = self.unit_of_work.find_row(table, &Key::new(vec![key]))?;
        row.map(|row| select::read(&row)).transpose()
    }

    async fn query(&mut self, query: Query<A>) -> Result<Vec<A>> {
        if query.row_lock().is_some() {
            self.unit_of_work.check_locking()?;
        }
        let rows = self.unit_of_work.filter_rows(query.specification())?;
        select::read_in_order(&query, rows)
    }

    async fn page(&mut self, query: Query<A>, request: PageRequest) -> Result<Page<A>> {
        let across = self.unit_of_work.context().scope().tenant().is_none();
        let paging = Paging::new(&query, request, across)?;
        let rows = self.unit_of_work.filter_rows(query.specification())?;
        select::read_page(&query, &paging, rows)
    }

    async fn count(&mut self, specification: Specification<A>) -> Result<u64> {
        Ok(self.unit_of_work.filter_rows(&specification)?.len() as u64)
    }

    async fn exists(&mut self, specification: Specification<A>) -> Result<bool> {
        Ok(!self.unit_of_work.filter_rows(&specification)?.is_empty())
    }

    fn save(&mut self, aggregate: A) -> Result<()> {
        self.unit_of_work.stage_save(aggregate)
    }

    fn guard(&mut self, aggregate: &A) -> Result<()> {
        self.unit_of_work.stage_guard(aggregate)
    }

    fn remove(&mut self, aggregate: A) -> Result<()> {
        self.unit_of_work.stage_remove(aggregate)
    }
}

impl<A: AggregateRoot> EventHistory<A> for InMemoryRepository<'_, A> {
    async fn find_as_of(&mut self, id: A::Id, at: AsOf) -> Result<Option<A>>
    where
        A: Historic,
    {
        self.unit_of_work.view(|view| match A::SOURCING {
            Some(_) => view.load_as_of(&id, at),
            None => {
                let revision = view.revision_as_of::<A>(&id, at)?;
                revision.map(|revision| revision.aggregate()).transpose()
            }
        })
    }

    async fn revisions(&mut self, id: A::Id, request: PageRequest) -> Result<Page<Revision<A>>>
    where
        A: KeepsHistory,
    {
        self.unit_of_work.view(|view| view.revisions(&id, request))
    }

    async fn events(&mut self, id: A::Id) -> Result<Vec<Envelope<Option<A::Event>>>> {
        let events = self.unit_of_work.view(|view| Ok(view.events::<A>(&id)))?;
        sourced::decode_events::<A>(events)
    }

    async fn events_page(
        &mut self,
        id: A::Id,
        request: PageRequest,
    ) -> Result<Page<Envelope<Option<A::Event>>>> {
        let paging = VersionPaging::new(request)?;
        let page = self
            .unit_of_work
            .view(|view| Ok(view.events_page::<A>(&id, &paging)));
        let (found, total) = page?;
        sourced::page_of_events::<A>(&paging, found, total)
    }
}
