//! `#[derive(Record)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{DeriveInput, Path};

use crate::attribute::{crate_alone, entries};
use crate::errors::Errors;
use crate::input::{refuse_generics, refuse_row_struct, struct_fields};
use crate::mapper::{
    FieldParts, GenericFieldsStruct, MappedField, Names, TypedField, check_columns, named_fields,
    refuse_children,
};
use crate::symbol::{KEY, RECORD};

pub(crate) fn expand(input: &DeriveInput) -> TokenStream {
    let mut errors = Errors::default();
    refuse_generics(input, "Record", &mut errors);
    refuse_row_struct(input, &mut errors);
    let krate = crate_alone(&input.attrs, RECORD, &mut errors);
    let named = struct_fields(input, "Record", &mut errors)
        .map(|fields| named_fields(fields, &input.ident, "Record", &mut errors))
        .unwrap_or_default();
    let mut fields = Vec::new();
    let mut is_read = true;
    for (ident, field) in named {
        let before = errors.count();
        let mut is_key = false;
        entries(&field.attrs, RECORD, &[KEY], &mut errors, |_, _, _| {
            is_key = true;
            Ok(())
        });
        is_read &= errors.count() == before;
        fields.push(MappedField::parse(
            &input.ident,
            ident,
            field,
            is_key,
            &mut errors,
        ));
    }
    check_columns(&fields, &mut errors);
    refuse_children(&fields, &mut errors);
    let key = check_key(input, &fields, is_read, &mut errors);
    match key {
        Some(key) if errors.is_empty() => emit(input, &krate, &fields, key),
        _ => {
            let stub = stub(input, &krate, &fields, key);
            let errors = errors.into_tokens();
            quote!(#errors #stub)
        }
    }
}

fn check_key<'f>(
    input: &DeriveInput,
    fields: &'f [MappedField],
    is_read: bool,
    errors: &mut Errors,
) -> Option<&'f MappedField> {
    let mut keys = fields.iter().filter(|field| field.is_key);
    let first = keys.next();
    if first.is_none() && !fields.is_empty() && is_read {
        errors.report(
            &input.ident,
            "which field is the key? Write `#[record(key)]` on the one that holds the aggregate's id",
        );
    }
    for other in keys {
        errors.report(
            &other.ident,
            "a row struct has one key, the id of its aggregate: remove `#[record(key)]` here",
        );
    }
    first
}

fn emit(
    input: &DeriveInput,
    krate: &Path,
    fields: &[MappedField],
    key: &MappedField,
) -> TokenStream {
    let typed: Vec<TypedField> = fields
        .iter()
        .map(|field| field.typed(krate, Names::Whole))
        .collect();
    let typed = GenericFieldsStruct::new(input, krate, &typed);
    let functions = FieldParts::of(fields, krate).functions(krate);
    record_impl(&typed, key, &typed.construct(), &functions)
}

/// The same struct and impl, for the rest of the crate to be checked after an error.
fn stub(
    input: &DeriveInput,
    krate: &Path,
    fields: &[MappedField],
    key: Option<&MappedField>,
) -> TokenStream {
    let Some(key) = key.filter(|_| input.generics.params.is_empty()) else {
        return TokenStream::new();
    };
    let typed: Vec<TypedField> = fields
        .iter()
        .filter_map(|field| field.typed_stub(krate))
        .collect();
    let typed = GenericFieldsStruct::new(input, krate, &typed);
    let functions = FieldParts::stub_functions(krate);
    record_impl(&typed, key, &quote!(::core::unreachable!()), &functions)
}

/// The struct of typed fields, and the impl that names it.
///
/// ```text
/// impl ::cqrs_core::Record for RoutePlanRow {
///     type Key = RoutePlanId;
///     type Fields<__T> = RoutePlanRowFields<__T>;
///
///     fn fields<__T: ::cqrs_core::Entity>() -> Self::Fields<__T> {
///         RoutePlanRowFields { id: ::cqrs_core::Field::new("id"), priority: ::cqrs_core::Field::new("priority") }
///     }
///
///     // and the functions of `FieldParts`
/// }
/// ```
fn record_impl(
    typed: &GenericFieldsStruct<'_>,
    key: &MappedField,
    construct: &TokenStream,
    functions: &TokenStream,
) -> TokenStream {
    let GenericFieldsStruct {
        krate,
        owner,
        allow_deprecated,
        ..
    } = typed;
    let (fields_struct, fields_name) = (typed.emit(), typed.name());
    let key_type = &key.ty;
    quote! {
        #fields_struct

        #[automatically_derived]
        #allow_deprecated
        impl #krate::Record for #owner {
            type Key = #key_type;
            type Fields<__T> = #fields_name<__T>;

            fn fields<__T: #krate::Entity>() -> Self::Fields<__T> {
                #construct
            }

            #functions
        }
    }
}
