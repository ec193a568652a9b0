//! `#[repository]`.

mod condition;
mod emit;
mod emit_sql;
mod find;
mod finder;
mod parse;
mod sql;
mod sql_text;

use proc_macro2::TokenStream;
use quote::quote;
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::{Attribute, Ident, ItemTrait, Path, Token, TraitItem, Type, TypeParamBound, Visibility};

use crate::attribute::{crate_path, default_crate};
use crate::errors::Errors;
use crate::symbol::CRATE;

use finder::Finder;
use sql::SqlFinder;

/// A checked repository.
struct Model {
    attributes: Vec<Attribute>,
    vis: Visibility,
    ident: Ident,
    krate: Path,
    kind: Kind,
    /// `Repository<RoutePlan>`, with `SqlQueries` where that is there, as written.
    supertraits: Punctuated<TypeParamBound, Token![+]>,
    /// The aggregate or read model.
    entity: Type,
    methods: Vec<Method>,
}

/// What it is a repository of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Aggregate,
    ReadModel,
}

enum Method {
    Found(Box<Finder>),
    Sql(Box<SqlFinder>),
    Written(Box<TraitItem>),
}

pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let krate = errors
        .take(parse_arguments(arguments))
        .unwrap_or_else(default_crate);
    let item: ItemTrait = match syn::parse2(item) {
        Ok(item) => item,
        Err(error) => {
            errors.push(syn::Error::new(
                error.span(),
                format!("`#[repository]` stands on a trait, as in `pub trait RoutePlans: Repository<RoutePlan> {{ ... }}`: {error}"),
            ));
            return errors.into_tokens();
        }
    };
    let model = parse::parse(item, krate, &mut errors);
    let is_good = errors.is_empty();
    let emitted = model.map(|model| emit::emit(&model, is_good));
    let errors = errors.into_tokens();
    quote!(#errors #emitted)
}

fn parse_arguments(arguments: TokenStream) -> syn::Result<Path> {
    if arguments.is_empty() {
        return Ok(default_crate());
    }
    let parser = |input: syn::parse::ParseStream| {
        let key = <Ident as syn::ext::IdentExt>::parse_any(input)?;
        if key != CRATE {
            return Err(syn::Error::new(
                key.span(),
                format!("unknown `{key}` in `#[repository(...)]` (allowed here: `crate`)"),
            ));
        }
        crate_path(&key, input)
    };
    parser.parse2(arguments)
}
