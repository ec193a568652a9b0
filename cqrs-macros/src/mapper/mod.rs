//! How a field becomes columns: `#[mapper(...)]`.

mod check;
mod emit;
mod fields_struct;
mod parse;
mod parts;

pub(crate) use check::check_columns;
pub(crate) use emit::Names;
pub(crate) use fields_struct::{FieldsStruct, GenericFieldsStruct, TypedField, TypedKind};
pub(crate) use parse::named_fields;
pub(crate) use parts::FieldParts;

use proc_macro2::Span;
use syn::{Ident, LitStr, Path, Type};

/// A field with its mapping.
pub(crate) struct MappedField {
    pub(crate) ident: Ident,
    pub(crate) ty: Type,
    pub(crate) kind: Kind,
    pub(crate) is_key: bool,
}

/// How a field is stored.
#[expect(clippy::large_enum_variant, reason = "one per field")]
pub(crate) enum Kind {
    /// In one column.
    Column { name: LitStr, codec: Codec },
    /// In the columns of a value object.
    Flatten { prefix: LitStr },
}

/// What stands between a field and its column.
#[expect(clippy::large_enum_variant, reason = "one per field")]
pub(crate) enum Codec {
    /// The type's own `ColumnValue`.
    Plain,
    /// `Display` and `FromStr`.
    Text,
    /// serde.
    Json,
    /// A module with `to_column` and `from_column`.
    With { module: Path, column_type: Type },
}

impl MappedField {
    /// Its column, and where to point at; `None` for a flattened one.
    pub(crate) fn column(&self) -> Option<(String, Span)> {
        match &self.kind {
            Kind::Column { name, .. } => Some((name.value(), self.ident.span())),
            Kind::Flatten { .. } => None,
        }
    }
}
