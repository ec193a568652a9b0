//! From a checked event to code.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Path};

use super::{EventType, Model, Shape};

/// ```text
/// impl ::cqrs_core::DomainEvent for RoutePlanEvent {
///     const AGGREGATE_TYPE: &'static str = "route_plan";
///     const EVENT_TYPES: &'static [::cqrs_core::EventType] = &[
///         ::cqrs_core::EventType { name: "route_plan.created", schema_version: 1u32 },
///         ::cqrs_core::EventType { name: "route_plan.dispatched", schema_version: 2u32 },
///     ];
///
///     fn variant(&self) -> usize {
///         match self {
///             Self::Created { .. } => 0usize,
///             Self::Dispatched { .. } => 1usize,
///         }
///     }
/// }
/// ```
pub(super) fn emit(model: &Model) -> TokenStream {
    let Model {
        ident,
        krate,
        aggregate,
        shape,
    } = model;
    let event_type = |EventType { name, version }: &EventType| quote!(#krate::EventType { name: #name, schema_version: #version });
    let (types, variant) = match shape {
        Shape::Struct(own) => (vec![event_type(own)], quote!(0usize)),
        Shape::Enum(variants) => {
            let arms = variants
                .iter()
                .enumerate()
                .map(|(index, (variant, _))| quote!(Self::#variant { .. } => #index,));
            let types = variants.iter().map(|(_, own)| event_type(own)).collect();
            (types, quote!(match self { #(#arms)* }))
        }
    };
    quote! {
        #[automatically_derived]
        #[allow(deprecated)]
        impl #krate::DomainEvent for #ident {
            const AGGREGATE_TYPE: &'static ::core::primitive::str = #aggregate;
            const EVENT_TYPES: &'static [#krate::EventType] = &[#(#types),*];

            fn variant(&self) -> ::core::primitive::usize {
                #variant
            }
        }
    }
}

/// An impl that lets the rest of the crate be checked after an error.
pub(super) fn stub(input: &DeriveInput, krate: &Path) -> TokenStream {
    if !input.generics.params.is_empty() || matches!(input.data, Data::Union(_)) {
        return TokenStream::new();
    }
    let ident = &input.ident;
    quote! {
        #[automatically_derived]
        impl #krate::DomainEvent for #ident {
            const AGGREGATE_TYPE: &'static ::core::primitive::str = "";
            const EVENT_TYPES: &'static [#krate::EventType] = &[];

            fn variant(&self) -> ::core::primitive::usize {
                0
            }
        }
    }
}
