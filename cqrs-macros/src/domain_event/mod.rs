//! `#[derive(DomainEvent)]`.

mod check;
mod emit;
mod parse;
mod serde;

use proc_macro2::TokenStream;
use syn::{DeriveInput, Expr, Ident, LitStr, Path};

use crate::errors::Errors;

/// A checked event type.
struct Model {
    ident: Ident,
    krate: Path,
    aggregate: String,
    shape: Shape,
}

enum Shape {
    Struct(EventType),
    Enum(Vec<(Ident, EventType)>),
}

struct EventType {
    name: String,
    version: u32,
    /// A step from each older version.
    upcasts: Vec<(u32, Expr)>,
    /// The names that it had.
    was: Vec<LitStr>,
}

pub(crate) fn expand(input: &DeriveInput) -> TokenStream {
    let mut errors = Errors::default();
    let parsed = parse::parse(input, &mut errors);
    let krate = parsed.krate.clone();
    match check::check(parsed, &mut errors) {
        Some(model) if errors.is_empty() => emit::emit(input, &model),
        _ => {
            let stub = emit::stub(input, &krate);
            let errors = errors.into_tokens();
            quote::quote!(#errors #stub)
        }
    }
}
