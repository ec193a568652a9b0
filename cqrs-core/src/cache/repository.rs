//! Aggregates, read on the query side.

use std::fmt;
use std::marker::PhantomData;

use super::Cached;
use super::question::Question;
use crate::aggregate::AggregateRoot;
use crate::context::RequestContext;
use crate::envelope::Envelope;
use crate::error::{Error, Result};
use crate::history::{Historic, KeepsHistory, Revision};
use crate::mapping::ColumnValue;
use crate::repository::{EventHistory, Repository};
use crate::sourced::{AsOf, StateStored};
use crate::specification::{Page, PageRequest, Query, Specification};
use crate::store::Store;
use crate::unit_of_work::UnitOfWork;

/// The aggregates of one type, read through a cache. Made by [`Cached::repository`].
///
/// Each read that is not answered from the cache runs in a
/// [read-only](Store::read_only) unit of work of its own.
pub struct CachedRepository<S, A> {
    cached: Cached<S>,
    context: RequestContext,
    of: PhantomData<fn() -> A>,
}

impl<S: Store, A: AggregateRoot + Clone> CachedRepository<S, A> {
    pub(super) fn new(cached: Cached<S>, context: RequestContext) -> Self {
        Self {
            cached,
            context,
            of: PhantomData,
        }
    }

    /// A unit of work to load in.
    fn unit_of_work(&self) -> S::UnitOfWork {
        self.cached.store.read_only(&self.context)
    }
}

impl<S: Store, A: AggregateRoot + Clone> Repository<A> for CachedRepository<S, A> {
    async fn find(&mut self, id: A::Id) -> Result<Option<A>> {
        let table = A::table();
        let key = id.to_value().map_err(|reason| table.key_error(reason))?;
        let question = Question::find::<A>(&self.context, &[key]);
        let load = async {
            let mut unit_of_work = self.unit_of_work();
            let found = unit_of_work.repository::<A>().find(id).await;
            unit_of_work.rollback().await;
            found
        };
        self.cached.answer(question, |_| 1, load).await
    }

    async fn query(&mut self, query: Query<A>) -> Result<Vec<A>>
    where
        A: StateStored,
    {
        let question = Question::query::<A>(&self.context, query.cache_key());
        let load = async {
            let mut unit_of_work = self.unit_of_work();
            let found = unit_of_work.repository::<A>().query(query).await;
            unit_of_work.rollback().await;
            found
        };
        self.cached.answer(question, Vec::len, load).await
    }

    async fn page(&mut self, query: Query<A>, request: PageRequest) -> Result<Page<A>>
    where
        A: StateStored,
    {
        let question = Question::page::<A>(&self.context, query.cache_key(), &request);
        let load = async {
            let mut unit_of_work = self.unit_of_work();
            let found = unit_of_work.repository::<A>().page(query, request).await;
            unit_of_work.rollback().await;
            found
        };
        let rows = |page: &Page<A>| page.items.len();
        self.cached.answer(question, rows, load).await
    }

    async fn count(&mut self, specification: Specification<A>) -> Result<u64>
    where
        A: StateStored,
    {
        let question = Question::count::<A>(&self.context, specification.cache_key());
        let load = async {
            let mut unit_of_work = self.unit_of_work();
            let counted = unit_of_work.repository::<A>().count(specification).await;
            unit_of_work.rollback().await;
            counted
        };
        self.cached.answer(question, |_| 1, load).await
    }

    async fn exists(&mut self, specification: Specification<A>) -> Result<bool>
    where
        A: StateStored,
    {
        let question = Question::exists::<A>(&self.context, specification.cache_key());
        let load = async {
            let mut unit_of_work = self.unit_of_work();
            let exists = unit_of_work.repository::<A>().exists(specification).await;
            unit_of_work.rollback().await;
            exists
        };
        self.cached.answer(question, |_| 1, load).await
    }

    /// Refused: units of work write.
    fn save(&mut self, _: A) -> Result<()> {
        Err(Error::read_only())
    }

    /// Refused: there is no commit to guard.
    fn guard(&mut self, _: &A) -> Result<()> {
        Err(Error::read_only())
    }

    /// Refused: units of work write.
    fn remove(&mut self, _: A) -> Result<()> {
        Err(Error::read_only())
    }
}

impl<S: Store, A: AggregateRoot + Clone> EventHistory<A> for CachedRepository<S, A> {
    /// Not cached: what was does not change, and is asked for now and then.
    async fn find_as_of(&mut self, id: A::Id, at: AsOf) -> Result<Option<A>>
    where
        A: Historic,
    {
        let mut unit_of_work = self.unit_of_work();
        let found = unit_of_work.repository::<A>().find_as_of(id, at).await;
        unit_of_work.rollback().await;
        found
    }

    /// Not cached.
    async fn revisions(&mut self, id: A::Id, request: PageRequest) -> Result<Page<Revision<A>>>
    where
        A: KeepsHistory,
    {
        let mut unit_of_work = self.unit_of_work();
        let page = unit_of_work.repository::<A>().revisions(id, request).await;
        unit_of_work.rollback().await;
        page
    }

    /// Not cached.
    async fn events(&mut self, id: A::Id) -> Result<Vec<Envelope<Option<A::Event>>>> {
        let mut unit_of_work = self.unit_of_work();
        let events = unit_of_work.repository::<A>().events(id).await;
        unit_of_work.rollback().await;
        events
    }

    /// Not cached.
    async fn events_page(
        &mut self,
        id: A::Id,
        request: PageRequest,
    ) -> Result<Page<Envelope<Option<A::Event>>>> {
        let mut unit_of_work = self.unit_of_work();
        let page = unit_of_work
            .repository::<A>()
            .events_page(id, request)
            .await;
        unit_of_work.rollback().await;
        page
    }
}

impl<S: fmt::Debug, A> fmt::Debug for CachedRepository<S, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedRepository")
            .field("cached", &self.cached)
            .field("context", &self.context)
            .finish()
    }
}
