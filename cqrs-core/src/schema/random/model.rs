//! What `schemars` and serde do with a type: its schemas, values of it, and whether a value is read.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Content, Field, Random, Type, number, range};

pub(super) fn schema(of: &Type, is_read: bool) -> Value {
    let mut definitions = Map::new();
    let mut schema = part(of, is_read, &mut definitions);
    if let (Value::Object(schema), false) = (&mut schema, definitions.is_empty()) {
        schema.insert("$defs".to_owned(), Value::Object(definitions));
    }
    schema
}

fn part(of: &Type, is_read: bool, definitions: &mut Map<String, Value>) -> Value {
    match of {
        Type::Bool => json!({"type": "boolean"}),
        Type::Null => json!({"type": "null"}),
        Type::Any => json!(true),
        Type::Int(format) => {
            let (min, max) = range(format);
            let mut schema = json!({"type": "integer", "format": format});
            if min == 0 || format.ends_with("16") || *format == "int8" {
                schema["minimum"] = number(min);
            }
            if format.ends_with("t8") || format.ends_with("16") {
                schema["maximum"] = number(max);
            }
            schema
        }
        Type::Float(format) => json!({"type": "number", "format": format}),
        Type::Text => json!({"type": "string"}),
        Type::Uuid => json!({"type": "string", "format": "uuid"}),
        Type::Char => json!({"type": "string", "minLength": 1, "maxLength": 1}),
        Type::Option(of) => {
            let mut schema = part(of, is_read, definitions);
            match schema.get("type") {
                Some(Value::String(name)) if !schema["type"].is_array() => {
                    schema["type"] = json!([name, "null"]);
                    schema
                }
                _ => json!({"anyOf": [schema, {"type": "null"}]}),
            }
        }
        Type::List(of) => {
            json!({"type": "array", "items": part(of, is_read, definitions)})
        }
        Type::Set(of) => {
            json!({"type": "array", "items": part(of, is_read, definitions), "uniqueItems": true})
        }
        Type::Tuple(items) => {
            let first: Vec<_> = items
                .iter()
                .map(|item| part(item, is_read, definitions))
                .collect();
            json!({"type": "array", "prefixItems": first, "minItems": items.len(), "maxItems": items.len()})
        }
        Type::Map(of) => {
            json!({"type": "object", "additionalProperties": part(of, is_read, definitions)})
        }
        Type::Numbered(of) => json!({
            "type": "object",
            "additionalProperties": false,
            "patternProperties": {"^\\d+$": part(of, is_read, definitions)},
        }),
        Type::Struct { fields, denies } => {
            let mut schema = fields_schema(fields, is_read, definitions);
            if *denies {
                schema["additionalProperties"] = false.into();
            }
            schema
        }
        Type::Enum(variants) => {
            let units = variants
                .iter()
                .filter(|(_, content)| *content == Content::Unit);
            let names: Vec<&str> = units.map(|(name, _)| name.as_str()).collect();
            let mut all = match names.is_empty() {
                true => Vec::new(),
                false => vec![json!({"type": "string", "enum": names})],
            };
            for (name, content) in variants {
                let content = match content {
                    Content::Unit => continue,
                    Content::One(of) => part(of, is_read, definitions),
                    Content::Fields(fields) => fields_schema(fields, is_read, definitions),
                };
                all.push(json!({
                    "type": "object",
                    "properties": {name: content},
                    "required": [name],
                    "additionalProperties": false,
                }));
            }
            json!({"oneOf": all})
        }
        Type::Tagged(variants) => {
            let all: Vec<Value> = variants
                .iter()
                .map(|(name, fields)| {
                    let mut schema = fields_schema(fields, is_read, definitions);
                    schema["properties"]["t"] = json!({"type": "string", "const": name});
                    let mut required = vec![json!("t")];
                    required.extend(schema["required"].as_array().into_iter().flatten().cloned());
                    schema["required"] = required.into();
                    schema
                })
                .collect();
            json!({"oneOf": all})
        }
        Type::Chain(name, of) => {
            // Two of one name have numbers, as `schemars` gives them.
            let name = format!("{name}{}", definitions.len());
            let reference = json!({"$ref": format!("#/$defs/{name}")});
            definitions.insert(name.clone(), Value::Null);
            let value = part(of, is_read, definitions);
            let mut required = vec!["value"];
            if !is_read {
                required.push("next");
            }
            definitions.insert(
                name,
                json!({
                    "type": "object",
                    "properties": {"value": value, "next": {"anyOf": [reference, {"type": "null"}]}},
                    "required": required,
                }),
            );
            reference
        }
    }
}

