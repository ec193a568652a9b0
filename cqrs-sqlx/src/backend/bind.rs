//! Statements and their arguments: what is the same for every database.

use std::sync::Arc;

use cqrs_core::{Error, Result, StoreErrorKind};
use sqlx::query::Query;
use sqlx::{Arguments, AssertSqlSafe, Encode, IntoArguments, Type};

/// A statement of the framework with its arguments.
pub(super) fn query<A>(sql: &Arc<str>, arguments: A) -> Query<'static, A::Database, A>
where
    A: Arguments + IntoArguments<A::Database>,
{
    sqlx::query_with(AssertSqlSafe(Arc::clone(sql)), arguments)
}

/// Binds a value of a type that sqlx knows.
pub(super) fn bind<'q, A, T>(arguments: &mut A, value: T) -> Result<()>
where
    A: Arguments,
    T: Encode<'q, A::Database> + Type<A::Database>,
{
    arguments.add(value).map_err(|error| {
        Error::store(
            StoreErrorKind::Database,
            format!("a value could not be encoded: {error}"),
        )
    })
}
