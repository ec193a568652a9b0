//! From tokens to what the user wrote.

use proc_macro2::Span;
use syn::parse::ParseStream;
use syn::{Attribute, Data, DeriveInput, Expr, Fields, Ident, LitInt, LitStr, Path, Token};

use super::serde;
use crate::attribute::{crate_path, default_crate, entries, refuse, value};
use crate::errors::Errors;
use crate::input::refuse_generics;
use crate::symbol::{AGGREGATE, CRATE, EVENT, NAME, SINCE, UPCAST, VERSION, WAS};

pub(super) struct Parsed {
    pub(super) ident: Ident,
    pub(super) krate: Path,
    pub(super) aggregate: Option<LitStr>,
    /// Whether `#[event(...)]` on the type could be read: an aggregate that is missing then is
    /// really missing, and not misspelt.
    pub(super) is_container_read: bool,
    /// Of a struct; `None` for an enum.
    pub(super) own: Option<ParsedType>,
    pub(super) variants: Vec<ParsedType>,
}

/// One event type as written.
pub(super) struct ParsedType {
    pub(super) ident: Ident,
    pub(super) name: Option<LitStr>,
    pub(super) version: Option<LitInt>,
    pub(super) since: Option<LitInt>,
    /// From which schema version, and how.
    pub(super) upcasts: Vec<(LitInt, Expr)>,
    pub(super) was: Vec<LitStr>,
}

pub(super) fn parse(input: &DeriveInput, errors: &mut Errors) -> Parsed {
    refuse_generics(input, "DomainEvent", errors);
    let mut parsed = Parsed {
        ident: input.ident.clone(),
        krate: default_crate(),
        aggregate: None,
        is_container_read: false,
        own: None,
        variants: Vec::new(),
    };
    let allowed: &[&str] = match &input.data {
        Data::Enum(_) => &[AGGREGATE, CRATE],
        Data::Struct(_) | Data::Union(_) => &[AGGREGATE, NAME, VERSION, SINCE, UPCAST, WAS, CRATE],
    };
    let mut own = ParsedType::new(&input.ident);
    let before = errors.count();
    entries(&input.attrs, EVENT, allowed, errors, |name, key, input| {
        match name {
            AGGREGATE => parsed.aggregate = Some(value(key, input, "\"route_plan\"")?),
            CRATE => parsed.krate = crate_path(key, input)?,
            _ => own.entry(name, key, input)?,
        }
        Ok(())
    });
    parsed.is_container_read = errors.count() == before;
    serde::check_container(&input.attrs, errors);

    match &input.data {
        Data::Struct(data) => {
            refuse_on_fields(&data.fields, errors);
            parsed.own = Some(own);
        }
        Data::Enum(data) => {
            for variant in &data.variants {
                serde::check_variant(&variant.attrs, errors);
                refuse_on_fields(&variant.fields, errors);
                let event = ParsedType::parse(&variant.ident, &variant.attrs, errors);
                parsed.variants.push(event);
            }
            if data.variants.is_empty() {
                errors.report(
                    &input.ident,
                    "an event enum needs a variant: write one for each thing that can happen to the aggregate",
                );
            }
        }
        Data::Union(data) => errors.report(
            data.union_token,
            "a union cannot be an event: write an enum with a variant for each event type",
        ),
    }
    parsed
}

fn refuse_on_fields(fields: &Fields, errors: &mut Errors) {
    for field in fields {
        refuse(
            &field.attrs,
            EVENT,
            errors,
            "`#[event(...)]` says nothing about a field: write it on the enum or on a variant",
        );
    }
}

/// Reads `(item, item)` behind `key`; `example` completes the message where there is none.
fn list<T>(
    key: &Ident,
    input: ParseStream,
    example: &str,
    item: impl Fn(ParseStream) -> syn::Result<T>,
) -> syn::Result<Vec<T>> {
    let wrong = || {
        syn::Error::new(
            key.span(),
            format!("`{key}` needs more: write `{key}({example})`"),
        )
    };
    if !input.peek(syn::token::Paren) {
        return Err(wrong());
    }
    let content;
    syn::parenthesized!(content in input);
    let mut items = Vec::new();
    while !content.is_empty() {
        items.push(item(&content).map_err(|_| wrong())?);
        if !content.is_empty() {
            content.parse::<Token![,]>()?;
        }
    }
    if items.is_empty() {
        return Err(wrong());
    }
    Ok(items)
}

impl ParsedType {
    fn new(ident: &Ident) -> Self {
        Self {
            ident: ident.clone(),
            name: None,
            version: None,
            since: None,
            upcasts: Vec::new(),
            was: Vec::new(),
        }
    }

    fn parse(ident: &Ident, attributes: &[Attribute], errors: &mut Errors) -> Self {
        let mut event = Self::new(ident);
        entries(
            attributes,
            EVENT,
            &[NAME, VERSION, SINCE, UPCAST, WAS],
            errors,
            |name, key, input| event.entry(name, key, input),
        );
        event
    }

    fn entry(&mut self, name: &str, key: &Ident, input: ParseStream) -> syn::Result<()> {
        match name {
            NAME => self.name = Some(value(key, input, "\"route_plan.dispatched\"")?),
            SINCE => self.since = Some(value(key, input, "2")?),
            UPCAST => {
                self.upcasts = list(key, input, "1 = from_version_1", |input| {
                    let from: LitInt = input.parse()?;
                    input.parse::<Token![=]>()?;
                    Ok((from, input.parse()?))
                })?;
            }
            WAS => {
                let name = |input: ParseStream| input.parse::<LitStr>();
                self.was = list(key, input, "\"route_plan.sent\"", name)?;
            }
            _ => self.version = Some(value(key, input, "2")?),
        }
        Ok(())
    }

    /// Where to point at for its name.
    pub(super) fn name_span(&self) -> Span {
        self.name
            .as_ref()
            .map_or_else(|| self.ident.span(), LitStr::span)
    }
}
