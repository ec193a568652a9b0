//! A struct with named fields: a group of columns, for `#[mapper(flatten)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{DeriveInput, Fields, Ident, Path};

use crate::attribute::emitted_at;
use crate::errors::Errors;
use crate::mapper::{FieldParts, Kind, MappedField, check_columns, named_fields};

pub(super) fn expand(
    input: &DeriveInput,
    krate: &Path,
    fields: &Fields,
    errors: &mut Errors,
) -> TokenStream {
    let fields: Vec<MappedField> = named_fields(fields, &input.ident, "ValueObject", errors)
        .into_iter()
        .map(|(ident, field)| MappedField::parse(&input.ident, ident, field, false, errors))
        .collect();
    check_columns(&fields, errors);
    emit(&input.ident, krate, &fields)
}

/// ```text
/// impl ::cqrs_core::ValueObject for GeoPoint {
///     const COLUMNS: usize = 1 + 1 + <Precision as ::cqrs_core::ValueObject>::COLUMNS;
///
///     // and the functions of `FieldParts`
/// }
/// ```
fn emit(ident: &Ident, krate: &Path, fields: &[MappedField]) -> TokenStream {
    let functions = FieldParts::of(fields, krate).functions(krate);
    let columns = fields.iter().map(|field| match &field.kind {
        Kind::Column { .. } => quote!(1),
        Kind::Flatten { .. } => {
            let ty = &field.ty;
            let span = emitted_at(ty);
            quote::quote_spanned!(span=> <#ty as #krate::ValueObject>::COLUMNS)
        }
    });
    quote! {
        #[automatically_derived]
        #[allow(deprecated)]
        impl #krate::ValueObject for #ident {
            const COLUMNS: ::core::primitive::usize = #(#columns)+*;

            #functions
        }
    }
}

pub(super) fn stub(ident: &Ident, krate: &Path) -> TokenStream {
    let functions = FieldParts::stub_functions(krate);
    quote! {
        #[automatically_derived]
        impl #krate::ValueObject for #ident {
            const COLUMNS: ::core::primitive::usize = 0;

            #functions
        }
    }
}
