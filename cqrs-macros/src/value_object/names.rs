//! A fieldless enum: stored as text, by the names of its variants.

use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt;
use syn::{DataEnum, DeriveInput, Fields, Ident, LitStr, Path};

use crate::attribute::{entries, refuse, value};
use crate::errors::Errors;
use crate::naming::snake_case;
use crate::symbol::{MAPPER, NAME, VALUE_OBJECT};

pub(super) fn expand(
    input: &DeriveInput,
    krate: &Path,
    data: &DataEnum,
    errors: &mut Errors,
) -> TokenStream {
    if data.variants.is_empty() {
        errors.report(
            &input.ident,
            "an enum without variants has no value to store: write a variant for each",
        );
    }
    let mut names: Vec<(&Ident, String)> = Vec::new();
    for variant in &data.variants {
        if !matches!(variant.fields, Fields::Unit) {
            errors.report(
                &variant.fields,
                "an enum is stored by the names of its variants, which have no fields: remove these, or store the fields that use it with `#[mapper(json)]`",
            );
        }
        refuse(
            &variant.attrs,
            MAPPER,
            errors,
            "a variant is stored by its name: write `#[value_object(name = \"...\")]` to change it",
        );
        let mut given: Option<LitStr> = None;
        entries(
            &variant.attrs,
            VALUE_OBJECT,
            &[NAME],
            errors,
            |_, key, input| {
                given = Some(value(key, input, "\"in_transit\"")?);
                Ok(())
            },
        );
        let span = given
            .as_ref()
            .map_or_else(|| variant.ident.span(), LitStr::span);
        let name = given.map_or_else(
            || snake_case(&variant.ident.unraw().to_string()),
            |name| name.value(),
        );
        if name.is_empty() || name.contains('\0') {
            errors.push(syn::Error::new(
                span,
                "a name is text that is not empty and has no NUL character",
            ));
        }
        if let Some((first, _)) = names.iter().find(|(_, other)| *other == name) {
            errors.push(syn::Error::new(
                span,
                format!("{name:?} is already the name of `{first}`: give this one another `#[value_object(name = \"...\")]`"),
            ));
        }
        names.push((&variant.ident, name));
    }
    emit(&input.ident, krate, &names)
}

/// ```text
/// impl ::cqrs_core::ColumnValue for RouteStatus {
///     const TYPE: ColumnType = ColumnType::Text;
///     type Plain = Self;
///
///     fn to_value(&self) -> Result<Value, ColumnError> {
///         Ok(::cqrs_core::__private::name_value(match self {
///             Self::Ready => "ready",
///             Self::InTransit => "in_transit",
///         }))
///     }
///
///     fn read_column<__R: RowSource + ?Sized>(row: &__R, index: usize) -> Result<Option<Self>, ColumnError> {
///         match row.read_text(index)? {
///             Some("ready") => Ok(Some(Self::Ready)),
///             Some("in_transit") => Ok(Some(Self::InTransit)),
///             Some(other) => Err(::cqrs_core::__private::unknown_name("RouteStatus", other, &["ready", "in_transit"])),
///             None => Ok(None),
///         }
///     }
/// }
/// ```
fn emit(ident: &Ident, krate: &Path, names: &[(&Ident, String)]) -> TokenStream {
    let type_name = ident.unraw().to_string();
    let to_name = names
        .iter()
        .map(|(variant, name)| quote!(Self::#variant => #name,));
    let from_name = names.iter().map(|(variant, name)| {
        quote! {
            ::core::option::Option::Some(#name) => {
                ::core::result::Result::Ok(::core::option::Option::Some(Self::#variant))
            }
        }
    });
    let known = names.iter().map(|(_, name)| name);
    quote! {
        #[automatically_derived]
        #[allow(deprecated)]
        impl #krate::ColumnValue for #ident {
            const TYPE: #krate::mapping::ColumnType = #krate::mapping::ColumnType::Text;
            type Plain = Self;

            fn to_value(&self) -> ::core::result::Result<#krate::mapping::Value, #krate::mapping::ColumnError> {
                ::core::result::Result::Ok(#krate::__private::name_value(match self { #(#to_name)* }))
            }

            fn read_column<__R: #krate::mapping::RowSource + ?::core::marker::Sized>(
                __row: &__R,
                __index: ::core::primitive::usize,
            ) -> ::core::result::Result<::core::option::Option<Self>, #krate::mapping::ColumnError> {
                match #krate::mapping::RowSource::read_text(__row, __index)? {
                    #(#from_name)*
                    ::core::option::Option::Some(__other) => ::core::result::Result::Err(
                        #krate::__private::unknown_name(#type_name, __other, &[#(#known),*]),
                    ),
                    ::core::option::Option::None => {
                        ::core::result::Result::Ok(::core::option::Option::None)
                    }
                }
            }
        }
    }
}
