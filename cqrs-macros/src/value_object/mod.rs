//! `#[derive(ValueObject)]`: a group of columns, a newtype, or names for text.

mod group;
mod names;
mod newtype;

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Fields, Path};

use crate::attribute::{crate_alone, refuse};
use crate::errors::Errors;
use crate::input::{refuse_generics, refuse_row_struct};
use crate::symbol::VALUE_OBJECT;

pub(crate) fn expand(input: &DeriveInput) -> TokenStream {
    let mut errors = Errors::default();
    refuse_generics(input, "ValueObject", &mut errors);
    refuse_row_struct(input, &mut errors);
    let krate = crate_alone(&input.attrs, VALUE_OBJECT, &mut errors);
    let emitted = shape(input, &krate, &mut errors);
    if errors.is_empty() {
        return emitted;
    }
    let stub = stub(input, &krate);
    let errors = errors.into_tokens();
    quote!(#errors #stub)
}

fn shape(input: &DeriveInput, krate: &Path, errors: &mut Errors) -> TokenStream {
    match &input.data {
        Data::Struct(data) => {
            for field in &data.fields {
                refuse(
                    &field.attrs,
                    VALUE_OBJECT,
                    errors,
                    "`#[value_object(...)]` says nothing about a field: write `#[mapper(...)]`",
                );
            }
            match &data.fields {
                Fields::Unnamed(fields) => newtype::expand(input, krate, fields, errors),
                fields => group::expand(input, krate, fields, errors),
            }
        }
        Data::Enum(data) => names::expand(input, krate, data, errors),
        Data::Union(data) => {
            errors.report(
                data.union_token,
                "a union cannot be a value object: write a struct or an enum",
            );
            TokenStream::new()
        }
    }
}

/// An impl that lets the rest of the crate be checked after an error.
fn stub(input: &DeriveInput, krate: &Path) -> TokenStream {
    if !input.generics.params.is_empty() || matches!(input.data, Data::Union(_)) {
        return TokenStream::new();
    }
    let is_group =
        matches!(&input.data, Data::Struct(data) if matches!(data.fields, Fields::Named(_)));
    if is_group {
        group::stub(&input.ident, krate)
    } else {
        column_stub(&input.ident, krate)
    }
}

fn column_stub(ident: &syn::Ident, krate: &Path) -> TokenStream {
    quote! {
        #[automatically_derived]
        impl #krate::ColumnValue for #ident {
            const TYPE: #krate::mapping::ColumnType = #krate::mapping::ColumnType::Text;
            type Plain = Self;

            fn to_value(&self) -> ::core::result::Result<#krate::mapping::Value, #krate::mapping::ColumnError> {
                ::core::unreachable!()
            }

            fn read_column<__R: #krate::mapping::RowSource + ?::core::marker::Sized>(
                _: &__R,
                _: ::core::primitive::usize,
            ) -> ::core::result::Result<::core::option::Option<Self>, #krate::mapping::ColumnError> {
                ::core::unreachable!()
            }
        }
    }
}
