//! `#[derive(EventSet)]`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{Data, DeriveInput, Fields, Ident, Path, Type, Variant};

use crate::attribute::{crate_alone, emitted_at, refuse};
use crate::errors::Errors;
use crate::symbol::{EVENT, EVENT_SET};

/// A variant, and the events of one aggregate type that it holds.
struct Member<'i> {
    variant: &'i Ident,
    event: &'i Type,
}

/// The rules of a set:
///
/// - an enum without parameters, with a variant
/// - each variant holds one value, and says nothing more
/// - it is no event of an aggregate itself
///
/// That what a variant holds is a domain event, and of an aggregate of its own, rustc checks.
pub(crate) fn expand(input: &DeriveInput) -> TokenStream {
    let mut errors = Errors::default();
    let krate = crate_alone(&input.attrs, EVENT_SET, &mut errors);
    if !input.generics.params.is_empty() {
        errors.report(
            &input.generics,
            "`#[derive(EventSet)]` takes no generic type: a consumer reads the events of aggregates that are known, so write an enum for each set",
        );
    }
    refuse(
        &input.attrs,
        EVENT,
        &mut errors,
        "a set has no aggregate of its own: derive `EventSet` on an enum of events, or `DomainEvent` on the events of one aggregate, which are a set already",
    );
    // The variants of events are no members, and need not be told so.
    let members = if is_event(input) {
        Vec::new()
    } else {
        members(input, &mut errors)
    };
    if errors.is_empty() {
        return emit(&input.ident, &krate, &members);
    }
    let stub = stub(input, &krate);
    let errors = errors.into_tokens();
    quote!(#errors #stub)
}

fn is_event(input: &DeriveInput) -> bool {
    input.attrs.iter().any(|own| own.path().is_ident(EVENT))
}

fn members<'i>(input: &'i DeriveInput, errors: &mut Errors) -> Vec<Member<'i>> {
    const SHAPE: &str = "`#[derive(EventSet)]` needs an enum with a variant for each aggregate, which holds its events: `enum Checkout { Order(OrderEvent), Payment(PaymentEvent) }`";
    match &input.data {
        Data::Enum(data) => {
            if data.variants.is_empty() {
                errors.report(
                    &input.ident,
                    "a set needs a variant: write one for each aggregate whose events a consumer reads, as `Order(OrderEvent)`",
                );
            }
            let variants = data.variants.iter();
            variants
                .filter_map(|variant| member(variant, errors))
                .collect()
        }
        Data::Struct(data) => {
            errors.report(data.struct_token, SHAPE);
            Vec::new()
        }
        Data::Union(data) => {
            errors.report(data.union_token, SHAPE);
            Vec::new()
        }
    }
}

fn member<'i>(variant: &'i Variant, errors: &mut Errors) -> Option<Member<'i>> {
    let on_variant = "`#[event_set(...)]` says nothing about a variant: write it on the enum";
    refuse(&variant.attrs, EVENT_SET, errors, on_variant);
    for field in &variant.fields {
        refuse(&field.attrs, EVENT_SET, errors, on_variant);
    }
    let name = &variant.ident;
    match &variant.fields {
        Fields::Unnamed(fields) if fields.unnamed.len() == 1 => Some(Member {
            variant: name,
            event: &fields.unnamed[0].ty,
        }),
        _ => {
            errors.report(
                variant,
                format!("a variant of a set holds the events of one aggregate, and nothing else: write `{name}({name}Event)` with the type that derives `DomainEvent`"),
            );
            None
        }
    }
}

