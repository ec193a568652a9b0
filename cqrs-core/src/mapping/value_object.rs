//! Groups of columns: value objects, and row structs that stand apart from their aggregate.

use super::{
    ChildRows, ColumnError, ColumnValue, Columns, MappingError, RowCursor, RowSource, RowWriter,
    Table, TableBuilder, Value,
};

/// A value object of several columns, used with `#[mapper(flatten)]`.
///
/// Derive it with [`#[derive(ValueObject)]`](derive@crate::ValueObject) on a struct with named
/// fields.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be flattened into columns",
    label = "not a value object of several columns",
    note = "derive `ValueObject` for it, on a struct with named fields"
)]
pub trait ValueObject: Sized {
    /// The typed fields of its columns in the table of a `T`.
    type Fields<T>;

    /// How many columns it fills.
    const COLUMNS: usize;
    /// Whether the group as a whole may be absent.
    const NULLABLE: bool = false;

    /// The typed fields, of columns whose names begin with `prefix`.
    fn fields<T: Columns>(prefix: &str) -> Self::Fields<T>;

    /// Adds its columns to a table.
    fn describe(table: TableBuilder) -> TableBuilder;

    /// Writes its columns.
    ///
    /// # Errors
    ///
    /// Where no column can hold a value.
    fn write(&self, row: &mut RowWriter) -> Result<(), MappingError>;

    /// Reads its columns.
    ///
    /// # Errors
    ///
    /// Where a column does not fit.
    fn read<R: RowSource + ?Sized>(row: &mut RowCursor<'_, R>) -> Result<Self, MappingError>;
}

/// `None` is stored as NULL in every column of the group. A `Some` whose own columns are all NULL
/// would read back as `None` and is refused when written.
impl<V: ValueObject> ValueObject for Option<V> {
    type Fields<T> = V::Fields<T>;
    const COLUMNS: usize = V::COLUMNS;
    const NULLABLE: bool = true;

    fn fields<T: Columns>(prefix: &str) -> V::Fields<T> {
        V::fields(prefix)
    }

    fn describe(table: TableBuilder) -> TableBuilder {
        V::describe(table)
    }

    fn write(&self, row: &mut RowWriter) -> Result<(), MappingError> {
        match self {
            Some(value) => {
                let start = row.len();
                value.write(row)?;
                if row.is_null_since(start) {
                    return row.put_value(Err(ColumnError::invalid(
                        "a value object whose columns are all NULL cannot be told from None",
                    )));
                }
                Ok(())
            }
            None => {
                row.put_nulls(V::COLUMNS);
                Ok(())
            }
        }
    }

    fn read<R: RowSource + ?Sized>(row: &mut RowCursor<'_, R>) -> Result<Self, MappingError> {
        if row.skip_if_null(V::COLUMNS)? {
            return Ok(None);
        }
        V::read(row).map(Some)
    }
}

/// A struct whose fields are the columns of a table: the row struct of an aggregate whose table
/// differs from its shape. See [`RowMapper`](super::RowMapper).
///
/// Derive it with [`#[derive(Record)]`](derive@crate::Record).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a row struct",
    note = "write `#[derive(Record)]` on it"
)]
pub trait Record: Sized + Send + Sync + 'static {
    /// The key; the id of the aggregate.
    type Key: ColumnValue;
    /// The typed fields of a `T` that is stored in this row.
    type Fields<T>;

    /// The typed fields.
    fn fields<T: Entity>() -> Self::Fields<T>;

    /// Adds its columns to a table.
    fn describe(table: TableBuilder) -> TableBuilder;

    /// Writes its columns.
    ///
    /// # Errors
    ///
    /// Where no column can hold a value.
    fn write(&self, row: &mut RowWriter) -> Result<(), MappingError>;

    /// Reads its columns.
    ///
    /// # Errors
    ///
    /// Where a column does not fit.
    fn read<R: RowSource + ?Sized>(row: &mut RowCursor<'_, R>) -> Result<Self, MappingError>;
}

/// A type that is read from a table: an aggregate or a read model.
pub trait Entity: Sized + Send + Sync + 'static {
    /// The typed fields that conditions and orders are built from.
    type Fields;

    /// The typed fields.
    fn fields() -> Self::Fields;

    /// The table.
    fn table() -> &'static Table;

    /// Reads a row of [`table`](Self::table), from its first column.
    ///
    /// # Errors
    ///
    /// Where a column does not fit.
    fn read_row<R: RowSource + ?Sized>(row: &mut RowCursor<'_, R>) -> Result<Self, MappingError>;

    /// The values of the [own columns](Table::own_columns).
    ///
    /// # Errors
    ///
    /// Where no column can hold a value.
    fn to_row(&self) -> Result<Vec<Value>, MappingError>;

    /// The values of the [framework's columns](Table::framework_columns), as far as the value
    /// itself knows them; NULL for the others.
    fn framework_row(&self) -> Vec<Value> {
        vec![Value::Null; Self::table().framework_columns().len()]
    }

    /// The values of its children.
    ///
    /// # Errors
    ///
    /// Where no column can hold a value.
    fn child_rows(&self) -> Result<ChildRows, MappingError> {
        Ok(Vec::new())
    }

    /// Adds the child in a row of the [table of children](Table::children) at `index` to those it
    /// has, from the first own column.
    ///
    /// # Errors
    ///
    /// Where a column does not fit.
    fn read_child<R: RowSource + ?Sized>(
        &mut self,
        index: usize,
        row: &mut RowCursor<'_, R>,
    ) -> Result<(), MappingError> {
        let _ = (index, row);
        Ok(())
    }

    /// Takes the children that it has for those that are stored, in these places.
    ///
    /// # Errors
    ///
    /// Where no column can hold a value.
    fn remember_children(&mut self, places: Vec<Vec<i32>>) -> Result<(), MappingError> {
        let _ = places;
        Ok(())
    }
}
