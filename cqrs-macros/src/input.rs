//! Checks that every derive makes of its input.

use syn::{Data, DeriveInput, Fields};

use crate::errors::Errors;

/// Reports type and lifetime parameters.
pub(crate) fn refuse_generics(input: &DeriveInput, derive: &str, errors: &mut Errors) {
    if !input.generics.params.is_empty() {
        errors.report(
            &input.generics,
            format!("`#[derive({derive})]` takes no generic type: what is stored has one shape, so write a type for each"),
        );
    }
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
