//! The statements that write aggregates, one text for each table and shape.

use cqrs_core::mapping::{Column, ColumnRole, Table};
use cqrs_core::staging::Operation;

use super::guard::{self, Guard};
use super::history;
use crate::backend::postgres::bind;
use crate::backend::postgres::events::{self, ORIGIN, STREAM};
use crate::backend::{Returned, version_column, written_columns};
use crate::log::EVENT_COLUMNS;
use crate::statements::{list, quoted};
use crate::tenancy::TenantSite;

pub(super) fn shape_of_one(
    operation: Operation,
    several_events: bool,
    returned: Returned,
) -> &'static str {
    use Operation::{Insert, Remove, Update, UpdateIfChanged};
    match (returned, operation, several_events) {
        (Returned::Positions, Insert, false) => "insert one, one event",
        (Returned::Positions, Insert, true) => "insert one, events",
        (Returned::Positions, Update, false) => "update one, one event",
        (Returned::Positions, Update, true) => "update one, events",
        (Returned::Positions, UpdateIfChanged, _) => "update one if changed",
        (Returned::Positions, Remove, false) => "remove one, one event",
        (Returned::Positions, Remove, true) => "remove one, events",
        (Returned::Events, Insert, false) => "insert one, one event, returned",
        (Returned::Events, Insert, true) => "insert one, events, returned",
        (Returned::Events, Update, false) => "update one, one event, returned",
        (Returned::Events, Update, true) => "update one, events, returned",
        (Returned::Events, UpdateIfChanged, _) => "update one if changed, returned",
        (Returned::Events, Remove, false) => "remove one, one event, returned",
        (Returned::Events, Remove, true) => "remove one, events, returned",
    }
}

pub(super) fn shape_of_together(operation: Operation) -> &'static str {
    match operation {
        Operation::Insert => "insert together",
        Operation::Update => "update together",
        Operation::UpdateIfChanged => "update together if changed",
        Operation::Remove => "remove together",
    }
}

pub(super) fn shape_of_many(operation: Operation, several_rows: bool) -> &'static str {
    match (operation, several_rows) {
        (Operation::Insert, _) => "insert many",
        (Operation::Update, false) => "update one of many",
        (Operation::Update, true) => "update many",
        (Operation::UpdateIfChanged, false) => "update one of many if changed",
        (Operation::UpdateIfChanged, true) => "update many if changed",
        (Operation::Remove, false) => "remove one of many",
        (Operation::Remove, true) => "remove many",
    }
}

