//! Reading attributes: `#[name(flag, key = value, ...)]`.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::{Attribute, Data, DeriveInput, Ident, LitStr, Meta, Path, Token};

use crate::errors::Errors;
use crate::naming::{self, IDENTIFIER_RULE};
use crate::symbol::CRATE;

/// Walks the entries of every `#[name(...)]` among `attributes`, in order.
///
/// `each` gets a key out of `allowed`, and the input behind it. What goes wrong with one entry is
/// reported, and the next is read.
pub(crate) fn entries(
    attributes: &[Attribute],
    name: &str,
    allowed: &[&str],
    errors: &mut Errors,
    mut each: impl FnMut(&str, &Ident, ParseStream) -> syn::Result<()>,
) {
    let mut seen: Vec<String> = Vec::new();
    let place = format!("#[{name}(...)]");
    for attribute in attributes {
        if !attribute.path().is_ident(name) {
            continue;
        }
        let says_something = matches!(&attribute.meta, Meta::List(list) if !list.tokens.is_empty());
        if !says_something {
            errors.report(
                attribute,
                format!(
                    "`#[{name}]` says nothing alone: write `#[{name}(...)]` with {}",
                    list(allowed)
                ),
            );
            continue;
        }
        let parsed = attribute.parse_args_with(|input: ParseStream| {
            while !input.is_empty() {
                if let Err(error) = entry(input, &place, allowed, &mut seen, &mut each) {
                    errors.push(error);
                    skip_entry(input);
                }
                if !input.is_empty() {
                    input.parse::<Token![,]>()?;
                }
            }
            Ok(())
        });
        errors.take(parsed);
    }
}

/// Reads `(key = value, ...)` behind `key`, as [`entries`] does; `example` completes the message
/// where it is missing.
pub(crate) fn nested(
    key: &Ident,
    input: ParseStream,
    allowed: &[&str],
    example: &str,
    mut each: impl FnMut(&str, &Ident, ParseStream) -> syn::Result<()>,
) -> syn::Result<()> {
    if !input.peek(syn::token::Paren) {
        let message = format!("`{key}` needs more: write `{key}({example})`");
        return Err(syn::Error::new(key.span(), message));
    }
    let content;
    syn::parenthesized!(content in input);
    let mut seen = Vec::new();
    let place = format!("{key}(...)");
    while !content.is_empty() {
        entry(&content, &place, allowed, &mut seen, &mut each)?;
        if !content.is_empty() {
            content.parse::<Token![,]>()?;
        }
    }
    Ok(())
}

fn entry(
    input: ParseStream,
    place: &str,
    allowed: &[&str],
    seen: &mut Vec<String>,
    each: &mut impl FnMut(&str, &Ident, ParseStream) -> syn::Result<()>,
) -> syn::Result<()> {
    let key = Ident::parse_any(input)?;
    let text = key.to_string();
    if !allowed.contains(&text.as_str()) {
        return Err(syn::Error::new(key.span(), unknown(&text, place, allowed)));
    }
    if seen.contains(&text) {
        return Err(syn::Error::new(
            key.span(),
            format!("`{text}` is given twice: remove one"),
        ));
    }
    each(&text, &key, input)?;
    seen.push(text);
    if input.is_empty() || input.peek(Token![,]) {
        return Ok(());
    }
    if input.peek(Token![=]) {
        return Err(input.error(format!("`{key}` takes no value: write just `{key}`")));
    }
    Err(input.error("expected a comma"))
}

fn unknown(key: &str, place: &str, allowed: &[&str]) -> String {
    let suggestion = naming::closest(key, allowed)
        .map(|closest| format!(": did you mean `{closest}`?"))
        .unwrap_or_default();
    format!(
        "unknown `{key}` in `{place}`{suggestion} (allowed here: {})",
        list(allowed)
    )
}

