//! From a checked event-sourced aggregate to code.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote, quote_spanned};
use syn::{Ident, Path, Type};

use super::Model;
use super::emit::aggregate_root;
use super::parse::Snapshot;
use crate::attribute::emitted_at;

pub(super) fn emit(
    model: &Model,
    state: &[(Ident, Type)],
    snapshot: Option<&Snapshot>,
) -> TokenStream {
    let Model { krate, ident, .. } = model;
    let entity = entity(model);
    let span = emitted_at(ident);
    let of = quote_spanned!(span=> #krate::__private::sourcing::<Self>());
    let sourcing = quote! {
        const SOURCING: ::core::option::Option<#krate::__private::Sourcing<Self>> =
            ::core::option::Option::Some(#of);
    };
    let parts = (&model.event, &model.id, &model.root);
    let root_impl = aggregate_root(krate, ident, parts, sourcing);
    let state_impl = sourced_state(model, state, snapshot);
    quote!(#entity #root_impl #state_impl)
}

/// ```text
/// impl ::cqrs_core::Entity for Account {
///     type Fields = ::cqrs_core::__private::NoColumns;
///
///     fn fields() -> Self::Fields { ::cqrs_core::__private::NoColumns }
///
///     fn table() -> &'static ::cqrs_core::mapping::Table {
///         static TABLE: ::std::sync::OnceLock<::cqrs_core::mapping::Table> = ::std::sync::OnceLock::new();
///         TABLE.get_or_init(|| {
///             ::cqrs_core::mapping::Table::builder(<AccountEvent as ::cqrs_core::DomainEvent>::AGGREGATE_TYPE)
///                 .stores::<Self>()
///                 .sourced()
///                 .version()
///                 .tenant("tenant_id")
///                 .key::<String>("id")
///                 .build()
///         })
///     }
///
///     // read_row refuses; to_row writes the id; framework_row asks the root.
/// }
/// ```
fn entity(model: &Model) -> TokenStream {
    let Model {
        krate,
        ident,
        event,
        id: (id, id_type),
        ..
    } = model;
    let is_tenant = model.framework.tenant.is_some();
    let tenant = is_tenant.then(|| quote!(.tenant("tenant_id")));
    let chained = model.framework.chained.then(|| quote!(.chained()));
    let without_tenant = (!is_tenant).then(|| {
        quote! {
            #[automatically_derived]
            #[allow(deprecated)]
            impl #krate::sql::WithoutTenant for #ident {}
        }
    });
    let span = emitted_at(id_type);
    let put = quote_spanned!(span=> __row.put(&self.#id)?);
    let key = quote_spanned!(span=> .key::<#id_type>("id"));
    quote! {
        #without_tenant

        #[automatically_derived]
        #[allow(deprecated)]
        impl #krate::Entity for #ident {
            type Fields = #krate::__private::NoColumns;

            fn fields() -> Self::Fields {
                #krate::__private::NoColumns
            }

            fn table() -> &'static #krate::mapping::Table {
                static TABLE: ::std::sync::OnceLock<#krate::mapping::Table> =
                    ::std::sync::OnceLock::new();
                TABLE.get_or_init(|| {
                    #krate::mapping::Table::builder(
                        <#event as #krate::DomainEvent>::AGGREGATE_TYPE,
                    )
                    .stores::<Self>().sourced().version() #tenant #chained #key .build()
                })
            }

            fn read_row<__R: #krate::mapping::RowSource + ?::core::marker::Sized>(
                __row: &mut #krate::mapping::RowCursor<'_, __R>,
            ) -> ::core::result::Result<Self, #krate::mapping::MappingError> {
                ::core::result::Result::Err(#krate::__private::no_rows(__row))
            }

            fn to_row(&self) -> ::core::result::Result<
                ::std::vec::Vec<#krate::mapping::Value>,
                #krate::mapping::MappingError,
            > {
                let mut __row =
                    #krate::mapping::RowWriter::new(<Self as #krate::Entity>::table());
                #put;
                ::core::result::Result::Ok(__row.finish())
            }

            fn framework_row(&self) -> ::std::vec::Vec<#krate::mapping::Value> {
                #krate::Root::framework_row(
                    #krate::AggregateRoot::root(self),
                    <Self as #krate::Entity>::table(),
                )
            }
        }
    }
}

