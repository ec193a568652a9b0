//! Read models, cached.

use std::fmt;
use std::future::Future;

use super::Cached;
use super::question::Question;
use super::remote::Portable;
use crate::context::RequestContext;
use crate::error::Result;
use crate::read_model::{ReadModel, ReadModels, RowKey};
use crate::specification::{Page, PageRequest, Query, Specification};
use crate::store::Store;

/// The read models of a store, read through a cache. Made by [`Cached::read_models`].
#[derive(Clone)]
pub struct CachedReadModels<S> {
    cached: Cached<S>,
    context: RequestContext,
}

impl<S: Store> CachedReadModels<S> {
    pub(super) fn new(cached: Cached<S>, context: RequestContext) -> Self {
        Self { cached, context }
    }

    /// From the memory, else from the remote cache, else from the store.
    async fn answer<R: ReadModel, V: Portable<R>>(
        &self,
        question: Question,
        load: impl Future<Output = Result<V>> + Send,
    ) -> Result<V> {
        let Some(remote) = &self.cached.remote else {
            return self.cached.answer(question, V::rows, load).await;
        };
        let changes = self.cached.store.changes();
        let load = remote.load::<R, V>(changes, question.clone(), load);
        self.cached.answer(question, V::rows, load).await
    }
}

impl<S: Store> ReadModels for CachedReadModels<S> {
    async fn find<R: ReadModel>(&self, key: R::Key) -> Result<Option<R>> {
        let table = R::table();
        let values = key.to_values().map_err(|reason| table.key_error(reason))?;
        let question = Question::find::<R>(&self.context, &values);
        let read_models = self.cached.store.read_models(&self.context);
        self.answer::<R, _>(question, async { read_models.find::<R>(key).await })
            .await
    }

    async fn query<R: ReadModel>(&self, query: Query<R>) -> Result<Vec<R>> {
        let question = Question::query::<R>(&self.context, query.cache_key());
        let read_models = self.cached.store.read_models(&self.context);
        self.answer::<R, _>(question, async { read_models.query(query).await })
            .await
    }

    async fn page<R: ReadModel>(&self, query: Query<R>, request: PageRequest) -> Result<Page<R>> {
        let question = Question::page::<R>(&self.context, query.cache_key(), &request);
        let read_models = self.cached.store.read_models(&self.context);
        let load = async { read_models.page(query, request).await };
        self.answer::<R, _>(question, load).await
    }

    async fn count<R: ReadModel>(&self, specification: Specification<R>) -> Result<u64> {
        let question = Question::count::<R>(&self.context, specification.cache_key());
        let read_models = self.cached.store.read_models(&self.context);
        let load = async { read_models.count(specification).await };
        self.answer::<R, u64>(question, load).await
    }

    async fn exists<R: ReadModel>(&self, specification: Specification<R>) -> Result<bool> {
        let question = Question::exists::<R>(&self.context, specification.cache_key());
        let read_models = self.cached.store.read_models(&self.context);
        let load = async { read_models.exists(specification).await };
        self.answer::<R, bool>(question, load).await
    }
}

impl<S: fmt::Debug> fmt::Debug for CachedReadModels<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedReadModels")
            .field("cached", &self.cached)
            .field("context", &self.context)
            .finish()
    }
}
