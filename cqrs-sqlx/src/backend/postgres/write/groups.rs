//! The order of a commit of several aggregates: which writes are one statement, and which rows are
//! locked before.
//!
//! Units of work that meet on the same rows must lock them in the same order, or they deadlock.
//! That order is by table, and by id within one. A statement locks its rows in the order of their
//! ids; where the statements are not in the order of their tables, or two of them change rows of
//! one, the rows are locked by statements of their own first.

use cqrs_core::staging::{Operation, StagedWrite};

/// The writes of each table and operation, each in the order of their ids. Event-sourced aggregates
/// have no rows.
///
/// Groups are in the order in which the first of each was staged, since rows that are added or
/// removed may depend on others, by a foreign key say. Those that replace rows do not, and are put
/// into the order of their tables, in the places that they have.
pub(super) fn of(writes: &[StagedWrite]) -> Vec<Vec<&StagedWrite>> {
    let mut groups: Vec<Vec<&StagedWrite>> = Vec::new();
    for write in writes.iter().filter(|write| !write.is_sourced()) {
        let group = groups.iter_mut().find(|group| {
            std::ptr::eq(group[0].table, write.table) && group[0].operation == write.operation
        });
        match group {
            Some(group) => group.push(write),
            None => groups.push(vec![write]),
        }
    }
    for group in &mut groups {
        sort_by_id(group);
    }
    let places: Vec<usize> = (0..groups.len())
        .filter(|index| replaces(groups[*index][0]))
        .collect();
    let mut replacing: Vec<Vec<&StagedWrite>> = places
        .iter()
        .map(|index| std::mem::take(&mut groups[*index]))
        .collect();
    replacing.sort_by_key(|group| group[0].table.name());
    for (index, group) in places.into_iter().zip(replacing) {
        groups[index] = group;
    }
    groups
}

/// The writes whose rows are locked before the statements of the groups, by table: none where the
/// statements themselves lock in that order.
pub(super) fn locked_first<'w>(groups: &[Vec<&'w StagedWrite>]) -> Vec<Vec<&'w StagedWrite>> {
    let locking: Vec<&Vec<&StagedWrite>> = groups
        .iter()
        .filter(|group| group[0].operation != Operation::Insert)
        .collect();
    let names = || locking.iter().map(|group| group[0].table.name());
    if names().is_sorted_by(|a, b| a < b) {
        return Vec::new();
    }
    let mut tables: Vec<&str> = names().collect();
    tables.sort_unstable();
    tables.dedup();
    // What comes last may as well be locked by its only statement.
    if let Some(last) = tables.last()
        && names().filter(|name| name == last).count() == 1
    {
        tables.pop();
    }
    let rows = |table| {
        let groups = locking
            .iter()
            .filter(|group| group[0].table.name() == table);
        let mut rows: Vec<&StagedWrite> = groups.flat_map(|group| group.iter().copied()).collect();
        sort_by_id(&mut rows);
        rows
    };
    tables.into_iter().map(rows).collect()
}

/// Whether the row is deleted, not only marked as deleted.
pub(super) fn deletes(write: &StagedWrite) -> bool {
    write.operation == Operation::Remove && !write.table.is_soft_delete()
}

fn replaces(write: &StagedWrite) -> bool {
    matches!(
        write.operation,
        Operation::Update | Operation::UpdateIfChanged
    )
}

fn sort_by_id(writes: &mut [&StagedWrite]) {
    writes.sort_by(|a, b| a.aggregate_id.cmp(&b.aggregate_id));
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use cqrs_core::mapping::{Table, Value};

    use super::*;

    static A: LazyLock<Table> =
        LazyLock::new(|| Table::builder("a").version().key::<i64>("id").build());
    static B: LazyLock<Table> =
        LazyLock::new(|| Table::builder("b").version().key::<i64>("id").build());

    use Operation::{Insert, Remove, Update, UpdateIfChanged};

    fn write(table: &'static Table, operation: Operation, id: &str) -> StagedWrite {
        StagedWrite {
            aggregate_type: table.name(),
            aggregate_id: id.to_owned(),
            table,
            operation,
            key: Value::Null,
            tenant: None,
            expected_version: 1,
            new_version: 2,
            row: Vec::new(),
            children: Vec::new(),
            events: Vec::new(),
            snapshot: None,
        }
    }

    fn ids(groups: &[Vec<&StagedWrite>]) -> Vec<String> {
        let text = |write: &&StagedWrite| format!("{}{}", write.aggregate_type, write.aggregate_id);
        groups
            .iter()
            .map(|group| group.iter().map(text).collect::<Vec<_>>().join(" "))
            .collect()
    }

    #[test]
    fn the_common_cases_lock_nothing_first() {
        for writes in [
            vec![write(&A, Update, "2"), write(&A, Update, "1")],
            vec![write(&B, Update, "1"), write(&A, UpdateIfChanged, "1")],
            vec![write(&B, Insert, "1"), write(&A, Update, "1")],
            vec![write(&A, Update, "1"), write(&B, Remove, "1")],
            vec![write(&A, Insert, "1"), write(&A, Update, "2")],
        ] {
            let groups = of(&writes);
            assert!(locked_first(&groups).is_empty(), "{:?}", ids(&groups));
        }
    }

    #[test]
    fn replaced_rows_come_in_the_order_of_their_tables() {
        let writes = [
            write(&B, Update, "2"),
            write(&B, Insert, "9"),
            write(&A, Update, "3"),
            write(&B, Update, "1"),
        ];
        assert_eq!(ids(&of(&writes)), ["a3", "b9", "b1 b2"]);
    }

    #[test]
    fn several_operations_on_a_table_lock_its_rows_first() {
        let writes = [
            write(&A, Update, "2"),
            write(&A, UpdateIfChanged, "1"),
            write(&A, Insert, "0"),
            write(&B, Update, "1"),
        ];
        assert_eq!(ids(&locked_first(&of(&writes))), ["a1 a2"]);
        let writes = [
            write(&A, Update, "1"),
            write(&B, Remove, "2"),
            write(&B, Update, "1"),
        ];
        assert_eq!(ids(&locked_first(&of(&writes))), ["a1", "b1 b2"]);
    }

    #[test]
    fn a_removal_out_of_order_locks_what_comes_before() {
        let writes = [write(&B, Remove, "1"), write(&A, Update, "1")];
        assert_eq!(ids(&of(&writes)), ["b1", "a1"]);
        assert_eq!(ids(&locked_first(&of(&writes))), ["a1"]);
    }
}
