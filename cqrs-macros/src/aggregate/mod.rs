//! `#[derive(Aggregate)]`.

mod check;
mod emit;
mod parse;
mod sourced;

use proc_macro2::TokenStream;
use quote::quote;
use syn::{DeriveInput, Ident, Path, Type, Visibility};

use crate::errors::Errors;
use crate::mapper::MappedField;

/// A checked aggregate.
struct Model {
    vis: Visibility,
    ident: Ident,
    krate: Path,
    event: Type,
    framework: Framework,
    id: (Ident, Type),
    root: (Ident, Type),
    storage: Storage,
    /// For impls that name the fields.
    allow_deprecated: TokenStream,
}

enum Storage {
    /// A row of a table.
    Row { table: String, shape: Shape },
    /// Its events; these are the fields besides id and root.
    Events {
        state: Vec<(Ident, Type)>,
        snapshot: Option<parse::Snapshot>,
    },
}

/// Which columns the framework keeps beside the version.
struct Framework {
    tenant: Option<String>,
    audit: bool,
    soft_delete: bool,
    /// Whether a revision is kept with each change.
    history: bool,
    chained: bool,
}

#[expect(clippy::large_enum_variant, reason = "one per macro call")]
enum Shape {
    /// The fields are the columns.
    Fields(Vec<MappedField>),
    /// A row struct has the columns.
    Row(Type),
}

pub(crate) fn expand(input: &DeriveInput) -> TokenStream {
    let mut errors = Errors::default();
    let parsed = parse::parse(input, &mut errors);
    let stub = emit::stub(&parsed);
    match check::check(parsed, &mut errors) {
        Some(model) if errors.is_empty() => emit::emit(&model),
        _ => {
            let errors = errors.into_tokens();
            quote!(#errors #stub)
        }
    }
}