fn fields_schema(fields: &[Field], is_read: bool, definitions: &mut Map<String, Value>) -> Value {
    if fields.is_empty() {
        return json!({"type": "object"});
    }
    let mut properties = Map::new();
    let mut required: Vec<&str> = Vec::new();
    for field in fields {
        let schema = part(&field.of, is_read, definitions);
        properties.insert(field.name.clone(), schema);
        let needed = match is_read {
            true => !field.has_default && !matches!(field.of, Type::Option(_)),
            false => !field.may_be_left_out,
        };
        if needed {
            required.push(&field.name);
        }
    }
    let mut schema = json!({"type": "object", "properties": properties});
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    schema
}

// What is written.

pub(super) fn value(of: &Type, random: &mut Random) -> Value {
    match of {
        Type::Bool => random.one_in(2).into(),
        Type::Null => Value::Null,
        Type::Any => random
            .of(&[
                json!(null),
                json!(1),
                json!("x"),
                json!([1]),
                json!({"a": "x"}),
            ])
            .clone(),
        Type::Int(format) => {
            let (min, max) = range(format);
            number(match random.below(4) {
                0 => min,
                1 => max,
                _ => i128::from(random.below(100)),
            })
        }
        Type::Float("float") => json!(random.below(1 << 20) as f64 / 4.0),
        Type::Float(_) => json!(1.0 / (1 + random.below(100)) as f64 + 1e300),
        Type::Text => json!(*random.of(&["", "x", "text", "äö"])),
        Type::Uuid => json!("0190b8c2-0000-7000-8000-000000000000"),
        Type::Char => json!(*random.of(&["x", "ä"])),
        Type::Option(_) if random.one_in(2) => Value::Null,
        Type::Option(of) => value(of, random),
        Type::List(of) => (0..random.below(4)).map(|_| value(of, random)).collect(),
        Type::Set(of) => {
            let mut items: Vec<Value> = (0..random.below(3)).map(|_| value(of, random)).collect();
            items.dedup();
            items.into()
        }
        Type::Tuple(items) => items.iter().map(|item| value(item, random)).collect(),
        Type::Map(of) => entries(&["a", "b", "c", "n", "x"], of, random),
        Type::Numbered(of) => entries(&["1", "22"], of, random),
        Type::Struct { fields, .. } => written_fields(fields, random).into(),
        Type::Enum(variants) => {
            let (name, content) = random.of(variants).clone();
            match content {
                Content::Unit => name.into(),
                Content::One(of) => json!({name: value(&of, random)}),
                Content::Fields(fields) => json!({name: written_fields(&fields, random)}),
            }
        }
        Type::Tagged(variants) => {
            let (name, fields) = random.of(variants).clone();
            let mut written = written_fields(&fields, random);
            written.insert("t".to_owned(), name.into());
            written.into()
        }
        Type::Chain(_, inner) => {
            let next = match random.one_in(2) {
                true => value(of, random),
                false => Value::Null,
            };
            json!({"value": value(inner, random), "next": next})
        }
    }
}

fn entries(names: &[&str], of: &Type, random: &mut Random) -> Value {
    let names: Vec<&&str> = names.iter().filter(|_| random.one_in(2)).collect();
    let entries = names
        .into_iter()
        .map(|name| ((*name).to_owned(), value(of, random)));
    Value::Object(entries.collect())
}

fn written_fields(fields: &[Field], random: &mut Random) -> Map<String, Value> {
    let mut written = Map::new();
    for field in fields {
        if !(field.may_be_left_out && random.one_in(2)) {
            written.insert(field.name.clone(), value(&field.of, random));
        }
    }
    written
}

// What is read, by the rules of serde's derives and of `serde_json`.

