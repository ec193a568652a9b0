//! Maintenance: bulk work outside of any unit of work.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use cqrs_core::consistency::Shadow;
use cqrs_core::history::Forgotten;
use cqrs_core::integrity::Hashing;
use cqrs_core::maintenance::{
    BulkChange, BulkScope, BulkStore, BulkWrites, ChangedRows, ChosenRow, Export, Inserted,
};
use cqrs_core::mapping::{Loading, Value};
use cqrs_core::schema::SchemaIds;
use cqrs_core::staging::StagedWrite;
use cqrs_core::{
    AggregateRoot, Inline, Metadata, Page, PageRequest, Query, Result, RowProjection,
    Specification, TenantScope,
};

use crate::backend::{Backend, Returned, Written};
use crate::history;
use crate::projector::SqlTransaction;
use crate::reads::{self, Place};
use crate::select::{self, Layout, PageSelect, Select};
use crate::statements::Statements;
use crate::store::{Shared, SqlStore};
use crate::unit_of_work::Transaction;

/// How many aggregates are written by one statement.
const AT_ONCE: usize = 1_000;

impl<B: Backend> BulkStore for SqlStore<B> {
    fn now(&self) -> DateTime<Utc> {
        self.shared().clock.now()
    }

    fn hashing(&self) -> &Hashing {
        &self.shared().hashing
    }

    fn schema_ids(&self) -> &SchemaIds {
        &self.shared().schema_ids
    }

    async fn bulk_insert(&self, writes: BulkWrites<'_>, metadata: &Metadata) -> Result<Inserted> {
        let shared = self.shared();
        let mut writes = writes.peekable();
        if writes.peek().is_none() {
            return Ok(Inserted::default());
        }
        let mut changing = shared.changes.changing();
        if let Some(Ok(write)) = writes.peek() {
            write.tables().for_each(|table| changing.add(table));
        }
        let projections = shared.inline.current();
        let reads = |write: &StagedWrite| projections.reads(std::slice::from_ref(write));
        let projected = writes
            .peek()
            .is_some_and(|write| write.as_ref().is_ok_and(reads));
        // No database copies into a table that is behind policies.
        if projected || shared.row_level_security {
            return insert_and_project(shared, &mut writes, metadata, &projections).await;
        }
        let mut transaction = Transaction::begin(shared, &TenantScope::System).await?;
        transaction.note_bulk();
        let connection = transaction.connection().get();
        let writes = Box::new(writes);
        match B::insert_in_bulk(connection, &shared.statements, writes, metadata).await {
            Ok(inserted) => {
                commit(transaction, shared).await?;
                Ok(inserted)
            }
            Err(cause) => Err(transaction.after_failure(shared, cause).await.1),
        }
    }

    async fn compare_rows<P: RowProjection>(&self, shadow: &mut Shadow<'_, P>) -> Result<()> {
        crate::projector::compare(self.shared(), shadow).await
    }

    async fn bulk_change<A: AggregateRoot>(
        &self,
        change: &BulkChange<A>,
        after: Option<&Value>,
    ) -> Result<ChangedRows> {
        let shared = self.shared();
        let select = select::bulk(change, after, &B::DIALECT)?;
        let mut changing = shared.changes.changing();
        let tables = A::table().with_children();
        tables.for_each(|table| changing.add(table.name()));
        let projections = shared.inline.current();
        let returned = match projections.reads_type(A::TYPE) {
            true => Returned::Events,
            false => Returned::Positions,
        };
        let mut transaction = Transaction::begin(shared, &change.rows.tenants).await?;
        let statements = &shared.statements;
        let changed = change_rows(&mut transaction, statements, change, &select, returned);
        match changed.await {
            Ok(changed) if changed.rows > 0 => {
                let (transaction, _changing) = transaction.project(shared, &projections).await?;
                commit(transaction, shared).await?;
                Ok(changed)
            }
            Ok(nothing) => {
                transaction.roll_back(shared).await;
                Ok(nothing)
            }
            Err(cause) => Err(transaction.after_failure(shared, cause).await.1),
        }
    }

