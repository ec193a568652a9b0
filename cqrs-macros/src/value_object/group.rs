//! A struct with named fields: a group of columns, for `#[mapper(flatten)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{DeriveInput, Fields, Ident, Path};

use crate::attribute::emitted_at;
use crate::errors::Errors;
use crate::mapper::{
    FieldParts, GenericFieldsStruct, Kind, MappedField, Names, TypedField, check_columns,
    named_fields, refuse_children,
};

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
    refuse_children(&fields, errors);
    emit(input, krate, &fields)
}

/// ```text
/// impl ::cqrs_core::ValueObject for GeoPoint {
///     type Fields<__T> = GeoPointFields<__T>;
///     const COLUMNS: usize = 1 + 1 + <Precision as ::cqrs_core::ValueObject>::COLUMNS;
///
///     fn fields<__T: ::cqrs_core::Columns>(__prefix: &str) -> Self::Fields<__T> {
///         GeoPointFields {
///             x: ::cqrs_core::Field::new(::cqrs_core::__private::column_of::<__T>(__prefix, "x")),
///             y: ::cqrs_core::Field::new(::cqrs_core::__private::column_of::<__T>(__prefix, "y")),
///             precision: <Precision as ::cqrs_core::ValueObject>::fields::<__T>(&format!("{}{}", __prefix, "precision_")),
///         }
///     }
///
///     // and the functions of `FieldParts`
/// }
/// ```
fn emit(input: &DeriveInput, krate: &Path, fields: &[MappedField]) -> TokenStream {
    let ident = &input.ident;
    let typed: Vec<TypedField> = fields
        .iter()
        .map(|field| field.typed(krate, Names::Prefixed))
        .collect();
    let generic = GenericFieldsStruct::new(input, krate, &typed);
    let (fields_struct, fields_name, construct) =
        (generic.emit(), generic.name(), generic.construct());
    let allow_deprecated = &generic.allow_deprecated;
    let functions = FieldParts::of(fields, krate).functions(krate);
    let columns = fields.iter().map(|field| match &field.kind {
        Kind::Column { .. } => quote!(1),
        Kind::Children(_) => quote!(0),
        Kind::Flatten { .. } => {
            let ty = &field.ty;
            let span = emitted_at(ty);
            quote::quote_spanned!(span=> <#ty as #krate::ValueObject>::COLUMNS)
        }
    });
    quote! {
        #fields_struct

        #[automatically_derived]
        #allow_deprecated
        impl #krate::ValueObject for #ident {
            type Fields<__T> = #fields_name<__T>;
            const COLUMNS: ::core::primitive::usize = #(#columns)+*;

            #[allow(unused_variables)]
            fn fields<__T: #krate::Columns>(__prefix: &::core::primitive::str) -> Self::Fields<__T> {
                #construct
            }

            #functions
        }
    }
}

pub(super) fn stub(ident: &Ident, krate: &Path) -> TokenStream {
    let functions = FieldParts::stub_functions(krate);
    quote! {
        #[automatically_derived]
        impl #krate::ValueObject for #ident {
            type Fields<__T> = ();
            const COLUMNS: ::core::primitive::usize = 0;

            fn fields<__T: #krate::Columns>(_: &::core::primitive::str) -> Self::Fields<__T> {}

            #functions
        }
    }
}
