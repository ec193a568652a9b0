//! Read models in memory.

use std::sync::Arc;

use super::key::Key;
use super::select;
use super::state::{ReadTable, Shared};
use crate::context::RequestContext;
use crate::error::Result;
use crate::mapping::MappingError;
use crate::read_model::{ReadModel, ReadModels, RowKey};
use crate::specification::{Query, Specification};

/// The read models of an [`InMemoryStore`](super::InMemoryStore), within one tenant scope.
#[derive(Debug, Clone)]
pub struct InMemoryReadModels {
    shared: Arc<Shared>,
    context: RequestContext,
}

impl InMemoryReadModels {
    pub(super) fn new(shared: Arc<Shared>, context: RequestContext) -> Self {
        Self { shared, context }
    }

    fn filter<R: ReadModel>(
        &self,
        specification: &Specification<R>,
    ) -> Result<Vec<super::state::Row>> {
        let state = self.shared.lock();
        let rows = state.read_tables.get(R::table().name());
        let rows = rows.into_iter().flat_map(ReadTable::values);
        select::filter(specification, self.context.scope(), rows)
    }
}

impl ReadModels for InMemoryReadModels {
    async fn find<R: ReadModel>(&self, key: R::Key) -> Result<Option<R>> {
        let table = R::table();
        let key = key.to_values().map_err(|reason| MappingError {
            table: table.name().to_owned(),
            column: table
                .key_columns()
                .map(crate::mapping::Column::name)
                .collect::<Vec<_>>()
                .join(", "),
            reason,
        })?;
        let key = Key::new(key);
        let row = self
            .shared
            .lock()
            .read_tables
            .get(table.name())
            .into_iter()
            .flatten()
            .find(|((_, stored), row)| {
                *stored == key && select::is_within(self.context.scope(), table, row)
            })
            .map(|(_, row)| Arc::clone(row));
        row.map(|row| select::read(&row)).transpose()
    }

    async fn query<R: ReadModel>(&self, query: Query<R>) -> Result<Vec<R>> {
        let rows = self.filter(query.specification())?;
        select::read_in_order(&query, rows)
    }

    async fn count<R: ReadModel>(&self, specification: Specification<R>) -> Result<u64> {
        Ok(self.filter(&specification)?.len() as u64)
    }
}