pub(super) fn one(
    table: &'static Table,
    operation: Operation,
    several_events: bool,
    returned: Returned,
) -> String {
    let returning = match returned {
        Returned::Positions => "position",
        Returned::Events => EVENT_COLUMNS,
    };
    let columns: Vec<_> = written_columns(table, operation).collect();
    let name = quoted(table.name());
    let value = |position: usize, column: &Column| {
        format!("${}{}", position + 1, bind::cast(column.column_type()))
    };
    let written = columns.len();
    let left = match table.keeps_history() {
        true => history::image(table),
        false => "1".to_owned(),
    };
    let (change, bound) = if operation == Operation::Insert {
        let names = list(columns.iter().map(|(_, column)| quoted(column.name())));
        let values = list(
            columns
                .iter()
                .enumerate()
                .map(|(at, (_, column))| value(at, column)),
        );
        let insert =
            format!("INSERT INTO {name} AS t ({names}) VALUES ({values}) RETURNING {left}");
        (insert, written)
    } else {
        let guard = guard::sql(TenantSite::GuardOne, table, Guard::Versioned, |offset| {
            format!("${}", written + 1 + offset)
        });
        let set =
            list(columns.iter().enumerate().map(|(at, (_, column))| {
                format!("{} = {}", quoted(column.name()), value(at, column))
            }));
        let change = match operation {
            Operation::Remove if columns.is_empty() => {
                format!("DELETE FROM {name} AS t WHERE {guard} RETURNING {left}")
            }
            Operation::UpdateIfChanged => {
                let differs = differs(
                    columns
                        .iter()
                        .enumerate()
                        .filter(|(_, (_, column))| column.role() == ColumnRole::Data)
                        .map(|(at, (_, column))| (*column, value(at, column))),
                );
                format!("UPDATE {name} AS t SET {set} WHERE {guard} AND {differs} RETURNING {left}")
            }
            _ => format!("UPDATE {name} AS t SET {set} WHERE {guard} RETURNING {left}"),
        };
        (change, written + guard::length(table, Guard::Versioned))
    };

    let scalars = ORIGIN + STREAM;
    let origin = placeholders(bound + 1, scalars);
    let first = bound + scalars + 1;
    let log = events::COLUMNS;
    let kept = match table.keeps_history() {
        true => {
            let correlation_and_actor = (format!("${}", bound + 1), format!("${}", bound + 3));
            let stream = placeholders(bound + ORIGIN + 1, STREAM);
            let first = first + events::EVENT;
            history::one(operation.into(), correlation_and_actor, &stream, first)
        }
        false => String::new(),
    };
    if several_events {
        format!(
            "WITH changed AS ({change}){kept} INSERT INTO cqrs_event ({log}) SELECT {origin}, \
             e.event_id, e.aggregate_version, e.event_type, e.schema_version, e.payload::json, \
             e.content_hash, e.occurred_at, e.schema_id FROM changed, {} ORDER BY e.ordinality \
             RETURNING {returning}",
            events::unnested(first, false),
        )
    } else {
        let event = placeholders(first, 4);
        format!(
            "WITH changed AS ({change}){kept} INSERT INTO cqrs_event ({log}) SELECT {origin}, {event}, \
             ${}::json, ${}, ${}, ${} FROM changed RETURNING {returning}",
            first + 4,
            first + 5,
            first + 6,
            first + 7,
        )
    }
}

/// How the rows that a statement changes are locked before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Locked {
    /// They are not: there is one.
    ByTheChange,
    /// In the order in which they are bound. That in which an `UPDATE` reads its rows is the
    /// planner's.
    InOrder,
    /// Those that nobody else has locked; the others are left out.
    WhereFree,
}

pub(super) fn many(table: &'static Table, operation: Operation, several_rows: bool) -> String {
    let locked = if several_rows {
        Locked::InOrder
    } else {
        Locked::ByTheChange
    };
    change(table, operation, locked)
}

/// Writes of one table and operation, each with its own events, for as many callers. A row that was
/// changed meanwhile, or is locked by others, is left out with its events; of new rows all are
/// added, or the statement fails.
pub(super) fn together(table: &'static Table, operation: Operation) -> String {
    let change = change(table, operation, Locked::WhereFree);
    let written = written_columns(table, operation).count();
    let (change, bound, from) = if operation == Operation::Insert {
        // A trigger may leave a row out, which must not leave its events.
        let added = "(SELECT count(*) FROM changed) = cardinality($1)";
        (
            format!("{change} RETURNING 1"),
            written,
            format!("WHERE 1 / ({added})::int = 1"),
        )
    } else {
        (
            change,
            written + guard::length(table, Guard::Versioned),
            "JOIN changed ON changed.ordinality = e.write".to_owned(),
        )
    };
    format!(
        "WITH changed AS ({change}) INSERT INTO cqrs_event ({}) SELECT {} FROM {} {from} \
         ORDER BY e.ordinality RETURNING position, event_id",
        events::COLUMNS,
        events::of_callers(),
        events::unnested_of_callers(bound + 1),
    )
}

