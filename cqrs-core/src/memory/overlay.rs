//! The rows that a unit of work has changed and nobody else sees, and the rules for changing them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::history::Revisions;
use super::state::{Row, State};
use crate::context::Metadata;
use crate::error::Result;
use crate::history::RevisionKind;
use crate::mapping::{Column, ColumnRole, Key, Table, Value, ValueRow};
use crate::staging::{ChildWrite, Operation, StagedWrite, primary_key};

/// Changed rows by table; `None` is a deleted row.
type Changed = HashMap<&'static str, BTreeMap<Key, Option<Row>>>;

/// Changed rows over the committed ones.
#[derive(Debug, Clone, Default)]
pub(super) struct Overlay {
    rows: Changed,
    /// Aggregates inserted here, which their later removal does not forget.
    inserted: HashSet<(&'static str, String)>,
    revisions: Revisions,
}

impl Overlay {
    /// The row as this overlay shows it.
    pub(super) fn row<'a>(
        &'a self,
        state: &'a State,
        table: &'static str,
        key: &Key,
    ) -> Option<&'a Row> {
        match self.rows.get(table).and_then(|rows| rows.get(key)) {
            Some(changed) => changed.as_ref(),
            None => state.row(table, key),
        }
    }

    /// All rows as this overlay shows them, in no order.
    pub(super) fn rows<'a>(
        &'a self,
        state: &'a State,
        table: &'static str,
    ) -> impl Iterator<Item = &'a Row> {
        let changed = self.rows.get(table);
        let untouched = state
            .rows(table)
            .filter(move |(key, _)| !changed.is_some_and(|rows| rows.contains_key(key)))
            .map(|(_, row)| row);
        untouched.chain(changed.into_iter().flat_map(BTreeMap::values).flatten())
    }

    pub(super) fn into_parts(self) -> (Changed, Revisions) {
        (self.rows, self.revisions)
    }

    /// Changes a row as a write of bulk work says, which was checked, or deletes it.
    pub(super) fn put(
        &mut self,
        state: &State,
        write: &StagedWrite,
        kind: RevisionKind,
        metadata: &Metadata,
    ) {
        let key = Key::new(vec![write.key.clone()]);
        let table = write.table.name();
        let old = self.row(state, table, &key).cloned();
        let new = old
            .as_ref()
            .filter(|_| write.operation != Operation::Remove)
            .map(|old| Arc::new(old.with_values(write.row.clone())));
        let left = new.as_ref().or(old.as_ref());
        self.revisions
            .keep(write, kind, metadata, left.map(|row| &**row));
        self.rows.entry(table).or_default().insert(key, new);
    }

    pub(super) fn revisions(&self) -> &Revisions {
        &self.revisions
    }

    /// Checks a write against the rows shown and applies it; `false` where it changes nothing.
    ///
    /// # Errors
    ///
    /// `AlreadyExists`, `NotFound`, `Conflict`, or `Usage` where this overlay holds the newer
    /// version; nothing is applied then.
    pub(super) fn write(
        &mut self,
        state: &State,
        write: &StagedWrite,
        metadata: &Metadata,
    ) -> Result<bool> {
        let key = Key::new(vec![write.key.clone()]);
        let table = write.table.name();
        let mut removed = None;
        let row = if write.operation == Operation::Insert {
            let identity = (write.aggregate_type, write.aggregate_id.clone());
            if self.row(state, table, &key).is_some()
                || state.has_stream(write.aggregate_type, &write.aggregate_id)
                || !self.inserted.insert(identity)
            {
                return Err(write.already_exists());
            }
            let none = ValueRow::new(Vec::new());
            let children = children(write, &none);
            Some(Arc::new(ValueRow::with_children(
                write.row.clone(),
                children,
            )))
        } else {
            let current = self.expected(state, write, &key)?;
            match change(write, current.values()) {
                Change::Nothing => return Ok(false),
                Change::Replace(row) => {
                    let children = children(write, current);
                    Some(Arc::new(ValueRow::with_children(row, children)))
                }
                Change::Delete => {
                    removed = Some(current.clone());
                    None
                }
            }
        };
        let left = row.as_ref().or(removed.as_ref());
        let kind = write.operation.into();
        self.revisions
            .keep(write, kind, metadata, left.map(|row| &**row));
        self.rows.entry(table).or_default().insert(key, row);
        Ok(true)
    }

    /// Checks that the row of a guard is at its version.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub(super) fn check(&self, state: &State, guard: &StagedWrite) -> Result<()> {
        let key = Key::new(vec![guard.key.clone()]);
        self.expected(state, guard, &key).map(drop)
    }

    /// The row, at the version that the write expects.
    fn expected<'a>(&'a self, state: &'a State, write: &StagedWrite, key: &Key) -> Result<&'a Row> {
        let table = write.table.name();
        let current = self
            .row(state, table, key)
            .filter(|row| is_visible(write, row.values()))
            .ok_or_else(|| write.not_found())?;
        let found = version(write.table, current.values());
        if found == write.expected_version {
            return Ok(current);
        }
        let own = self.rows.get(table);
        Err(match own.is_some_and(|rows| rows.contains_key(key)) {
            true => write.saved_before(),
            false => write.conflict(found),
        })
    }
}

