//! Read models, read.

use std::sync::Arc;

use cqrs_core::sql::{Arguments, SqlReads, SqlRow};
use cqrs_core::{
    Page, PageRequest, Query, ReadModel, ReadModels, RequestContext, Result, Specification,
    TenantScope,
};
use tracing::{Instrument, Span};

use crate::backend::Backend;
use crate::reads::{self, Place};
use crate::select::{self, PageSelect};
use crate::sql;
use crate::store::Shared;

/// The read models of a store within a tenant scope.
///
/// # Transaction
///
/// None: each read is a statement of its own.
pub struct SqlReadModels<B: Backend> {
    shared: Arc<Shared<B>>,
    scope: TenantScope,
    span: Span,
}

impl<B: Backend> SqlReadModels<B> {
    pub(crate) fn new(shared: Arc<Shared<B>>, context: &RequestContext) -> Self {
        Self {
            shared,
            scope: context.scope().clone(),
            span: context.span("read models"),
        }
    }
}

impl<B: Backend> SqlReads for SqlReadModels<B> {
    async fn sql<T: SqlRow>(&self, arguments: Arguments) -> Result<Vec<T>> {
        let statement = arguments.statement();
        let select = sql::select(arguments, &self.scope, &B::DIALECT)?;
        let rows = sql::rows(
            Place::Confined(&self.shared, &self.scope),
            statement,
            &select,
            &self.scope,
        );
        rows.instrument(self.span.clone()).await
    }
}

impl<B: Backend> ReadModels for SqlReadModels<B> {
    async fn find<R: ReadModel>(&self, key: R::Key) -> Result<Option<R>> {
        let select = select::by_key::<R>(&self.shared.statements, &key, &self.scope, &B::DIALECT)?;
        let found = reads::entities(Place::Confined(&self.shared, &self.scope), &select);
        Ok(found.instrument(self.span.clone()).await?.pop())
    }

    async fn query<R: ReadModel>(&self, query: Query<R>) -> Result<Vec<R>> {
        query.check_lock_free()?;
        let select = select::rows(&query, &select::living(&self.scope), &B::DIALECT)?;
        reads::entities(Place::Confined(&self.shared, &self.scope), &select)
            .instrument(self.span.clone())
            .await
    }

    async fn page<R: ReadModel>(&self, query: Query<R>, request: PageRequest) -> Result<Page<R>> {
        let select = PageSelect::new(&query, request, &select::living(&self.scope), &B::DIALECT)?;
        reads::page(Place::Confined(&self.shared, &self.scope), &select)
            .instrument(self.span.clone())
            .await
    }

    async fn count<R: ReadModel>(&self, specification: Specification<R>) -> Result<u64> {
        let select = select::count(&specification, &select::living(&self.scope), &B::DIALECT)?;
        reads::count(Place::Confined(&self.shared, &self.scope), &select)
            .instrument(self.span.clone())
            .await
    }

    async fn exists<R: ReadModel>(&self, specification: Specification<R>) -> Result<bool> {
        let select = select::exists(&specification, &select::living(&self.scope), &B::DIALECT)?;
        let exists = reads::exists(Place::Confined(&self.shared, &self.scope), &select);
        exists.instrument(self.span.clone()).await
    }
}
