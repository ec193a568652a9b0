//! How a field becomes columns: `#[mapper(...)]`.

mod check;
mod children;
mod emit;
mod fields_struct;
mod parse;
mod parts;

pub(crate) use check::{check_columns, refuse_children};
pub(crate) use children::ChildrenParts;
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
    pub(crate) filling: Filling,
}

/// Who gives a column its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filling {
    Code,
    /// The database computes it.
    Generated,
    /// Someone else writes it.
    Others,
}

/// How a field is stored.
pub(crate) enum Kind {
    /// In one column.
    Column { name: LitStr, codec: Codec },
    /// In the columns of a value object.
    Flatten { prefix: LitStr },
    /// In rows of a table of its own.
    Children(Children),
}

/// `children(table = "route_stop", order = "seq", parent = "plan_id")` on a `Vec<Stop>`.
pub(crate) struct Children {
    pub(crate) table: LitStr,
    pub(crate) order: LitStr,
    pub(crate) parent: Option<LitStr>,
    pub(crate) child: Type,
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
    /// Its column, and where to point at; `None` where it is not one column.
    pub(crate) fn column(&self) -> Option<(String, Span)> {
        match &self.kind {
            Kind::Column { name, .. } => Some((name.value(), self.ident.span())),
            Kind::Flatten { .. } | Kind::Children(_) => None,
        }
    }
}