/// ```text
/// impl ::cqrs_core::SourcedState for Account {
///     const SNAPSHOTS: Option<::cqrs_core::__private::SnapshotCodec<Self>> = Some(
///         ::cqrs_core::__private::SnapshotCodec {
///             policy: ::cqrs_core::__private::SnapshotPolicy { every: 100, max_age: None },
///             shape: ::cqrs_core::__private::snapshot_shape::<Self>(0xc1b3f6...),
///             write: |__self| {
///                 let mut __state = ::cqrs_core::__private::SnapshotFields::new();
///                 ::cqrs_core::__private::snapshot_put(&mut __state, "cents", &__self.cents)?;
///                 Ok(__state)
///             },
///             read: |__id, __state| Ok(Self {
///                 number: __id,
///                 root: ::cqrs_core::Root::new(),
///                 cents: ::cqrs_core::__private::snapshot_get(__state, "cents")?,
///             }),
///         },
///     );
///
///     fn blank(__id: String) -> Self {
///         Self { number: __id, root: ::cqrs_core::Root::new(), cents: <i64 as Default>::default() }
///     }
/// }
/// ```
fn sourced_state(
    model: &Model,
    state: &[(Ident, Type)],
    snapshot: Option<&Snapshot>,
) -> TokenStream {
    let Model {
        krate,
        ident,
        id: (id, id_type),
        root: (root, root_type),
        allow_deprecated,
        ..
    } = model;
    let span = emitted_at(root_type);
    let new_root = quote_spanned!(span=> #krate::Root::new());
    let defaults = state.iter().map(|(field, ty)| {
        let span = emitted_at(ty);
        quote_spanned!(span=> #field: <#ty as ::core::default::Default>::default(),)
    });
    let snapshots = snapshot.map(|snapshot| snapshot_codec(model, state, snapshot));
    quote! {
        #[automatically_derived]
        #allow_deprecated
        impl #krate::SourcedState for #ident {
            #snapshots

            fn blank(__id: #id_type) -> Self {
                Self { #id: __id, #root: #new_root, #(#defaults)* }
            }
        }
    }
}

fn snapshot_codec(model: &Model, state: &[(Ident, Type)], snapshot: &Snapshot) -> TokenStream {
    let Model {
        krate,
        id: (id, _),
        root: (root, _),
        ..
    } = model;
    let private = quote!(#krate::__private);
    let every = snapshot.every;
    let max_age = match &snapshot.max_age {
        Some(age) => quote!(::core::option::Option::Some(#age)),
        None => quote!(::core::option::Option::None),
    };
    let fields = fields_hash(&model.ident, state, snapshot.version);
    let put = state.iter().map(|(field, ty)| {
        let name = syn::ext::IdentExt::unraw(field).to_string();
        let span = emitted_at(ty);
        quote_spanned!(span=> #private::snapshot_put(&mut __state, #name, &__self.#field)?;)
    });
    let take = state.iter().map(|(field, ty)| {
        let name = syn::ext::IdentExt::unraw(field).to_string();
        let span = emitted_at(ty);
        quote_spanned!(span=> #field: #private::snapshot_get(__state, #name)?,)
    });
    quote! {
        const SNAPSHOTS: ::core::option::Option<#private::SnapshotCodec<Self>> =
            ::core::option::Option::Some(#private::SnapshotCodec {
                policy: #private::SnapshotPolicy { every: #every, max_age: #max_age },
                shape: #private::snapshot_shape::<Self>(#fields),
                write: |__self| {
                    let mut __state = #private::SnapshotFields::new();
                    #(#put)*
                    ::core::result::Result::Ok(__state)
                },
                read: |__id, __state| ::core::result::Result::Ok(Self {
                    #id: __id,
                    #root: #krate::Root::new(),
                    #(#take)*
                }),
            });
    }
}

/// A hash of the aggregate and of the names and types of its fields: FNV-1a with 64 bits, since it
/// need only tell apart what one team writes.
fn fields_hash(ident: &Ident, state: &[(Ident, Type)], version: u64) -> u64 {
    let mut text = format!("{ident} {version}");
    for (field, ty) in state {
        text.push_str(&format!(";{field}:{}", ty.to_token_stream()));
    }
    text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The impl that the rest of the crate is checked against after an error.
pub(super) fn stub(krate: &Path, ident: &Ident) -> TokenStream {
    quote! {
        #[automatically_derived]
        impl #krate::SourcedState for #ident {
            fn blank(_: <Self as #krate::AggregateRoot>::Id) -> Self {
                ::core::unreachable!()
            }
        }
    }
}
