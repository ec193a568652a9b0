//! Maintenance in memory: each transaction is one hold of the lock.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::consistency;
use super::overlay::{self, Overlay};
use super::select;
use super::state::{Row, State};
use super::store::InMemoryStore;
use super::transaction::InMemoryTransaction;
use crate::aggregate::AggregateRoot;
use crate::consistency::Shadow;
use crate::context::{Metadata, TenantScope};
use crate::envelope::{Envelope, Position};
use crate::error::Result;
use crate::history::Forgotten;
use crate::integrity::Hashing;
use crate::maintenance::{
    BulkChange, BulkScope, BulkStore, BulkWrites, ChangedRows, ChosenRow, Export, Inserted,
};
use crate::mapping::{ColumnRole, Key, Table, Value};
use crate::projection::RowProjection;
use crate::schema::SchemaIds;
use crate::specification::{Page, PageRequest, Paging, Query, Specification};
use crate::staging::{Operation, StagedWrite};

impl InMemoryStore {
    fn rows_within<A: AggregateRoot>(
        &self,
        rows: &BulkScope,
        specification: &Specification<A>,
    ) -> Result<Vec<Row>> {
        let state = self.shared().lock();
        let stored = state.rows(A::table().name()).map(|(_, row)| row);
        select::filter(specification, rows, stored)
    }
}

impl InMemoryStore {
    /// Commits what is planned for the state as it is, with the rows of the inline projections;
    /// what the plan says besides, and the position of the last event.
    async fn commit_bulk<T: Send>(
        &self,
        metadata: &Metadata,
        plan: impl Fn(&State) -> Result<(Overlay, Vec<StagedWrite>, T)> + Send + Sync,
    ) -> Result<(T, Option<Position>)> {
        let shared = self.shared();
        let clock = shared.clock.as_ref();
        let mut changing = shared.changes.changing();
        let inline = shared.inline.current();
        let _turn = match inline.is_empty() {
            true => None,
            false => Some(shared.commits.take().await),
        };
        loop {
            let (planned, events, after) = {
                let mut state = shared.lock();
                let (overlay, writes, told) = plan(&state)?;
                for write in &writes {
                    write.tables().for_each(|table| changing.add(table));
                }
                let events = state.next_events(&writes, metadata, clock);
                if !inline.reads(&writes) {
                    let position = events.last().map(Envelope::position);
                    state.apply(overlay);
                    state.append(&writes, events);
                    return Ok((told, position));
                }
                ((overlay, writes, told), events, state.end())
            };
            let mut transaction = InMemoryTransaction::new(Arc::clone(shared));
            inline.apply(&events, &mut transaction).await?;
            let mut state = shared.lock();
            // Who commits without inline projections does not wait for the turn.
            if state.end() == after {
                let (overlay, writes, told) = planned;
                let position = events.last().map(Envelope::position);
                state.apply(overlay);
                state.append(&writes, events);
                transaction.apply(&mut state);
                return Ok((told, position));
            }
        }
    }
}

