//! How a Rust type becomes a row, and back: one mapping for every backend.
//!
//! A derive describes its type once, as a [`Table`] and two functions that write and read
//! [`Value`]s in the order of the table's columns. Backends bind and decode those values; nothing
//! here knows a database.

mod child;
mod column;
mod error;
mod key;
mod row;
mod row_mapper;
mod table;
mod value;
mod value_object;
mod wrappers;

pub(crate) use child::LoadedChild;
pub use child::{Child, ChildRows, Columns, Loading};
pub use column::ColumnValue;
pub use error::{ColumnError, MappingError};
pub(crate) use key::Key;
pub use row::{RowCursor, RowSource, RowWriter, ValueRow, read_value};
pub use row_mapper::RowMapper;
pub use table::{Column, ColumnRole, Table, TableBuilder};
pub use value::{ColumnType, Value};
pub use value_object::{Entity, Record, ValueObject};
pub use wrappers::{AsJson, AsText, encode_json, encode_text};
