//! What a save changes in the tables of an aggregate's children.

use std::collections::{BTreeMap, BTreeSet};

use super::Operation;
use crate::aggregate::{AggregateRoot, Root};
use crate::context::TenantId;
use crate::mapping::{
    Column, ColumnError, ColumnRole, Key, LoadedChild, MappingError, Table, Value,
};

/// The rows that a write changes in one table of children, each with the values of
/// [all columns](Table::columns).
///
/// They are the difference between the children as they were loaded and as they are saved, so they
/// hold as long as the version guard of the write does.
#[derive(Debug, Clone, PartialEq)]
pub struct ChildWrite {
    /// The table.
    pub table: &'static Table,
    /// Rows that were loaded and are gone.
    pub removed: Vec<Vec<Value>>,
    /// Rows that were loaded with other values, and the same primary key.
    pub changed: Vec<Vec<Value>>,
    /// Rows that were not loaded.
    pub added: Vec<Vec<Value>>,
}

/// What all children of an aggregate have in common.
pub(super) struct Family<'a> {
    pub(super) key: &'a Value,
    pub(super) tenant: Option<&'a TenantId>,
}

/// The changes of a write to the children of an aggregate; empty where there are none.
///
/// A removal that only marks the aggregate leaves its children: they are found through it alone.
pub(super) fn changes<A: AggregateRoot>(
    aggregate: &A,
    operation: Operation,
    family: &Family<'_>,
) -> Result<Vec<ChildWrite>, MappingError> {
    let table = A::table();
    let removes = operation == Operation::Remove;
    if table.children().is_empty() || removes && table.is_soft_delete() {
        return Ok(Vec::new());
    }
    let rows = match removes {
        true => vec![Vec::new(); table.children().len()],
        false => aggregate.child_rows()?,
    };
    let mut writes = Vec::new();
    for (index, (table, rows)) in table.children().iter().zip(rows).enumerate() {
        let loaded = loaded(aggregate.root(), index);
        let write = family.difference(table, loaded, rows)?;
        if !(write.removed.is_empty() && write.changed.is_empty() && write.added.is_empty()) {
            writes.push(write);
        }
    }
    Ok(writes)
}

/// A new aggregate has none in the store, whatever it was copied from.
fn loaded<E>(root: &Root<E>, index: usize) -> &[LoadedChild] {
    match root.version() {
        0 => &[],
        _ => root.loaded_children(index),
    }
}

impl Family<'_> {
    fn difference(
        &self,
        table: &'static Table,
        loaded: &[LoadedChild],
        rows: Vec<Vec<Value>>,
    ) -> Result<ChildWrite, MappingError> {
        let key = |row: &[Value]| primary_key(table, row);
        let places = places(table, loaded, rows.len())?;
        let mut stored: BTreeMap<Key, Vec<Value>> = loaded
            .iter()
            .map(|child| self.row(table, child.order, child.values.clone()))
            .map(|row| (key(&row), row))
            .collect();
        let mut write = ChildWrite {
            table,
            removed: Vec::new(),
            changed: Vec::new(),
            added: Vec::new(),
        };
        let mut seen = BTreeSet::new();
        for (place, own) in places.into_iter().zip(rows) {
            let row = self.row(table, place, own);
            let key = key(&row);
            match stored.remove(&key) {
                Some(old) if is_same(table, &old, &row) => {}
                Some(_) => write.changed.push(row),
                None => write.added.push(row),
            }
            if !seen.insert(key) {
                return Err(table.key_error(ColumnError::invalid(
                    "two children of one aggregate have the same key",
                )));
            }
        }
        write.removed.extend(stored.into_values());
        Ok(write)
    }

    /// A child's whole row.
    fn row(&self, table: &Table, place: i32, own: Vec<Value>) -> Vec<Value> {
        let framework = table.framework_columns().iter();
        let mut row: Vec<Value> = framework
            .map(|column| match column.role() {
                ColumnRole::Parent => self.key.clone(),
                ColumnRole::Order => Value::Int(place.into()),
                _ => self.tenant.map_or(Value::Null, |tenant| {
                    Value::Text(tenant.as_str().to_owned())
                }),
            })
            .collect();
        row.extend(own);
        row
    }
}

/// The places of `count` children: those that were loaded, then the next ones. So they are kept
/// where others numbered them, with gaps.
fn places(table: &Table, loaded: &[LoadedChild], count: usize) -> Result<Vec<i32>, MappingError> {
    let mut places: Vec<i32> = loaded.iter().map(|child| child.order).take(count).collect();
    while places.len() < count {
        let next = places.last().map_or(Some(0), |last| last.checked_add(1));
        places.push(next.ok_or_else(|| too_many(table))?);
    }
    Ok(places)
}

#[cold]
fn too_many(table: &Table) -> MappingError {
    let order = table.column_with(ColumnRole::Order).map(Column::name);
    MappingError {
        table: table.name().to_owned(),
        column: order.unwrap_or_default().to_owned(),
        reason: ColumnError::invalid("there is no place after the last one"),
    }
}

/// The values of the primary key in a child's row.
pub(crate) fn primary_key(table: &Table, row: &[Value]) -> Key {
    let index = |column: &Column| table.index_of_name(column.name());
    let values = table.primary_key().filter_map(index);
    Key::new(values.map(|index| row[index].clone()).collect())
}

/// Whether everything that is written is the same.
fn is_same(table: &Table, a: &[Value], b: &[Value]) -> bool {
    let columns = table.columns().iter().zip(a.iter().zip(b));
    columns
        .filter(|(column, _)| column.is_written())
        .all(|(_, (a, b))| a == b)
}