fn change(table: &'static Table, operation: Operation, locked: Locked) -> String {
    let columns: Vec<_> = written_columns(table, operation).collect();
    let name = quoted(table.name());
    let arrays = columns.iter().enumerate().map(|(at, (_, column))| {
        format!("${}::{}", at + 1, bind::array_type(column.column_type()))
    });
    let value = |column: &Column| {
        format!(
            "g.{}{}",
            quoted(&format!("new_{}", column.name())),
            bind::cast(column.column_type())
        )
    };
    let new_names = columns
        .iter()
        .map(|(_, column)| quoted(&format!("new_{}", column.name())));
    if operation == Operation::Insert {
        let names = list(columns.iter().map(|(_, column)| quoted(column.name())));
        let values = list(columns.iter().map(|(_, column)| value(column)));
        return format!(
            "INSERT INTO {name} ({names}) SELECT {values} FROM unnest({}) AS g({})",
            list(arrays),
            list(new_names),
        );
    }
    let guards = guard::arrays(table, Guard::Versioned, columns.len() + 1);
    let mut source = format!(
        "unnest({}) WITH ORDINALITY AS g({}, ordinality)",
        list(arrays.chain(guards.iter().map(|(array, _)| array.clone()))),
        list(new_names.chain(guards.iter().map(|(_, name)| quoted(name)))),
    );
    let mut guard = guard::sql_of_arrays(TenantSite::GuardMany, table, Guard::Versioned);
    if operation == Operation::UpdateIfChanged {
        let differs = differs(
            columns
                .iter()
                .filter(|(_, column)| column.role() == ColumnRole::Data)
                .map(|(_, column)| (*column, value(column))),
        );
        guard = format!("{guard} AND {differs}");
    }
    let deletes = operation == Operation::Remove && columns.is_empty();
    if locked != Locked::ByTheChange {
        let strength = if deletes {
            Strength::Delete
        } else {
            Strength::Change
        };
        let lock = strength.clause();
        let skip = match locked {
            Locked::WhereFree => " SKIP LOCKED",
            _ => "",
        };
        source = format!(
            "(SELECT g.* FROM {name} AS t JOIN {source} ON {guard} \
             ORDER BY g.ordinality FOR {lock} OF t{skip}) AS g"
        );
    }
    if deletes {
        return format!(
            "DELETE FROM {name} AS t USING {source} WHERE {guard} RETURNING g.ordinality"
        );
    }
    let set = list(
        columns
            .iter()
            .map(|(_, column)| format!("{} = {}", quoted(column.name()), value(column))),
    );
    format!("UPDATE {name} AS t SET {set} FROM {source} WHERE {guard} RETURNING g.ordinality")
}

/// Against what rows are locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Strength {
    /// Against changes: they are only read.
    Guard,
    /// They are changed.
    Change,
    /// They are deleted.
    Delete,
}

impl Strength {
    pub(super) const fn shape(self) -> &'static str {
        match self {
            Self::Guard => "guard rows",
            Self::Change => "lock rows",
            Self::Delete => "lock rows to delete",
        }
    }

    const fn clause(self) -> &'static str {
        match self {
            Self::Guard => "SHARE",
            Self::Change => "NO KEY UPDATE",
            Self::Delete => "UPDATE",
        }
    }
}

/// Locks the rows that the guards in the first parameters let through, whatever their version, in
/// the order in which they are bound; the place of each, and its version.
pub(super) fn lock(table: &Table, strength: Strength) -> String {
    format!(
        "SELECT g.ordinality, t.{} FROM {} AS t JOIN {} ON {} ORDER BY g.ordinality FOR {} OF t",
        quoted(version_column(table)),
        quoted(table.name()),
        guard::unnested(table, Guard::AnyVersion),
        guard::sql_of_arrays(TenantSite::GuardLock, table, Guard::AnyVersion),
        strength.clause(),
    )
}

/// Whether any of these columns differs from its new value.
fn differs<'c>(columns: impl Iterator<Item = (&'c Column, String)>) -> String {
    let conditions: Vec<String> = columns
        .map(|(column, value)| format!("t.{} IS DISTINCT FROM {value}", quoted(column.name())))
        .collect();
    if conditions.is_empty() {
        "false".to_owned()
    } else {
        format!("({})", conditions.join(" OR "))
    }
}

pub(in crate::backend::postgres) fn placeholders(first: usize, count: usize) -> String {
    list((first..first + count).map(|index| format!("${index}")))
}
