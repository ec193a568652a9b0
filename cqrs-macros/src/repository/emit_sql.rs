//! From a checked finder with `#[sql]` to a statement and the method that runs it.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::Ident;

use super::sql::{Answer, Parameter, ParameterKind, Reference, SqlFinder, Tenants};
use super::{Kind, Model};
use crate::attribute::emitted_at;
use crate::naming::snake_case;

/// The name of the list of a trait's statements.
pub(super) fn statements_name(model: &Model) -> Ident {
    let name = snake_case(&model.ident.to_string()).to_uppercase();
    Ident::new(&format!("{name}_SQL"), model.ident.span())
}

/// ```text
/// /// The statements of [`OrderReports`], to be verified at start-up.
/// pub static ORDER_REPORTS_SQL: &[::cqrs_core::sql::Statement] = &[
///     ::cqrs_core::sql::Statement {
///         repository: "OrderReports",
///         finder: "totals",
///         texts: &[::cqrs_core::sql::Text { database: None, sql: "SELECT ... >= $1 ..." }],
///         parameters: &[::cqrs_core::sql::Parameter {
///             name: "least",
///             column_type: <i64 as ::cqrs_core::ColumnValue>::TYPE,
///             is_list: false,
///         }],
///         tenants: ::cqrs_core::sql::Tenants::One,
///         locks: false,
///         columns: <Total as ::cqrs_core::SqlRow>::columns,
///     },
/// ];
/// ```
pub(super) fn emit_statements(finders: &[&SqlFinder], model: &Model) -> TokenStream {
    if finders.is_empty() {
        return TokenStream::new();
    }
    let Model {
        krate, vis, ident, ..
    } = model;
    let name = statements_name(model);
    let statements = finders.iter().map(|finder| statement(finder, model));
    let checks = finders.iter().filter_map(|finder| match &finder.tenants {
        Tenants::Without(flag) => {
            let span = emitted_at(flag);
            let entity = &model.entity;
            Some(quote_spanned! {span=>
                const _: fn() = || {
                    fn without_tenant<T: ?::core::marker::Sized + #krate::sql::WithoutTenant>() {}
                    without_tenant::<#entity>();
                };
            })
        }
        _ => None,
    });
    let docs = format!("The statements of [`{ident}`], to be verified at start-up.");
    quote! {
        #[doc = #docs]
        #[allow(private_interfaces)]
        #vis static #name: &[#krate::sql::Statement] = &[#(#statements),*];

        #(#checks)*
    }
}

fn statement(finder: &SqlFinder, model: &Model) -> TokenStream {
    let Model { krate, ident, .. } = model;
    let repository = ident.to_string();
    let name = syn::ext::IdentExt::unraw(&finder.method.sig.ident).to_string();
    let texts = finder.texts.iter().map(|(database, sql)| {
        let database = match database {
            Some(database) => quote!(::core::option::Option::Some(#database)),
            None => quote!(::core::option::Option::None),
        };
        quote!(#krate::sql::Text { database: #database, sql: #sql })
    });
    let parameters = finder.parameters.iter().map(|parameter| {
        let name = &parameter.name;
        let column = |ty: &syn::Type| {
            let span = emitted_at(ty);
            quote_spanned!(span=> <#ty as #krate::ColumnValue>::TYPE)
        };
        let (column_type, is_list) = match &parameter.kind {
            ParameterKind::Value(ty, _) => (column(ty), false),
            ParameterKind::List(ty) => (column(ty), true),
            ParameterKind::Text => (quote!(#krate::mapping::ColumnType::Text), false),
            ParameterKind::Bytes => (quote!(#krate::mapping::ColumnType::Bytes), false),
        };
        quote! {
            #krate::sql::Parameter {
                name: #name,
                column_type: #column_type,
                is_list: #is_list,
            }
        }
    });
    let tenants = match finder.tenants {
        Tenants::One => quote!(One),
        Tenants::All => quote!(All),
        Tenants::Without(_) => quote!(Without),
    };
    let locks = finder.locks;
    let columns = finder.answer.as_ref().map(|(_, row)| {
        let span = emitted_at(row);
        quote_spanned!(span=> <#row as #krate::SqlRow>::columns)
    });
    quote! {
        #krate::sql::Statement {
            repository: #repository,
            finder: #name,
            texts: &[#(#texts),*],
            parameters: &[#(#parameters),*],
            tenants: #krate::sql::Tenants::#tenants,
            locks: #locks,
            columns: #columns,
        }
    }
}

/// The body of a finder.
///
/// ```text
/// {
///     let __arguments = ::cqrs_core::sql::Arguments::of(&ORDER_REPORTS_SQL[0]).value::<i64>(&least)?;
///     ::cqrs_core::SqlQueries::sql::<Total>(self, __arguments).await
/// }
/// ```
pub(super) fn body(finder: &SqlFinder, number: usize, model: &Model) -> TokenStream {
    let krate = &model.krate;
    let Some((answer, row)) = &finder.answer else {
        return TokenStream::new();
    };
    let statements = statements_name(model);
    let statement = quote!(&#statements[#number]);
    let add = finder.parameters.iter().map(add);
    let this = finder
        .method
        .sig
        .receiver()
        .map(|receiver| receiver.self_token);
    let source = match model.kind {
        Kind::Aggregate => quote!(#krate::SqlQueries),
        Kind::ReadModel => quote!(#krate::SqlReads),
    };
    let arguments = Ident::new("__arguments", Span::mixed_site());
    let rows = Ident::new("__rows", Span::mixed_site());
    let result = match answer {
        Answer::All => quote!(::core::result::Result::Ok(#rows)),
        Answer::AtMostOne => quote!(#krate::sql::at_most_one(#statement, #rows)),
        Answer::One => quote!(#krate::sql::exactly_one(#statement, #rows)),
    };
    quote!({
        let #arguments = #krate::sql::Arguments::of(#statement) #(#add?)*;
        let #rows = #source::sql::<#row>(#this, #arguments).await?;
        #result
    })
}

fn add(parameter: &Parameter) -> TokenStream {
    let ident = &parameter.ident;
    match &parameter.kind {
        ParameterKind::Value(ty, Reference::No) => quote!(.value::<#ty>(&#ident)),
        ParameterKind::Value(ty, Reference::Yes) => quote!(.value::<#ty>(#ident)),
        ParameterKind::Text => quote!(.text(#ident)),
        ParameterKind::Bytes => quote!(.bytes(#ident)),
        ParameterKind::List(ty) => quote!(.list::<#ty>(&#ident)),
    }
}
