//! What differs between two images of an aggregate.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::Image;
use crate::mapping::{Column, ColumnRole, Table};

type Row = Map<String, Value>;

/// A field that differs between two revisions of an aggregate.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct FieldChange {
    /// Its column: `status`. For children the table, and which child it is of, by key or place:
    /// `route_stop[2].city`; without a column where a child was added or removed: `route_stop[2]`.
    pub path: String,
    /// What it was; `None` where it was not there.
    pub from: Option<Value>,
    /// What it is; `None` where it is not there.
    pub to: Option<Value>,
}

/// The fields of the user that differ, in the order of the table's columns, then those of the
/// children.
pub(super) fn difference(table: &Table, from: &Image, to: &Image) -> Vec<FieldChange> {
    let mut changes = Vec::new();
    let state = |image: &Image| row(&image.state);
    of_rows(table, "", &state(from), &state(to), &mut changes);
    let children = |image: &Image| image.children.as_deref().map(row).unwrap_or_default();
    let (from, to) = (children(from), children(to));
    for child in table.children() {
        of_children(child, rows(&from, child), rows(&to, child), &mut changes);
    }
    changes
}

fn row(json: &str) -> Row {
    match value(json) {
        Value::Object(row) => row,
        _ => Row::new(),
    }
}

/// JSON as a value; numbers that no [`Value`] holds, which a column of JSON may have, as text.
fn value(json: &str) -> Value {
    if let Ok(value) = serde_json::from_str(json) {
        return value;
    }
    if let Ok(object) = serde_json::from_str::<BTreeMap<String, &RawValue>>(json) {
        let fields = object.into_iter();
        return Value::Object(fields.map(|(key, raw)| (key, value(raw.get()))).collect());
    }
    match serde_json::from_str::<Vec<&RawValue>>(json) {
        Ok(items) => items.into_iter().map(|raw| value(raw.get())).collect(),
        Err(_) => Value::from(json),
    }
}

fn rows<'c>(children: &'c Row, table: &Table) -> Vec<(String, &'c Row)> {
    let rows = children.get(table.name()).and_then(Value::as_array);
    let rows = rows.into_iter().flatten().filter_map(Value::as_object);
    rows.map(|row| (name(table, row), row)).collect()
}

/// Which child a row is of, among its siblings.
fn name(table: &Table, row: &Row) -> String {
    let columns = table
        .primary_key()
        .filter(|column| column.role() != ColumnRole::Parent);
    let values = columns.map(|column| match row.get(column.name()) {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => String::new(),
    });
    values.collect::<Vec<_>>().join(", ")
}

fn of_children(
    table: &Table,
    from: Vec<(String, &Row)>,
    to: Vec<(String, &Row)>,
    changes: &mut Vec<FieldChange>,
) {
    let path = |name: &str| format!("{}[{name}]", table.name());
    for (name, old) in &from {
        match to.iter().find(|(other, _)| other == name) {
            Some((_, new)) => {
                let prefix = format!("{}.", path(name));
                of_rows(table, &prefix, old, new, changes);
            }
            None => changes.push(FieldChange {
                path: path(name),
                from: Some(Value::Object((*old).clone())),
                to: None,
            }),
        }
    }
    let added = to
        .into_iter()
        .filter(|(name, _)| !from.iter().any(|(other, _)| other == name));
    changes.extend(added.map(|(name, row)| FieldChange {
        path: path(&name),
        from: None,
        to: Some(Value::Object(row.clone())),
    }));
}

fn of_rows(table: &Table, prefix: &str, from: &Row, to: &Row, changes: &mut Vec<FieldChange>) {
    let known = table.columns().iter().map(Column::name);
    let is_known = |name: &str| table.index_of_name(name).is_some();
    // Columns that the table had once.
    let gone = from
        .keys()
        .chain(to.keys().filter(|name| !from.contains_key(*name)));
    let gone = gone.map(String::as_str).filter(|name| !is_known(name));
    let names = known.chain(gone).filter(|name| is_data(table, name));
    changes.extend(names.filter_map(|name| {
        let (old, new) = (from.get(name), to.get(name));
        (old != new).then(|| FieldChange {
            path: format!("{prefix}{name}"),
            from: old.cloned(),
            to: new.cloned(),
        })
    }));
}

/// Whether it is no column of the framework. The place of a child is the user's.
fn is_data(table: &Table, name: &str) -> bool {
    let columns = &mut table.framework_columns().iter();
    !columns.any(|column| column.name() == name && column.role() != ColumnRole::Order)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn image(state: Value) -> Image {
        Image {
            state: state.to_string(),
            children: None,
        }
    }

    #[test]
    fn the_columns_of_the_framework_are_left_out() {
        let table = Table::builder("plan")
            .version()
            .audit()
            .key::<i64>("id")
            .column::<i32>("priority")
            .build();
        let old = json!({"version": 1, "updated_by": "ann", "id": 7, "priority": 1});
        let new = json!({"version": 2, "updated_by": "cat", "id": 7, "priority": 2});
        let found = difference(&table, &image(old), &image(new));
        let expected = FieldChange {
            path: "priority".to_owned(),
            from: Some(json!(1)),
            to: Some(json!(2)),
        };
        assert_eq!(found, [expected]);
    }

    #[test]
    fn columns_come_and_go() {
        let table = Table::builder("plan")
            .key::<i64>("id")
            .column::<i32>("new")
            .build();
        let found = difference(
            &table,
            &image(json!({"id": 7, "old": "x"})),
            &image(json!({"id": 7, "new": 1})),
        );
        let paths: Vec<&str> = found.iter().map(|change| change.path.as_str()).collect();
        assert_eq!(paths, ["new", "old"]);
        assert_eq!((&found[0].from, &found[1].to), (&None, &None));
    }

    #[test]
    fn numbers_beyond_any_type_differ_alone() {
        let table = Table::builder("plan")
            .key::<i64>("id")
            .column::<i32>("priority")
            .column::<i32>("document")
            .build();
        let image = |document: &str| Image {
            state: format!(r#"{{"id": 7, "priority": 1, "document": {document}}}"#),
            children: None,
        };
        let found = difference(
            &table,
            &image(r#"{"a": [1e400]}"#),
            &image(r#"{"a": [2e400]}"#),
        );
        let expected = FieldChange {
            path: "document".to_owned(),
            from: Some(json!({"a": ["1e400"]})),
            to: Some(json!({"a": ["2e400"]})),
        };
        assert_eq!(found, [expected]);
    }
}
