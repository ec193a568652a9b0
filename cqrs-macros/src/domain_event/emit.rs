//! From a checked event to code.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{Data, DeriveInput, Path};

use super::{EventType, Model, Shape};
use crate::attribute::{allow_deprecated, emitted_at};

/// ```text
/// impl ::cqrs_core::DomainEvent for RoutePlanEvent {
///     const AGGREGATE_TYPE: &'static str = "route_plan";
///     const EVENT_TYPES: &'static [::cqrs_core::EventType] = &[
///         ::cqrs_core::EventType { name: "route_plan.created", schema_version: 1u32 },
///         ::cqrs_core::EventType { name: "route_plan.dispatched", schema_version: 2u32 },
///     ];
///
///     const UPCASTS: &'static [::cqrs_core::Upcast] = &[
///         ::cqrs_core::Upcast::new(1usize, 1u32, |__payload| ::cqrs_core::__private::lift(__payload, from_version_1)),
///     ];
///     const FORMER_NAMES: &'static [(&'static str, usize)] = &[("route_plan.sent", 1usize)];
///
///     fn variant(&self) -> usize {
///         match self {
///             Self::Created { .. } => 0usize,
///             Self::Dispatched { .. } => 1usize,
///         }
///     }
/// }
/// ```
pub(super) fn emit(input: &DeriveInput, model: &Model) -> TokenStream {
    let Model {
        ident,
        krate,
        aggregate,
        shape,
    } = model;
    let allow_deprecated = allow_deprecated(input);
    let event_type = |EventType { name, version, .. }: &EventType| quote!(#krate::EventType { name: #name, schema_version: #version });
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
    let old = old_events(krate, shape);
    quote! {
        #[automatically_derived]
        #allow_deprecated
        impl #krate::DomainEvent for #ident {
            const AGGREGATE_TYPE: &'static ::core::primitive::str = #aggregate;
            const EVENT_TYPES: &'static [#krate::EventType] = &[#(#types),*];
            #old

            fn variant(&self) -> ::core::primitive::usize {
                #variant
            }
        }
    }
}

/// What is needed to read old events.
fn old_events(krate: &Path, shape: &Shape) -> TokenStream {
    let types: Vec<&EventType> = match shape {
        Shape::Struct(own) => vec![own],
        Shape::Enum(variants) => variants.iter().map(|(_, own)| own).collect(),
    };
    let upcasts: Vec<TokenStream> = types
        .iter()
        .enumerate()
        .flat_map(|(index, own)| own.upcasts.iter().map(move |upcast| (index, upcast)))
        .map(|(index, (from, step))| {
            let span = emitted_at(step);
            let lift = quote_spanned!(span=> #krate::__private::lift(__payload, #step));
            quote!(#krate::Upcast::new(#index, #from, |__payload| #lift))
        })
        .collect();
    let names: Vec<TokenStream> = types
        .iter()
        .enumerate()
        .flat_map(|(index, own)| own.was.iter().map(move |name| quote!((#name, #index))))
        .collect();
    let upcasts = (!upcasts.is_empty())
        .then(|| quote!(const UPCASTS: &'static [#krate::Upcast] = &[#(#upcasts),*];));
    let names = (!names.is_empty()).then(|| {
        quote! {
            const FORMER_NAMES: &'static [(
                &'static ::core::primitive::str,
                ::core::primitive::usize,
            )] = &[#(#names),*];
        }
    });
    quote!(#upcasts #names)
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
