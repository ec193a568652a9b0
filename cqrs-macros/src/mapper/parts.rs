//! What follows from mapped fields, in whichever impl.

use proc_macro2::TokenStream;
use quote::quote;
use syn::Path;

use super::MappedField;

/// The parts of an impl that follow from mapped fields.
pub(crate) struct FieldParts {
    pub(crate) describe: TokenStream,
    /// `name: expression,` for each field.
    pub(crate) read: TokenStream,
    pub(crate) write: TokenStream,
}

impl FieldParts {
    pub(crate) fn of(fields: &[MappedField], krate: &Path) -> Self {
        Self {
            describe: fields.iter().map(|field| field.describe(krate)).collect(),
            read: fields
                .iter()
                .map(|field| {
                    let ident = &field.ident;
                    let read = field.read(krate);
                    quote!(#ident: #read,)
                })
                .collect(),
            write: fields.iter().map(|field| field.write(krate)).collect(),
        }
    }

    /// The functions that a group of columns and a row struct have in common.
    ///
    /// ```text
    /// fn describe(__table: TableBuilder) -> TableBuilder {
    ///     __table.column::<f64>("x").column::<f64>("y").flatten::<Precision>("precision_")
    /// }
    ///
    /// fn write(&self, __row: &mut RowWriter) -> Result<(), MappingError> {
    ///     __row.put(&self.x)?;
    ///     __row.put(&self.y)?;
    ///     ::cqrs_core::ValueObject::write(&self.precision, __row)?;
    ///     Ok(())
    /// }
    ///
    /// fn read<__R: RowSource + ?Sized>(__row: &mut RowCursor<'_, __R>) -> Result<Self, MappingError> {
    ///     Ok(Self {
    ///         x: __row.next::<f64>()?,
    ///         y: __row.next::<f64>()?,
    ///         precision: <Precision as ::cqrs_core::ValueObject>::read(__row)?,
    ///     })
    /// }
    /// ```
    pub(crate) fn functions(&self, krate: &Path) -> TokenStream {
        let Self {
            describe,
            read,
            write,
        } = self;
        quote! {
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

    /// The same functions, for the rest of the crate to be checked after an error.
    pub(crate) fn stub_functions(krate: &Path) -> TokenStream {
        quote! {
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
