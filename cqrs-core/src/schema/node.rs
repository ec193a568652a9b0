//! What a JSON schema describes, as far as it can be compared.
//!
//! Only what `schemas` are known to mean to serde is taken apart. A keyword that is not understood
//! makes its whole node [opaque](Node::Opaque): it is equal to another one, or nothing is known.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Map, Value};

/// How many references lead to another one before they count as a circle.
const MAX_REFERENCES: usize = 64;

/// One of the alternatives of a schema.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Anything,
    Const(Value),
    Null,
    Boolean,
    Text(Text),
    Integer(Integer),
    Number(Number),
    Array(Array),
    Object(Object),
    Opaque(Value),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Text {
    /// `format`, `pattern` and the like: equal or not.
    pub(super) rules: Map<String, Value>,
    pub(super) min: u64,
    pub(super) max: Option<u64>,
    /// What is in it: `contentSchema`.
    pub(super) content: Option<Value>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Integer {
    pub(super) min: Option<i128>,
    pub(super) max: Option<i128>,
    /// A format whose range is not known.
    pub(super) format: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Number {
    pub(super) min: Option<f64>,
    pub(super) max: Option<f64>,
    pub(super) format: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Array {
    pub(super) first: Vec<Value>,
    /// Those behind the first; `None` is anything.
    pub(super) items: Option<Value>,
    pub(super) min: u64,
    pub(super) max: Option<u64>,
    pub(super) is_unique: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Object {
    pub(super) properties: BTreeMap<String, Value>,
    pub(super) required: BTreeSet<String>,
    pub(super) others: Others,
}

/// The entries of an object besides its properties.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Others {
    /// Nothing is said. A struct writes none, and ignores them when it is read; an object without
    /// properties may hold anything.
    Unsaid,
    Denied,
    /// A map.
    Each(Value),
    /// A map whose keys have a pattern.
    Matching(String, Value),
}

/// The alternatives of a schema; none where nothing is accepted.
pub(super) fn nodes(schema: &Value, root: &Value) -> Vec<Node> {
    parse(schema, root, 0).unwrap_or_else(|| vec![Node::Opaque(schema.clone())])
}

/// The definition that a reference names.
pub(super) fn definition<'s>(reference: &str, root: &'s Value) -> Option<&'s Value> {
    match reference {
        "#" => Some(root),
        reference => root.get("$defs")?.get(name_of(reference)?),
    }
}

/// The name of the definition that a reference names, as `$defs` has it: a reference is a JSON pointer
/// within a URL, so both `~` and `%` stand for other characters.
pub(super) fn name_of(reference: &str) -> Option<String> {
    let mut encoded = reference.strip_prefix("#/$defs/")?.bytes();
    let mut pointer = Vec::with_capacity(encoded.len());
    while let Some(byte) = encoded.next() {
        pointer.push(match byte {
            b'%' => {
                let digits = [encoded.next()?, encoded.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    let pointer = String::from_utf8(pointer).ok()?;
    Some(pointer.replace("~1", "/").replace("~0", "~"))
}

/// `None` where it is not understood.
fn parse(schema: &Value, root: &Value, references: usize) -> Option<Vec<Node>> {
    let keywords = match schema {
        Value::Bool(true) => return Some(vec![Node::Anything]),
        Value::Bool(false) => return Some(Vec::new()),
        Value::Object(keywords) => keywords,
        _ => return None,
    };
    let mut keywords = keywords.clone();
    keywords.remove("$schema");
    keywords.remove("$defs");
    if keywords.is_empty() {
        return Some(vec![Node::Anything]);
    }
    if let Some(reference) = keywords.remove("$ref") {
        if references == MAX_REFERENCES {
            return None;
        }
        let target = definition(reference.as_str()?, root)?;
        if keywords.is_empty() {
            return parse(target, root, references + 1);
        }
        let merged = merged(keywords, target)?;
        return parse(&merged, root, references + 1);
    }
    if let Some(types) = keywords.get("type") {
        return typed(&types.clone(), keywords);
    }
    if keywords.len() > 1 {
        return None;
    }
    let (keyword, value) = keywords.into_iter().next()?;
    match (keyword.as_str(), value) {
        ("const", value) => Some(vec![Node::Const(value)]),
        ("enum", Value::Array(values)) => Some(values.into_iter().map(Node::Const).collect()),
        ("oneOf" | "anyOf", Value::Array(alternatives)) => {
            let mut nodes = Vec::new();
            for alternative in &alternatives {
                // What is not understood is one of the alternatives.
                let parsed = parse(alternative, root, references);
                nodes.extend(parsed.unwrap_or_else(|| vec![Node::Opaque(alternative.clone())]));
            }
            Some(nodes)
        }
        ("allOf", Value::Array(all)) => match all.as_slice() {
            [only] => parse(only, root, references),
            _ => None,
        },
        _ => None,
    }
}

/// An object whose other properties are those of a struct: a variant with a tag inside.
fn merged(own: Map<String, Value>, target: &Value) -> Option<Value> {
    let is_plain = |object: &Map<String, Value>| {
        {
            object.get("type")? == "object"
                && object
                    .keys()
                    .all(|key| ["type", "properties", "required"].contains(&key.as_str()))
        }
        .then_some(())
    };
    let target = target.as_object()?;
    is_plain(&own)?;
    is_plain(target)?;
    let mut merged = own;
    for (keyword, value) in target {
        match (merged.get_mut(keyword), value) {
            (Some(Value::Object(own)), Value::Object(others)) => {
                for (name, schema) in others {
                    if own.insert(name.clone(), schema.clone()).is_some() {
                        return None;
                    }
                }
            }
            (Some(Value::Array(own)), Value::Array(others)) => own.extend(others.iter().cloned()),
            (Some(_), _) => {}
            (None, value) => {
                merged.insert(keyword.clone(), value.clone());
            }
        }
    }
    Some(Value::Object(merged))
}

/// What tells an alternative of a `oneOf` from the others, whether it is written or read: the tags of
/// a variant, or that it is the only field.
pub(super) fn variant_of(alternative: &Value) -> Vec<(&str, Option<String>)> {
    let fields = alternative.get("properties").and_then(Value::as_object);
    let fields = fields.into_iter().flatten();
    let tag = |of: &Value| of.get("const").map(Value::to_string);
    let mut all: Vec<_> = fields.map(|(name, of)| (name.as_str(), tag(of))).collect();
    if all.len() > 1 {
        all.retain(|(_, tag)| tag.is_some());
    }
    all
}

fn typed(types: &Value, mut keywords: Map<String, Value>) -> Option<Vec<Node>> {
    keywords.remove("type");
    let names: Vec<&str> = match types {
        Value::String(name) => vec![name],
        Value::Array(names) => names.iter().map(Value::as_str).collect::<Option<_>>()?,
        _ => return None,
    };
    for (keyword, list) in [("const", false), ("enum", true)] {
        if let Some(values) = keywords.remove(keyword) {
            let values = match list {
                true => values.as_array()?.clone(),
                false => vec![values],
            };
            return keywords
                .is_empty()
                .then(|| values.into_iter().map(Node::Const).collect());
        }
    }
    let mut nodes = Vec::with_capacity(names.len());
    let mut unknown = keywords.clone();
    for name in names {
        // Types share keywords.
        let mut rest = keywords.clone();
        nodes.push(match name {
            "null" => Node::Null,
            "boolean" => Node::Boolean,
            "string" => Node::Text(text(&mut rest)?),
            "integer" => Node::Integer(integer(&mut rest)?),
            "number" => Node::Number(number(&mut rest)?),
            "array" => Node::Array(array(&mut rest)?),
            "object" => Node::Object(object(&mut rest)?),
            _ => return None,
        });
        unknown.retain(|keyword, _| rest.contains_key(keyword));
    }
    // What no type has taken is not understood.
    unknown.is_empty().then_some(nodes)
}

/// The number of a keyword; `None` within where there is none.
fn count(keywords: &mut Map<String, Value>, keyword: &str) -> Option<Option<u64>> {
    match keywords.remove(keyword) {
        None => Some(None),
        Some(value) => value.as_u64().map(Some),
    }
}

fn text(keywords: &mut Map<String, Value>) -> Option<Text> {
    let min = count(keywords, "minLength")?.unwrap_or(0);
    let max = count(keywords, "maxLength")?;
    let mut rules = Map::new();
    for rule in ["format", "pattern", "contentEncoding", "contentMediaType"] {
        if let Some(value) = keywords.remove(rule) {
            rules.insert(rule.to_owned(), value);
        }
    }
    Some(Text {
        rules,
        min,
        max,
        content: keywords.remove("contentSchema"),
    })
}

fn format_of(keywords: &mut Map<String, Value>) -> Option<Option<String>> {
    match keywords.remove("format") {
        None => Some(None),
        Some(Value::String(format)) => Some(Some(format)),
        Some(_) => None,
    }
}

fn integer(keywords: &mut Map<String, Value>) -> Option<Integer> {
    let bound = |value: Value| {
        let signed = value.as_i64().map(i128::from);
        signed.or_else(|| value.as_u64().map(i128::from))
    };
    let explicit = |value: Option<Value>| match value {
        None => Some(None),
        Some(value) => bound(value).map(Some),
    };
    let min = explicit(keywords.remove("minimum"))?;
    let max = explicit(keywords.remove("maximum"))?;
    let format = format_of(keywords)?;
    let range = format.as_deref().and_then(|format| {
        Some(match format {
            "int8" => (i8::MIN.into(), i8::MAX.into()),
            "int16" => (i16::MIN.into(), i16::MAX.into()),
            "int32" => (i32::MIN.into(), i32::MAX.into()),
            "int64" | "int" => (i128::from(i64::MIN), i128::from(i64::MAX)),
            "uint8" => (0, u8::MAX.into()),
            "uint16" => (0, u16::MAX.into()),
            "uint32" => (0, u32::MAX.into()),
            "uint64" | "uint" => (0, i128::from(u64::MAX)),
            _ => return None,
        })
    });
    let (least, most) = range.unzip();
    Some(Integer {
        min: min.max(least),
        max: match (max, most) {
            (Some(max), Some(most)) => Some(max.min(most)),
            (max, most) => max.or(most),
        },
        format: format.filter(|_| range.is_none()),
    })
}

fn number(keywords: &mut Map<String, Value>) -> Option<Number> {
    let explicit = |value: Option<Value>| match value {
        None => Some(None),
        Some(value) => value.as_f64().map(Some),
    };
    Some(Number {
        min: explicit(keywords.remove("minimum"))?,
        max: explicit(keywords.remove("maximum"))?,
        format: format_of(keywords)?,
    })
}

fn array(keywords: &mut Map<String, Value>) -> Option<Array> {
    let first = match keywords.remove("prefixItems") {
        None => Vec::new(),
        Some(Value::Array(items)) => items,
        Some(_) => return None,
    };
    let is_unique = match keywords.remove("uniqueItems") {
        None => false,
        Some(value) => value.as_bool()?,
    };
    Some(Array {
        first,
        items: keywords.remove("items"),
        min: count(keywords, "minItems")?.unwrap_or(0),
        max: count(keywords, "maxItems")?,
        is_unique,
    })
}

fn object(keywords: &mut Map<String, Value>) -> Option<Object> {
    let properties = match keywords.remove("properties") {
        None => BTreeMap::new(),
        Some(Value::Object(properties)) => properties.into_iter().collect(),
        Some(_) => return None,
    };
    let required = match keywords.remove("required") {
        None => BTreeSet::new(),
        Some(Value::Array(names)) => names
            .iter()
            .map(|name| name.as_str().map(str::to_owned))
            .collect::<Option<_>>()?,
        Some(_) => return None,
    };
    let additional = keywords.remove("additionalProperties");
    let others = match (keywords.remove("patternProperties"), additional) {
        (None, None) => Others::Unsaid,
        (None, Some(Value::Bool(false))) => Others::Denied,
        (None, Some(schema)) => Others::Each(schema),
        (Some(Value::Object(patterns)), Some(Value::Bool(false))) if patterns.len() == 1 => {
            let (pattern, schema) = patterns.into_iter().next()?;
            Others::Matching(pattern, schema)
        }
        _ => return None,
    };
    Some(Object {
        properties,
        required,
        others,
    })
}

impl Object {
    /// What entries besides the properties are, when this is written; `None` where there are none.
    pub(super) fn others_written(&self) -> Option<Value> {
        match &self.others {
            Others::Unsaid if self.properties.is_empty() => Some(Value::Bool(true)),
            Others::Unsaid | Others::Denied => None,
            Others::Each(schema) | Others::Matching(_, schema) => Some(schema.clone()),
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anything => f.write_str("anything"),
            Self::Const(value) => value.fmt(f),
            Self::Null => f.write_str("null"),
            Self::Boolean => f.write_str("a boolean"),
            Self::Text(text) => match text.rules.get("format").and_then(Value::as_str) {
                Some(format) => write!(f, "a string ({format})"),
                None => f.write_str("a string"),
            },
            Self::Integer(integer) => integer.fmt(f),
            Self::Number(number) => match &number.format {
                Some(format) => write!(f, "a number ({format})"),
                None => f.write_str("a number"),
            },
            Self::Array(array) if array.max == Some(array.min) => {
                write!(f, "an array of {}", array.min)
            }
            Self::Array(_) => f.write_str("an array"),
            Self::Object(object) if object.required.is_empty() => f.write_str("an object"),
            Self::Object(object) => {
                let names: Vec<&str> = object.required.iter().map(String::as_str).collect();
                write!(f, "an object with {}", names.join(", "))
            }
            Self::Opaque(_) => f.write_str("something that cannot be compared"),
        }
    }
}

impl fmt::Display for Integer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.min, self.max) {
            (Some(min), Some(max)) => write!(f, "an integer from {min} to {max}"),
            (Some(min), None) => write!(f, "an integer from {min}"),
            (None, Some(max)) => write!(f, "an integer to {max}"),
            (None, None) => f.write_str("an integer"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_keyword_is_for_each_type_that_knows_it() {
        let schema = json!({"type": ["number", "integer", "null"], "minimum": 5});
        let [number, integer, null] = &nodes(&schema, &schema)[..] else {
            panic!("there are three");
        };
        let Node::Number(Number {
            min: Some(least), ..
        }) = number
        else {
            panic!("{number:?}");
        };
        assert_eq!(least.to_string(), "5");
        let bounded = Integer {
            min: Some(5),
            max: None,
            format: None,
        };
        assert_eq!(integer, &Node::Integer(bounded));
        assert_eq!(null, &Node::Null);

        let schema = json!({"type": ["string", "null"], "minimum": 5});
        assert_eq!(nodes(&schema, &schema), [Node::Opaque(schema.clone())]);
    }
}
