//! A tuple struct of one field: stored as what it wraps.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{DeriveInput, FieldsUnnamed, Path, Type};

use crate::attribute::{allow_deprecated, emitted_at, refuse};
use crate::errors::Errors;
use crate::symbol::MAPPER;
use crate::types;

pub(super) fn expand(
    input: &DeriveInput,
    krate: &Path,
    fields: &FieldsUnnamed,
    errors: &mut Errors,
) -> TokenStream {
    let mut all = fields.unnamed.iter();
    let (Some(field), None) = (all.next(), all.next()) else {
        errors.report(
            fields,
            "a tuple struct is a value object if it wraps one field: name the fields to make it a group of columns",
        );
        return TokenStream::new();
    };
    refuse(
        &field.attrs,
        MAPPER,
        errors,
        "a newtype is stored as what it wraps: put `#[mapper(...)]` on the fields that use it",
    );
    if types::option(&field.ty).is_some() {
        errors.report(
            &field.ty,
            "a newtype is never NULL: wrap the plain type, and make the fields that use it an `Option`",
        );
    }
    emit(input, krate, &types::without_self(&field.ty, &input.ident))
}

/// ```text
/// impl ::cqrs_core::ColumnValue for Priority {
///     const TYPE: ColumnType = <i32 as ::cqrs_core::ColumnValue>::TYPE;
///     type Plain = Self;
///
///     fn to_value(&self) -> Result<Value, ColumnError> {
///         ::cqrs_core::ColumnValue::to_value(&self.0)
///     }
///
///     fn read_column<__R: RowSource + ?Sized>(row: &__R, index: usize) -> Result<Option<Self>, ColumnError> {
///         Ok(<i32 as ::cqrs_core::ColumnValue>::read_column(row, index)?.map(Self))
///     }
/// }
/// ```
///
/// A newtype of `String` is a `TextValue` too.
fn emit(input: &DeriveInput, krate: &Path, inner: &Type) -> TokenStream {
    let ident = &input.ident;
    let allow_deprecated = allow_deprecated(input);
    let span = emitted_at(inner);
    let column = quote_spanned!(span=> <#inner as #krate::ColumnValue>);
    let to_value = quote_spanned!(span=> #krate::ColumnValue::to_value(&self.0));
    let not_null = quote_spanned!(span=> const _: () = ::core::assert!(
        !#column::NULLABLE,
        "a newtype is never NULL: wrap the plain type, and make the fields that use it an `Option`"
    ););
    let text = types::last_segment(inner)
        .filter(|last| last.ident == "String")
        .map(|_| quote!(#[automatically_derived] #allow_deprecated impl #krate::TextValue for #ident {}));
    quote! {
        #text

        #[automatically_derived]
        #allow_deprecated
        impl #krate::ColumnValue for #ident {
            const TYPE: #krate::mapping::ColumnType = #column::TYPE;
            type Plain = Self;

            fn to_value(&self) -> ::core::result::Result<#krate::mapping::Value, #krate::mapping::ColumnError> {
                #to_value
            }

            fn read_column<__R: #krate::mapping::RowSource + ?::core::marker::Sized>(
                __row: &__R,
                __index: ::core::primitive::usize,
            ) -> ::core::result::Result<::core::option::Option<Self>, #krate::mapping::ColumnError> {
                ::core::result::Result::Ok(#column::read_column(__row, __index)?.map(Self))
            }
        }

        #not_null
    }
}
