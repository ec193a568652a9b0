//! From checked finders to a trait and its one implementation.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{ReturnType, Signature, TraitItem, TraitItemFn};

use super::condition::{fields_variable, typed_field};
use super::finder::{Answer, Finder, Lock, Rows};
use super::sql::SqlFinder;
use super::{Kind, Method, Model, emit_sql};
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
        supertraits,
        methods,
        ..
    } = model;
    let sql_finders: Vec<&SqlFinder> = methods
        .iter()
        .filter_map(|method| match method {
            Method::Sql(finder) => Some(&**finder),
            _ => None,
        })
        .collect();
    let statements = is_good.then(|| emit_sql::emit_statements(&sql_finders, model));
    let mut number = 0..;
    let methods = methods.iter().map(|method| match method {
        Method::Found(finder) if is_good => emit_finder(finder, model),
        Method::Found(finder) => emit_stub(&finder.method),
        Method::Sql(finder) if is_good => {
            let body = emit_sql::body(finder, number.next().unwrap_or_default(), model);
            emit_method(&finder.method, &body)
        }
        Method::Sql(finder) => emit_stub(&finder.method),
        Method::Written(item) => emit_written(item),
    });
    quote! {
        #(#attributes)*
        #vis trait #ident: #supertraits {
            #(#methods)*
        }

        #[automatically_derived]
        impl<__R: #supertraits + ?::core::marker::Sized> #ident for __R {}

        #statements
    }
}

/// The method without its body, after an error.
fn emit_stub(method: &TraitItemFn) -> TokenStream {
    let method = emit_method(method, &quote!({ ::core::unreachable!() }));
    quote!(#[allow(unused_variables)] #method)
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
    let Model { krate, entity, .. } = model;
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
        .then(|| quote!(let #fields = <#entity as #krate::Entity>::fields();));
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
    let lock = finder.lock.map(|lock| match lock {
        Lock::Wait => quote!(.lock()),
        Lock::Skip => quote!(.skip_locked()),
    });
    let let_query = quote! {
        let #query = #krate::Query::<#entity>::filter(#specification) #(#order)* #limit #lock;
    };
    let function = |name| {
        let name = syn::Ident::new(name, Span::call_site());
        match model.kind {
            Kind::Aggregate => quote!(#krate::Repository::<#entity>::#name),
            Kind::ReadModel => quote!(#krate::ReadModels::#name::<#entity>),
        }
    };
    let ask = match answer {
        Answer::Page => {
            let (function, page) = (function("page"), &finder.page);
            quote!(#let_query #function(#this, #query, #page).await)
        }
        Answer::First => {
            let function = function("query");
            quote! {
                #let_query
                #function(#this, #query)
                    .await
                    .map(|__found| ::core::iter::IntoIterator::into_iter(__found).next())
            }
        }
        Answer::List | Answer::AtMostOne | Answer::One => {
            let function = function(match answer {
                Answer::AtMostOne => "find_one",
                Answer::One => "get_one",
                _ => "query",
            });
            quote!(#let_query #function(#this, #query).await)
        }
        Answer::Count | Answer::Exists => {
            let function = function(if answer == Answer::Count {
                "count"
            } else {
                "exists"
            });
            quote!(#function(#this, #specification).await)
        }
    };
    let body = quote!({
        #let_fields
        let #specification: #krate::Specification<#entity> = #condition;
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
