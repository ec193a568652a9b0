//! `#[derive(Record)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{DeriveInput, Path};

use crate::attribute::{crate_path, default_crate, entries, refuse};
use crate::entity::FieldParts;
use crate::errors::Errors;
use crate::input::{refuse_generics, struct_fields};
use crate::mapper::{
    GenericFieldsStruct, MappedField, Names, TypedField, check_columns, named_fields,
};
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
///     fn fields<__T: ::cqrs_core::Entity>() -> Self::Fields<__T> {
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
        .map(|field| field.typed(krate, Names::Whole))
        .collect();
    let generic = GenericFieldsStruct::new(input, krate, &typed);
    let (fields_struct, fields_name, construct) =
        (generic.emit(), generic.name(), generic.construct());
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

            fn fields<__T: #krate::Entity>() -> Self::Fields<__T> {
                #construct
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
    let typed: Vec<TypedField> = fields
        .iter()
        .filter_map(|field| field.typed_stub(krate))
        .collect();
    let fields = GenericFieldsStruct::new(input, krate, &typed);
    let (fields_struct, fields_name) = (fields.emit(), fields.name());
    let key_type = &key.ty;
    quote! {
        #fields_struct

        #[automatically_derived]
        #[allow(deprecated, private_interfaces)]
        impl #krate::Record for #ident {
            type Key = #key_type;
            type Fields<__T> = #fields_name<__T>;

            fn fields<__T: #krate::Entity>() -> Self::Fields<__T> {
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
