//! Types that are read from the rows of a statement.

use chrono::{DateTime, NaiveDate, Utc};
use uuid::Uuid;

use super::Columns;
use crate::id::Id;
use crate::mapping::{ColumnError, ColumnValue, Entity, MappingError, RowCursor, RowSource};

/// A type that is read from a row of a statement.
///
/// - A struct with [`#[derive(SqlRow)]`](derive@crate::SqlRow), an aggregate and a read model: its
///   columns are found by their names, in any order and among others.
/// - A tuple of up to eight columns, and a single column: by their places.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not read from the rows of a statement",
    note = "derive `SqlRow` for a struct; a single column of a type of your own is a tuple of one: `({Self},)`"
)]
pub trait SqlRow: Sized + Send + 'static {
    /// The columns that it is read from.
    fn columns() -> Columns;

    /// Reads it from a row that has these columns in their order.
    ///
    /// # Errors
    ///
    /// Where a column does not fit.
    fn read<R: RowSource + ?Sized>(row: &R) -> Result<Self, MappingError>;
}

impl<E: Entity> SqlRow for E {
    fn columns() -> Columns {
        Columns::of(E::table())
    }

    fn read<R: RowSource + ?Sized>(row: &R) -> Result<Self, MappingError> {
        E::read_row(&mut RowCursor::new(E::table(), row))
    }
}

fn column<T: ColumnValue, R: RowSource + ?Sized>(row: &R, at: usize) -> Result<T, MappingError> {
    T::read_column(row, at)
        .and_then(|value| value.ok_or(ColumnError::UnexpectedNull))
        .map_err(|reason| MappingError {
            table: String::new(),
            column: (at + 1).to_string(),
            reason,
        })
}

macro_rules! single {
    ($(($($of:tt)*) $type:ty,)*) => {$(
        impl<$($of)*> SqlRow for $type {
            fn columns() -> Columns {
                Columns::by_place().and::<Self>()
            }

            fn read<R: RowSource + ?Sized>(row: &R) -> Result<Self, MappingError> {
                column(row, 0)
            }
        }
    )*};
}

single! {
    () bool,
    () i8,
    () i16,
    () i32,
    () i64,
    () u8,
    () u16,
    () u32,
    () u64,
    () f32,
    () f64,
    () String,
    () Vec<u8>,
    () Uuid,
    () DateTime<Utc>,
    () NaiveDate,
    () serde_json::Value,
    (T: 'static) Id<T>,
    (T: ColumnValue + Send + 'static) Option<T>,
}

macro_rules! tuples {
    ($(($($type:ident $at:tt),*))*) => {$(
        impl<$($type: ColumnValue + Send + 'static),*> SqlRow for ($($type,)*) {
            fn columns() -> Columns {
                Columns::by_place()$(.and::<$type>())*
            }

            fn read<R: RowSource + ?Sized>(row: &R) -> Result<Self, MappingError> {
                Ok(($(column::<$type, R>(row, $at)?,)*))
            }
        }
    )*};
}

tuples! {
    (A 0)
    (A 0, B 1)
    (A 0, B 1, C 2)
    (A 0, B 1, C 2, D 3)
    (A 0, B 1, C 2, D 3, E 4)
    (A 0, B 1, C 2, D 3, E 4, F 5)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7)
}
