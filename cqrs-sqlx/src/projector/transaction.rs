//! The transaction of one page.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use cqrs_core::mapping::{ColumnType, RowSource, Table, Value};
use cqrs_core::{
    Changing, Entity, Envelope, Error, Owned, ProjectionTransaction, RawPayload, ReadModel, Result,
    RowAddress, StoreErrorKind, TenantScope,
};

use super::checkpoint::read;
use super::deferred::Deferred;
use crate::backend::{Advance, Backend, Mark, Parameter, Process, RowVersion, stable_hash};
use crate::connections::Connection;
use crate::lent::{Lent, ended};
use crate::statements::{Statements, quoted};
use crate::store::Shared;

/// The transaction that a projection writes in: what it writes is committed together with the
/// checkpoint, or not at all; where it runs [inline](cqrs_core::Store::inline), together with the
/// unit of work.
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
    /// What tells the transaction of a page from another that SQL of its projection has begun,
    /// where the commit does not find out by itself.
    mark: Option<Mark>,
    /// Whether the connection was lent here.
    used: bool,
    /// The rows that are locked; `None` where nobody else writes rows of this projection.
    locked: Option<HashSet<RowLock>>,
    changing: Changing,
    /// Whether its rows are those of the shadow of their table.
    builds: bool,
    /// What is written at the end, as long as no transaction is open.
    deferred: Option<Deferred>,
    /// Whether the checkpoint was not the one any more that was read with the page.
    is_lost: bool,
}

/// What became of a page without a lock.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is committed. The version of the row of the checkpoint, where that is known.
    Committed(Option<RowVersion>),
    /// Somebody else has changed the checkpoint; nothing was written.
    Lost,
}

/// The numbers of a table and of a row of it. Rows share numbers, so that a commit that changes
/// very many rows does not need more locks than the server has room for.
type RowLock = (i32, i32);

/// How many numbers the rows of a table share.
const ROW_NUMBERS: u16 = 1024;

/// What is open after a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum More {
    /// A new transaction.
    Begun,
    /// Nothing.
    Ended,
}

impl<B: Backend> SqlTransaction<B> {
    /// Takes a connection on which a transaction is open.
    pub(super) fn new(shared: Arc<Shared<B>>, connection: Connection<B>) -> Self {
        Self {
            changing: shared.changes.changing(),
            shared,
            connection,
            lent: Lent::Never,
            mark: None,
            used: false,
            locked: None,
            builds: false,
            deferred: None,
            is_lost: false,
        }
    }

    /// Takes a connection on which no transaction is open. What is written is kept until the page is
    /// [committed](Self::commit_unlocked); what cannot be kept opens a transaction.
    pub(super) fn unlocked(
        shared: Arc<Shared<B>>,
        connection: Connection<B>,
        advance: Advance,
    ) -> Self {
        Self {
            deferred: Some(Deferred::new(advance)),
            ..Self::new(shared, connection)
        }
    }

    /// Has rows read from and written to the shadows of their tables.
    pub(super) fn building(mut self, builds: bool) -> Self {
        self.builds = builds;
        self
    }