pub(super) fn reads(of: &Type, value: &Value) -> bool {
    match of {
        Type::Bool => value.is_boolean(),
        Type::Null => value.is_null(),
        Type::Any => true,
        Type::Int(format) => {
            let signed = value.as_i64().map(i128::from);
            let number = signed.or_else(|| value.as_u64().map(i128::from));
            let (min, max) = range(format);
            number.is_some_and(|number| (min..=max).contains(&number))
        }
        // Not only read, but the same.
        Type::Float(format) => {
            let single = *format == "float";
            let integer = value.as_i64().map(i128::from);
            let integer = integer.or_else(|| value.as_u64().map(i128::from));
            match (integer, value.as_f64()) {
                (Some(integer), _) if single => (integer as f32) as i128 == integer,
                (Some(integer), _) => (integer as f64) as i128 == integer,
                (None, Some(float)) => !single || f64::from(float as f32) == float,
                (None, None) => false,
            }
        }
        Type::Text => value.is_string(),
        Type::Uuid => value.as_str().is_some_and(|text| text.len() == 36),
        Type::Char => value.as_str().is_some_and(|text| text.chars().count() == 1),
        Type::Option(of) => value.is_null() || reads(of, value),
        Type::List(of) => {
            let items = value.as_array();
            items.is_some_and(|items| items.iter().all(|item| reads(of, item)))
        }
        // Not only read, but without a loss.
        Type::Set(of) => {
            let items = value.as_array();
            items.is_some_and(|items| {
                let mut rest = items.as_slice();
                while let [first, others @ ..] = rest {
                    if others.contains(first) {
                        return false;
                    }
                    rest = others;
                }
                items.iter().all(|item| reads(of, item))
            })
        }
        Type::Tuple(types) => value.as_array().is_some_and(|items| {
            let mut both = types.iter().zip(items);
            items.len() == types.len() && both.all(|(of, item)| reads(of, item))
        }),
        Type::Map(of) => {
            let entries = value.as_object();
            entries.is_some_and(|entries| entries.values().all(|value| reads(of, value)))
        }
        Type::Numbered(of) => value.as_object().is_some_and(|entries| {
            let mut all = entries.iter();
            all.all(|(key, value)| key.parse::<u64>().is_ok() && reads(of, value))
        }),
        Type::Struct { fields, denies } => {
            let entries = value.as_object();
            entries.is_some_and(|entries| reads_fields(fields, entries, *denies))
        }
        Type::Enum(variants) => match value {
            Value::String(found) => {
                let mut all = variants.iter();
                all.any(|(name, content)| name == found && *content == Content::Unit)
            }
            Value::Object(entries) if entries.len() == 1 => {
                let mut all = variants.iter();
                all.any(|(name, content)| match (entries.get(name), content) {
                    (Some(value), Content::Unit) => value.is_null(),
                    (Some(value), Content::One(of)) => reads(of, value),
                    (Some(Value::Object(entries)), Content::Fields(fields)) => {
                        reads_fields(fields, entries, false)
                    }
                    _ => false,
                })
            }
            _ => false,
        },
        Type::Tagged(variants) => value.as_object().is_some_and(|entries| {
            let mut all = variants.iter();
            all.any(|(name, fields)| {
                entries.get("t").is_some_and(|tag| tag == name)
                    && reads_fields(fields, entries, false)
            })
        }),
        Type::Chain(_, inner) => value.as_object().is_some_and(|entries| {
            let next = entries.get("next").unwrap_or(&Value::Null);
            let value = entries.get("value");
            value.is_some_and(|value| reads(inner, value)) && (next.is_null() || reads(of, next))
        }),
    }
}

fn reads_fields(fields: &[Field], entries: &Map<String, Value>, denies: bool) -> bool {
    let known: BTreeMap<&str, &Field> = fields
        .iter()
        .map(|field| (field.name.as_str(), field))
        .collect();
    let all = fields.iter().all(|field| match entries.get(&field.name) {
        Some(value) => reads(&field.of, value),
        None => field.has_default || matches!(field.of, Type::Option(_)),
    });
    all && (!denies || entries.keys().all(|name| known.contains_key(name.as_str())))
}
