//! `#[derive(Record)]`.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{DeriveInput, Path};

use crate::attribute::{crate_path, default_crate, entries, refuse};
use crate::entity::FieldParts;
use crate::errors::Errors;
use crate::input::{refuse_generics, struct_fields};
use crate::mapper::{MappedField, TypedField, check_columns, named_fields};
use crate::symbol::{CRATE, KEY, MAPPER, RECORD};

pub(crate) fn expand(input: &DeriveInput) -> TokenStream {
    let mut errors = Errors::default();
    refuse_generics(input, "Record", &mut errors);
    refuse(
        &input.attrs,
        MAPPER,
        &mut errors,
        "only an aggregate has a separate row struct: write `#[mapper(...)]` on the fields",
    );
    let mut krate = default_crate();
    entries(
        &input.attrs,
        RECORD,
        &[CRATE],
        &mut errors,
        |_, key, input| {
            krate = crate_path(key, input)?;
            Ok(())
        },
    );
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

/// ```text
/// impl ::cqrs_core::Record for RoutePlanRow {
///     type Key = RoutePlanId;
///     type Fields<__T> = RoutePlanRowFields<__T>;
///
///     fn fields<__T>() -> Self::Fields<__T> {
///         RoutePlanRowFields { id: ::cqrs_core::Field::new("id"), priority: ::cqrs_core::Field::new("priority") }
///     }
///
///     fn describe(__table: TableBuilder) -> TableBuilder {
///         __table.key::<RoutePlanId>("id").column::<i32>("priority")
///     }
///
///     fn write(&self, __row: &mut RowWriter) -> Result<(), MappingError> {
///         __row.put(&self.id)?;
///         __row.put(&self.priority)?;
///         Ok(())
///     }
///
///     fn read<__R: RowSource + ?Sized>(__row: &mut RowCursor<'_, __R>) -> Result<Self, MappingError> {
///         Ok(Self { id: __row.next::<RoutePlanId>()?, priority: __row.next::<i32>()? })
///     }
/// }
/// ```
fn emit(
    input: &DeriveInput,
    krate: &Path,
    fields: &[MappedField],
    key: &MappedField,
) -> TokenStream {
    let ident = &input.ident;
    let typed: Vec<TypedField> = fields
        .iter()
        .filter_map(|field| field.typed(krate))
        .collect();
    let fields_struct = generic_fields_struct(input, krate, &typed);
    let fields_name = format_ident!("{ident}Fields");
    let construct = typed
        .iter()
        .map(|TypedField { ident, new, .. }| quote!(#ident: #new,));
    let FieldParts {
        describe,
        read,
        write,
    } = FieldParts::of(fields, krate);
    let key_type = &key.ty;
    quote! {
        #fields_struct

        #[automatically_derived]
        #[allow(deprecated, private_interfaces)]
        impl #krate::Record for #ident {
            type Key = #key_type;
            type Fields<__T> = #fields_name<__T>;

            fn fields<__T>() -> Self::Fields<__T> {
                #fields_name { #(#construct)* }
            }

            fn describe(__table: #krate::mapping::TableBuilder) -> #krate::mapping::TableBuilder {
                __table #describe
            }

            fn write(
                &self,
                __row: &mut #krate::mapping::RowWriter,
            ) -> ::core::result::Result<(), #krate::mapping::MappingError> {
                #write
                ::core::result::Result::Ok(())
            }

            fn read<__R: #krate::mapping::RowSource + ?::core::marker::Sized>(
                __row: &mut #krate::mapping::RowCursor<'_, __R>,
            ) -> ::core::result::Result<Self, #krate::mapping::MappingError> {
                ::core::result::Result::Ok(Self { #read })
            }
        }
    }
}

/// The typed fields of whatever is stored in this row. `Clone`, `Copy` and `Debug` are written
/// out, as deriving them would ask the same of `__T`.
///
/// ```text
/// pub struct RoutePlanRowFields<__T> {
///     /// The field in column `priority`.
///     pub priority: ::cqrs_core::Field<__T, i32>,
/// }
/// ```
fn generic_fields_struct(input: &DeriveInput, krate: &Path, typed: &[TypedField]) -> TokenStream {
    let (vis, owner) = (&input.vis, &input.ident);
    let name = format_ident!("{owner}Fields");
    let text = name.to_string();
    let doc =
        format!("The typed fields of what is stored as [`{owner}`], for conditions and orders.");
    let fields = typed.iter().map(
        |TypedField {
             ident,
             column,
             value,
             ..
         }| {
            let doc = format!("The field in column `{column}`.");
            quote!(#[doc = #doc] #vis #ident: #krate::Field<__T, #value>,)
        },
    );
    let idents: Vec<_> = typed.iter().map(|field| &field.ident).collect();
    let names: Vec<_> = typed.iter().map(|field| field.ident.to_string()).collect();
    quote! {
        #[doc = #doc]
        #[allow(
                dead_code,
                deprecated,
                non_snake_case,
                private_interfaces,
                unreachable_pub,
                clippy::struct_field_names
            )]
        #vis struct #name<__T> {
            #(#fields)*
        }

        #[automatically_derived]
        impl<__T> ::core::clone::Clone for #name<__T> {
            fn clone(&self) -> Self {
                *self
            }
        }

        #[automatically_derived]
        impl<__T> ::core::marker::Copy for #name<__T> {}

        #[automatically_derived]
        impl<__T> ::core::fmt::Debug for #name<__T> {
            fn fmt(&self, __f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                __f.debug_struct(#text) #(.field(#names, &self.#idents))* .finish()
            }
        }
    }
}

fn stub(
    input: &DeriveInput,
    krate: &Path,
    fields: &[MappedField],
    key: Option<&MappedField>,
) -> TokenStream {
    let Some(key) = key.filter(|_| input.generics.params.is_empty()) else {
        return TokenStream::new();
    };
    let ident = &input.ident;
    let typed: Vec<TypedField> = fields.iter().filter_map(MappedField::typed_stub).collect();
    let fields_struct = generic_fields_struct(input, krate, &typed);
    let fields_name = format_ident!("{ident}Fields");
    let key_type = &key.ty;
    quote! {
        #fields_struct

        #[automatically_derived]
        #[allow(deprecated, private_interfaces)]
        impl #krate::Record for #ident {
            type Key = #key_type;
            type Fields<__T> = #fields_name<__T>;

            fn fields<__T>() -> Self::Fields<__T> {
                ::core::unreachable!()
            }

            fn describe(_: #krate::mapping::TableBuilder) -> #krate::mapping::TableBuilder {
                ::core::unreachable!()
            }

            fn write(
                &self,
                _: &mut #krate::mapping::RowWriter,
            ) -> ::core::result::Result<(), #krate::mapping::MappingError> {
                ::core::unreachable!()
            }

            fn read<__R: #krate::mapping::RowSource + ?::core::marker::Sized>(
                _: &mut #krate::mapping::RowCursor<'_, __R>,
            ) -> ::core::result::Result<Self, #krate::mapping::MappingError> {
                ::core::unreachable!()
            }
        }
    }
}