    async fn bulk_adopt<A: AggregateRoot>(
        &self,
        query: Query<A>,
        rows: &BulkScope,
        metadata: &Metadata,
        stage: &(dyn Fn(A) -> Result<StagedWrite> + Send + Sync),
    ) -> Result<ChangedRows> {
        let shared = self.shared();
        let projections = shared.inline.current();
        let mut transaction = Transaction::begin(shared, &rows.tenants).await?;
        let adopted = async {
            let found = lock_aggregates(&mut transaction, &query, rows).await?;
            let full = query.row_limit() == Some(found.len() as u64);
            let writes = found.into_iter().map(stage).collect::<Result<Vec<_>>>()?;
            let last = writes.last().filter(|_| full);
            let adopted = ChangedRows {
                rows: writes.len(),
                position: None,
                last: last.map(|write| write.key.clone()),
            };
            let mut writes = writes.into_iter().peekable();
            while writes.peek().is_some() {
                let batch = writes.by_ref().take(AT_ONCE).collect();
                transaction
                    .send(shared, Vec::new(), batch, metadata, &projections)
                    .await?;
            }
            Ok(adopted)
        };
        match adopted.await {
            Ok(adopted) if adopted.rows > 0 => {
                let (transaction, _changing) = transaction.project(shared, &projections).await?;
                let position = commit(transaction, shared).await?.position;
                Ok(ChangedRows {
                    position,
                    ..adopted
                })
            }
            Ok(nothing) => {
                transaction.roll_back(shared).await;
                Ok(nothing)
            }
            Err(cause) => Err(transaction.after_failure(shared, cause).await.1),
        }
    }

    async fn bulk_forget<A: AggregateRoot>(
        &self,
        before: DateTime<Utc>,
        after: Option<&(String, u64)>,
        tenants: &TenantScope,
        most: u32,
    ) -> Result<Forgotten> {
        history::forget::<B, A>(self.shared(), before, after, tenants, most).await
    }

    async fn bulk_query<A: AggregateRoot>(
        &self,
        rows: &BulkScope,
        query: Query<A>,
    ) -> Result<Vec<A>> {
        let select = select::rows(&query, rows, &B::DIALECT)?;
        reads::entities(Place::Confined(self.shared(), &rows.tenants), &select).await
    }

    async fn bulk_page<A: AggregateRoot>(
        &self,
        rows: &BulkScope,
        query: Query<A>,
        request: PageRequest,
    ) -> Result<Page<A>> {
        let select = PageSelect::new(&query, request, rows, &B::DIALECT)?;
        reads::page(Place::Confined(self.shared(), &rows.tenants), &select).await
    }

    async fn bulk_count<A: AggregateRoot>(
        &self,
        rows: &BulkScope,
        specification: Specification<A>,
    ) -> Result<u64> {
        let select = select::count(&specification, rows, &B::DIALECT)?;
        reads::count(Place::Confined(self.shared(), &rows.tenants), &select).await
    }

    fn bulk_export<A: AggregateRoot>(&self, rows: &BulkScope, query: Query<A>) -> Export<A> {
        let shared = Arc::clone(self.shared());
        let select = select::rows_in_turn(&query, rows, &B::DIALECT);
        let tenants = rows.tenants.clone();
        Export::new(|sink| async move {
            let select = select?;
            let (table, layout) = (A::table(), Layout::of(A::table()));
            let mut connection = shared.readers.acquire().await?;
            shared
                .begin_confined(connection.begin_work(), &tenants)
                .await?;
            // The last one begun, until it is known that no child follows.
            let mut open: Option<Loading<A>> = None;
            let mut read = B::fetch_slowly(
                connection.get(),
                &select.sql,
                &select.parameters,
                table,
                |row| {
                    let done = match (layout.child(row)?, &mut open) {
                        (Some(child), Some(open)) => {
                            layout.read_child(open, child, row)?;
                            None
                        }
                        _ => open.replace(Loading::begin(row)?),
                    };
                    let done = done.map(Loading::finish).transpose()?;
                    let sink = sink.clone();
                    Ok(async move {
                        if let Some(item) = done {
                            sink.put(item).await;
                        }
                    })
                },
            )
            .await;
            if let (Ok(()), Some(last)) = (&read, open) {
                match last.finish() {
                    Ok(item) => sink.put(item).await,
                    Err(error) => read = Err(error.into()),
                }
            }
            if read.is_ok() {
                read = shared.end_confined(connection.get()).await;
            }
            match &read {
                Ok(()) => connection.end_work(),
                Err(error) if reads::is_unavailable(error) => {
                    connection.discard();
                    shared.readers.close_idle();
                }
                // It may be in the middle of many rows: it is repaired, or closed.
                Err(_) => {}
            }
            read
        })
    }
}

