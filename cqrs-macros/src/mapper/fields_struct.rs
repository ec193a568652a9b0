//! The struct of typed fields beside an aggregate, a read model or a row struct.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::{Ident, Path, Type, Visibility};

use crate::attribute::emitted_at;

/// One typed field.
pub(crate) struct TypedField {
    pub(crate) ident: Ident,
    pub(crate) column: String,
    /// The type of its values.
    pub(crate) value: TokenStream,
    /// An expression that makes it.
    pub(crate) new: TokenStream,
}

impl TypedField {
    /// The field of a column that the framework keeps.
    pub(crate) fn framework(name: &str, value: TokenStream, krate: &Path) -> Self {
        Self {
            ident: format_ident!("{name}"),
            column: name.to_owned(),
            value,
            new: quote!(#krate::Field::new(#name)),
        }
    }
}

/// What is needed to emit the struct of typed fields of `owner`.
pub(crate) struct FieldsStruct<'a> {
    pub(crate) krate: &'a Path,
    pub(crate) vis: &'a Visibility,
    pub(crate) owner: &'a Ident,
    pub(crate) fields: Vec<TypedField>,
    /// The row struct whose typed fields are reached through this struct.
    pub(crate) record: Option<&'a Type>,
}

impl FieldsStruct<'_> {
    pub(crate) fn name(&self) -> Ident {
        format_ident!("{}Fields", self.owner, span = self.owner.span())
    }

    /// The struct, and the shortcut to it on its owner.
    ///
    /// ```text
    /// /// The typed fields of [`RoutePlan`], for conditions and orders.
    /// #[derive(Clone, Copy, Debug)]
    /// pub struct RoutePlanFields {
    ///     /// The field in column `priority`.
    ///     pub priority: ::cqrs_core::Field<RoutePlan, i32>,
    /// }
    ///
    /// impl RoutePlan {
    ///     /// The typed fields, for conditions and orders.
    ///     pub fn fields() -> RoutePlanFields {
    ///         <Self as ::cqrs_core::Entity>::fields()
    ///     }
    /// }
    /// ```
    pub(crate) fn emit(&self) -> TokenStream {
        let Self {
            krate, vis, owner, ..
        } = self;
        let name = self.name();
        let doc = format!("The typed fields of [`{owner}`], for conditions and orders.");
        let fields = self.fields.iter().map(|field| {
            let TypedField {
                ident,
                column,
                value,
                ..
            } = field;
            let doc = format!("The field in column `{column}`.");
            let span = ident.span().resolved_at(proc_macro2::Span::call_site());
            quote_spanned!(span=> #[doc = #doc] #vis #ident: #krate::Field<#owner, #value>,)
        });
        let record = self.record.map(|record| {
            let span = emitted_at(record);
            quote_spanned!(span=> __record: <#record as #krate::Record>::Fields<#owner>,)
        });
        let deref = self.record.map(|record| {
            let span = emitted_at(record);
            quote_spanned! {span=>
                #[automatically_derived]
                impl ::core::ops::Deref for #name {
                    type Target = <#record as #krate::Record>::Fields<#owner>;

                    fn deref(&self) -> &Self::Target {
                        &self.__record
                    }
                }
            }
        });
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
            #[derive(::core::clone::Clone, ::core::marker::Copy, ::core::fmt::Debug)]
            #vis struct #name {
                #(#fields)*
                #record
            }

            #deref

            #[automatically_derived]
            impl #owner {
                /// The typed fields, for conditions and orders.
                #[allow(dead_code, private_interfaces, unreachable_pub)]
                #[must_use]
                #vis fn fields() -> #name {
                    <Self as #krate::Entity>::fields()
                }
            }
        }
    }

    /// The body of `Entity::fields`.
    pub(crate) fn construct(&self) -> TokenStream {
        let Self { krate, owner, .. } = self;
        let name = self.name();
        let fields = self.fields.iter().map(|field| {
            let TypedField { ident, new, .. } = field;
            quote!(#ident: #new,)
        });
        let record = self.record.map(|record| {
            let span = emitted_at(record);
            quote_spanned!(span=> __record: <#record as #krate::Record>::fields::<#owner>(),)
        });
        quote!(#name { #(#fields)* #record })
    }
}
