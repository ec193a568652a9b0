//! The serde attributes that an event cannot have.
//!
//! The log holds the content of a variant; which one it is stands in the event type. So the event
//! must serialize as a plain enum or struct, and every variant must go both ways.

use proc_macro2::{TokenStream, TokenTree};
use syn::{Attribute, Ident, Meta};

use crate::errors::Errors;
use crate::symbol::SERDE;

const ON_CONTAINER: &[&str] = &[
    "tag",
    "content",
    "untagged",
    "from",
    "try_from",
    "into",
    "transparent",
    "remote",
];
const ON_VARIANT: &[&str] = &[
    "skip",
    "skip_serializing",
    "skip_deserializing",
    "other",
    "untagged",
];

pub(super) fn check_container(attributes: &[Attribute], errors: &mut Errors) {
    refuse(attributes, ON_CONTAINER, errors, |key| {
        format!(
            "an event cannot have `#[serde({key})]`: its stored form is the content of the variant, and the event type says which one; remove it"
        )
    });
}

pub(super) fn check_variant(attributes: &[Attribute], errors: &mut Errors) {
    refuse(attributes, &["alias"], errors, |_| {
        "a variant of an event cannot have `#[serde(alias)]`: the log has names of its own; write `#[event(was(\"...\"))]` with the name that the event type had".to_owned()
    });
    refuse(attributes, ON_VARIANT, errors, |key| {
        format!(
            "a variant of an event cannot have `#[serde({key})]`: every event is written to the log and read back; remove it"
        )
    });
}

fn refuse(
    attributes: &[Attribute],
    refused: &[&str],
    errors: &mut Errors,
    message: impl Fn(&Ident) -> String,
) {
    for attribute in attributes {
        let Meta::List(list) = &attribute.meta else {
            continue;
        };
        if !list.path.is_ident(SERDE) {
            continue;
        }
        for key in keys(list.tokens.clone()) {
            if refused.iter().any(|refused| key == refused) {
                errors.report(&key, message(&key));
            }
        }
    }
}

/// The first word of each entry. serde itself reports what it does not understand.
fn keys(tokens: TokenStream) -> Vec<Ident> {
    let mut keys = Vec::new();
    let mut at_start = true;
    for token in tokens {
        match token {
            TokenTree::Ident(ident) if at_start => {
                keys.push(ident);
                at_start = false;
            }
            TokenTree::Punct(punct) => at_start = punct.as_char() == ',',
            _ => at_start = false,
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use quote::quote;

    #[test]
    fn keys_are_the_first_words_of_the_entries() {
        let keys = keys(quote!(
            rename(serialize = "a", tag = "x"),
            tag = "t",
            default
        ));
        let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
        assert_eq!(keys, ["rename", "tag", "default"]);
    }
}