    /// Where the rows of a read model are.
    fn table<R: ReadModel>(&self) -> &'static Table {
        let table = <R as Entity>::table();
        if self.builds { table.shadow() } else { table }
    }

    /// Has this table count as changed when the transaction is over.
    pub(super) fn changing(&mut self, table: &'static str) {
        self.changing.add(table);
    }

    /// Takes the connection of a unit of work that is about to commit. Other commits may write to
    /// the same rows, so these are locked.
    pub(crate) fn inline(shared: Arc<Shared<B>>, connection: Connection<B>, lent: Lent) -> Self {
        Self {
            changing: shared.changes.changing(),
            shared,
            connection,
            lent,
            mark: None,
            used: false,
            locked: Some(HashSet::new()),
            builds: false,
            deferred: None,
            is_lost: false,
        }
    }

    /// The connection, and what is known of the transaction on it, once it is over.
    pub(super) fn into_parts(self) -> (Connection<B>, Lent) {
        (self.connection, self.lent)
    }

    /// As [`into_parts`](Self::into_parts) before it is over: the tables that it changes count as
    /// changed when the last value is dropped.
    pub(crate) fn into_open_parts(self) -> (Connection<B>, Lent, Changing) {
        (self.connection, self.lent, self.changing)
    }

    pub(super) fn into_connection(self) -> Connection<B> {
        self.connection
    }

    /// The process of the server that works for it.
    pub(super) fn process(&mut self) -> Process {
        B::process(self.connection.get())
    }

    /// Whether the page is in vain, since somebody else has changed the checkpoint.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// The connection below, for a statement of the framework: in the transaction, or an error.
    pub(crate) async fn connection_below(&mut self) -> Result<&mut B::Connection> {
        self.open().await?;
        Ok(self.seen().await?.0)
    }

    /// Gets ready for SQL of a projection: where it ends the transaction and begins another, which
    /// looks the same, the page must not count as applied.
    pub(super) async fn mark(&mut self) -> Result<()> {
        if B::DIALECT.open_page.is_empty() && self.mark.is_none() {
            self.mark = B::mark(self.connection.get()).await?;
        }
        Ok(())
    }

    /// Commits. Where there will be more, another transaction is begun in the same round trip if
    /// the database can.
    pub(super) async fn commit(&mut self, more: bool) -> Result<More> {
        if B::DIALECT.claims_in_one && (more || self.lent != Lent::Never) {
            let connection = self.connection.get();
            if B::depth(connection) != 1 {
                return Err(ended());
            }
            B::commit_and_begin(connection).await?;
            if more {
                self.shared
                    .confine(connection, &TenantScope::System)
                    .await?;
                return Ok(More::Begun);
            }
            B::rollback(connection).await?;
        } else {
            B::commit(self.seen().await?.0).await?;
        }
        Ok(More::Ended)
    }

    /// Writes what was kept, and moves the checkpoint.
    pub(super) async fn commit_unlocked(&mut self) -> Result<Outcome> {
        if self.is_lost {
            return Ok(Outcome::Lost);
        }
        let Some(deferred) = self.deferred.take() else {
            B::commit(self.seen().await?.0).await?;
            return Ok(Outcome::Committed(None));
        };
        let Deferred {
            advance, writes, ..
        } = deferred;
        let (connection, statements) = (self.connection.get(), &self.shared.statements);
        let version = B::advance(connection, statements, &advance, writes.as_ref()).await?;
        Ok(version.map_or(Outcome::Lost, |version| Outcome::Committed(Some(version))))
    }

    /// Opens the transaction of a page that has none, with what was kept for it.
    async fn open(&mut self) -> Result<()> {
        let Some(deferred) = self.deferred.take() else {
            return Ok(());
        };
        // Where this fails or is interrupted, nothing may follow.
        self.lent = Lent::Ended;
        let (connection, statements) = (self.connection.get(), &self.shared.statements);
        B::begin(connection).await?;
        let writes = deferred.writes.as_ref();
        let moved = B::advance(connection, statements, &deferred.advance, writes).await?;
        if moved.is_none() {
            self.is_lost = true;
            return Err(lost());
        }
        self.lent = Lent::Never;
        Ok(())
    }

    /// What a statement of the framework needs.
    async fn seen(&mut self) -> Result<(&mut B::Connection, &Statements)> {
        let connection = self.connection.get();
        let marked = self.mark.is_some();
        self.lent.look::<B>(connection, 1, &mut self.mark).await?;
        if marked && self.mark.is_none() {
            self.mark = B::mark(connection).await?;
        }
        Ok((connection, &self.shared.statements))
    }

    /// Whether the transaction is still open in which this event was written: SQL of an inline
    /// projection may have ended it and begun another.
    ///
    /// # Errors
    ///
    /// `Usage` where it is over.
    pub(crate) async fn still_holds(&mut self, event: &Envelope<RawPayload>) -> Result<()> {
        let used = self.used;
        let connection = self.connection_below().await?;
        if !used {
            return Ok(());
        }
        let sql = "SELECT event_id FROM cqrs_event WHERE position = $1";
        let mut found = None;
        let position = [Parameter::int(event.position().0)];
        B::fetch(connection, &sql.into(), &position, None, |row| {
            found = read(row, |row| row.read_uuid(0))?;
            Ok(())
        })
        .await?;
        if found == Some(event.event_id()) {
            return Ok(());
        }
        self.lent = Lent::Ended;
        Err(ended())
    }

    /// Locks rows before they are read or written, also those that do not exist.
    async fn lock<R: ReadModel>(&mut self, addresses: &[RowAddress]) -> Result<()> {
        let sql = B::DIALECT.lock_rows;
        let Some(locked) = &mut self.locked else {
            return Ok(());
        };
        if sql.is_empty() {
            return Ok(());
        }
        // Sorted: whoever locks several rows locks them in the same order.
        let mut rows = BTreeSet::new();
        let mut table = 0;
        for address in addresses {
            let lock = row_lock(R::table(), address);
            if locked.insert(lock) {
                rows.insert(lock.1);
                table = lock.0;
            }
        }
        if rows.is_empty() {
            return Ok(());
        }
        let rows = rows.into_iter().map(|row| Value::Int(row.into()));
        let parameters = [
            Parameter::new(ColumnType::Int32, Value::Int(table.into())),
            Parameter::List(ColumnType::Int32, rows.collect()),
        ];
        let connection = self.connection_below().await?;
        let locked = B::execute(connection, &sql.into(), &parameters).await;
        self.after(locked).map(drop)
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
    /// one: the projector, or the unit of work, commits it together with the rest, and that is what
    /// makes each event count once.
    ///
    /// Rows that SQL of your own writes [inline](cqrs_core::Store::inline) are not locked for it:
    /// other commits may write them at the same time. One statement that counts
    /// (`INSERT ... ON CONFLICT DO UPDATE SET n = t.n + 1`) needs no lock.
    ///
    /// Pass the errors of your statements on. Where one has taken the transaction with it, the page
    /// fails also if you do not.
    ///
    /// # Panics
    ///
    /// Where the projection says that it [writes rows alone](cqrs_core::Projection::writes_rows_alone):
    /// then there may be no transaction.
    pub fn connection(&mut self) -> &mut B::Raw {
        assert!(
            self.deferred.is_none(),
            "a projection that says that it writes rows alone has asked for the connection"
        );
        self.lent.lend();
        self.used = true;
        B::raw(self.connection.get())
    }
}

