//! The order of a commit of several aggregates: which writes are one statement, and which rows,
//! written or guarded, are locked before.
//!
//! Units of work that meet on the same rows must lock them in the same order, or they deadlock.
//! That order is by table, and by id within one. A statement locks its rows in the order of their
//! ids; where the statements are not in the order of their tables, or two of them change rows of
//! one, the rows are locked by statements of their own first.

use cqrs_core::staging::{Operation, StagedWrite};

use super::sql::Strength;

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

/// Rows of one table that are locked at once, in this order.
pub(super) struct Locked<'w> {
    pub(super) writes: Vec<&'w StagedWrite>,
    pub(super) strength: Strength,
}

/// The rows that are locked before the statements of the groups: those of guards, and those of
/// writes unless their statements lock in the order of all.
pub(super) fn locked_first<'w>(
    groups: &[Vec<&'w StagedWrite>],
    guards: &[&'w StagedWrite],
) -> Vec<Locked<'w>> {
    let locking: Vec<&Vec<&StagedWrite>> = groups
        .iter()
        .filter(|group| group[0].operation != Operation::Insert)
        .collect();
    let names = || locking.iter().map(|group| group[0].table.name());
    if guards.is_empty() && names().is_sorted_by(|a, b| a < b) {
        return Vec::new();
    }
    let guarded = || guards.iter().map(|guard| guard.table.name());
    let mut tables: Vec<&str> = names().chain(guarded()).collect();
    tables.sort_unstable();
    tables.dedup();
    // What comes last may as well be locked by its only statement.
    if let Some(last) = tables.last()
        && names().filter(|name| name == last).count() == 1
        && !guarded().any(|name| name == *last)
    {
        tables.pop();
    }
    let rows = |table| {
        let written = locking.iter().flat_map(|group| group.iter());
        let mut writes: Vec<&StagedWrite> = written
            .chain(guards)
            .copied()
            .filter(|write| write.table.name() == table)
            .collect();
        sort_by_id(&mut writes);
        let strength = writes.iter().map(|write| strength(write)).max();
        Locked {
            writes,
            strength: strength.unwrap_or(Strength::Guard),
        }
    };
    tables.into_iter().map(rows).collect()
}

/// Whether the row is only guarded.
pub(super) fn is_guard(write: &StagedWrite) -> bool {
    write.events.is_empty()
}

fn strength(write: &StagedWrite) -> Strength {
    if is_guard(write) {
        Strength::Guard
    } else if deletes(write) {
        Strength::Delete
    } else {
        Strength::Change
    }
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

    use chrono::DateTime;
    use cqrs_core::ContentHash;
    use cqrs_core::mapping::{Table, Value};
    use cqrs_core::staging::NewEvent;
    use uuid::Uuid;

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
            events: vec![event()],
            snapshot: None,
        }
    }

    fn guard(table: &'static Table, id: &str) -> StagedWrite {
        StagedWrite {
            events: Vec::new(),
            ..write(table, Update, id)
        }
    }

    fn event() -> NewEvent {
        NewEvent {
            event_id: Uuid::nil(),
            aggregate_version: 2,
            event_type: "a.changed",
            schema_version: 1,
            payload: String::new(),
            content_hash: ContentHash::of(""),
            schema_id: None,
            occurred_at: DateTime::UNIX_EPOCH,
        }
    }

    fn locked(writes: &[StagedWrite], guards: &[StagedWrite]) -> Vec<String> {
        let guards: Vec<&StagedWrite> = guards.iter().collect();
        let locked = locked_first(&of(writes), &guards);
        let text = |rows: &Locked<'_>| {
            let ids = ids(std::slice::from_ref(&rows.writes)).concat();
            match rows.strength {
                Strength::Change => ids,
                other => format!("{ids}: {other:?}"),
            }
        };
        locked.iter().map(text).collect()
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
            assert!(locked_first(&groups, &[]).is_empty(), "{:?}", ids(&groups));
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
        assert_eq!(locked(&writes, &[]), ["a1 a2"]);
        let writes = [
            write(&A, Update, "1"),
            write(&B, Remove, "2"),
            write(&B, Update, "1"),
        ];
        assert_eq!(locked(&writes, &[]), ["a1", "b1 b2: Delete"]);
    }

    #[test]
    fn a_removal_out_of_order_locks_what_comes_before() {
        let writes = [write(&B, Remove, "1"), write(&A, Update, "1")];
        assert_eq!(ids(&of(&writes)), ["b1", "a1"]);
        assert_eq!(locked(&writes, &[]), ["a1"]);
    }

    #[test]
    fn what_is_guarded_is_locked_in_the_same_order() {
        let (a, b) = ([guard(&A, "1")], [guard(&B, "1")]);
        assert_eq!(
            locked(&[], &[guard(&B, "1"), guard(&A, "1")]),
            ["a1: Guard", "b1: Guard"]
        );
        // Two that cross.
        let crossing = [
            locked(&[write(&B, Update, "1")], &a),
            locked(&[write(&A, Update, "1")], &b),
        ];
        assert_eq!(crossing, [vec!["a1: Guard"], vec!["a1", "b1: Guard"]]);
        // Of one table.
        assert_eq!(locked(&[write(&A, Update, "2")], &a), ["a1 a2"]);
        assert_eq!(locked(&[write(&A, Remove, "0")], &a), ["a0 a1: Delete"]);
        assert_eq!(locked(&[write(&A, Insert, "0")], &a), ["a1: Guard"]);
    }
}
