//! The transaction of a projection in memory.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::select;
use super::state::{Row, Shared, State};
use crate::changes::Changing;
use crate::context::TenantId;
use crate::error::Result;
use crate::mapping::{ColumnRole, Key, ValueRow};
use crate::projection::{ProjectionTransaction, RowAddress};
use crate::read_model::{Owned, ReadModel};

pub(super) type Place = (Option<TenantId>, Key);

/// What a projection of an [`InMemoryStore`](super::InMemoryStore) writes in: rows that become
/// visible together with the checkpoint, or not at all.
#[derive(Debug)]
pub struct InMemoryTransaction {
    shared: Arc<Shared>,
    written: HashMap<&'static str, BTreeMap<Place, Option<Row>>>,
    /// Tables whose rows are deleted, but for those written.
    cleared: HashSet<&'static str>,
    changing: Changing,
}

impl InMemoryTransaction {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            changing: shared.changes.changing(),
            shared,
            written: HashMap::new(),
            cleared: HashSet::new(),
        }
    }

    /// Makes what was written visible.
    pub(super) fn apply(self, state: &mut State) {
        for table in self.cleared {
            state.read_tables.remove(table);
        }
        for (table, rows) in self.written {
            let stored = state.read_tables.entry(table).or_default();
            for (place, row) in rows {
                match row {
                    Some(row) => stored.insert(place, row),
                    None => stored.remove(&place),
                };
            }
        }
    }

    fn row(&self, table: &str, place: &Place) -> Option<Row> {
        match self.written.get(table).and_then(|rows| rows.get(place)) {
            Some(written) => written.clone(),
            None if self.cleared.contains(table) => None,
            None => {
                let state = self.shared.lock();
                state.read_tables.get(table)?.get(place).cloned()
            }
        }
    }

    fn put(&mut self, table: &'static str, address: &RowAddress, row: Option<Row>) {
        self.changing.add(table);
        self.written
            .entry(table)
            .or_default()
            .insert(place(address), row);
    }
}

pub(super) fn place(address: &RowAddress) -> Place {
    (address.tenant().cloned(), Key::new(address.key().to_vec()))
}

impl ProjectionTransaction for InMemoryTransaction {
    async fn load<R: ReadModel>(&mut self, addresses: &[RowAddress]) -> Result<Vec<Owned<R>>> {
        let table = R::table();
        addresses
            .iter()
            .filter_map(|address| {
                let row = self.row(table.name(), &place(address))?;
                Some(select::read(&row).map(|row| Owned {
                    tenant: address.tenant().cloned(),
                    row,
                }))
            })
            .collect()
    }

    async fn upsert<R: ReadModel>(&mut self, rows: &[Owned<R>]) -> Result<()> {
        let table = R::table();
        debug_assert!(
            table
                .framework_columns()
                .iter()
                .all(|column| column.role() == ColumnRole::Tenant),
            "a read table has no framework column but the tenant's"
        );
        for row in rows {
            let values = Arc::new(ValueRow::new(row.to_values()?));
            self.put(table.name(), &row.address()?, Some(values));
        }
        Ok(())
    }

    async fn delete<R: ReadModel>(&mut self, addresses: &[RowAddress]) -> Result<()> {
        for address in addresses {
            self.put(R::table().name(), address, None);
        }
        Ok(())
    }

    async fn clear<R: ReadModel>(&mut self) -> Result<()> {
        let table = R::table().name();
        self.written.remove(table);
        self.cleared.insert(table);
        self.changing.add(table);
        Ok(())
    }
}
