//! Repositories.

use std::future::Future;

use crate::aggregate::AggregateRoot;
use crate::error::{Error, Result};
use crate::specification::{Page, PageRequest, Query, Specification};

/// The aggregates of one type within a unit of work: in its tenant scope, without those that are
/// soft-deleted.
///
/// Domain repositories extend it with finders that carry meaning: see
/// [`#[repository]`](macro@crate::repository).
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
    /// # Errors
    ///
    /// As [`find`](Self::find).
    fn query(&mut self, query: Query<A>) -> impl Future<Output = Result<Vec<A>>> + Send;

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
    ) -> impl Future<Output = Result<Page<A>>> + Send;

    /// Counts the aggregates for which the specification is true.
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find).
    fn count(
        &mut self,
        specification: Specification<A>,
    ) -> impl Future<Output = Result<u64>> + Send;

    /// Stages the aggregate to be written when the unit of work commits: inserted if it is new,
    /// else replaced if it is still at the version at which it was loaded. No I/O.
    ///
    /// One that is unchanged and raised no event is not written. One that changed without an
    /// event is written with a [change marker](crate::staging::ChangeMarker) in the log.
    ///
    /// # Errors
    ///
    /// [`Error::Mapping`] or [`Error::Payload`] where a value cannot be stored,
    /// [`Error::TenantRequired`], [`Error::NotFound`] where it belongs to another tenant, and a
    /// [`Usage`](crate::StoreErrorKind::Usage) error where it is staged already: make all changes,
    /// then save it once. After a read it can be loaded and saved again.
    fn save(&mut self, aggregate: A) -> Result<()>;

    /// Stages the removal of the aggregate: marked as deleted where it has `soft_delete`, else
    /// deleted. Its events stay in the log, and its id is not used again. No I/O.
    ///
    /// # Errors
    ///
    /// As [`save`](Self::save); [`Error::NotFound`] for one that was never saved.
    fn remove(&mut self, aggregate: A) -> Result<()>;

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

    /// Whether the specification is true for any aggregate.
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find).
    fn exists(
        &mut self,
        specification: Specification<A>,
    ) -> impl Future<Output = Result<bool>> + Send {
        async move {
            let found = self.query(Query::filter(specification).limit(1)).await?;
            Ok(!found.is_empty())
        }
    }
}
