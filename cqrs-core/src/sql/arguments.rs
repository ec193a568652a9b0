//! The arguments of a call of a finder.

use super::Statement;
use crate::error::Result;
use crate::mapping::{ColumnError, ColumnValue, MappingError, Value};

/// What is bound to one parameter.
#[derive(Debug, Clone, PartialEq)]
pub enum Argument {
    /// One value.
    One(Value),
    /// A list of values.
    List(Vec<Value>),
}

/// A statement with its arguments, in the order of its parameters.
#[derive(Debug)]
pub struct Arguments {
    statement: &'static Statement,
    arguments: Vec<Argument>,
}

impl Arguments {
    /// Begins with none.
    #[must_use]
    pub fn of(statement: &'static Statement) -> Self {
        Self {
            statement,
            arguments: Vec::with_capacity(statement.parameters.len()),
        }
    }

    /// Adds a value.
    ///
    /// # Errors
    ///
    /// [`Mapping`](crate::Error::Mapping) with the finder and the parameter, where no column can
    /// hold it.
    pub fn value<T: ColumnValue>(self, value: &T) -> Result<Self> {
        self.add(|| value.to_value().map(Argument::One))
    }

    /// Adds a text.
    ///
    /// # Errors
    ///
    /// As [`value`](Self::value).
    pub fn text(self, text: &str) -> Result<Self> {
        self.add(|| Value::Text(text.to_owned()).checked().map(Argument::One))
    }

    /// Adds bytes.
    ///
    /// # Errors
    ///
    /// None; it is one of several that have.
    pub fn bytes(self, bytes: &[u8]) -> Result<Self> {
        self.add(|| Ok(Argument::One(Value::Bytes(bytes.to_owned()))))
    }

    /// Adds a list.
    ///
    /// # Errors
    ///
    /// As [`value`](Self::value).
    pub fn list<T: ColumnValue>(self, list: &[T]) -> Result<Self> {
        self.add(|| {
            let values = list.iter().map(T::to_value);
            values.collect::<Result<_, _>>().map(Argument::List)
        })
    }

    fn add(mut self, argument: impl FnOnce() -> Result<Argument, ColumnError>) -> Result<Self> {
        match argument() {
            Ok(argument) => {
                self.arguments.push(argument);
                Ok(self)
            }
            Err(reason) => {
                let parameter = self.statement.parameters.get(self.arguments.len());
                Err(MappingError {
                    table: self.statement.to_string(),
                    column: parameter.map_or_else(String::new, |at| format!(":{}", at.name)),
                    reason,
                }
                .into())
            }
        }
    }

    /// The statement.
    #[must_use]
    pub fn statement(&self) -> &'static Statement {
        self.statement
    }

    /// The arguments.
    #[must_use]
    pub fn into_arguments(self) -> Vec<Argument> {
        self.arguments
    }
}
