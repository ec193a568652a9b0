//! What is called readable is read: random pairs of types, and values of one that the other reads.
//!
//! A type here has its schemas as `schemars` derives them, values as serde writes them, and a reader
//! that does what serde's does. The reader knows nothing of schemas.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::comparison::{Pair, refused};

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % end
    }

    fn one_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }

    fn either(&mut self, [one, other]: [&'static str; 2]) -> &'static str {
        match self.one_in(2) {
            true => one,
            false => other,
        }
    }

    fn of<'l, T>(&mut self, list: &'l [T]) -> &'l T {
        &list[usize::try_from(self.below(list.len() as u64)).unwrap_or(0)]
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Type {
    Bool,
    Null,
    Any,
    Int(&'static str),
    Float(&'static str),
    Text,
    Uuid,
    Char,
    Option(Box<Type>),
    List(Box<Type>),
    Set(Box<Type>),
    Tuple(Vec<Type>),
    Map(Box<Type>),
    Numbered(Box<Type>),
    Struct {
        fields: Vec<Field>,
        denies: bool,
    },
    Enum(Vec<(String, Content)>),
    Tagged(Vec<(String, Vec<Field>)>),
    /// A struct of a value and maybe another of its own kind.
    Chain(&'static str, Box<Type>),
}

#[derive(Debug, Clone, PartialEq)]
struct Field {
    name: String,
    of: Type,
    has_default: bool,
    /// Left out when it is written, as by `skip_serializing_if`; it has a default then.
    may_be_left_out: bool,
}

#[derive(Debug, Clone, PartialEq)]
enum Content {
    Unit,
    One(Type),
    Fields(Vec<Field>),
}

const FLOATS: [&str; 2] = ["float", "double"];
const NAMES: [&str; 2] = ["Node", "Link"];
const INTEGERS: [(&str, i128, i128); 8] = [
    ("int8", i8::MIN as i128, i8::MAX as i128),
    ("int16", i16::MIN as i128, i16::MAX as i128),
    ("int32", i32::MIN as i128, i32::MAX as i128),
    ("int64", i64::MIN as i128, i64::MAX as i128),
    ("uint8", 0, u8::MAX as i128),
    ("uint16", 0, u16::MAX as i128),
    ("uint32", 0, u32::MAX as i128),
    ("uint64", 0, u64::MAX as i128),
];

fn range(format: &str) -> (i128, i128) {
    let found = INTEGERS.iter().find(|(name, ..)| *name == format);
    found.map_or((0, 0), |(_, min, max)| (*min, *max))
}

fn number(value: i128) -> Value {
    match i64::try_from(value) {
        Ok(value) => value.into(),
        Err(_) => u64::try_from(value).unwrap_or(u64::MAX).into(),
    }
}

// Random types, and changes of them.

fn any_type(random: &mut Random, depth: u64) -> Type {
    let inner = |random: &mut Random| Box::new(any_type(random, depth.saturating_sub(1)));
    let kinds = if depth == 0 { 8 } else { 18 };
    match random.below(kinds) {
        0 => Type::Bool,
        1 => Type::Int(random.of(&INTEGERS).0),
        2 => Type::Float(random.either(FLOATS)),
        3 => Type::Text,
        4 => Type::Uuid,
        5 => Type::Char,
        6 if random.one_in(3) => Type::Any,
        6 => Type::Int(random.of(&INTEGERS).0),
        7 if random.one_in(3) => Type::Null,
        7 => Type::Text,
        8 => match any_type(random, depth - 1) {
            // serde cannot tell the inner one from the outer one.
            Type::Option(of) => Type::Option(of),
            Type::Null | Type::Any => Type::Option(Box::new(Type::Text)),
            of => Type::Option(Box::new(of)),
        },
        9 => Type::List(inner(random)),
        10 => Type::Set(inner(random)),
        11 => Type::Map(inner(random)),
        12 => Type::Numbered(inner(random)),
        13 => Type::Tuple((0..=random.below(2)).map(|_| *inner(random)).collect()),
        14 | 15 => Type::Struct {
            fields: any_fields(random, depth - 1),
            denies: random.one_in(4),
        },
        16 => {
            let names = ["A", "B", "C", "D"]
                .into_iter()
                .filter(|_| !random.one_in(3));
            let names: Vec<&str> = names.collect();
            let variants = names.into_iter().map(|name| {
                let content = any_content(random, depth - 1);
                (name.to_owned(), content)
            });
            Type::Enum(variants.chain([("Z".to_owned(), Content::Unit)]).collect())
        }
        _ if random.one_in(2) => Type::Chain(random.either(NAMES), inner(random)),
        _ => {
            let names = ["A", "B", "Z"]
                .into_iter()
                .filter(|name| *name == "Z" || !random.one_in(3));
            let names: Vec<&str> = names.collect();
            let variants = names.into_iter();
            Type::Tagged(
                variants
                    .map(|name| (name.to_owned(), any_fields(random, depth - 1)))
                    .collect(),
            )
        }
    }
}

fn any_content(random: &mut Random, depth: u64) -> Content {
    match random.below(3) {
        0 => Content::Unit,
        1 => Content::One(any_type(random, depth)),
        _ => Content::Fields(any_fields(random, depth)),
    }
}

fn any_fields(random: &mut Random, depth: u64) -> Vec<Field> {
    let names = ["a", "b", "c", "d"].into_iter();
    let names: Vec<&str> = names.filter(|_| !random.one_in(3)).collect();
    names
        .into_iter()
        .map(|name| any_field(random, name, depth))
        .collect()
}

fn any_field(random: &mut Random, name: &str, depth: u64) -> Field {
    let has_default = random.one_in(3);
    Field {
        name: name.to_owned(),
        of: any_type(random, depth),
        has_default,
        may_be_left_out: has_default && random.one_in(2),
    }
}

/// The same type, with a change somewhere.
fn changed(of: &Type, random: &mut Random) -> Type {
    if random.one_in(6) {
        return any_type(random, 1);
    }
    let again = |of: &Type, random: &mut Random| Box::new(changed(of, random));
    match of {
        Type::Int(_) => match random.below(4) {
            0 => Type::Float(random.either(FLOATS)),
            _ => Type::Int(random.of(&INTEGERS).0),
        },
        Type::Float(_) => Type::Float(random.either(FLOATS)),
        Type::Uuid | Type::Char => Type::Text,
        Type::Option(of) if random.one_in(3) => Type::clone(of),
        Type::Option(of) => match again(of, random) {
            of if matches!(*of, Type::Option(_) | Type::Null | Type::Any) => *of,
            of => Type::Option(of),
        },
        Type::List(of) => match random.below(4) {
            0 => Type::Set(of.clone()),
            1 => Type::Tuple(vec![Type::clone(of), Type::clone(of)]),
            _ => Type::List(again(of, random)),
        },
        Type::Set(of) if random.one_in(2) => Type::List(of.clone()),
        Type::Set(of) => Type::Set(again(of, random)),
        Type::Tuple(items) if random.one_in(3) => {
            let first = items.first().cloned();
            Type::List(Box::new(first.unwrap_or(Type::Any)))
        }
        Type::Tuple(items) => {
            let mut items = items.clone();
            match items.len() {
                0 => items.push(Type::Bool),
                many => {
                    let place = usize::try_from(random.below(many as u64)).unwrap_or(0);
                    items[place] = changed(&items[place], random);
                }
            }
            Type::Tuple(items)
        }
        Type::Map(of) if random.one_in(4) => Type::Numbered(of.clone()),
        Type::Map(of) => Type::Map(again(of, random)),
        Type::Numbered(of) if random.one_in(2) => Type::Map(of.clone()),
        Type::Numbered(of) => Type::Numbered(again(of, random)),
        Type::Struct { fields, denies } if random.one_in(6) => Type::Struct {
            fields: fields.clone(),
            denies: !denies,
        },
        Type::Struct { fields, .. } if random.one_in(10) => {
            let of = fields.first().map(|field| field.of.clone());
            Type::Map(Box::new(of.unwrap_or(Type::Any)))
        }
        Type::Struct { fields, denies } => Type::Struct {
            fields: changed_fields(fields, random),
            denies: *denies,
        },
        Type::Enum(variants) => {
            let mut variants = variants.clone();
            let place = usize::try_from(random.below(variants.len() as u64)).unwrap_or(0);
            match random.below(4) {
                0 if variants.len() > 1 => {
                    variants.remove(place);
                }
                1 => variants.push(("N".to_owned(), any_content(random, 1))),
                2 => variants.reverse(),
                _ => {
                    let content = match &variants[place].1 {
                        Content::Unit => any_content(random, 1),
                        Content::One(of) => Content::One(changed(of, random)),
                        Content::Fields(fields) => Content::Fields(changed_fields(fields, random)),
                    };
                    variants[place].1 = content;
                }
            }
            Type::Enum(variants)
        }
        Type::Tagged(variants) => {
            let mut variants = variants.clone();
            let place = usize::try_from(random.below(variants.len() as u64)).unwrap_or(0);
            match random.below(3) {
                0 if variants.len() > 1 => {
                    variants.remove(place);
                }
                1 => variants.push(("N".to_owned(), any_fields(random, 1))),
                _ => variants[place].1 = changed_fields(&variants[place].1, random),
            }
            Type::Tagged(variants)
        }
        Type::Chain(_, of) => Type::Chain(random.either(NAMES), again(of, random)),
        Type::Bool | Type::Null | Type::Any | Type::Text => match random.below(3) {
            0 => Type::Any,
            1 if *of != Type::Any && *of != Type::Null => Type::Option(Box::new(of.clone())),
            _ => any_type(random, 1),
        },
    }
}

fn changed_fields(fields: &[Field], random: &mut Random) -> Vec<Field> {
    let mut fields = fields.to_vec();
    if fields.is_empty() || random.one_in(4) {
        let mut new = any_field(random, "n", 1);
        new.has_default |= random.one_in(2);
        fields.push(new);
        return fields;
    }
    let place = usize::try_from(random.below(fields.len() as u64)).unwrap_or(0);
    match random.below(4) {
        0 => {
            fields.remove(place);
        }
        1 => {
            fields[place].has_default ^= true;
            fields[place].may_be_left_out &= fields[place].has_default;
        }
        _ => fields[place].of = changed(&fields[place].of, random),
    }
    fields
}

// Their schemas.

fn schema(of: &Type, is_read: bool) -> Value {
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

fn value(of: &Type, random: &mut Random) -> Value {
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

fn reads(of: &Type, value: &Value) -> bool {
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

const PAIRS: u64 = 10_000;
const VALUES: usize = 25;

#[test]
fn what_is_called_readable_is_read() {
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or(0x5EED_0047_u64);
    let (mut accepted, mut needlessly, mut refusals) = (0_u64, 0_u64, 0_u64);
    for case in 0..PAIRS {
        let mut random = Random((seed ^ (case + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)) | 1);
        let old = any_type(&mut random, 3);
        let mut new = changed(&old, &mut random);
        if random.one_in(3) {
            new = changed(&new, &mut random);
        }
        if old == new {
            continue;
        }
        let schemas = [&old, &new].map(|of| (schema(of, false), schema(of, true)));
        let [old_pair, new_pair] = schemas
            .each_ref()
            .map(|(written, read)| Pair { written, read });
        let problems = refused(old_pair, new_pair);
        let values: Vec<Value> = (0..VALUES).map(|_| value(&old, &mut random)).collect();
        for value in &values {
            assert!(
                reads(&old, value),
                "seed {seed}, case {case}: {old:?} writes {value}"
            );
        }
        let unread = values.iter().find(|value| !reads(&new, value));
        match (problems.is_empty(), unread) {
            (true, None) => accepted += 1,
            (true, Some(value)) => panic!(
                "seed {seed}, case {case}: {value} of\n{old:?}\nis not read by\n{new:?}\n{}\n{}",
                old_pair.written, new_pair.read
            ),
            (false, Some(_)) => refusals += 1,
            (false, None) => needlessly += 1,
        }
    }
    // It is neither blind nor does it refuse whatever it sees: of what no value speaks against, and
    // what a value was found against, it judges most as they are.
    assert!(accepted > PAIRS / 5, "{accepted} accepted");
    assert!(refusals > PAIRS / 5, "{refusals} refused");
    assert!(
        needlessly < accepted,
        "{needlessly} refused without a value, {accepted} accepted"
    );
}
