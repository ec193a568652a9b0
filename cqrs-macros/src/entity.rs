//! What an aggregate and a read model have in common: a table, and fields that fill it.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Ident, Path};

use crate::mapper::FieldsStruct;

/// Emits `impl Entity`.
pub(crate) struct EntityImpl<'a> {
    pub(crate) krate: &'a Path,
    pub(crate) ident: &'a Ident,
    pub(crate) table: &'a str,
    /// Whether its rows belong to tenants.
    pub(crate) is_tenant: bool,
    /// Calls on the table builder that add the framework's columns.
    pub(crate) framework: TokenStream,
    /// Calls on the table builder that add the type's own columns.
    pub(crate) describe: TokenStream,
    pub(crate) fields: &'a FieldsStruct<'a>,
    /// The body of `read_row`.
    pub(crate) read: TokenStream,
    /// Statements that write into `__row`.
    pub(crate) write: TokenStream,
    /// Further items of the impl.
    pub(crate) more: TokenStream,
}

impl EntityImpl<'_> {
    /// ```text
    /// impl ::cqrs_core::Entity for RoutePlan {
    ///     type Fields = RoutePlanFields;
    ///
    ///     fn fields() -> Self::Fields {
    ///         RoutePlanFields { priority: ::cqrs_core::Field::new("priority") }
    ///     }
    ///
    ///     fn table() -> &'static ::cqrs_core::mapping::Table {
    ///         static TABLE: ::std::sync::OnceLock<::cqrs_core::mapping::Table> = ::std::sync::OnceLock::new();
    ///         TABLE.get_or_init(|| {
    ///             ::cqrs_core::mapping::Table::builder("route_plan")
    ///                 .stores::<Self>()
    ///                 .version()
    ///                 .key::<RoutePlanId>("id")
    ///                 .column::<i32>("priority")
    ///                 .build()
    ///         })
    ///     }
    ///
    ///     fn read_row<__R: ::cqrs_core::mapping::RowSource + ?Sized>(
    ///         __row: &mut ::cqrs_core::mapping::RowCursor<'_, __R>,
    ///     ) -> Result<Self, ::cqrs_core::mapping::MappingError> {
    ///         Ok(Self {
    ///             root: ::cqrs_core::Root::read(__row)?,
    ///             id: __row.next::<RoutePlanId>()?,
    ///             priority: __row.next::<i32>()?,
    ///         })
    ///     }
    ///
    ///     fn to_row(&self) -> Result<Vec<::cqrs_core::mapping::Value>, ::cqrs_core::mapping::MappingError> {
    ///         let mut __writer = ::cqrs_core::mapping::RowWriter::new(<Self as ::cqrs_core::Entity>::table());
    ///         let __row = &mut __writer;
    ///         __row.put(&self.id)?;
    ///         __row.put(&self.priority)?;
    ///         Ok(__writer.finish())
    ///     }
    /// }
    /// ```
    pub(crate) fn emit(&self) -> TokenStream {
        let Self {
            krate,
            ident,
            table,
            framework,
            describe,
            read,
            write,
            more,
            ..
        } = self;
        let fields_name = self.fields.name();
        let construct = self.fields.construct();
        let allow_deprecated = &self.fields.allow_deprecated;
        let without_tenant = (!self.is_tenant).then(|| {
            quote! {
                #[automatically_derived]
                #allow_deprecated
                impl #krate::sql::WithoutTenant for #ident {}
            }
        });
        quote! {
            #without_tenant

            #[automatically_derived]
            #allow_deprecated
            impl #krate::Entity for #ident {
                type Fields = #fields_name;

                fn fields() -> Self::Fields {
                    #construct
                }

                fn table() -> &'static #krate::mapping::Table {
                    static TABLE: ::std::sync::OnceLock<#krate::mapping::Table> =
                        ::std::sync::OnceLock::new();
                    TABLE.get_or_init(|| {
                        #krate::mapping::Table::builder(#table)
                            .stores::<Self>() #framework #describe .build()
                    })
                }

                fn read_row<__R: #krate::mapping::RowSource + ?::core::marker::Sized>(
                    __row: &mut #krate::mapping::RowCursor<'_, __R>,
                ) -> ::core::result::Result<Self, #krate::mapping::MappingError> {
                    #read
                }

                fn to_row(&self) -> ::core::result::Result<
                    ::std::vec::Vec<#krate::mapping::Value>,
                    #krate::mapping::MappingError,
                > {
                    let mut __writer =
                        #krate::mapping::RowWriter::new(<Self as #krate::Entity>::table());
                    let __row = &mut __writer;
                    #write
                    ::core::result::Result::Ok(__writer.finish())
                }

                #more
            }
        }
    }

    /// The same impl, for the rest of the crate to be checked after an error.
    pub(crate) fn stub(krate: &Path, ident: &Ident, fields: &FieldsStruct<'_>) -> TokenStream {
        let fields_name = fields.name();
        let allow_deprecated = &fields.allow_deprecated;
        quote! {
            #[automatically_derived]
            #allow_deprecated
            impl #krate::Entity for #ident {
                type Fields = #fields_name;

                fn fields() -> Self::Fields {
                    ::core::unreachable!()
                }

                fn table() -> &'static #krate::mapping::Table {
                    ::core::unreachable!()
                }

                fn read_row<__R: #krate::mapping::RowSource + ?::core::marker::Sized>(
                    _: &mut #krate::mapping::RowCursor<'_, __R>,
                ) -> ::core::result::Result<Self, #krate::mapping::MappingError> {
                    ::core::unreachable!()
                }

                fn to_row(&self) -> ::core::result::Result<
                    ::std::vec::Vec<#krate::mapping::Value>,
                    #krate::mapping::MappingError,
                > {
                    ::core::unreachable!()
                }
            }
        }
    }
}
