//! What is bound to statements.

use cqrs_core::mapping::{ColumnType, Value};

/// What is bound to one place of a statement, with the type of its values, which NULL and an empty
/// list do not tell.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Parameter {
    /// One value.
    One(ColumnType, Value),
    /// One value, bound with the type of its column, where no text around it says that.
    Typed(ColumnType, Value),
    /// A list of values.
    List(ColumnType, Vec<Value>),
}

impl Parameter {
    pub(crate) fn new(column_type: ColumnType, value: Value) -> Self {
        Self::One(column_type, value)
    }

    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::new(ColumnType::Text, Value::Text(text.into()))
    }

    pub(crate) fn int(value: i64) -> Self {
        Self::new(ColumnType::Int64, Value::Int(value))
    }

    /// The values of rows of parameters, all of one form, as a list for each column.
    pub(crate) fn columns(rows: &[&[Self]]) -> Vec<Self> {
        let width = rows.first().map_or(0, |row| row.len());
        let column = |at: usize| {
            let values = rows.iter().filter_map(|row| match row.get(at)? {
                Self::One(_, value) | Self::Typed(_, value) => Some(value.clone()),
                Self::List(..) => None,
            });
            Self::List(rows[0][at].column_type(), values.collect())
        };
        (0..width).map(column).collect()
    }

    /// How many bytes of texts, documents and bytes there are in it.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::One(_, value) | Self::Typed(_, value) => size(value),
            Self::List(_, values) => values.iter().map(size).sum(),
        }
    }

    fn column_type(&self) -> ColumnType {
        match self {
            Self::One(of, _) | Self::Typed(of, _) | Self::List(of, _) => *of,
        }
    }
}

/// How many bytes of texts, documents and bytes a value has.
pub(crate) fn size(value: &Value) -> usize {
    match value {
        Value::Text(text) | Value::Json(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        _ => 0,
    }
}

/// The parameters of a statement, in the order of their numbers.
#[derive(Debug, Default)]
pub(crate) struct Parameters(pub(crate) Vec<Parameter>);

impl Parameters {
    /// Adds one and returns how the statement refers to it: `$1`.
    pub(crate) fn add(&mut self, parameter: Parameter) -> String {
        self.0.push(parameter);
        format!("${}", self.0.len())
    }
}
