//! From checked finders to a trait and its one implementation.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{ReturnType, Signature, TraitItem, TraitItemFn};

use super::condition::{fields_variable, typed_field};
use super::finder::{Answer, Finder, Rows};
use super::{Method, Model};
use crate::attribute::emitted_at;

/// Every repository has the finders, so they are provided methods and the impl is empty.
///
/// ```text
/// pub trait RoutePlans: Repository<RoutePlan> {
///     fn find_ready(&mut self, limit: u32) -> impl Future<Output = Result<Vec<RoutePlan>>> + Send {
///         async move { ... }
///     }
/// }
///
/// impl<__R: Repository<RoutePlan> + ?Sized> RoutePlans for __R {}
/// ```
///
/// After an error (`is_good` is false) the bodies of the finders are left out.
pub(super) fn emit(model: &Model, is_good: bool) -> TokenStream {
    let Model {
        attributes,
        vis,
        ident,
        supertrait,
        methods,
        ..
    } = model;
    let methods = methods.iter().map(|method| match method {
        Method::Found(finder) if is_good => emit_finder(finder, model),
        Method::Found(finder) => {
            let method = emit_method(&finder.method, &quote!({ ::core::unreachable!() }));
            quote!(#[allow(unused_variables)] #method)
        }
        Method::Written(item) => emit_written(item),
    });
    quote! {
        #(#attributes)*
        #vis trait #ident: #supertrait {
            #(#methods)*
        }

        #[automatically_derived]
        impl<__R: #supertrait + ?::core::marker::Sized> #ident for __R {}
    }
}

/// A hand-written method. An async one gets a future that is `Send`, as the finders have.
fn emit_written(item: &TraitItem) -> TokenStream {
    match item {
        TraitItem::Fn(method) if method.sig.asyncness.is_some() => match &method.default {
            Some(body) => emit_method(method, &quote!(#body)),
            None => emit_method(method, &quote!({ ::core::unreachable!() })),
        },
        item => quote!(#item),
    }
}

/// ```text
/// fn find_ready(&mut self, limit: u32)
///     -> impl ::core::future::Future<Output = Result<Vec<RoutePlan>>> + ::core::marker::Send
/// {
///     async move { ... }
/// }
/// ```
fn emit_method(method: &TraitItemFn, body: &TokenStream) -> TokenStream {
    let attributes = &method.attrs;
    let signature = desugared(&method.sig);
    quote! {
        #(#attributes)*
        #[allow(clippy::manual_async_fn)]
        #signature {
            async move #body
        }
    }
}

fn desugared(signature: &Signature) -> Signature {
    let output = match &signature.output {
        ReturnType::Type(_, ty) => quote!(#ty),
        ReturnType::Default => quote!(()),
    };
    Signature {
        asyncness: None,
        output: syn::parse_quote! {
            -> impl ::core::future::Future<Output = #output> + ::core::marker::Send
        },
        ..signature.clone()
    }
}

/// The body of a finder.
///
/// ```text
/// {
///     let __fields = <RoutePlan as ::cqrs_core::Entity>::fields();
///     let __specification = __fields.status.eq(RouteStatus::Ready);
///     let __query = ::cqrs_core::Query::<RoutePlan>::filter(__specification)
///         .order_by(__fields.priority.desc())
///         .limit(::cqrs_core::__private::rows(limit));
///     ::cqrs_core::Repository::<RoutePlan>::query(self, __query).await
/// }
/// ```
fn emit_finder(finder: &Finder, model: &Model) -> TokenStream {
    let Model {
        krate, aggregate, ..
    } = model;
    let Some(answer) = finder.answer else {
        return TokenStream::new();
    };
    let variable = |name| syn::Ident::new(name, Span::mixed_site());
    let fields = fields_variable();
    let specification = variable("__specification");
    let query = variable("__query");

    let this = finder
        .method
        .sig
        .receiver()
        .map(|receiver| receiver.self_token);

    let let_fields = (finder.condition.is_some() || !finder.order.is_empty())
        .then(|| quote!(let #fields = <#aggregate as #krate::Entity>::fields();));
    let condition = match &finder.condition {
        Some(condition) => condition.clone(),
        None => quote!(#krate::Specification::all()),
    };
    let order = finder.order.iter().map(|key| {
        let field = typed_field(&key.field);
        let direction = &key.direction;
        quote!(.order_by(#field.#direction()))
    });
    let limit = match answer {
        Answer::First => quote!(.limit(1)),
        Answer::Page => TokenStream::new(),
        _ => emit_limit(finder, model),
    };
    let let_query = quote! {
        let #query = #krate::Query::<#aggregate>::filter(#specification) #(#order)* #limit;
    };
    let repository = quote!(#krate::Repository::<#aggregate>);
    let ask = match answer {
        Answer::List => quote!(#let_query #repository::query(#this, #query).await),
        Answer::Page => {
            let page = &finder.page;
            quote!(#let_query #repository::page(#this, #query, #page).await)
        }
        Answer::First => quote! {
            #let_query
            #repository::query(#this, #query)
                .await
                .map(|__found| ::core::iter::IntoIterator::into_iter(__found).next())
        },
        Answer::Count => quote!(#repository::count(#this, #specification).await),
        Answer::Exists => quote!(#repository::exists(#this, #specification).await),
    };
    let body = quote!({
        #let_fields
        let #specification: #krate::Specification<#aggregate> = #condition;
        #ask
    });
    emit_method(&finder.method, &body)
}

/// The smallest of the limits.
fn emit_limit(finder: &Finder, model: &Model) -> TokenStream {
    let krate = &model.krate;
    let mut limits = finder.limits.iter().map(|rows| match rows {
        Rows::Literal(rows) => quote!(#rows),
        Rows::Expression(rows) => {
            let span = emitted_at(rows);
            quote_spanned!(span=> #krate::__private::rows(#rows))
        }
        Rows::Parameter(name, ty) => {
            let span = emitted_at(ty);
            quote_spanned!(span=> #krate::__private::rows::<#ty>(#name))
        }
    });
    match (limits.next(), limits.next()) {
        (Some(one), None) => quote!(.limit(#one)),
        (Some(one), Some(other)) => {
            quote!(.limit(::core::cmp::Ord::min(#one, #other)))
        }
        _ => TokenStream::new(),
    }
}
