//! Sealed values in columns.

use super::value::Sealed;
use crate::mapping::{ColumnError, ColumnType, ColumnValue, RowSource, Value};

/// A column of text that holds the cipher text.
impl<T> ColumnValue for Sealed<T> {
    const TYPE: ColumnType = ColumnType::Text;
    type Plain = Self;

    fn to_value(&self) -> Result<Value, ColumnError> {
        Value::Text(self.to_string()).checked()
    }

    fn read_column<R: RowSource + ?Sized>(
        row: &R,
        index: usize,
    ) -> Result<Option<Self>, ColumnError> {
        let text = row.read_text(index)?;
        text.map(|text| text.parse().map_err(ColumnError::invalid))
            .transpose()
    }
}
