//! Reading a row by position, and writing one.

use chrono::{DateTime, NaiveDate, Utc};
use uuid::Uuid;

use super::{Column, ColumnError, ColumnType, ColumnValue, MappingError, Table, Value};

/// A row of some backend, read by column index. `None` is NULL.
///
/// Backends implement it; user code reads through [`ColumnValue`].
pub trait RowSource {
    /// Reads a truth value.
    fn read_bool(&self, index: usize) -> Result<Option<bool>, ColumnError>;
    /// Reads a 16-bit integer.
    fn read_i16(&self, index: usize) -> Result<Option<i16>, ColumnError>;
    /// Reads a 32-bit integer.
    fn read_i32(&self, index: usize) -> Result<Option<i32>, ColumnError>;
    /// Reads a 64-bit integer.
    fn read_i64(&self, index: usize) -> Result<Option<i64>, ColumnError>;
    /// Reads a single-precision float.
    fn read_f32(&self, index: usize) -> Result<Option<f32>, ColumnError>;
    /// Reads a double-precision float.
    fn read_f64(&self, index: usize) -> Result<Option<f64>, ColumnError>;
    /// Reads text.
    fn read_text(&self, index: usize) -> Result<Option<&str>, ColumnError>;
    /// Reads bytes.
    fn read_bytes(&self, index: usize) -> Result<Option<&[u8]>, ColumnError>;
    /// Reads a UUID.
    fn read_uuid(&self, index: usize) -> Result<Option<Uuid>, ColumnError>;
    /// Reads a point in time.
    fn read_timestamp(&self, index: usize) -> Result<Option<DateTime<Utc>>, ColumnError>;
    /// Reads a date.
    fn read_date(&self, index: usize) -> Result<Option<NaiveDate>, ColumnError>;
    /// Reads the text of a JSON document.
    fn read_json(&self, index: usize) -> Result<Option<&str>, ColumnError>;
}

/// Walks the columns of one row from left to right, in the order of its [`Table`].
#[derive(Debug)]
pub struct RowCursor<'r, R: ?Sized> {
    row: &'r R,
    table: &'static Table,
    index: usize,
    /// Where in the row the table's columns begin.
    offset: usize,
}

impl<'r, R: RowSource + ?Sized> RowCursor<'r, R> {
    /// Starts at the first column of `row`, whose columns are those of `table`, in order.
    pub fn new(table: &'static Table, row: &'r R) -> Self {
        Self {
            row,
            table,
            index: 0,
            offset: 0,
        }
    }

    /// Starts at the first [own column](Table::own_columns) of `table`, whose columns begin at
    /// `offset` in the row.
    pub(crate) fn own(table: &'static Table, row: &'r R, offset: usize) -> Self {
        Self {
            row,
            table,
            index: table.framework_columns().len(),
            offset,
        }
    }

    /// The table that the row belongs to.
    #[must_use]
    pub fn table(&self) -> &'static Table {
        self.table
    }

    /// Reads the next column.
    ///
    /// # Errors
    ///
    /// [`MappingError`] with table and column, where the column is NULL and `T` is not an
    /// `Option`, has another type, or holds a value that is not a `T`.
    #[expect(clippy::should_implement_trait, reason = "each call has its own type")]
    pub fn next<T: ColumnValue>(&mut self) -> Result<T, MappingError> {
        self.next_with(T::read_column)
    }

    /// Reads the next column through a function; `None` from it is an unexpected NULL.
    ///
    /// # Errors
    ///
    /// As [`next`](Self::next).
    pub fn next_with<T>(
        &mut self,
        read: impl FnOnce(&R, usize) -> Result<Option<T>, ColumnError>,
    ) -> Result<T, MappingError> {
        let index = self.index;
        self.index += 1;
        match read(self.row, self.offset + index) {
            Ok(Some(value)) => Ok(value),
            Ok(None) => Err(self.error_at(index, ColumnError::UnexpectedNull)),
            Err(reason) => Err(self.error_at(index, reason)),
        }
    }

    /// Whether the next `count` columns are all NULL; moves past them if they are.
    ///
    /// # Errors
    ///
    /// As [`next`](Self::next).
    pub fn skip_if_null(&mut self, count: usize) -> Result<bool, MappingError> {
        let columns = &self.table.columns()[self.index..self.index + count];
        for (offset, column) in columns.iter().enumerate() {
            let index = self.index + offset;
            let null = is_null(self.row, self.offset + index, column.column_type())
                .map_err(|reason| self.error_at(index, reason))?;
            if !null {
                return Ok(false);
            }
        }
        self.index += count;
        Ok(true)
    }

    /// An error at the column that was read last, for a check after reading.
    #[must_use]
    pub fn error(&self, reason: ColumnError) -> MappingError {
        self.error_at(self.index.saturating_sub(1), reason)
    }

    #[cold]
    fn error_at(&self, index: usize, reason: ColumnError) -> MappingError {
        MappingError {
            table: self.table.name().to_owned(),
            column: self
                .table
                .columns()
                .get(index)
                .map_or("beyond the last", Column::name)
                .to_owned(),
            reason,
        }
    }
}