impl BulkStore for InMemoryStore {
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
        // Staging runs code of the user, which never runs under the lock.
        let writes = writes.collect::<Result<Vec<_>>>()?;
        let plan = |state: &State| {
            let mut overlay = Overlay::default();
            for write in &writes {
                overlay.write(state, write, metadata)?;
            }
            Ok((overlay, writes.clone(), ()))
        };
        let ((), position) = self.commit_bulk(metadata, plan).await?;
        Ok(Inserted {
            rows: writes.len(),
            position,
        })
    }

    async fn compare_rows<P: RowProjection>(&self, shadow: &mut Shadow<'_, P>) -> Result<()> {
        consistency::compare(self.shared(), shadow)
    }

    async fn bulk_change<A: AggregateRoot>(
        &self,
        change: &BulkChange<A>,
        after: Option<&Value>,
    ) -> Result<ChangedRows> {
        let plan = |state: &State| {
            let chosen = choose(state, change, after)?;
            let more = chosen.len() == usize::try_from(change.batch_size).unwrap_or(usize::MAX);
            let last = chosen.last().filter(|_| more);
            let changed = ChangedRows {
                rows: chosen.len(),
                position: None,
                last: last.map(|(row, _)| row.key.clone()),
            };
            let mut overlay = Overlay::default();
            let mut writes = Vec::with_capacity(chosen.len());
            for (row, values) in chosen {
                let write = staged(change, row, values);
                overlay.put(state, &write, change.kind, &change.metadata);
                writes.push(write);
            }
            Ok((overlay, writes, changed))
        };
        let (changed, position) = self.commit_bulk(&change.metadata, plan).await?;
        Ok(ChangedRows {
            position,
            ..changed
        })
    }

    /// Finds nothing, as every row here was written by the store.
    async fn bulk_adopt<A: AggregateRoot>(
        &self,
        query: Query<A>,
        rows: &BulkScope,
        metadata: &Metadata,
        stage: &(dyn Fn(A) -> Result<StagedWrite> + Send + Sync),
    ) -> Result<ChangedRows> {
        let limit = query.row_limit();
        let found = self.bulk_query(rows, query).await?;
        let writes = found.into_iter().map(stage).collect::<Result<Vec<_>>>()?;
        if writes.is_empty() {
            return Ok(ChangedRows::default());
        }
        let plan = |state: &State| {
            let mut overlay = Overlay::default();
            for write in &writes {
                overlay.write(state, write, metadata)?;
            }
            Ok((overlay, writes.clone(), ()))
        };
        let ((), position) = self.commit_bulk(metadata, plan).await?;
        let full = limit == Some(writes.len() as u64);
        let last = writes.last().filter(|_| full);
        Ok(ChangedRows {
            rows: writes.len(),
            position,
            last: last.map(|write| write.key.clone()),
        })
    }

    async fn bulk_forget<A: AggregateRoot>(
        &self,
        before: DateTime<Utc>,
        _: Option<&(String, u64)>,
        tenants: &TenantScope,
        _: u32,
    ) -> Result<Forgotten> {
        let mut state = self.shared().lock();
        Ok(state.revisions.forget::<A>(before, tenants))
    }

    async fn bulk_query<A: AggregateRoot>(
        &self,
        rows: &BulkScope,
        query: Query<A>,
    ) -> Result<Vec<A>> {
        let found = self.rows_within(rows, query.specification())?;
        select::read_in_order(&query, found)
    }

    async fn bulk_page<A: AggregateRoot>(
        &self,
        rows: &BulkScope,
        query: Query<A>,
        request: PageRequest,
    ) -> Result<Page<A>> {
        let paging = Paging::new(&query, request, rows.tenants.tenant().is_none())?;
        let found = self.rows_within(rows, query.specification())?;
        select::read_page(&query, &paging, found)
    }

    async fn bulk_count<A: AggregateRoot>(
        &self,
        rows: &BulkScope,
        specification: Specification<A>,
    ) -> Result<u64> {
        Ok(self.rows_within(rows, &specification)?.len() as u64)
    }

    fn bulk_export<A: AggregateRoot>(&self, rows: &BulkScope, query: Query<A>) -> Export<A> {
        let (store, rows) = (self.clone(), rows.clone());
        Export::new(|sink| async move {
            let mut found = store.rows_within(&rows, query.specification())?;
            select::order(&query, &mut found)?;
            for row in found {
                sink.put(select::read(&row)?).await;
            }
            Ok(())
        })
    }
}

/// The rows that a batch changes, in the order of their keys, with their values.
fn choose<A: AggregateRoot>(
    state: &State,
    change: &BulkChange<A>,
    after: Option<&Value>,
) -> Result<Vec<(ChosenRow<A>, Vec<Value>)>> {
    let table = A::table();
    let predicate = change.specification.predicate();
    predicate.check(table)?;
    let after = after.map(|key| Key::new(vec![key.clone()]));
    let key = table.index_of(ColumnRole::Key).unwrap_or(0);
    let version = table.index_of(ColumnRole::Version).unwrap_or(0);
    let tenant = table.index_of(ColumnRole::Tenant);
    let head = table.index_of(ColumnRole::ChainHead);
    state
        .rows(table.name())
        .filter(|(key, _)| after.as_ref().is_none_or(|after| *key > after))
        .map(|(_, row)| row)
        .filter(|row| select::is_within(&change.rows, table, row))
        .filter(|row| predicate.truth(table, row) == Some(true))
        .filter(|row| differs(change, row.values()))
        .take(usize::try_from(change.batch_size).unwrap_or(usize::MAX))
        .map(|row| {
            let chosen = ChosenRow::read(row.as_ref(), key, version, tenant, head)?;
            Ok((chosen, row.values().to_vec()))
        })
        .collect()
}

/// Whether the user's assignments change the row, or there are none.
fn differs<A>(change: &BulkChange<A>, row: &[Value]) -> bool {
    let compared = &change.assignments[..change.compared];
    compared.is_empty()
        || compared
            .iter()
            .any(|(index, value)| !overlay::is_same(&row[*index], value))
}

fn staged<A: AggregateRoot>(
    change: &BulkChange<A>,
    row: ChosenRow<A>,
    mut values: Vec<Value>,
) -> StagedWrite {
    let table: &'static Table = A::table();
    let new_version = row.version + 1;
    let event = change.event_of(&row);
    for (index, value) in &change.assignments {
        values[*index] = value.clone();
    }
    if let Some(index) = table.index_of(ColumnRole::Version) {
        values[index] = Value::Int(i64::try_from(new_version).unwrap_or(i64::MAX));
    }
    if let (Some(index), Some(link)) = (
        table.index_of(ColumnRole::ChainHead),
        event.content_hash.link(),
    ) {
        values[index] = Value::Bytes(link.to_vec());
    }
    StagedWrite {
        aggregate_type: A::TYPE,
        aggregate_id: row.aggregate_id,
        table,
        operation: if change.deletes {
            Operation::Remove
        } else {
            Operation::Update
        },
        key: row.key,
        tenant: row.tenant,
        expected_version: row.version,
        new_version,
        row: values,
        children: Vec::new(),
        events: vec![event],
        snapshot: None,
    }
}
