//! The columns that a row of a statement is read from.

use crate::mapping::{Column, ColumnType, ColumnValue, Table};

/// The columns that a row of a statement is read from, and how they are found.
#[derive(Debug, Clone, PartialEq)]
pub struct Columns {
    columns: Vec<Column>,
    by_name: bool,
    /// The table of children, which one row does not have.
    children: Option<&'static str>,
}

impl Columns {
    /// Those of a table, found by their names, in any order and among others.
    #[must_use]
    pub fn of(table: &Table) -> Self {
        Self {
            columns: table.columns().to_vec(),
            by_name: true,
            children: table.children().first().map(Table::name),
        }
    }

    /// No columns, to which some are [added](Self::and) that are found by their places.
    #[must_use]
    pub const fn by_place() -> Self {
        Self {
            columns: Vec::new(),
            by_name: false,
            children: None,
        }
    }

    /// With one more column.
    #[must_use]
    pub fn and<T: ColumnValue>(mut self) -> Self {
        let name = (self.columns.len() + 1).to_string();
        self.columns.push(Column::unnamed::<T>(name));
        self
    }

    /// The columns, in the order in which they are read.
    #[must_use]
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Where each column is among those of a result, or what is wrong with them: a line for each.
    ///
    /// # Errors
    ///
    /// Where a column is missing or there twice, where there are more than are read by place, and
    /// where the rows have children, which no statement of the application reads.
    pub fn places(&self, names: &[&str]) -> Result<Vec<usize>, Vec<String>> {
        if let Some(children) = self.children {
            return Err(vec![format!(
                "the rows of {children} are not read: select the ids, and find the aggregates by them"
            )]);
        }
        if !self.by_name {
            let (expected, found) = (self.columns.len(), names.len());
            return match expected == found {
                true => Ok((0..expected).collect()),
                false => Err(vec![format!("expected {expected} columns, found {found}")]),
            };
        }
        let (mut places, mut wrong) = (Vec::with_capacity(self.columns.len()), Vec::new());
        for column in &self.columns {
            let name = column.name();
            let mut found = (0..names.len()).filter(|at| names[*at] == name);
            match (found.next(), found.next()) {
                (Some(place), None) => places.push(place),
                (None, _) => wrong.push(missing(name, column.column_type())),
                (Some(_), Some(_)) => {
                    wrong.push(format!("column {name}: expected one, found several"));
                }
            }
        }
        if wrong.is_empty() {
            Ok(places)
        } else {
            Err(wrong)
        }
    }
}

fn missing(name: &str, expected: ColumnType) -> String {
    format!("column {name}: expected {expected}, found no such column")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_name_or_by_place() {
        let table = Table::builder("t")
            .column::<i32>("a")
            .column::<String>("b")
            .build();
        let named = Columns::of(&table);
        assert_eq!(named.places(&["b", "x", "a"]), Ok(vec![2, 0]));
        let wrong = named.places(&["a", "x", "a"]).unwrap_err();
        assert_eq!(wrong.len(), 2, "{wrong:?}");
        assert_eq!(wrong[1], "column b: expected text, found no such column");
        let placed = Columns::by_place().and::<i64>().and::<Option<bool>>();
        assert_eq!(placed.places(&["?column?", "?column?"]), Ok(vec![0, 1]));
        assert_eq!(
            placed.places(&["n"]).unwrap_err(),
            ["expected 2 columns, found 1"]
        );
        assert!(placed.columns()[1].is_nullable());
    }
}
