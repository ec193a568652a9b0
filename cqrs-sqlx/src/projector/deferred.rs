//! What a page writes when it is done, where no transaction is open for it.

use std::collections::HashSet;

use cqrs_core::RowAddress;
use cqrs_core::mapping::{Table, Value};

use crate::backend::{Advance, RowWrites};

/// A checkpoint that is to be moved, and the rows that are written with it.
#[derive(Debug)]
pub(super) struct Deferred {
    pub(super) advance: Advance,
    pub(super) writes: Option<RowWrites>,
    /// Where the rows are that are inserted or replaced.
    upserted: HashSet<RowAddress>,
}

impl Deferred {
    pub(super) fn new(advance: Advance) -> Self {
        Self {
            advance,
            writes: None,
            upserted: HashSet::new(),
        }
    }

    /// Takes rows, with their addresses. Gives them back where one statement cannot write them
    /// together with what was taken before.
    pub(super) fn upsert(
        &mut self,
        table: &'static Table,
        rows: Vec<(RowAddress, Vec<Value>)>,
    ) -> Result<(), Vec<(RowAddress, Vec<Value>)>> {
        if self.writes.is_some() {
            return Err(rows);
        }
        let (upserted, upserts) = rows.into_iter().unzip();
        self.upserted = upserted;
        self.writes = Some(RowWrites {
            table,
            upserts,
            deletes: Vec::new(),
        });
        Ok(())
    }

    /// Takes the addresses of rows that are to be deleted; whether it could.
    pub(super) fn delete(&mut self, table: &'static Table, addresses: &[RowAddress]) -> bool {
        let writes = self.writes.get_or_insert_with(|| RowWrites {
            table,
            upserts: Vec::new(),
            deletes: Vec::new(),
        });
        let is_apart = std::ptr::eq(writes.table, table)
            && writes.deletes.is_empty()
            && addresses
                .iter()
                .all(|address| !self.upserted.contains(address));
        if is_apart {
            writes.deletes = addresses.to_vec();
        }
        is_apart
    }
}
