//! The struct of typed fields beside an aggregate, a read model or a row struct.

use proc_macro2::TokenStream;
use quote::{ToTokens, format_ident, quote, quote_spanned};
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

    /// Its line in a struct of typed fields.
    fn declare(&self, krate: &Path, vis: &Visibility, owner: &impl ToTokens) -> TokenStream {
        let Self {
            ident,
            column,
            value,
            ..
        } = self;
        let doc = format!("The field in column `{column}`.");
        let span = ident.span().resolved_at(proc_macro2::Span::call_site());
        quote_spanned!(span=> #[doc = #doc] #vis #ident: #krate::Field<#owner, #value>,)
    }

    /// Its line in the expression that makes the struct.
    fn construct(&self) -> TokenStream {
        let Self { ident, new, .. } = self;
        quote!(#ident: #new,)
    }
}

/// The name of the struct of typed fields of `owner`.
fn fields_name(owner: &Ident) -> Ident {
    format_ident!("{owner}Fields", span = owner.span())
}

/// What a struct of typed fields may do that is no fault of the user's.
fn allowed() -> TokenStream {
    quote! {
        #[allow(
            dead_code,
            deprecated,
            non_snake_case,
            private_interfaces,
            unreachable_pub,
            clippy::struct_field_names
        )]
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
        fields_name(self.owner)
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
        let allowed = allowed();
        let fields = self
            .fields
            .iter()
            .map(|field| field.declare(krate, vis, owner));
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
            #allowed
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
        let fields = self.fields.iter().map(TypedField::construct);
        let record = self.record.map(|record| {
            let span = emitted_at(record);
            quote_spanned!(span=> __record: <#record as #krate::Record>::fields::<#owner>(),)
        });
        quote!(#name { #(#fields)* #record })
    }
}

/// The struct of typed fields of a row struct, which are the fields of whatever is stored in it.
pub(crate) struct RecordFieldsStruct<'a> {
    pub(crate) krate: &'a Path,
    pub(crate) vis: &'a Visibility,
    pub(crate) owner: &'a Ident,
    pub(crate) fields: Vec<TypedField>,
}

impl RecordFieldsStruct<'_> {
    pub(crate) fn name(&self) -> Ident {
        fields_name(self.owner)
    }

    /// `Clone`, `Copy` and `Debug` are written out, as deriving them would ask the same of `__T`.
    ///
    /// ```text
    /// pub struct RoutePlanRowFields<__T> {
    ///     /// The field in column `priority`.
    ///     pub priority: ::cqrs_core::Field<__T, i32>,
    /// }
    /// ```
    pub(crate) fn emit(&self) -> TokenStream {
        let Self {
            krate, vis, owner, ..
        } = self;
        let name = self.name();
        let text = name.to_string();
        let doc = format!(
            "The typed fields of what is stored as [`{owner}`], for conditions and orders."
        );
        let allowed = allowed();
        let stored = format_ident!("__T");
        let fields = self
            .fields
            .iter()
            .map(|field| field.declare(krate, vis, &stored));
        let idents: Vec<_> = self.fields.iter().map(|field| &field.ident).collect();
        let names = idents.iter().map(ToString::to_string);
        quote! {
            #[doc = #doc]
            #allowed
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

    /// The body of `Record::fields`.
    pub(crate) fn construct(&self) -> TokenStream {
        let name = self.name();
        let fields = self.fields.iter().map(TypedField::construct);
        quote!(#name { #(#fields)* })
    }
}