fn list(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

fn skip_entry(input: ParseStream) {
    while !input.is_empty() && !input.peek(Token![,]) {
        if input.parse::<TokenTree>().is_err() {
            return;
        }
    }
}

/// Reads `= value`; `example` completes the message where it is missing.
pub(crate) fn value<T: Parse>(key: &Ident, input: ParseStream, example: &str) -> syn::Result<T> {
    let wrong = |span: Span| {
        syn::Error::new(
            span,
            format!("`{key}` needs a value: write `{key} = {example}`"),
        )
    };
    if !input.peek(Token![=]) {
        return Err(wrong(key.span()));
    }
    input.parse::<Token![=]>()?;
    let span = input.span();
    input.parse::<T>().map_err(|_| wrong(span))
}

/// Reads `= "name"` of a table or a column.
pub(crate) fn sql_name(key: &Ident, input: ParseStream, example: &str) -> syn::Result<LitStr> {
    let name: LitStr = value(key, input, example)?;
    check_sql_name(&name)?;
    Ok(name)
}

pub(crate) fn check_sql_name(name: &LitStr) -> syn::Result<()> {
    if naming::is_sql_identifier(&name.value()) {
        return Ok(());
    }
    Err(syn::Error::new(
        name.span(),
        format!(
            "{:?} is not a plain SQL name: use {IDENTIFIER_RULE}",
            name.value()
        ),
    ))
}

/// Reads `= "path::to::cqrs_core"`.
pub(crate) fn crate_path(key: &Ident, input: ParseStream) -> syn::Result<Path> {
    let path: LitStr = value(key, input, "\"path::to::cqrs_core\"")?;
    path.parse_with(Path::parse_mod_style).map_err(|_| {
        syn::Error::new(
            path.span(),
            "`crate` is a path as a string: write `crate = \"path::to::cqrs_core\"`",
        )
    })
}

/// The path of the core crate, unless an attribute gives another.
pub(crate) fn default_crate() -> Path {
    syn::parse_quote!(::cqrs_core)
}

/// Reads `#[name(crate = "...")]`, which says nothing else.
pub(crate) fn crate_alone(attributes: &[Attribute], name: &str, errors: &mut Errors) -> Path {
    let mut krate = default_crate();
    entries(attributes, name, &[CRATE], errors, |_, key, input| {
        krate = crate_path(key, input)?;
        Ok(())
    });
    krate
}

/// Reports an attribute that has no meaning where it stands.
pub(crate) fn refuse(attributes: &[Attribute], name: &str, errors: &mut Errors, message: &str) {
    for attribute in attributes {
        if attribute.path().is_ident(name) {
            errors.report(attribute, message);
        }
    }
}

/// An attribute for an impl that names the parts of a type: where one of them is deprecated, or says
/// that it may use what is, so may the impl. Elsewhere what the user names in our attributes is linted
/// as all of their code.
pub(crate) fn allow_deprecated(input: &DeriveInput) -> TokenStream {
    let says = |attributes: &[Attribute]| attributes.iter().any(says_deprecated);
    let is_said = says(&input.attrs)
        || match &input.data {
            Data::Struct(data) => data.fields.iter().any(|field| says(&field.attrs)),
            Data::Enum(data) => data.variants.iter().any(|variant| {
                says(&variant.attrs) || variant.fields.iter().any(|field| says(&field.attrs))
            }),
            Data::Union(_) => false,
        };
    match is_said {
        true => quote!(#[allow(deprecated)]),
        false => TokenStream::new(),
    }
}

/// Whether it is `#[deprecated]`, or allows or expects the lint of that name.
fn says_deprecated(attribute: &Attribute) -> bool {
    let path = attribute.path();
    if !path.is_ident("allow") && !path.is_ident("expect") {
        return path.is_ident("deprecated");
    }
    let Meta::List(list) = &attribute.meta else {
        return false;
    };
    let mut words = list.tokens.clone().into_iter();
    words.any(|word| matches!(word, TokenTree::Ident(lint) if lint == "deprecated"))
}

/// A span for emitted code that points at `tokens`, but is known to come from a macro, so that
/// lints leave it alone.
pub(crate) fn emitted_at(tokens: &impl ToTokens) -> Span {
    Span::call_site().located_at(syn::spanned::Spanned::span(tokens))
}
