//! Children: parts of an aggregate that are rows of a table of their own.

use super::{
    Column, ColumnError, ColumnRole, ColumnValue, Entity, MappingError, RowCursor, RowSource,
    RowWriter, TableBuilder, Value, ValueRow,
};

/// A part of an aggregate, of which it has any number in a `Vec`, stored in a table of its own:
/// `#[mapper(children(table = "route_stop"))]`.
///
/// Derive it with [`#[derive(Child)]`](derive@crate::Child).
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be stored as a child",
    label = "not a child of an aggregate",
    note = "write `#[derive(Child)]` on it, or store the field in one column with `#[mapper(json)]`"
)]
pub trait Child: Columns + Send + Sync + 'static {
    /// The typed fields that conditions are built from.
    type Fields;

    /// The typed fields.
    fn fields() -> Self::Fields;

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

/// A type whose columns are known: an [`Entity`], or a [`Child`].
pub trait Columns: Sized {
    /// The columns.
    fn columns() -> &'static [Column];
}

impl<T: Entity> Columns for T {
    fn columns() -> &'static [Column] {
        T::table().columns()
    }
}

/// The children of one entity: for each [table of children](super::Table::children) the values of
/// the [own columns](super::Table::own_columns) of each child.
pub type ChildRows = Vec<Vec<Vec<Value>>>;

/// A child as it was loaded.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LoadedChild {
    /// Its place among its siblings.
    pub(crate) order: i32,
    /// The values of its own columns.
    pub(crate) values: Vec<Value>,
}

impl LoadedChild {
    /// What an aggregate remembers of its children, which come in their order.
    pub(crate) fn all(rows: ChildRows, orders: Vec<Vec<i32>>) -> Vec<Vec<Self>> {
        let table = |(rows, orders): (Vec<Vec<Value>>, Vec<i32>)| {
            let children = orders.into_iter().zip(rows);
            children
                .map(|(order, values)| Self { order, values })
                .collect()
        };
        rows.into_iter().zip(orders).map(table).collect()
    }
}

/// An entity while it is read: first its own row, then those of its children.
///
/// For authors of backends.
#[derive(Debug)]
pub struct Loading<T> {
    entity: T,
    orders: Vec<Vec<i32>>,
}

impl<T: Entity> Loading<T> {
    /// Begins with the entity's own row, whose first columns are those of its table.
    ///
    /// # Errors
    ///
    /// Where a column does not fit.
    pub fn begin<R: RowSource + ?Sized>(row: &R) -> Result<Self, MappingError> {
        let table = T::table();
        let entity = T::read_row(&mut RowCursor::new(table, row))?;
        let orders = table.children().iter().map(|_| Vec::new()).collect();
        Ok(Self { entity, orders })
    }

    /// The entity of a row with its children.
    ///
    /// # Errors
    ///
    /// Where the row does not fit its type.
    pub(crate) fn whole(row: &ValueRow) -> Result<T, MappingError> {
        let mut loading = Self::begin(row)?;
        for index in 0..T::table().children().len() {
            for child in row.children(index) {
                loading.child(index, child, 0)?;
            }
        }
        loading.finish()
    }

    /// Adds a row of the table of children at `index`, whose columns begin at `offset` in the row.
    /// Those of one table come in the order of their places.
    ///
    /// # Errors
    ///
    /// Where a column does not fit.
    pub fn child<R: RowSource + ?Sized>(
        &mut self,
        index: usize,
        row: &R,
        offset: usize,
    ) -> Result<(), MappingError> {
        let table = &T::table().children()[index];
        if let Some(at) = table.index_of(ColumnRole::Order) {
            let order = i32::read_column(row, offset + at)
                .and_then(|order| order.ok_or(ColumnError::UnexpectedNull))
                .map_err(|reason| MappingError {
                    table: table.name().to_owned(),
                    column: table.columns()[at].name().to_owned(),
                    reason,
                })?;
            self.orders[index].push(order);
        }
        let mut cursor = RowCursor::own(table, row, offset);
        self.entity.read_child(index, &mut cursor)
    }

    /// The entity, with all its children.
    ///
    /// # Errors
    ///
    /// Where a child holds a value that could not be stored again.
    pub fn finish(mut self) -> Result<T, MappingError> {
        if !self.orders.is_empty() {
            self.entity.remember_children(self.orders)?;
        }
        Ok(self.entity)
    }
}