fn is_visible(write: &StagedWrite, row: &[Value]) -> bool {
    is_alive(write.table, row)
        && tenant(write.table, row) == write.tenant.as_ref().map(crate::context::TenantId::as_str)
}

/// Whether a row is not marked as deleted.
pub(super) fn is_alive(table: &Table, row: &[Value]) -> bool {
    table
        .index_of(ColumnRole::DeletedAt)
        .is_none_or(|index| row[index].is_null())
}

/// The tenant that owns a row.
pub(super) fn tenant<'r>(table: &Table, row: &'r [Value]) -> Option<&'r str> {
    match &row[table.index_of(ColumnRole::Tenant)?] {
        Value::Text(tenant) => Some(tenant),
        _ => None,
    }
}

/// The version of the aggregate in a row.
pub(super) fn version(table: &Table, row: &[Value]) -> u64 {
    match table.index_of(ColumnRole::Version).map(|index| &row[index]) {
        Some(Value::Int(version)) => u64::try_from(*version).unwrap_or(0),
        _ => 0,
    }
}

enum Change {
    Nothing,
    Replace(Vec<Value>),
    Delete,
}

fn change(write: &StagedWrite, current: &[Value]) -> Change {
    match write.operation {
        Operation::UpdateIfChanged if is_unchanged(write, current) => Change::Nothing,
        Operation::Remove if !write.table.is_soft_delete() => Change::Delete,
        Operation::Remove => Change::Replace(merge(write, current, |column| {
            matches!(column.role(), ColumnRole::Data)
        })),
        _ => Change::Replace(merge(write, current, |_| false)),
    }
}

/// The row after the write: stored values where the column is kept, else those of the write.
fn merge(write: &StagedWrite, current: &[Value], keeps: impl Fn(&Column) -> bool) -> Vec<Value> {
    write
        .table
        .columns()
        .iter()
        .zip(current.iter().zip(&write.row))
        .map(|(column, (stored, new))| {
            let given = column.is_written() || column.is_generated();
            if StagedWrite::keeps(column.role()) || keeps(column) || !given {
                stored.clone()
            } else {
                new.clone()
            }
        })
        .collect()
}

fn is_unchanged(write: &StagedWrite, current: &[Value]) -> bool {
    let start = write.table.framework_columns().len();
    let columns = write.table.own_columns().iter();
    columns
        .zip(current[start..].iter().zip(&write.row[start..]))
        .filter(|(column, _)| column.is_written())
        .all(|(_, (stored, new))| is_same(stored, new))
}

/// The rows of all children after the write.
fn children(write: &StagedWrite, current: &ValueRow) -> Vec<Vec<ValueRow>> {
    let tables = write.table.children().iter().enumerate();
    tables
        .map(|(index, table)| {
            let stored = current.children(index);
            let mut changes = write.children.iter();
            match changes.find(|write| std::ptr::eq(write.table, table)) {
                Some(write) => changed_children(write, stored),
                None => stored.to_vec(),
            }
        })
        .collect()
}

fn changed_children(write: &ChildWrite, stored: &[ValueRow]) -> Vec<ValueRow> {
    let table = write.table;
    let keyed = |row: &Vec<Value>| (primary_key(table, row), ValueRow::new(row.clone()));
    let mut rows: BTreeMap<Key, ValueRow> = stored
        .iter()
        .map(|row| (primary_key(table, row.values()), row.clone()))
        .collect();
    for row in &write.removed {
        rows.remove(&primary_key(table, row));
    }
    for (key, mut row) in write.changed.iter().map(keyed) {
        if let Some(stored) = rows.get(&key) {
            keep_what_is_read_only(table, stored.values(), row.values_mut());
        }
        rows.insert(key, row);
    }
    rows.extend(write.added.iter().map(keyed));
    let mut rows: Vec<ValueRow> = rows.into_values().collect();
    let order = table.index_of(ColumnRole::Order);
    rows.sort_by_key(|row| match order.map(|index| &row.values()[index]) {
        Some(Value::Int(place)) => *place,
        _ => 0,
    });
    rows
}

fn keep_what_is_read_only(table: &Table, stored: &[Value], row: &mut [Value]) {
    for (column, (stored, new)) in table.columns().iter().zip(stored.iter().zip(row)) {
        if !column.is_written() && !column.is_generated() {
            new.clone_from(stored);
        }
    }
}

/// JSON is compared by its meaning: its text may list the same keys in another order.
pub(super) fn is_same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Json(a), Value::Json(b)) => a == b || parsed(a) == parsed(b),
        _ => a == b,
    }
}

fn parsed(json: &str) -> Option<serde_json::Value> {
    serde_json::from_str(json).ok()
}
