//! Read models: rows made for reading.

use std::future::Future;

use crate::context::TenantId;
use crate::error::Result;
use crate::mapping::{ColumnError, ColumnValue, Entity, Value};
use crate::repository::{at_most_one, none_found};
use crate::specification::{Page, PageRequest, Query, Specification};

/// A row of a read table.
///
/// Derive it with [`#[derive(ReadModel)]`](derive@crate::ReadModel). A projection keeps it, and
/// [`ReadModels`] reads it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a read model",
    note = "write `#[derive(ReadModel)]` on it"
)]
pub trait ReadModel: Entity + Clone {
    /// Its key; unique within a tenant.
    type Key: RowKey;

    /// Its key.
    fn key(&self) -> Self::Key;
}

/// The key of a read model: a value of one column, or a tuple of up to three.
pub trait RowKey: Send + Sync {
    /// The values of the key columns, in their order.
    ///
    /// # Errors
    ///
    /// Where no column can hold a value.
    fn to_values(&self) -> Result<Vec<Value>, ColumnError>;
}

impl<T: ColumnValue + Send + Sync> RowKey for T {
    fn to_values(&self) -> Result<Vec<Value>, ColumnError> {
        Ok(vec![self.to_value()?])
    }
}

impl<A: ColumnValue + Send + Sync, B: ColumnValue + Send + Sync> RowKey for (A, B) {
    fn to_values(&self) -> Result<Vec<Value>, ColumnError> {
        Ok(vec![self.0.to_value()?, self.1.to_value()?])
    }
}

impl<A, B, C> RowKey for (A, B, C)
where
    A: ColumnValue + Send + Sync,
    B: ColumnValue + Send + Sync,
    C: ColumnValue + Send + Sync,
{
    fn to_values(&self) -> Result<Vec<Value>, ColumnError> {
        Ok(vec![
            self.0.to_value()?,
            self.1.to_value()?,
            self.2.to_value()?,
        ])
    }
}

/// Reads read models, in the tenant scope of the context they were asked for with.
pub trait ReadModels: Send + Sync {
    /// The row with this key, if there is one. Across tenants
    /// ([`TenantScope::System`](crate::TenantScope::System)) the first in the order of tenants.
    ///
    /// # Errors
    ///
    /// [`Mapping`](crate::Error::Mapping) where the row does not fit,
    /// [`Store`](crate::Error::Store) where the store fails.
    fn find<R: ReadModel>(&self, key: R::Key) -> impl Future<Output = Result<Option<R>>> + Send;

    /// The rows that a query selects.
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find); a [`Usage`](crate::StoreErrorKind::Usage) error, before any I/O, of
    /// a query that [locks](Query::lock).
    fn query<R: ReadModel>(&self, query: Query<R>) -> impl Future<Output = Result<Vec<R>>> + Send;

    /// The one row that a query selects, if there is one.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query); [`NotUnique`](crate::Error::NotUnique) where there is a second.
    fn find_one<R: ReadModel>(
        &self,
        query: Query<R>,
    ) -> impl Future<Output = Result<Option<R>>> + Send {
        async move {
            let condition = query.specification().clone();
            let found = self.query(query.expecting_one()?).await?;
            at_most_one(R::table().name(), &condition, found)
        }
    }

    /// The one row that a query selects.
    ///
    /// # Errors
    ///
    /// As [`find_one`](Self::find_one); [`NotFound`](crate::Error::NotFound) where there is none, with
    /// the name of the table as the type and the condition in place of the id.
    fn get_one<R: ReadModel>(&self, query: Query<R>) -> impl Future<Output = Result<R>> + Send {
        async move {
            let condition = query.specification().clone();
            let found = self.find_one(query).await?;
            found.ok_or_else(|| none_found(R::table().name(), &condition))
        }
    }

    /// A page of the rows that a query selects.
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find); a [`Usage`](crate::StoreErrorKind::Usage) error as in
    /// [`Paging::new`](crate::Paging::new).
    fn page<R: ReadModel>(
        &self,
        query: Query<R>,
        request: PageRequest,
    ) -> impl Future<Output = Result<Page<R>>> + Send;

    /// How many rows the specification is true for.
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find).
    fn count<R: ReadModel>(
        &self,
        specification: Specification<R>,
    ) -> impl Future<Output = Result<u64>> + Send;

    /// Whether the specification is true for any row.
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find).
    fn exists<R: ReadModel>(
        &self,
        specification: Specification<R>,
    ) -> impl Future<Output = Result<bool>> + Send;
}

/// The read models of one type, to be extended with finders that carry meaning: see
/// [`#[repository]`](macro@crate::repository).
///
/// Whatever reads read models is one for each type of them.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not read read models",
    note = "ask `store.read_models(&context)`"
)]
pub trait ReadModelRepository<R: ReadModel>: ReadModels {}

impl<R: ReadModel, M: ReadModels + ?Sized> ReadModelRepository<R> for M {}

/// A row of a read table, with the tenant that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned<R> {
    /// The tenant; `None` where the table has none, also of rows that all tenants share.
    pub tenant: Option<TenantId>,
    /// The row.
    pub row: R,
}
