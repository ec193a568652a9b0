//! The rules between the columns of one table.

use super::{Kind, MappedField};
use crate::errors::Errors;

/// Reports columns with one name. Those of flattened value objects are not known here; the table
/// looks at them when it is built.
pub(crate) fn check_columns(fields: &[MappedField], errors: &mut Errors) {
    let mut seen: Vec<String> = Vec::new();
    for field in fields {
        let Some((column, span)) = field.column() else {
            continue;
        };
        if seen.contains(&column) {
            errors.push(syn::Error::new(
                span,
                format!("a second column named {column:?}: rename one with `#[mapper(column = \"...\")]`"),
            ));
        }
        seen.push(column);
    }
    check_tables(fields, errors);
}

/// Reports children where there is no aggregate that they belong to.
pub(crate) fn refuse_children(fields: &[MappedField], errors: &mut Errors) {
    for field in fields {
        if let Kind::Children(children) = &field.kind {
            errors.report(
                &children.table,
                "only an aggregate has children: store them in one column with `#[mapper(json)]`, or make them children of the aggregate itself",
            );
        }
    }
}

/// Reports tables of children with one name.
fn check_tables(fields: &[MappedField], errors: &mut Errors) {
    let mut seen: Vec<String> = Vec::new();
    for field in fields {
        let Kind::Children(children) = &field.kind else {
            continue;
        };
        let table = children.table.value();
        if seen.contains(&table) {
            errors.report(
                &children.table,
                format!(
                    "a second table of children named {table:?}: give each field a table of its own"
                ),
            );
        }
        seen.push(table);
    }
}
