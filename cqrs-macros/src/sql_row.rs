//! `#[derive(SqlRow)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{DeriveInput, Path};

use crate::attribute::{allow_deprecated, crate_alone};
use crate::errors::Errors;
use crate::input::{refuse_generics, refuse_row_struct, struct_fields};
use crate::mapper::{FieldParts, MappedField, check_columns, named_fields};
use crate::symbol::SQL_ROW;

pub(crate) fn expand(input: &DeriveInput) -> TokenStream {
    let mut errors = Errors::default();
    refuse_generics(input, "SqlRow", &mut errors);
    refuse_row_struct(input, &mut errors);
    let krate = crate_alone(&input.attrs, SQL_ROW, &mut errors);
    let named = struct_fields(input, "SqlRow", &mut errors)
        .map(|fields| named_fields(fields, &input.ident, "SqlRow", &mut errors))
        .unwrap_or_default();
    let fields: Vec<MappedField> = named
        .into_iter()
        .map(|(ident, field)| MappedField::parse(&input.ident, ident, field, false, &mut errors))
        .collect();
    check_columns(&fields, &mut errors);
    if errors.is_empty() {
        return emit(input, &krate, &FieldParts::of(&fields, &krate));
    }
    let stub = stub(input, &krate);
    let errors = errors.into_tokens();
    quote!(#errors #stub)
}

/// ```text
/// impl ::cqrs_core::SqlRow for Total {
///     fn columns() -> ::cqrs_core::sql::Columns {
///         ::cqrs_core::sql::Columns::of(__table())
///     }
///
///     fn read<__R: RowSource + ?Sized>(__source: &__R) -> Result<Self, MappingError> {
///         let __row = &mut RowCursor::new(__table(), __source);
///         Ok(Self { customer: __row.next::<String>()?, orders: __row.next::<i64>()? })
///     }
/// }
/// ```
///
/// where `__table` is the static table of the columns.
fn emit(input: &DeriveInput, krate: &Path, parts: &FieldParts) -> TokenStream {
    let ident = &input.ident;
    let name = ident.to_string();
    let allow_deprecated = allow_deprecated(input);
    let FieldParts { describe, read, .. } = parts;
    quote! {
        const _: () = {
            fn __table() -> &'static #krate::mapping::Table {
                static TABLE: ::std::sync::OnceLock<#krate::mapping::Table> =
                    ::std::sync::OnceLock::new();
                TABLE.get_or_init(|| #krate::mapping::Table::builder(#name) #describe .build())
            }

            #[automatically_derived]
            #allow_deprecated
            impl #krate::SqlRow for #ident {
                fn columns() -> #krate::sql::Columns {
                    #krate::sql::Columns::of(__table())
                }

                fn read<__R: #krate::mapping::RowSource + ?::core::marker::Sized>(
                    __source: &__R,
                ) -> ::core::result::Result<Self, #krate::mapping::MappingError> {
                    let __row = &mut #krate::mapping::RowCursor::new(__table(), __source);
                    ::core::result::Result::Ok(Self { #read })
                }
            }
        };
    }
}

/// The same impl, for the rest of the crate to be checked after an error.
fn stub(input: &DeriveInput, krate: &Path) -> TokenStream {
    if !input.generics.params.is_empty() {
        return TokenStream::new();
    }
    let ident = &input.ident;
    quote! {
        #[automatically_derived]
        impl #krate::SqlRow for #ident {
            fn columns() -> #krate::sql::Columns {
                ::core::unreachable!()
            }

            fn read<__R: #krate::mapping::RowSource + ?::core::marker::Sized>(
                _: &__R,
            ) -> ::core::result::Result<Self, #krate::mapping::MappingError> {
                ::core::unreachable!()
            }
        }
    }
}