/// Inserts as a unit of work would, since inline projections are given the events as the log holds
/// them, which a copy does not bring back.
async fn insert_and_project<B: Backend>(
    shared: &Arc<Shared<B>>,
    writes: &mut (impl Iterator<Item = Result<StagedWrite>> + Send),
    metadata: &Metadata,
    projections: &Inline<SqlTransaction<B>>,
) -> Result<Inserted> {
    let mut inserted = Inserted::default();
    // Dropped after the commit: then the tables of the projections count as changed.
    let mut changing = Vec::new();
    let mut transaction = Transaction::begin(shared, &TenantScope::System).await?;
    loop {
        let batch: Result<Vec<_>> = writes.by_ref().take(AT_ONCE).collect();
        let sent = match batch {
            Ok(batch) if batch.is_empty() => break,
            Ok(batch) => {
                inserted.rows += batch.len();
                transaction
                    .send(shared, Vec::new(), batch, metadata, projections)
                    .await
            }
            Err(cause) => Err(cause),
        };
        if let Err(cause) = sent {
            return Err(transaction.after_failure(shared, cause).await.1);
        }
        let (projected, rows) = transaction.project(shared, projections).await?;
        transaction = projected;
        changing.push(rows);
    }
    inserted.position = commit(transaction, shared).await?.position;
    Ok(inserted)
}

/// The aggregates that a query finds, whose rows are locked.
async fn lock_aggregates<B: Backend, A: AggregateRoot>(
    transaction: &mut Transaction<B>,
    query: &Query<A>,
    rows: &BulkScope,
) -> Result<Vec<A>> {
    let mut select = select::rows(query, rows, &B::DIALECT)?;
    if let Some(keys) = select::locked_keys(query, rows, &B::DIALECT)? {
        let place = Place::Transaction(transaction.connection());
        let keys = reads::keys::<B, A>(place, &keys).await?;
        select = select::rows_of_keys(query, keys, rows, &B::DIALECT)?;
    }
    reads::entities(Place::Transaction(transaction.connection()), &select).await
}

/// Locks the rows of a batch, then changes them.
async fn change_rows<B: Backend, A: AggregateRoot>(
    transaction: &mut Transaction<B>,
    statements: &Statements,
    change: &BulkChange<A>,
    select: &Select,
    returned: Returned,
) -> Result<ChangedRows> {
    let tenant = A::table().is_tenant().then_some(2);
    let head = A::table()
        .is_chained()
        .then_some(tenant.map_or(2, |tenant| tenant + 1));
    let read = |row: &B::Row| ChosenRow::<A>::read(row, 0, 1, tenant, head);
    let place = Place::Transaction(transaction.connection());
    let mut rows = reads::rows(place, select, None, read).await?;
    let more = rows.len() == usize::try_from(change.batch_size).unwrap_or(usize::MAX);
    let last = rows.last().filter(|_| more).map(|row| row.key.clone());
    let keys = rows.iter().map(|row| row.key.clone()).collect();
    if let Some(again) = select::bulk_again(change, keys, &B::DIALECT)? {
        let place = Place::Transaction(transaction.connection());
        rows = reads::rows(place, &again, None, read).await?;
    }
    let mut changed = ChangedRows {
        rows: rows.len(),
        position: None,
        last,
    };
    if !rows.is_empty() {
        transaction.note_bulk();
        let connection = transaction.connection().get();
        let written = B::change_in_bulk(connection, statements, change, &rows, returned).await?;
        changed.position = written.position;
        transaction.add_events(written.envelopes);
    }
    Ok(changed)
}

/// Commits, and wakes the projectors.
async fn commit<B: Backend>(
    transaction: Transaction<B>,
    shared: &Arc<Shared<B>>,
) -> Result<Written> {
    let written = transaction.commit(shared).await?;
    shared.committed.signal();
    Ok(written)
}
