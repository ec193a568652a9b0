//! From the JSON schema of an enum to those of its payloads.
//!
//! `schemars` describes what serde writes, `{"Dispatched": {"driver": "Kim"}}`; the log holds the
//! content alone. What is written and what is read differ where a field has a default, so there is
//! a schema of each.

use std::collections::BTreeSet;

use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use super::node::{name_of, variant_of};
use super::variant::{Content, variant};
use crate::event::DomainEvent;

const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// What says nothing about which values are accepted.
const ANNOTATIONS: [&str; 8] = [
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "$comment",
];

/// The schemas of an enum or struct, of which those of payloads are parts.
pub(super) struct Root(Value);

impl Root {
    /// What is written.
    pub(super) fn written<E: JsonSchema>() -> Self {
        Self::of::<E>(SchemaSettings::draft2020_12().for_serialize())
    }

    /// What is read.
    pub(super) fn read<E: JsonSchema>() -> Self {
        Self::of::<E>(SchemaSettings::draft2020_12().for_deserialize())
    }

    fn of<E: JsonSchema>(settings: SchemaSettings) -> Self {
        let settings = settings.with_transform(Plain);
        let generator = settings.into_generator();
        Self(generator.into_root_schema_for::<E>().to_value())
    }

    /// The schema of the payload of the event type at this position, where there is one.
    pub(super) fn payload<E: DomainEvent>(&self, index: usize, is_read: bool) -> Option<Value> {
        let variant = variant::<E>(index)?;
        if variant.content == Content::Unit {
            return Some(match is_read {
                // Nothing of it is looked at.
                true => Value::Bool(true),
                false => self.whole(json!({"type": "object", "additionalProperties": false})),
            });
        }
        let content = match variant.name {
            None => self.0.clone(),
            Some(name) => self.content_of(name)?.clone(),
        };
        let payload = self.whole(closed(content, variant.content, is_read));
        // What contains the whole enum is no part of it.
        (variant.name.is_none() || !refers_to_root(&payload)).then_some(payload)
    }

    fn content_of(&self, variant: &str) -> Option<&Value> {
        let mut all = self.0.get("oneOf")?.as_array()?.iter();
        all.find_map(|one| match one.get("required")?.as_array()?.as_slice() {
            [only] if only == variant => one.get("properties")?.get(variant),
            _ => None,
        })
    }

    /// A part, with the definitions that it needs.
    fn whole(&self, part: Value) -> Value {
        let Value::Object(mut part) = part else {
            return part;
        };
        part.remove("$defs");
        let none = Map::new();
        let all = self.0.get("$defs").and_then(Value::as_object);
        let all = all.unwrap_or(&none);
        let part = Value::Object(part);
        let needed: Map<String, Value> = reachable(&part, all)
            .into_iter()
            .filter_map(|name| {
                let definition = all.get(&name)?.clone();
                Some((name, definition))
            })
            .collect();
        let Value::Object(mut part) = part else {
            return part;
        };
        part.insert("$schema".to_owned(), DIALECT.into());
        if !needed.is_empty() {
            part.insert("$defs".to_owned(), Value::Object(needed));
        }
        Value::Object(part)
    }
}

/// Of a struct without fields, `schemars` says only that it is an object.
fn closed(content: Value, of: Content, is_read: bool) -> Value {
    let mut content = content;
    if let (Content::Struct, false, Value::Object(object)) = (of, is_read, &mut content) {
        let says_more = ["properties", "patternProperties", "additionalProperties"];
        let is_bare = object.get("type").is_some_and(|kind| kind == "object")
            && !says_more.iter().any(|key| object.contains_key(*key))
            && object
                .keys()
                .all(|key| ["type", "$schema", "$defs"].contains(&key.as_str()));
        if is_bare {
            object.insert("additionalProperties".to_owned(), false.into());
        }
    }
    content
}

/// Takes out what does not matter, and orders what has no order.
#[derive(Debug, Clone)]
struct Plain;

impl Transform for Plain {
    fn transform(&mut self, schema: &mut Schema) {
        transform_subschemas(self, schema);
        for annotation in ANNOTATIONS {
            schema.remove(annotation);
        }
        for alternatives in ["oneOf", "anyOf"] {
            gather_units(schema, alternatives);
        }
        for list in ["required", "enum"] {
            if let Some(Value::Array(items)) = schema.get_mut(list) {
                items.sort_by_key(Value::to_string);
            }
        }
        if let Some(Value::Array(variants)) = schema.get_mut("oneOf") {
            variants.sort_by(|one, other| variant_of(one).cmp(&variant_of(other)));
        }
    }
}

/// Makes one alternative of all unit variants: `schemars` does so with those alone that have no doc
/// comment.
fn gather_units(schema: &mut Schema, alternatives: &str) {
    let Some(Value::Array(mut others)) = schema.remove(alternatives) else {
        return;
    };
    let mut names = Vec::new();
    others.retain(|one| {
        let units = units(one);
        names.extend(units.into_iter().flatten().cloned());
        units.is_none()
    });
    names.sort_by_key(Value::to_string);
    if others.is_empty() && schema.get("type").is_none() {
        schema.insert("type".to_owned(), "string".into());
        schema.insert("enum".to_owned(), names.into());
        return;
    }
    if !names.is_empty() {
        others.insert(0, json!({"type": "string", "enum": names}));
    }
    schema.insert(alternatives.to_owned(), others.into());
}

/// The names of an alternative that is unit variants alone.
fn units(alternative: &Value) -> Option<&[Value]> {
    let alternative = alternative.as_object().filter(|one| one.len() == 2)?;
    let (kind, one) = (alternative.get("type")?, alternative.get("const"));
    let names = match (one, alternative.get("enum")) {
        (Some(name), _) => std::slice::from_ref(name),
        (None, Some(Value::Array(names))) => names,
        _ => return None,
    };
    (kind == "string").then_some(names)
}

/// The names of the definitions that a schema refers to, by itself or through others.
fn reachable(schema: &Value, definitions: &Map<String, Value>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![schema];
    while let Some(value) = open.pop() {
        match value {
            Value::Array(items) => open.extend(items),
            Value::Object(entries) => {
                let named = entries.get("$ref").and_then(Value::as_str);
                if let Some(name) = named.and_then(name_of)
                    && !found.contains(&name)
                {
                    open.extend(definitions.get(&name));
                    found.insert(name);
                }
                open.extend(entries.values());
            }
            _ => {}
        }
    }
    found
}

/// Whether it contains a reference to the root of its document.
fn refers_to_root(schema: &Value) -> bool {
    match schema {
        Value::Array(items) => items.iter().any(refers_to_root),
        Value::Object(entries) => {
            entries.get("$ref").is_some_and(|path| path == "#")
                || entries.values().any(refers_to_root)
        }
        _ => false,
    }
}
