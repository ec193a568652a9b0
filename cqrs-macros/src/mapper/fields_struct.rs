//! The struct of typed fields beside an aggregate, a read model, a row struct or a value object.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::{DeriveInput, Ident, Path, Type, Visibility};

use crate::attribute::{allow_deprecated, emitted_at};

/// One typed field.
pub(crate) struct TypedField {
    pub(crate) ident: Ident,
    pub(crate) kind: TypedKind,
}

/// What a typed field stands for.
pub(crate) enum TypedKind {
    /// One column.
    Column {
        name: String,
        /// The type of its values.
        value: TokenStream,
        /// An expression that makes it.
        new: TokenStream,
    },
    /// The columns of a value object.
    Group {
        ty: Type,
        /// An expression for what stands in front of its columns' names.
        prefix: TokenStream,
    },
    /// Rows of a table of children.
    Children { table: String, child: Type },
}

impl TypedField {
    /// The typed field of a column that the framework keeps.
    pub(crate) fn framework(name: &str, value: TokenStream, krate: &Path) -> Self {
        Self {
            ident: format_ident!("{name}"),
            kind: TypedKind::Column {
                name: name.to_owned(),
                value,
                new: quote!(#krate::Field::new(#name)),
            },
        }
    }

    /// Its declaration in a struct of the typed fields of `owner`.
    fn declare(&self, krate: &Path, vis: &Visibility, owner: &TokenStream) -> TokenStream {
        let ident = &self.ident;
        let (doc, ty) = match &self.kind {
            TypedKind::Column { name, value, .. } => (
                format!("The field in column `{name}`."),
                quote!(#krate::Field<#owner, #value>),
            ),
            TypedKind::Group { ty, .. } => {
                let span = emitted_at(ty);
                let fields = quote_spanned!(span=> <#ty as #krate::ValueObject>::Fields<#owner>);
                (format!("The fields of `{ident}`."), fields)
            }
            TypedKind::Children { table, child } => {
                let span = emitted_at(child);
                let children = quote_spanned!(span=> #krate::Children<#owner, #child>);
                (format!("The children in table `{table}`."), children)
            }
        };
        let span = ident.span().resolved_at(proc_macro2::Span::call_site());
        quote_spanned!(span=> #[doc = #doc] #vis #ident: #ty,)
    }

    /// Its part of an expression that makes such a struct.
    fn construct(&self, krate: &Path, owner: &TokenStream) -> TokenStream {
        let ident = &self.ident;
        match &self.kind {
            TypedKind::Column { new, .. } => quote!(#ident: #new,),
            TypedKind::Group { ty, prefix } => {
                let span = emitted_at(ty);
                quote_spanned!(span=> #ident: <#ty as #krate::ValueObject>::fields::<#owner>(#prefix),)
            }
            TypedKind::Children { table, .. } => quote!(#ident: #krate::Children::new(#table),),
        }
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
    /// The trait of the owner that makes the struct.
    pub(crate) through: &'static str,
    pub(crate) fields: Vec<TypedField>,
    /// The row struct whose typed fields are reached through this struct.
    pub(crate) record: Option<&'a Type>,
    /// For impls that name the fields.
    pub(crate) allow_deprecated: TokenStream,
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
            krate,
            vis,
            owner,
            allow_deprecated,
            ..
        } = self;
        let name = self.name();
        let doc = format!("The typed fields of [`{owner}`], for conditions and orders.");
        let allowed = allowed();
        let through = format_ident!("{}", self.through);
        let owner_type = quote!(#owner);
        let fields = self
            .fields
            .iter()
            .map(|field| field.declare(krate, vis, &owner_type));
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
            #allow_deprecated
            impl #owner {
                /// The typed fields, for conditions and orders.
                #[allow(dead_code, private_interfaces, unreachable_pub)]
                #[must_use]
                #vis fn fields() -> #name {
                    <Self as #krate::#through>::fields()
                }
            }
        }
    }

    /// The body of `Entity::fields`.
    pub(crate) fn construct(&self) -> TokenStream {
        let Self { krate, owner, .. } = self;
        let name = self.name();
        let owner_type = quote!(#owner);
        let fields = self
            .fields
            .iter()
            .map(|field| field.construct(krate, &owner_type));
        let record = self.record.map(|record| {
            let span = emitted_at(record);
            quote_spanned!(span=> __record: <#record as #krate::Record>::fields::<#owner>(),)
        });
        quote!(#name { #(#fields)* #record })
    }
}

/// What is needed to emit the struct of typed fields of whatever holds the columns of `owner`: a
/// row struct, or a value object.
pub(crate) struct GenericFieldsStruct<'a> {
    pub(crate) krate: &'a Path,
    vis: &'a Visibility,
    pub(crate) owner: &'a Ident,
    fields: &'a [TypedField],
    /// For impls that name the fields.
    pub(crate) allow_deprecated: TokenStream,
}

impl<'a> GenericFieldsStruct<'a> {
    pub(crate) fn new(input: &'a DeriveInput, krate: &'a Path, fields: &'a [TypedField]) -> Self {
        Self {
            krate,
            vis: &input.vis,
            owner: &input.ident,
            fields,
            allow_deprecated: allow_deprecated(input),
        }
    }

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
        let owner_type = quote!(__T);
        let fields = self
            .fields
            .iter()
            .map(|field| field.declare(krate, vis, &owner_type));
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

    /// An expression that makes it, for an entity `__T`.
    pub(crate) fn construct(&self) -> TokenStream {
        let name = self.name();
        let owner_type = quote!(__T);
        let fields = self
            .fields
            .iter()
            .map(|field| field.construct(self.krate, &owner_type));
        quote!(#name { #(#fields)* })
    }
}
