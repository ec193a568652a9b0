//! The rules of an event:
//!
//! - `aggregate` is there and a plain name
//! - names are unique, printable, and not the framework's own (`cqrs.`)
//! - versions count from 1, and each older one is lifted to the next
//! - a name that an event type had is no other's

use syn::{Expr, LitStr};

use super::parse::{Parsed, ParsedType};
use super::{EventType, Model, Shape};
use crate::errors::Errors;
use crate::naming::{is_aggregate_type, snake_case};

/// What the names of the framework's own event types begin with.
const RESERVED: &str = "cqrs.";

const MAX_NAME: usize = 255;

pub(super) fn check(parsed: Parsed, errors: &mut Errors) -> Option<Model> {
    let aggregate = check_aggregate(&parsed, errors)?;
    let shape = match &parsed.own {
        Some(own) => Shape::Struct(check_type(own, &aggregate, errors)),
        None => {
            let mut types: Vec<(syn::Ident, EventType)> = Vec::new();
            for variant in &parsed.variants {
                let event = check_type(variant, &aggregate, errors);
                if let Some((first, _)) = types.iter().find(|(_, other)| other.name == event.name) {
                    errors.push(syn::Error::new(
                        variant.name_span(),
                        format!("the event type {:?} is already that of `{first}`: give this one another `#[event(name = \"...\")]`", event.name),
                    ));
                }
                types.push((variant.ident.clone(), event));
            }
            Shape::Enum(types)
        }
    };
    check_former_names(&shape, errors);
    Some(Model {
        ident: parsed.ident,
        krate: parsed.krate,
        aggregate,
        shape,
    })
}

fn check_aggregate(parsed: &Parsed, errors: &mut Errors) -> Option<String> {
    let Some(aggregate) = &parsed.aggregate else {
        if parsed.is_container_read {
            errors.report(
                &parsed.ident,
                "which aggregate does this happen to? Write `#[event(aggregate = \"route_plan\")]` with the name of its type in the log",
            );
        }
        return None;
    };
    let name = aggregate.value();
    if !is_aggregate_type(&name) {
        errors.report(
            aggregate,
            format!(
                "{name:?} cannot name an aggregate type: use a-z, 0-9 and _, starting with a letter"
            ),
        );
        return None;
    }
    Some(name)
}

fn check_type(parsed: &ParsedType, aggregate: &str, errors: &mut Errors) -> EventType {
    let name = parsed.name.as_ref().map_or_else(
        || {
            let ident = syn::ext::IdentExt::unraw(&parsed.ident).to_string();
            format!("{aggregate}.{}", snake_case(&ident))
        },
        LitStr::value,
    );
    if let Some(problem) = name_problem(&name) {
        errors.push(syn::Error::new(parsed.name_span(), problem));
    }
    let version = match &parsed.version {
        None => 1,
        Some(version) => match version.base10_parse::<u32>() {
            Ok(version) if version >= 1 => version,
            _ => {
                errors.report(version, "schema versions count from 1: write `version = 1` or above, or leave it out for 1");
                1
            }
        },
    };
    EventType {
        name,
        version,
        upcasts: check_upcasts(parsed, version, errors),
        was: parsed.was.clone(),
    }
}

/// There must be a step from each version that was ever written.
fn check_upcasts(parsed: &ParsedType, version: u32, errors: &mut Errors) -> Vec<(u32, Expr)> {
    let since = match &parsed.since {
        None => 1,
        Some(since) => match since.base10_parse::<u32>() {
            Ok(first) if (1..=version).contains(&first) => first,
            _ => {
                let message = format!("the first version that was written is 1 to {version}");
                errors.report(since, message);
                1
            }
        },
    };
    let mut upcasts: Vec<(u32, Expr)> = Vec::new();
    for (literal, step) in &parsed.upcasts {
        match literal.base10_parse::<u32>() {
            Ok(from) if upcasts.iter().any(|(other, _)| *other == from) => {
                errors.report(literal, format!("version {from} is lifted already: remove one"));
            }
            Ok(from) if (since..version).contains(&from) => upcasts.push((from, step.clone())),
            _ => errors.report(
                literal,
                format!("there is nothing to lift from there: the code has version {version}, and the first one is {since}"),
            ),
        }
    }
    let is_missing = |from: &u32| !upcasts.iter().any(|(other, _)| other == from);
    let missing: Vec<u32> = (since..version).filter(is_missing).collect();
    if let (Some(first), Some(literal)) = (missing.first(), &parsed.version) {
        let list: Vec<String> = missing.iter().map(u32::to_string).collect();
        errors.report(
            literal,
            format!(
                "nothing lifts payloads of version {}: write `upcast({first} = ...)` with a function to the next version, or `since = {version}` where none was ever written",
                list.join(" and ")
            ),
        );
    }
    upcasts
}

fn check_former_names(shape: &Shape, errors: &mut Errors) {
    let types: Vec<&EventType> = match shape {
        Shape::Struct(own) => vec![own],
        Shape::Enum(variants) => variants.iter().map(|(_, own)| own).collect(),
    };
    let mut seen: Vec<String> = types.iter().map(|own| own.name.clone()).collect();
    for name in types.iter().flat_map(|own| &own.was) {
        if let Some(problem) = name_problem(&name.value()) {
            errors.report(name, problem);
        } else if seen.contains(&name.value()) {
            errors.report(
                name,
                format!(
                    "{:?} names an event type already: an old event would have two",
                    name.value()
                ),
            );
        }
        seen.push(name.value());
    }
}

fn name_problem(name: &str) -> Option<String> {
    if name.starts_with(RESERVED) {
        return Some(format!(
            "{name:?} is one of the framework's own event types: choose a name that does not start with {RESERVED:?}"
        ));
    }
    let is_printable = |char: char| !char.is_whitespace() && !char.is_control();
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(is_printable) {
        return Some(format!(
            "{name:?} cannot name an event type: use 1 to {MAX_NAME} bytes without white space, for example \"route_plan.dispatched\""
        ));
    }
    None
}
