//! Checks that every derive makes of its input.

use syn::{Data, DeriveInput, Fields};

use crate::attribute::refuse;
use crate::errors::Errors;
use crate::symbol::MAPPER;

/// Reports type and lifetime parameters.
pub(crate) fn refuse_generics(input: &DeriveInput, derive: &str, errors: &mut Errors) {
    if !input.generics.params.is_empty() {
        errors.report(
            &input.generics,
            format!("`#[derive({derive})]` takes no generic type: what is stored has one shape, so write a type for each"),
        );
    }
}

/// Reports `#[mapper(row = ...)]`, and whatever else `#[mapper(...)]` says of the type as a whole.
pub(crate) fn refuse_row_struct(input: &DeriveInput, errors: &mut Errors) {
    refuse(
        &input.attrs,
        MAPPER,
        errors,
        "only an aggregate has a separate row struct: write `#[mapper(...)]` on the fields",
    );
}

/// The fields of a struct; reports enums and unions.
pub(crate) fn struct_fields<'i>(
    input: &'i DeriveInput,
    derive: &str,
    errors: &mut Errors,
) -> Option<&'i Fields> {
    let keyword = match &input.data {
        Data::Struct(data) => return Some(&data.fields),
        Data::Enum(data) => &data.enum_token as &dyn quote::ToTokens,
        Data::Union(data) => &data.union_token,
    };
    errors.report(
        keyword,
        format!("`#[derive({derive})]` needs a struct with named fields, which become columns"),
    );
    None
}