/// ```text
/// impl ::cqrs_core::EventSet for Checkout {
///     fn aggregate_types() -> Option<&'static [&'static str]> {
///         Some(const { &[
///             <OrderEvent as ::cqrs_core::__private::SetMember>::AGGREGATE,
///             <PaymentEvent as ::cqrs_core::__private::SetMember>::AGGREGATE,
///         ] })
///     }
///
///     fn may_hold(__event_type: &str) -> bool {
///         <OrderEvent as ::cqrs_core::__private::SetMember>::has(__event_type)
///             || <PaymentEvent as ::cqrs_core::__private::SetMember>::has(__event_type)
///     }
///
///     fn other_names(__event_type: &str) -> Vec<&'static str> {
///         let mut __names = Vec::new();
///         __names.extend(<OrderEvent as ::cqrs_core::__private::SetMember>::names(__event_type));
///         __names.extend(<PaymentEvent as ::cqrs_core::__private::SetMember>::names(__event_type));
///         __names
///     }
///
///     fn decode(__raw: &Envelope<RawPayload>) -> Result<Option<Self>, PayloadError> {
///         if __raw.aggregate_type() == <OrderEvent as ::cqrs_core::__private::SetMember>::AGGREGATE {
///             return <OrderEvent as ::cqrs_core::__private::SetMember>::read(__raw, Self::Order);
///         }
///         if __raw.aggregate_type() == <PaymentEvent as ::cqrs_core::__private::SetMember>::AGGREGATE {
///             return <PaymentEvent as ::cqrs_core::__private::SetMember>::read(__raw, Self::Payment);
///         }
///         Ok(None)
///     }
/// }
///
/// const _: () = assert!(
///     ::cqrs_core::__private::are_two_aggregates(
///         <OrderEvent as ::cqrs_core::__private::SetMember>::AGGREGATE,
///         <PaymentEvent as ::cqrs_core::__private::SetMember>::AGGREGATE,
///     ),
///     "`Order` and `Payment` hold events of one aggregate type, ...",
/// );
/// ```
fn emit(ident: &Ident, krate: &Path, members: &[Member<'_>]) -> TokenStream {
    // All through one trait, so that a type that is no member is one error.
    let events: Vec<TokenStream> = members
        .iter()
        .map(|Member { event, .. }| {
            let span = emitted_at(event);
            quote_spanned!(span=> <#event as #krate::__private::SetMember>)
        })
        .collect();
    let variants = members.iter().map(|member| member.variant);
    let different = different_aggregates(krate, members, &events);
    quote! {
        #[automatically_derived]
        #[allow(deprecated)]
        impl #krate::EventSet for #ident {
            fn aggregate_types() -> ::core::option::Option<
                &'static [&'static ::core::primitive::str],
            > {
                ::core::option::Option::Some(const { &[#(#events::AGGREGATE),*] })
            }

            fn may_hold(__event_type: &::core::primitive::str) -> ::core::primitive::bool {
                #(#events::has(__event_type))||*
            }

            fn other_names(
                __event_type: &::core::primitive::str,
            ) -> ::std::vec::Vec<&'static ::core::primitive::str> {
                let mut __names = ::std::vec::Vec::new();
                #(__names.extend(#events::names(__event_type));)*
                __names
            }

            fn decode(
                __raw: &#krate::Envelope<#krate::RawPayload>,
            ) -> ::core::result::Result<::core::option::Option<Self>, #krate::PayloadError> {
                #(if __raw.aggregate_type() == #events::AGGREGATE {
                    return #events::read(__raw, Self::#variants);
                })*
                ::core::result::Result::Ok(::core::option::Option::None)
            }
        }

        #different
    }
}

/// An assertion for each two members, since their aggregates are constants that no macro can read.
fn different_aggregates(
    krate: &Path,
    members: &[Member<'_>],
    events: &[TokenStream],
) -> TokenStream {
    let mut assertions = TokenStream::new();
    for (later, member) in members.iter().enumerate() {
        let span = emitted_at(member.event);
        for (earlier, other) in members[..later].iter().enumerate() {
            let (one, two) = (&events[earlier], &events[later]);
            let message = format!(
                "`{}` and `{}` hold events of one aggregate type, so an event would be of both: leave one out",
                other.variant, member.variant
            );
            assertions.extend(quote_spanned! {span=>
                const _: () = ::core::assert!(
                    #krate::__private::are_two_aggregates(#one::AGGREGATE, #two::AGGREGATE),
                    #message
                );
            });
        }
    }
    assertions
}

/// An impl that lets the rest of the crate be checked after an error.
fn stub(input: &DeriveInput, krate: &Path) -> TokenStream {
    // The events of one aggregate are a set by another impl.
    if is_event(input) || !input.generics.params.is_empty() {
        return TokenStream::new();
    }
    let ident = &input.ident;
    quote! {
        #[automatically_derived]
        impl #krate::EventSet for #ident {
            fn aggregate_types() -> ::core::option::Option<
                &'static [&'static ::core::primitive::str],
            > {
                ::core::unreachable!()
            }

            fn decode(
                _: &#krate::Envelope<#krate::RawPayload>,
            ) -> ::core::result::Result<::core::option::Option<Self>, #krate::PayloadError> {
                ::core::unreachable!()
            }
        }
    }
}