fn is_null<R: RowSource + ?Sized>(
    row: &R,
    index: usize,
    column_type: ColumnType,
) -> Result<bool, ColumnError> {
    Ok(match column_type {
        ColumnType::Bool => row.read_bool(index)?.is_none(),
        ColumnType::Int16 => row.read_i16(index)?.is_none(),
        ColumnType::Int32 => row.read_i32(index)?.is_none(),
        ColumnType::Int64 => row.read_i64(index)?.is_none(),
        ColumnType::Float32 => row.read_f32(index)?.is_none(),
        ColumnType::Float64 => row.read_f64(index)?.is_none(),
        ColumnType::Text => row.read_text(index)?.is_none(),
        ColumnType::Bytes => row.read_bytes(index)?.is_none(),
        ColumnType::Uuid => row.read_uuid(index)?.is_none(),
        ColumnType::Timestamp => row.read_timestamp(index)?.is_none(),
        ColumnType::Date => row.read_date(index)?.is_none(),
        ColumnType::Json => row.read_json(index)?.is_none(),
    })
}

/// Reads a column as a value of its type.
///
/// # Errors
///
/// Where the column has another type.
pub fn read_value<R: RowSource + ?Sized>(
    row: &R,
    index: usize,
    column_type: ColumnType,
) -> Result<Value, ColumnError> {
    fn value<T>(read: Option<T>, make: impl FnOnce(T) -> Value) -> Value {
        read.map_or(Value::Null, make)
    }
    Ok(match column_type {
        ColumnType::Bool => value(row.read_bool(index)?, Value::Bool),
        ColumnType::Int16 => value(row.read_i16(index)?, |int| Value::Int(int.into())),
        ColumnType::Int32 => value(row.read_i32(index)?, |int| Value::Int(int.into())),
        ColumnType::Int64 => value(row.read_i64(index)?, Value::Int),
        ColumnType::Float32 => value(row.read_f32(index)?, |float| Value::Float(float.into())),
        ColumnType::Float64 => value(row.read_f64(index)?, Value::Float),
        ColumnType::Text => value(row.read_text(index)?, |text| Value::Text(text.to_owned())),
        ColumnType::Bytes => value(row.read_bytes(index)?, |bytes| {
            Value::Bytes(bytes.to_owned())
        }),
        ColumnType::Uuid => value(row.read_uuid(index)?, Value::Uuid),
        ColumnType::Timestamp => value(row.read_timestamp(index)?, Value::Timestamp),
        ColumnType::Date => value(row.read_date(index)?, Value::Date),
        ColumnType::Json => value(row.read_json(index)?, |json| Value::Json(json.to_owned())),
    })
}

/// Collects the values of one row in the order of the columns that its type declared: the key
/// and the data columns of a [`Table`].
#[derive(Debug)]
pub struct RowWriter {
    table: &'static Table,
    values: Vec<Value>,
}

impl RowWriter {
    /// Starts an empty row of `table`.
    #[must_use]
    pub fn new(table: &'static Table) -> Self {
        Self {
            table,
            values: Vec::with_capacity(table.own_columns().len()),
        }
    }

    /// Writes the next column.
    ///
    /// # Errors
    ///
    /// [`MappingError`] where no column can hold the value.
    pub fn put<T: ColumnValue>(&mut self, value: &T) -> Result<(), MappingError> {
        self.put_value(value.to_value())
    }

    /// Writes the next column from a value that is already encoded.
    ///
    /// # Errors
    ///
    /// [`MappingError`] where `value` is an error.
    pub fn put_value(&mut self, value: Result<Value, ColumnError>) -> Result<(), MappingError> {
        match value {
            Ok(value) => {
                self.values.push(value);
                Ok(())
            }
            Err(reason) => Err(MappingError {
                table: self.table.name().to_owned(),
                column: self
                    .table
                    .own_columns()
                    .get(self.values.len())
                    .map_or("beyond the last", Column::name)
                    .to_owned(),
                reason,
            }),
        }
    }

