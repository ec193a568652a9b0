//! The transaction of one page.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use cqrs_core::mapping::Value;
use cqrs_core::{Entity, Owned, ProjectionTransaction, ReadModel, Result, RowAddress};

use crate::backend::Backend;
use crate::connections::Connection;
use crate::lent::Lent;
use crate::statements::Statements;
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
    lent: Lent,
}

impl<B: Backend> SqlTransaction<B> {
    /// Takes a connection on which a transaction is open.
    pub(super) fn new(shared: Arc<Shared<B>>, connection: Connection<B>) -> Self {
        Self {
            shared,
            connection,
            lent: Lent::Never,
        }
    }

    pub(super) fn into_connection(self) -> Connection<B> {
        self.connection
    }

    /// The connection below, for a statement of the framework: in the transaction, or an error.
    pub(super) async fn connection_below(&mut self) -> Result<&mut B::Connection> {
        Ok(self.seen().await?.0)
    }

    /// What a statement of the framework needs.
    async fn seen(&mut self) -> Result<(&mut B::Connection, &Statements)> {
        let connection = self.connection.get();
        self.lent.look::<B>(connection, 1).await?;
        Ok((connection, &self.shared.statements))
    }

    /// A statement that fails may take its transaction with it, and the projection may go on.
    fn after<T>(&mut self, result: Result<T>) -> Result<T> {
        if result.is_err() {
            self.lent.lend();
        }
        result
    }

    /// sqlx's connection (`PgConnection`, `SqliteConnection`), in the transaction.
    ///
    /// Begin nested transactions with sqlx's `begin`; they are savepoints. Do not end the outer
    /// one: the projector commits it together with the checkpoint, and that is what makes each
    /// event count once.
    ///
    /// Pass the errors of your statements on. Where one has taken the transaction with it, the page
    /// fails also if you do not.
    pub fn connection(&mut self) -> &mut B::Raw {
        self.lent.lend();
        B::raw(self.connection.get())
    }
}

impl<B: Backend> ProjectionTransaction for SqlTransaction<B> {
    async fn load<R: ReadModel>(&mut self, addresses: &[RowAddress]) -> Result<Vec<Owned<R>>> {
        if addresses.is_empty() {
            return Ok(Vec::new());
        }
        let (connection, statements) = self.seen().await?;
        let loaded = B::load_rows(connection, statements, addresses).await;
        self.after(loaded)
    }

    async fn upsert<R: ReadModel>(&mut self, rows: &[Owned<R>]) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let (table, rows) = (<R as Entity>::table(), last_of_each(rows)?);
        let (connection, statements) = self.seen().await?;
        let written = B::upsert_rows(connection, statements, table, rows).await;
        self.after(written)
    }

    async fn delete<R: ReadModel>(&mut self, addresses: &[RowAddress]) -> Result<()> {
        if addresses.is_empty() {
            return Ok(());
        }
        let (connection, statements) = self.seen().await?;
        let table = <R as Entity>::table();
        let deleted = B::delete_rows(connection, statements, table, addresses).await;
        self.after(deleted)
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