impl<B: Backend> ProjectionTransaction for SqlTransaction<B> {
    async fn load<R: ReadModel>(&mut self, addresses: &[RowAddress]) -> Result<Vec<Owned<R>>> {
        if addresses.is_empty() {
            return Ok(Vec::new());
        }
        self.lock::<R>(addresses).await?;
        if self
            .deferred
            .as_ref()
            .is_none_or(|deferred| deferred.writes.is_some())
        {
            self.open().await?;
        }
        let table = self.table::<R>();
        let page = self.deferred.as_ref().map(|kept| kept.advance.clone());
        let (connection, statements) = self.seen().await?;
        let loaded = B::load_rows(connection, statements, table, addresses, page.as_ref()).await;
        self.after(loaded)?.ok_or_else(|| {
            self.is_lost = true;
            lost()
        })
    }

    async fn upsert<R: ReadModel>(&mut self, rows: &[Owned<R>]) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let addresses = rows
            .iter()
            .map(Owned::address)
            .collect::<Result<Vec<_>>>()?;
        self.lock::<R>(&addresses).await?;
        let (table, mut rows) = (self.table::<R>(), last_of_each(rows, addresses)?);
        self.changing.add(table.name());
        if let Some(deferred) = &mut self.deferred {
            match deferred.upsert(table, rows) {
                Ok(()) => return Ok(()),
                Err(refused) => rows = refused,
            }
        }
        self.open().await?;
        let rows = rows.into_iter().map(|(_, row)| row).collect();
        let (connection, statements) = self.seen().await?;
        let written = B::upsert_rows(connection, statements, table, rows).await;
        self.after(written)
    }

    async fn delete<R: ReadModel>(&mut self, addresses: &[RowAddress]) -> Result<()> {
        if addresses.is_empty() {
            return Ok(());
        }
        self.lock::<R>(addresses).await?;
        let table = self.table::<R>();
        self.changing.add(table.name());
        if let Some(deferred) = &mut self.deferred
            && deferred.delete(table, addresses)
        {
            return Ok(());
        }
        self.open().await?;
        let (connection, statements) = self.seen().await?;
        let deleted = B::delete_rows(connection, statements, table, addresses).await;
        self.after(deleted)
    }

    async fn clear<R: ReadModel>(&mut self) -> Result<()> {
        let table = self.table::<R>().name();
        self.changing.add(table);
        let sql = format!("DELETE FROM {}", quoted(table));
        let connection = self.connection_below().await?;
        let cleared = B::execute(connection, &sql.into(), &[]).await;
        self.after(cleared).map(drop)
    }
}

/// The same in every process, as whoever writes to the table must use it.
fn row_lock(table: &Table, address: &RowAddress) -> RowLock {
    let [.., high, low] = address.digest(table);
    let row = u16::from_be_bytes([high, low]) % ROW_NUMBERS;
    (stable_hash(table.name().bytes()), row.into())
}

/// The error of a page whose checkpoint is not the one any more that was read with it.
fn lost() -> Error {
    Error::store(
        StoreErrorKind::Contention,
        "another worker has moved the checkpoint",
    )
}

/// The rows with their addresses; of several with one address the last, since one statement may not
/// write a row twice.
fn last_of_each<R: ReadModel>(
    rows: &[Owned<R>],
    addresses: Vec<RowAddress>,
) -> Result<Vec<(RowAddress, Vec<Value>)>> {
    let mut last: HashMap<RowAddress, usize> = HashMap::with_capacity(rows.len());
    for (place, address) in addresses.into_iter().enumerate() {
        last.insert(address, place);
    }
    let mut last: Vec<_> = last.into_iter().collect();
    last.sort_unstable_by_key(|(_, place)| *place);
    last.into_iter()
        .map(|(address, place)| {
            let values = rows[place].values_at(&address)?;
            Ok((address, values))
        })
        .collect()
}

impl<B: Backend> fmt::Debug for SqlTransaction<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlTransaction")
            .field("backend", &self.shared.backend)
            .finish_non_exhaustive()
    }
}
