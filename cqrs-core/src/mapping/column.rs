//! Types that fill one column.

use chrono::{DateTime, NaiveDate, Utc};
use uuid::Uuid;

use super::{ColumnError, ColumnType, RowSource, Value};

/// A type that is stored in one column.
///
/// Implemented for the integers, floats, `bool`, `String`, `Vec<u8>`, `Uuid`, `DateTime<Utc>`,
/// `NaiveDate`, `serde_json::Value`, [`Id`](crate::Id), and `Option` of each. For your own
/// newtypes and enums derive [`ValueObject`](derive@crate::ValueObject).
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be stored in one column",
    label = "no column type is known for `{Self}`",
    note = "derive `ValueObject` for it, or say how to store the field: `#[mapper(text)]`, `#[mapper(json)]`, `#[mapper(flatten)]` or `#[mapper(with = module)]`"
)]
pub trait ColumnValue: Sized {
    /// The type of the column.
    const TYPE: ColumnType;
    /// Whether the column may be NULL.
    const NULLABLE: bool = false;
    /// The type without its `Option`; what a condition compares with.
    type Plain: ColumnValue;

    /// The value to store.
    ///
    /// # Errors
    ///
    /// Where no column can hold it, for example a `u64` above `i64::MAX`.
    fn to_value(&self) -> Result<Value, ColumnError>;

    /// Reads the column at `index`; `None` where it is NULL.
    ///
    /// # Errors
    ///
    /// Where the column has another type or the value is not one of this type.
    fn read_column<R: RowSource + ?Sized>(
        row: &R,
        index: usize,
    ) -> Result<Option<Self>, ColumnError>;
}

impl<T: ColumnValue> ColumnValue for Option<T> {
    const TYPE: ColumnType = T::TYPE;
    const NULLABLE: bool = true;
    type Plain = T::Plain;

    fn to_value(&self) -> Result<Value, ColumnError> {
        self.as_ref().map_or(Ok(Value::Null), T::to_value)
    }

    fn read_column<R: RowSource + ?Sized>(
        row: &R,
        index: usize,
    ) -> Result<Option<Self>, ColumnError> {
        T::read_column(row, index).map(Some)
    }
}

macro_rules! column_values {
    ($($type:ty: $column:ident, $read:ident, |$value:ident| $to:expr, |$found:ident| $from:expr;)*) => {$(
        impl ColumnValue for $type {
            const TYPE: ColumnType = ColumnType::$column;
            type Plain = Self;

            fn to_value(&self) -> Result<Value, ColumnError> {
                let $value = self;
                $to
            }

            fn read_column<R: RowSource + ?Sized>(
                row: &R,
                index: usize,
            ) -> Result<Option<Self>, ColumnError> {
                match row.$read(index)? {
                    Some($found) => $from.map(Some),
                    None => Ok(None),
                }
            }
        }
    )*};
}

column_values! {
    bool: Bool, read_bool, |v| Ok(Value::Bool(*v)), |v| Ok(v);
    i16: Int16, read_i16, |v| Ok(Value::Int(i64::from(*v))), |v| Ok(v);
    i32: Int32, read_i32, |v| Ok(Value::Int(i64::from(*v))), |v| Ok(v);
    i64: Int64, read_i64, |v| Ok(Value::Int(*v)), |v| Ok(v);
    i8: Int16, read_i16, |v| Ok(Value::Int(i64::from(*v))), |v| narrow(v);
    u8: Int16, read_i16, |v| Ok(Value::Int(i64::from(*v))), |v| narrow(v);
    u16: Int32, read_i32, |v| Ok(Value::Int(i64::from(*v))), |v| narrow(v);
    u32: Int64, read_i64, |v| Ok(Value::Int(i64::from(*v))), |v| narrow(v);
    u64: Int64, read_i64, |v| narrow(*v).map(Value::Int), |v| narrow(v);
    f32: Float32, read_f32, |v| Value::Float(f64::from(*v)).checked(), |v| Ok(v);
    f64: Float64, read_f64, |v| Value::Float(*v).checked(), |v| Ok(v);
    String: Text, read_text, |v| Value::Text(v.clone()).checked(), |v| Ok(v.to_owned());
    Vec<u8>: Bytes, read_bytes, |v| Ok(Value::Bytes(v.clone())), |v| Ok(v.to_vec());
    Uuid: Uuid, read_uuid, |v| Ok(Value::Uuid(*v)), |v| Ok(v);
    DateTime<Utc>: Timestamp, read_timestamp, |v| Value::Timestamp(*v).checked(), |v| Ok(v);
    NaiveDate: Date, read_date, |v| Value::Date(*v).checked(), |v| Ok(v);
    serde_json::Value: Json, read_json, |v| Value::Json(crate::canonical_json(v)).checked(),
        |v| serde_json::from_str(v).map_err(ColumnError::invalid);
}

fn narrow<A, B>(value: A) -> Result<B, ColumnError>
where
    A: Copy + std::fmt::Display,
    B: TryFrom<A>,
{
    B::try_from(value).map_err(|_| {
        ColumnError::invalid(format!(
            "{value} does not fit {}",
            std::any::type_name::<B>()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::ValueRow;

    #[test]
    fn numbers_that_do_not_fit_are_refused_both_ways() {
        assert!(u64::MAX.to_value().is_err());
        let row = ValueRow::new(vec![Value::Int(300)]);
        let error = u8::read_column(&row, 0).unwrap_err();
        assert_eq!(error.to_string(), "300 does not fit u8");
    }

    #[test]
    fn an_option_reads_null_as_none() {
        let row = ValueRow::new(vec![Value::Null, Value::Int(3)]);
        assert_eq!(<Option<i32>>::read_column(&row, 0).unwrap(), Some(None));
        assert_eq!(<Option<i32>>::read_column(&row, 1).unwrap(), Some(Some(3)));
        assert_eq!(i32::read_column(&row, 0).unwrap(), None);
    }
}
