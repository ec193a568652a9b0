//! SQL of the application in finders: statements with named parameters, and the rows that are
//! read from them.
//!
//! A trait with [`#[repository]`](macro@crate::repository) that also extends [`SqlQueries`], or
//! [`SqlReads`] for read models, may have finders with `#[sql("SELECT ...")]`. Their text is a
//! literal, so no text of a caller ever becomes SQL; their parameters are those of the method.
//! They run in databases alone: a store in memory has no such trait, which the compiler says.
//!
//! The rest of this module is what the macro emits and what authors of backends read.

mod arguments;
mod columns;
mod row;
mod statement;

use std::future::Future;

use crate::error::{Error, Result};

pub use arguments::{Argument, Arguments};
pub use columns::Columns;
pub use row::SqlRow;
pub use statement::{Parameter, Statement, Tenants, Text};

/// A repository that runs the SQL of finders, in the unit of work that it belongs to.
///
/// Extend it beside the repository: `trait OrderReports: Repository<Order> + SqlQueries`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not run SQL",
    note = "finders with `#[sql]` run in a database; those with `#[find]` run on every store"
)]
pub trait SqlQueries: Send {
    /// Runs a statement and reads its rows.
    ///
    /// Sees what the unit of work has staged.
    ///
    /// # Transaction
    ///
    /// As a query of the repository.
    ///
    /// # Errors
    ///
    /// [`Error::Mapping`] where an argument cannot be stored or a row does not fit, with the
    /// finder in place of the table; [`Error::Store`] where the store fails, of kind
    /// [`Schema`](crate::StoreErrorKind::Schema) where the columns are not those of `T`, and of kind
    /// [`Usage`](crate::StoreErrorKind::Usage), before any I/O, where the statement is not for this
    /// tenant scope, database or unit of work.
    fn sql<T: SqlRow>(
        &mut self,
        arguments: Arguments,
    ) -> impl Future<Output = Result<Vec<T>>> + Send;
}

/// Read models that run the SQL of finders.
///
/// Extend it beside the repository: `trait OrderRows: ReadModelRepository<OrderRow> + SqlReads`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not run SQL",
    note = "finders with `#[sql]` run in a database; those with `#[find]` run on every store"
)]
pub trait SqlReads: Sync {
    /// Runs a statement and reads its rows.
    ///
    /// # Errors
    ///
    /// As [`SqlQueries::sql`].
    fn sql<T: SqlRow>(&self, arguments: Arguments) -> impl Future<Output = Result<Vec<T>>> + Send;
}

/// A type whose rows belong to no tenant. The derives say it of what has no `tenant`.
#[diagnostic::on_unimplemented(
    message = "the rows of `{Self}` belong to tenants",
    label = "whose rows?",
    note = "restrict the statement with `:tenant`, or say `all_tenants`"
)]
pub trait WithoutTenant {}

/// The only row, if there is one; what emitted code calls, as [`exactly_one`].
///
/// # Errors
///
/// [`Error::NotUnique`] where there is a second.
pub fn at_most_one<T>(statement: &Statement, mut rows: Vec<T>) -> Result<Option<T>> {
    if rows.len() > 1 {
        return Err(Error::NotUnique {
            entity: "row",
            condition: format!("{statement} asks for one"),
        });
    }
    Ok(rows.pop())
}

/// The only row.
///
/// # Errors
///
/// As [`at_most_one`]; [`Error::NotFound`] where there is none.
pub fn exactly_one<T>(statement: &Statement, rows: Vec<T>) -> Result<T> {
    at_most_one(statement, rows)?.ok_or_else(|| Error::NotFound {
        aggregate: "row",
        id: format!("of {statement}"),
    })
}
