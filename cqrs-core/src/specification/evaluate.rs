//! Evaluation in memory.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::{Comparison, Direction, Operand, Order, Predicate, Query, SortKey, Specification};
use crate::mapping::{
    ColumnError, ColumnRole, ColumnType, Entity, MappingError, Table, Value, ValueRow,
};

impl<T: Entity> Specification<T> {
    /// Whether it is true for this value, by the same mapping that stores it.
    ///
    /// # Errors
    ///
    /// [`MappingError`] where the value, or one in the specification, cannot be stored.
    pub fn is_satisfied_by(&self, value: &T) -> Result<bool, MappingError> {
        let mut values = value.framework_row();
        values.extend(value.to_row()?);
        let tables = T::table().children().iter().zip(value.child_rows()?);
        let children = tables.map(|(table, rows)| {
            let row = |own| {
                let mut values = vec![Value::Null; table.framework_columns().len()];
                values.extend(own);
                ValueRow::new(values)
            };
            rows.into_iter().map(row).collect()
        });
        let row = ValueRow::with_children(values, children.collect());
        Ok(self.predicate().evaluate(T::table(), &row)? == Some(true))
    }
}

impl Predicate {
    /// The truth of the condition for a row of `table`; `None` is unknown.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check).
    pub fn evaluate(&self, table: &Table, row: &ValueRow) -> Result<Option<bool>, MappingError> {
        self.check(table)?;
        Ok(self.truth(table, row))
    }

    /// Refuses a condition of which a part is invalid, whether or not it matters for any row.
    ///
    /// # Errors
    ///
    /// [`MappingError`] where a value of the condition cannot be stored.
    pub fn check(&self, table: &Table) -> Result<(), MappingError> {
        match self {
            Self::And(terms) | Self::Or(terms) => {
                terms.iter().try_for_each(|term| term.check(table))
            }
            Self::Not(inner) => inner.check(table),
            Self::AnyChild {
                table: child,
                predicate,
            } => predicate.check(table.child(child).unwrap_or(table)),
            Self::Invalid { column, reason } => Err(MappingError {
                table: table.name().to_owned(),
                column: (*column).to_owned(),
                reason: reason.clone(),
            }),
            Self::All
            | Self::Compare { .. }
            | Self::In { .. }
            | Self::Text { .. }
            | Self::IsNull { .. } => Ok(()),
        }
    }

    /// The truth of a condition that was checked; `None` is unknown.
    pub(crate) fn truth(&self, table: &Table, row: &ValueRow) -> Option<bool> {
        match self {
            Self::All => Some(true),
            Self::Compare {
                operand,
                comparison,
                value,
            } => operand_value(table, row.values(), operand)
                .compare(value)
                .map(|ordering| comparison.holds(ordering)),
            Self::In { values, .. } if values.is_empty() => Some(false),
            Self::In { operand, values } => {
                let found = operand_value(table, row.values(), operand);
                let is_found = |value| found.compare(value).is_some_and(Ordering::is_eq);
                (!found.is_null()).then(|| values.iter().any(is_found))
            }
            Self::Text {
                operand,
                test,
                text,
            } => match &*operand_value(table, row.values(), operand) {
                Value::Text(found) => Some(test.holds(found, text)),
                _ => None,
            },
            Self::IsNull { operand } => Some(operand_value(table, row.values(), operand).is_null()),
            Self::And(terms) => all_are(true, terms, table, row),
            Self::Or(terms) => all_are(false, terms, table, row),
            Self::Not(inner) => inner.truth(table, row).map(|truth| !truth),
            Self::AnyChild {
                table: child,
                predicate,
            } => {
                let tables = table.children();
                let index = tables.iter().position(|table| table.name() == *child);
                Some(index.is_some_and(|index| {
                    let is_true = |row| predicate.truth(&tables[index], row) == Some(true);
                    row.children(index).iter().any(is_true)
                }))
            }
            Self::Invalid { .. } => None,
        }
    }
}

/// `truth` if all terms have it, the opposite if one has that, else unknown.
fn all_are(truth: bool, terms: &[Predicate], table: &Table, row: &ValueRow) -> Option<bool> {
    let mut all = Some(truth);
    for term in terms {
        match term.truth(table, row) {
            Some(found) if found == truth => {}
            None => all = None,
            opposite => return opposite,
        }
    }
    all
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

fn operand_value<'r>(table: &Table, row: &'r [Value], operand: &Operand) -> Cow<'r, Value> {
    let value = value_of(table, row, operand.column());
    match (operand.json(), value) {
        (None, value) => Cow::Borrowed(value),
        (Some(place), Value::Json(document)) => Cow::Owned(place.read(document)),
        (Some(_), _) => Cow::Owned(Value::Null),
    }
}

impl<T: Entity> Query<T> {
    /// Refuses a query whose condition is invalid, or whose order is by JSON documents, which
    /// databases sort differently.
    ///
    /// # Errors
    ///
    /// [`MappingError`] with the column.
    pub fn check(&self) -> Result<(), MappingError> {
        let table = T::table();
        self.specification().predicate().check(table)?;
        let is_json = |order: &&Order<T>| {
            table.columns().iter().any(|column| {
                column.name() == order.column() && column.column_type() == ColumnType::Json
            })
        };
        match self.order().iter().find(is_json) {
            Some(order) => Err(MappingError {
                table: table.name().to_owned(),
                column: order.column().to_owned(),
                reason: ColumnError::invalid("JSON documents have no order"),
            }),
            None => Ok(()),
        }
    }

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