    /// Writes NULL to the next `count` columns.
    pub fn put_nulls(&mut self, count: usize) {
        self.values.extend(std::iter::repeat_n(Value::Null, count));
    }

    /// How many columns were written.
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether everything written since column `start` is NULL.
    pub(crate) fn is_null_since(&self, start: usize) -> bool {
        self.values[start..].iter().all(Value::is_null)
    }

    /// The finished row.
    #[must_use]
    pub fn finish(self) -> Vec<Value> {
        debug_assert_eq!(
            self.values.len(),
            self.table.own_columns().len(),
            "table {}: a mapping writes as many values as it declares columns",
            self.table.name()
        );
        self.values
    }
}

/// A row held in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct ValueRow {
    values: Vec<Value>,
    children: Vec<Vec<ValueRow>>,
}

impl ValueRow {
    /// A row of these values.
    #[must_use]
    pub fn new(values: Vec<Value>) -> Self {
        Self {
            values,
            children: Vec::new(),
        }
    }

    /// A row of these values with its children: their rows, for each
    /// [table of children](Table::children).
    #[must_use]
    pub fn with_children(values: Vec<Value>, children: Vec<Vec<Self>>) -> Self {
        Self { values, children }
    }

    /// A row of these values with the same children.
    pub(crate) fn with_values(&self, values: Vec<Value>) -> Self {
        Self::with_children(values, self.children.clone())
    }

    /// The values, from left to right.
    #[must_use]
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// The rows in the table of children at this index.
    #[must_use]
    pub fn children(&self, index: usize) -> &[Self] {
        self.children.get(index).map_or(&[], Vec::as_slice)
    }

    /// The values, to change.
    pub fn values_mut(&mut self) -> &mut [Value] {
        &mut self.values
    }

    fn wrong<T>(&self, index: usize, expected: ColumnType) -> Result<T, ColumnError> {
        Err(ColumnError::WrongType {
            expected,
            found: self
                .values
                .get(index)
                .map_or_else(|| "no such column".to_owned(), |value| format!("{value:?}")),
        })
    }

    fn int<T: TryFrom<i64>>(
        &self,
        index: usize,
        expected: ColumnType,
    ) -> Result<Option<T>, ColumnError> {
        match self.values.get(index) {
            Some(Value::Null) => Ok(None),
            Some(Value::Int(value)) => match T::try_from(*value) {
                Ok(value) => Ok(Some(value)),
                Err(_) => self.wrong(index, expected),
            },
            _ => self.wrong(index, expected),
        }
    }
}

macro_rules! read_value {
    ($($name:ident -> $type:ty: $column:ident, $variant:ident($value:ident) => $out:expr;)*) => {$(
        fn $name(&self, index: usize) -> Result<Option<$type>, ColumnError> {
            match self.values.get(index) {
                Some(Value::Null) => Ok(None),
                Some(Value::$variant($value)) => Ok(Some($out)),
                _ => self.wrong(index, ColumnType::$column),
            }
        }
    )*};
}

impl RowSource for ValueRow {
    fn read_i16(&self, index: usize) -> Result<Option<i16>, ColumnError> {
        self.int(index, ColumnType::Int16)
    }

    fn read_i32(&self, index: usize) -> Result<Option<i32>, ColumnError> {
        self.int(index, ColumnType::Int32)
    }

    fn read_i64(&self, index: usize) -> Result<Option<i64>, ColumnError> {
        self.int(index, ColumnType::Int64)
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "it was widened from an f32"
    )]
    fn read_f32(&self, index: usize) -> Result<Option<f32>, ColumnError> {
        Ok(self.read_f64(index)?.map(|value| value as f32))
    }

    read_value! {
        read_bool -> bool: Bool, Bool(v) => *v;
        read_f64 -> f64: Float64, Float(v) => *v;
        read_text -> &str: Text, Text(v) => v;
        read_bytes -> &[u8]: Bytes, Bytes(v) => v;
        read_uuid -> Uuid: Uuid, Uuid(v) => *v;
        read_timestamp -> DateTime<Utc>: Timestamp, Timestamp(v) => *v;
        read_date -> NaiveDate: Date, Date(v) => *v;
        read_json -> &str: Json, Json(v) => v;
    }
}
