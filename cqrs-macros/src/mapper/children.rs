//! What children contribute to the impls of their aggregate.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{Ident, Path};

use super::{Children, Kind, MappedField};
use crate::attribute::emitted_at;

impl Children {
    /// A call on the table builder.
    pub(super) fn describe(&self) -> TokenStream {
        let Self {
            table,
            order,
            parent,
            child,
        } = self;
        let parent = match parent {
            Some(parent) => quote!(::core::option::Option::Some(#parent)),
            None => quote!(::core::option::Option::None),
        };
        let span = emitted_at(child);
        quote_spanned!(span=> .children::<#child>(#table, #order, #parent))
    }
}

/// The fields of an aggregate that hold children, in their order.
pub(crate) struct ChildrenParts<'a> {
    krate: &'a Path,
    fields: Vec<(&'a Ident, &'a Children)>,
}

impl<'a> ChildrenParts<'a> {
    pub(crate) fn of(fields: &'a [MappedField], krate: &'a Path) -> Self {
        let children = fields.iter().filter_map(|field| match &field.kind {
            Kind::Children(children) => Some((&field.ident, children)),
            _ => None,
        });
        Self {
            krate,
            fields: children.collect(),
        }
    }

    /// The functions of `Entity` that deal with children; nothing where there are none.
    ///
    /// ```text
    /// fn child_rows(&self) -> Result<ChildRows, MappingError> {
    ///     let __tables = <Self as ::cqrs_core::Entity>::table().children();
    ///     Ok(vec![::cqrs_core::__private::child_rows(&__tables[0], &self.stops)?])
    /// }
    ///
    /// fn read_child<__R: RowSource + ?Sized>(
    ///     &mut self,
    ///     __index: usize,
    ///     __row: &mut RowCursor<'_, __R>,
    /// ) -> Result<(), MappingError> {
    ///     match __index {
    ///         0 => self.stops.push(<Stop as ::cqrs_core::Child>::read(__row)?),
    ///         _ => {}
    ///     }
    ///     Ok(())
    /// }
    ///
    /// fn remember_children(&mut self, __places: Vec<Vec<i32>>) -> Result<(), MappingError> {
    ///     let __rows = <Self as ::cqrs_core::Entity>::child_rows(self)?;
    ///     ::cqrs_core::AggregateRoot::root_mut(self).remember_children(__rows, __places);
    ///     Ok(())
    /// }
    /// ```
    pub(crate) fn functions(&self) -> TokenStream {
        let Self { krate, fields } = self;
        if fields.is_empty() {
            return TokenStream::new();
        }
        let rows = fields.iter().enumerate().map(|(index, (field, children))| {
            let span = emitted_at(&children.child);
            quote_spanned!(span=> #krate::__private::child_rows(&__tables[#index], &self.#field)?)
        });
        let read = fields.iter().enumerate().map(|(index, (field, children))| {
            let child = &children.child;
            let span = emitted_at(child);
            let read = quote_spanned!(span=> <#child as #krate::Child>::read(__row)?);
            quote!(#index => self.#field.push(#read),)
        });
        let error = quote!(#krate::mapping::MappingError);
        quote! {
            fn child_rows(&self) -> ::core::result::Result<#krate::mapping::ChildRows, #error> {
                let __tables = <Self as #krate::Entity>::table().children();
                ::core::result::Result::Ok(::std::vec![#(#rows),*])
            }

            fn read_child<__R: #krate::mapping::RowSource + ?::core::marker::Sized>(
                &mut self,
                __index: ::core::primitive::usize,
                __row: &mut #krate::mapping::RowCursor<'_, __R>,
            ) -> ::core::result::Result<(), #error> {
                match __index {
                    #(#read)*
                    _ => {}
                }
                ::core::result::Result::Ok(())
            }

            fn remember_children(
                &mut self,
                __places: ::std::vec::Vec<::std::vec::Vec<::core::primitive::i32>>,
            ) -> ::core::result::Result<(), #error> {
                let __rows = <Self as #krate::Entity>::child_rows(self)?;
                #krate::AggregateRoot::root_mut(self).remember_children(__rows, __places);
                ::core::result::Result::Ok(())
            }
        }
    }
}
