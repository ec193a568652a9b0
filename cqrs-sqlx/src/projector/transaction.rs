//! The transaction of one page.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use cqrs_core::mapping::Value;
use cqrs_core::{Entity, Owned, ProjectionTransaction, ReadModel, Result, RowAddress};

use crate::backend::Backend;
use crate::connections::Connection;
use crate::store::Shared;

/// The transaction that a projection writes in: what it writes is committed together with the
/// checkpoint, or not at all.
///
/// Rows of read models go through [`ProjectionTransaction`], for SQL of your own there is
/// [`connection`](Self::connection).
///
/// # Cancel safety
///
/// When the projection's future is dropped, the transaction is rolled back.
pub struct SqlTransaction<B: Backend> {
    shared: Arc<Shared<B>>,
    connection: Connection<B>,
}

impl<B: Backend> SqlTransaction<B> {
    /// Takes a connection on which a transaction is open.
    pub(super) fn new(shared: Arc<Shared<B>>, connection: Connection<B>) -> Self {
        Self { shared, connection }
    }

    pub(super) fn into_connection(self) -> Connection<B> {
        self.connection
    }

    pub(super) fn connection_below(&mut self) -> &mut B::Connection {
        self.connection.get()
    }

    /// sqlx's connection (`PgConnection`, `SqliteConnection`), in the transaction.
    ///
    /// Begin nested transactions with sqlx's `begin`; they are savepoints. Do not end the outer
    /// one: the projector commits it together with the checkpoint, and that is what makes each
    /// event count once.
    pub fn connection(&mut self) -> &mut B::Raw {
        B::raw(self.connection.get())
    }
}

impl<B: Backend> ProjectionTransaction for SqlTransaction<B> {
    async fn load<R: ReadModel>(&mut self, addresses: &[RowAddress]) -> Result<Vec<Owned<R>>> {
        if addresses.is_empty() {
            return Ok(Vec::new());
        }
        B::load_rows(self.connection.get(), &self.shared.statements, addresses).await
    }

    async fn upsert<R: ReadModel>(&mut self, rows: &[Owned<R>]) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        B::upsert_rows(
            self.connection.get(),
            &self.shared.statements,
            <R as Entity>::table(),
            last_of_each(rows)?,
        )
        .await
    }

    async fn delete<R: ReadModel>(&mut self, addresses: &[RowAddress]) -> Result<()> {
        if addresses.is_empty() {
            return Ok(());
        }
        B::delete_rows(
            self.connection.get(),
            &self.shared.statements,
            <R as Entity>::table(),
            addresses,
        )
        .await
    }
}

/// The values of the rows; of several with one address the last, since one statement may not
/// write a row twice.
fn last_of_each<R: ReadModel>(rows: &[Owned<R>]) -> Result<Vec<Vec<Value>>> {
    let mut values: Vec<Vec<Value>> = Vec::with_capacity(rows.len());
    let mut places: HashMap<String, usize> = HashMap::with_capacity(rows.len());
    for row in rows {
        let place = *places
            .entry(row.address()?.identity())
            .or_insert(values.len());
        let row = row.to_values()?;
        if place == values.len() {
            values.push(row);
        } else {
            values[place] = row;
        }
    }
    Ok(values)
}

impl<B: Backend> fmt::Debug for SqlTransaction<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlTransaction")
            .field("backend", &self.shared.backend)
            .finish_non_exhaustive()
    }
}
