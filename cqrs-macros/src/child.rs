//! `#[derive(Child)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{DeriveInput, Path};

use crate::attribute::{allow_deprecated, crate_alone, entries};
use crate::errors::Errors;
use crate::input::{refuse_generics, refuse_row_struct, struct_fields};
use crate::mapper::{
    FieldParts, FieldsStruct, MappedField, Names, TypedField, check_columns, named_fields,
    refuse_children,
};
use crate::symbol::{CHILD, KEY};

pub(crate) fn expand(input: &DeriveInput) -> TokenStream {
    let mut errors = Errors::default();
    refuse_generics(input, "Child", &mut errors);
    refuse_row_struct(input, &mut errors);
    let krate = crate_alone(&input.attrs, CHILD, &mut errors);
    let named = struct_fields(input, "Child", &mut errors)
        .map(|fields| named_fields(fields, &input.ident, "Child", &mut errors))
        .unwrap_or_default();
    let mut fields: Vec<MappedField> = Vec::new();
    for (ident, field) in named {
        let mut is_key = false;
        entries(&field.attrs, CHILD, &[KEY], &mut errors, |_, _, _| {
            is_key = true;
            Ok(())
        });
        if is_key && fields.iter().any(|field| field.is_key) {
            errors.report(
                ident,
                "a child has one key at most: remove `#[child(key)]` here",
            );
        }
        let field = MappedField::parse(&input.ident, ident, field, is_key, &mut errors);
        fields.push(field);
    }
    check_columns(&fields, &mut errors);
    refuse_children(&fields, &mut errors);
    if errors.is_empty() {
        return emit(input, &krate, &fields);
    }
    let stub = stub(input, &krate, &fields);
    let errors = errors.into_tokens();
    quote!(#errors #stub)
}

fn emit(input: &DeriveInput, krate: &Path, fields: &[MappedField]) -> TokenStream {
    let typed = fields.iter().map(|field| field.typed(krate, Names::Whole));
    let typed = fields_struct(input, krate, typed.collect());
    let functions = FieldParts::of(fields, krate).functions(krate);
    child_impl(&typed, &typed.construct(), &functions)
}

/// The same struct and impls, for the rest of the crate to be checked after an error.
fn stub(input: &DeriveInput, krate: &Path, fields: &[MappedField]) -> TokenStream {
    if !input.generics.params.is_empty() {
        return TokenStream::new();
    }
    let typed = fields.iter().filter_map(|field| field.typed_stub(krate));
    let typed = fields_struct(input, krate, typed.collect());
    let functions = FieldParts::stub_functions(krate);
    child_impl(&typed, &quote!(::core::unreachable!()), &functions)
}

fn fields_struct<'a>(
    input: &'a DeriveInput,
    krate: &'a Path,
    fields: Vec<TypedField>,
) -> FieldsStruct<'a> {
    FieldsStruct {
        krate,
        vis: &input.vis,
        owner: &input.ident,
        through: "Child",
        fields,
        record: None,
        allow_deprecated: allow_deprecated(input),
    }
}

/// ```text
/// impl ::cqrs_core::Columns for Stop {
///     fn columns() -> &'static [::cqrs_core::mapping::Column] {
///         static COLUMNS: ::std::sync::OnceLock<::cqrs_core::mapping::Table> = ::std::sync::OnceLock::new();
///         COLUMNS
///             .get_or_init(|| <Self as ::cqrs_core::Child>::describe(::cqrs_core::mapping::Table::builder("Stop")).build())
///             .columns()
///     }
/// }
///
/// impl ::cqrs_core::Child for Stop {
///     type Fields = StopFields;
///
///     fn fields() -> StopFields {
///         StopFields { city: ::cqrs_core::Field::new("city") }
///     }
///
///     // and the functions of `FieldParts`
/// }
/// ```
fn child_impl(
    typed: &FieldsStruct<'_>,
    construct: &TokenStream,
    functions: &TokenStream,
) -> TokenStream {
    let FieldsStruct {
        krate,
        owner,
        allow_deprecated,
        ..
    } = typed;
    let (fields_struct, fields_name) = (typed.emit(), typed.name());
    let text = owner.to_string();
    quote! {
        #fields_struct

        #[automatically_derived]
        #allow_deprecated
        impl #krate::Columns for #owner {
            fn columns() -> &'static [#krate::mapping::Column] {
                static COLUMNS: ::std::sync::OnceLock<#krate::mapping::Table> =
                    ::std::sync::OnceLock::new();
                COLUMNS
                    .get_or_init(|| {
                        let __table = #krate::mapping::Table::builder(#text);
                        <Self as #krate::Child>::describe(__table).build()
                    })
                    .columns()
            }
        }

        #[automatically_derived]
        #allow_deprecated
        impl #krate::Child for #owner {
            type Fields = #fields_name;

            fn fields() -> #fields_name {
                #construct
            }

            #functions
        }
    }
}
