//! The SQL of a store: built once per table and shape from the table's description, then reused,
//! so that the database prepares each statement once per connection.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use cqrs_core::mapping::{Column, Table};

/// The statements built so far.
///
/// Nothing that a caller passes at run time ever becomes part of a statement: the texts are built
/// from the literals in this crate and from [`Table`]s, whose names the derives restrict to plain
/// identifiers.
#[derive(Debug, Default)]
pub(crate) struct Statements {
    texts: RwLock<HashMap<(usize, &'static str), Arc<str>>>,
}

impl Statements {
    /// The statement of this shape for a table.
    pub(crate) fn get(
        &self,
        table: &'static Table,
        shape: &'static str,
        build: impl FnOnce() -> String,
    ) -> Arc<str> {
        let key = (std::ptr::from_ref(table) as usize, shape);
        if let Some(text) = self
            .texts
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
        {
            return Arc::clone(text);
        }
        let mut texts = self.texts.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(texts.entry(key).or_insert_with(|| build().into()))
    }
}

/// A name in double quotes, so that reserved words are names too.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A column together with its table.
///
/// Columns that are read are always written so: SQLite takes a name in double quotes that is no
/// column for a text, unless it stands after a table.
pub(crate) fn qualified(table: &Table, column: &str) -> String {
    format!("{}.{}", quoted(table.name()), quoted(column))
}

/// The names of columns, as a list.
pub(crate) fn names<'c>(columns: impl IntoIterator<Item = &'c Column>) -> String {
    list(columns.into_iter().map(|column| quoted(column.name())))
}

/// A list with commas.
pub(crate) fn list<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let mut text = String::new();
    for item in items {
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(item.as_ref());
    }
    text
}
