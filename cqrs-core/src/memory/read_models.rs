//! Read models in memory.

use std::sync::Arc;

use super::select;
use super::state::{Row, Shared};
use crate::context::{RequestContext, TenantScope};
use crate::error::Result;
use crate::mapping::{Key, Table};
use crate::read_model::{ReadModel, ReadModels, RowKey};
use crate::specification::{Page, PageRequest, Paging, Query, Specification};

/// The read models of an [`InMemoryStore`](super::InMemoryStore), within one tenant scope.
///
/// A read model may also name the table of an aggregate, and read columns of its rows, as in a
/// database; rows that are marked as deleted are among them.
#[derive(Debug, Clone)]
pub struct InMemoryReadModels {
    shared: Arc<Shared>,
    context: RequestContext,
    span: tracing::Span,
}

impl InMemoryReadModels {
    pub(super) fn new(shared: Arc<Shared>, context: RequestContext) -> Self {
        Self {
            shared,
            span: context.span("read models"),
            context,
        }
    }

    fn filter<R: ReadModel>(&self, specification: &Specification<R>) -> Result<Vec<Row>> {
        let _entered = self.span.enter();
        let state = self.shared.lock();
        let rows = state.read_table(R::table())?;
        let scope = select::living(self.context.scope());
        select::filter(specification, &scope, rows.values())
    }

    fn find_row(&self, table: &Table, key: Key) -> Result<Option<Row>> {
        let _entered = self.span.enter();
        let state = self.shared.lock();
        let rows = state.read_table(table)?;
        Ok(match (table.is_tenant(), self.context.scope()) {
            (false, _) => rows.get(&(None, key)).cloned(),
            (true, TenantScope::Tenant(tenant)) => rows.get(&(Some(tenant.clone()), key)).cloned(),
            (true, TenantScope::System) => rows
                .iter()
                .find(|((_, stored), _)| *stored == key)
                .map(|(_, row)| Arc::clone(row)),
        })
    }
}

impl ReadModels for InMemoryReadModels {
    async fn find<R: ReadModel>(&self, key: R::Key) -> Result<Option<R>> {
        let table = R::table();
        let key = key.to_values().map_err(|reason| table.key_error(reason))?;
        let row = self.find_row(table, Key::new(key))?;
        row.map(|row| select::read(&row)).transpose()
    }

    async fn query<R: ReadModel>(&self, query: Query<R>) -> Result<Vec<R>> {
        query.check_lock_free()?;
        let rows = self.filter(query.specification())?;
        select::read_in_order(&query, rows)
    }

    async fn page<R: ReadModel>(&self, query: Query<R>, request: PageRequest) -> Result<Page<R>> {
        let across = self.context.scope().tenant().is_none();
        let paging = Paging::new(&query, request, across)?;
        let rows = self.filter(query.specification())?;
        select::read_page(&query, &paging, rows)
    }

    async fn count<R: ReadModel>(&self, specification: Specification<R>) -> Result<u64> {
        Ok(self.filter(&specification)?.len() as u64)
    }

    async fn exists<R: ReadModel>(&self, specification: Specification<R>) -> Result<bool> {
        Ok(!self.filter(&specification)?.is_empty())
    }
}
