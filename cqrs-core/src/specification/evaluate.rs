//! Evaluation in memory.

use std::cmp::Ordering;

use super::{Comparison, Direction, Predicate, Query, SortKey, Specification};
use crate::mapping::{ColumnRole, Entity, MappingError, Table, Value};

impl<T: Entity> Specification<T> {
    /// Whether it is true for this value, by the same mapping that stores it.
    ///
    /// # Errors
    ///
    /// [`MappingError`] where the value, or one in the specification, cannot be stored.
    pub fn is_satisfied_by(&self, value: &T) -> Result<bool, MappingError> {
        let mut row = value.framework_row();
        row.extend(value.to_row()?);
        Ok(self.predicate().evaluate(T::table(), &row)? == Some(true))
    }
}

impl Predicate {
    /// The truth of the condition for a row of `table`; `None` is unknown.
    ///
    /// # Errors
    ///
    /// [`MappingError`] where a value of the condition cannot be stored.
    pub fn evaluate(&self, table: &Table, row: &[Value]) -> Result<Option<bool>, MappingError> {
        Ok(match self {
            Self::All => Some(true),
            Self::Compare {
                column,
                comparison,
                value,
                ..
            } => value_of(table, row, column)
                .compare(value)
                .map(|ordering| comparison.holds(ordering)),
            Self::IsNull { column } => Some(value_of(table, row, column).is_null()),
            Self::And(a, b) => match (a.evaluate(table, row)?, b.evaluate(table, row)?) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            Self::Or(a, b) => match (a.evaluate(table, row)?, b.evaluate(table, row)?) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
            Self::Not(a) => a.evaluate(table, row)?.map(|truth| !truth),
            Self::Invalid { column, reason } => {
                return Err(MappingError {
                    table: table.name().to_owned(),
                    column: (*column).to_owned(),
                    reason: reason.clone(),
                });
            }
        })
    }
}

impl Comparison {
    fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Eq => ordering.is_eq(),
            Self::Ne => ordering.is_ne(),
            Self::Lt => ordering.is_lt(),
            Self::Le => ordering.is_le(),
            Self::Gt => ordering.is_gt(),
            Self::Ge => ordering.is_ge(),
        }
    }
}

fn value_of<'r>(table: &Table, row: &'r [Value], column: &str) -> &'r Value {
    table
        .index_of_name(column)
        .and_then(|index| row.get(index))
        .unwrap_or(&Value::Null)
}

impl<T: Entity> Query<T> {
    /// The order of two rows of `T`'s table: by the query's keys, then by the key of the table and
    /// the tenant.
    #[must_use]
    pub fn compare_rows(&self, a: &[Value], b: &[Value]) -> Ordering {
        self.sort_keys(true)
            .iter()
            .map(|key| key.compare(&a[key.index], &b[key.index]))
            .find(|ordering| ordering.is_ne())
            .unwrap_or(Ordering::Equal)
    }

    /// The columns that its rows are ordered by: those of its [order](Self::order), then those of
    /// the key, and across tenants the tenant. No two rows are equal in all of them.
    #[must_use]
    pub fn sort_keys(&self, across_tenants: bool) -> Vec<SortKey> {
        let table = T::table();
        let given = self.order().iter().filter_map(|order| {
            Some(SortKey {
                index: table.index_of_name(order.column())?,
                direction: order.direction(),
            })
        });
        let tenant = table.index_of(ColumnRole::Tenant);
        let unique = table
            .key_columns()
            .filter_map(|column| table.index_of_name(column.name()))
            .chain(tenant.filter(|_| across_tenants))
            .map(|index| SortKey {
                index,
                direction: Direction::Ascending,
            });
        let mut keys: Vec<SortKey> = Vec::new();
        for key in given.chain(unique) {
            // Rows that are equal in a column once are equal in it again.
            if keys.iter().all(|earlier| earlier.index != key.index) {
                keys.push(key);
            }
        }
        keys
    }
}

pub(super) fn null_last(a: &Value, b: &Value) -> Ordering {
    match (a.is_null(), b.is_null()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => a.compare(b).unwrap_or(Ordering::Equal),
    }
}
