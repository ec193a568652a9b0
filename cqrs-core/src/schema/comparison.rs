//! Whether what is written by one schema is accepted by another.
//!
//! One question answers both directions: old payloads are read by new code where what the old code
//! *wrote* is accepted by what the new code *reads*, and the other way round. The answer errs on one
//! side: what is called accepted is, as far as the schemas say what serde reads; where a schema says
//! what is not understood, it is accepted only by its equal.

use std::collections::HashSet;
use std::fmt;

use serde_json::Value;

use super::EventSchema;
use super::node::{Array, Integer, Node, Number, Object, Others, Text, definition, nodes};
use super::places::{Places, is_same};

/// Integers up to here are the same as a `f64`.
const EXACT_DOUBLE: i128 = 1 << 53;
/// And as a `f32`.
const EXACT_FLOAT: i128 = 1 << 24;

/// Who must be able to read whose payloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compatibility {
    /// The code of now reads what older code wrote: what a log needs.
    Backward,
    /// The code of the last release reads what the code of now writes: processes that run side by
    /// side, and consumers of a relay that are updated later.
    Forward,
    /// Both.
    Full,
}

impl Compatibility {
    pub(crate) fn is_backward(self) -> bool {
        self != Self::Forward
    }

    pub(crate) fn is_forward(self) -> bool {
        self != Self::Backward
    }
}

/// A place in a payload that is written in a way that is not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Incompatibility {
    /// Where: `items[].price`; empty for the payload itself.
    pub path: String,
    /// What is wrong there.
    pub rule: String,
}

impl fmt::Display for Incompatibility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => write!(f, "the payload {}", self.rule),
            path => write!(f, "`{path}` {}", self.rule),
        }
    }
}

impl EventSchema {
    /// What keeps code with this schema from reading payloads that were written by another one;
    /// nothing where every payload is read.
    ///
    /// Its judgement is that of serde's JSON: unknown fields are ignored unless they are denied, and
    /// what has a default may be absent. Names that serde knows by `alias` alone are not in a JSON
    /// schema, and count as unknown.
    ///
    /// # Example
    ///
    /// ```
    /// use cqrs_core::DomainEvent;
    /// use cqrs_core::schema::EventSchemas;
    /// use schemars::JsonSchema;
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, DomainEvent)]
    /// #[event(aggregate = "order")]
    /// struct OrderPlaced { customer: String }
    ///
    /// # mod now {
    /// # use {cqrs_core::DomainEvent, schemars::JsonSchema, serde::{Deserialize, Serialize}};
    /// #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, DomainEvent)]
    /// #[event(aggregate = "order")]
    /// # pub
    /// struct OrderPlaced { customer: String, cents: u32 }
    /// # }
    ///
    /// let (old, new) = (
    ///     EventSchemas::new().with::<OrderPlaced>()?,
    ///     EventSchemas::new().with::<now::OrderPlaced>()?,
    /// );
    /// let (old, new) = (old.iter().next().unwrap(), new.iter().next().unwrap());
    /// assert!(old.refuses(new).is_empty());
    /// let refused = new.refuses(old);
    /// assert_eq!(refused[0].to_string(), "`cents` is required, and not always written");
    /// # Ok::<(), cqrs_core::Error>(())
    /// ```
    #[must_use]
    pub fn refuses(&self, written: &Self) -> Vec<Incompatibility> {
        refused(
            Pair {
                written: &written.written,
                read: &written.read,
            },
            Pair {
                written: &self.written,
                read: &self.read,
            },
        )
    }
}

/// The schemas of one event type, recorded or of now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Pair<'s> {
    pub(crate) written: &'s Value,
    pub(crate) read: &'s Value,
}

/// What keeps `reader` from reading what `writer` writes.
pub(crate) fn refused(writer: Pair<'_>, reader: Pair<'_>) -> Vec<Incompatibility> {
    if writer == reader {
        return Vec::new();
    }
    let mut comparison = Comparison {
        writer,
        reader,
        written_by: Places::of(writer),
        read_by: Places::of(reader),
        assumed: HashSet::new(),
        order: Vec::new(),
    };
    let mut problems = Vec::new();
    comparison.accepts(writer.written, reader.read, "", &mut problems);
    problems
}

/// Why a unit variant with a tag does not read what has more than the tag.
const MAYBE_CONTENT: &str =
    "is written, and may be the content of a variant that is read without one";

/// Whether it is a unit variant with a tag. With `#[serde(tag, content)]` what stands beside the tag is
/// no unknown field, and a schema does not tell that from `#[serde(tag)]`.
fn is_tag_alone(read: &Object) -> bool {
    let mut all = read.properties.values();
    read.properties.len() == 1 && all.all(|one| one.get("const").is_some())
}

struct Comparison<'s> {
    writer: Pair<'s>,
    reader: Pair<'s>,
    written_by: Places<'s>,
    read_by: Places<'s>,
    /// Pairs of schemas that are being compared, or were found to be accepted: a type that contains
    /// itself comes back to one.
    assumed: HashSet<(String, String)>,
    /// In which order they were assumed, to forget those that rest on a pair that failed.
    order: Vec<(String, String)>,
}

impl Comparison<'_> {
    /// Whether all that `written` describes is accepted by `read`; if not, the problems say why.
    fn accepts(
        &mut self,
        written: &Value,
        read: &Value,
        path: &str,
        problems: &mut Vec<Incompatibility>,
    ) -> bool {
        if self.is_unchanged(written, read) {
            return true;
        }
        let pair = (written.to_string(), read.to_string());
        if !self.assumed.insert(pair.clone()) {
            return true;
        }
        let since = self.order.len();
        self.order.push(pair);
        let readers = nodes(read, self.reader.read);
        let before = problems.len();
        for node in nodes(written, self.writer.written) {
            self.accepts_one(&node, &readers, path, problems);
        }
        let accepted = problems.len() == before;
        if !accepted {
            for pair in self.order.drain(since..) {
                self.assumed.remove(&pair);
            }
        }
        accepted
    }

    /// Whether both are references to a type that is the same on both sides, with all that it refers
    /// to: whatever a type like that writes, it reads.
    fn is_unchanged(&self, written: &Value, read: &Value) -> bool {
        fn reference(schema: &Value) -> Option<&str> {
            let schema = schema.as_object().filter(|schema| schema.len() == 1)?;
            schema.get("$ref")?.as_str()
        }
        let (writer, reader) = (self.writer, self.reader);
        let is_same = |own: &str, own_root, like: &str, like_root| {
            let types = definition(own, own_root).zip(definition(like, like_root));
            types.is_some_and(|(own, like)| {
                is_same((own, own_root), (like, like_root), &mut HashSet::new())
            })
        };
        let Some((written, read)) = reference(written).zip(reference(read)) else {
            return false;
        };
        let before = self.written_by.references.iter();
        for (_, read_before) in before.filter(|(own, _)| *own == written) {
            let after = self.read_by.references.iter();
            for (written_after, _) in after.filter(|(_, own)| *own == read) {
                if is_same(written, writer.written, written_after, reader.written)
                    && is_same(read_before, writer.read, read, reader.read)
                {
                    return true;
                }
            }
        }
        false
    }

    /// One alternative of what is written is accepted by one of those that are read.
    fn accepts_one(
        &mut self,
        written: &Node,
        readers: &[Node],
        path: &str,
        problems: &mut Vec<Incompatibility>,
    ) {
        let mut reasons: Vec<(&Node, Vec<Incompatibility>)> = Vec::new();
        for read in readers {
            let mut found = Vec::new();
            self.fits(written, read, path, &mut found);
            if found.is_empty() {
                return;
            }
            if is_alike(written, read) {
                reasons.push((read, found));
            }
        }
        // Where there is one that is meant, its reasons tell more than that none fits.
        match reasons.as_slice() {
            [(_, found)] => problems.extend(found.iter().cloned()),
            _ => problems.push(not_accepted(written, readers, path)),
        }
    }

    fn fits(
        &mut self,
        written: &Node,
        read: &Node,
        path: &str,
        problems: &mut Vec<Incompatibility>,
    ) {
        let fits = match (written, read) {
            (_, Node::Anything) | (Node::Null, Node::Null) | (Node::Boolean, Node::Boolean) => true,
            (Node::Opaque(one), Node::Opaque(other)) => is_same(
                (one, self.writer.written),
                (other, self.reader.read),
                &mut HashSet::new(),
            ),
            (Node::Const(value), read) => fits_const(value, read),
            (Node::Text(written), Node::Text(read)) if self.fits_text(written, read) => {
                return self.fits_content(written, read, path, problems);
            }
            (Node::Integer(written), Node::Integer(read)) => fits_integer(written, read),
            (Node::Integer(written), Node::Number(read)) => fits_exactly(written, read),
            (Node::Number(written), Node::Number(read)) => fits_number(written, read),
            (Node::Array(written), Node::Array(read)) => {
                return self.fits_array(written, read, path, problems);
            }
            (Node::Object(written), Node::Object(read)) => {
                return self.fits_object(written, read, path, problems);
            }
            _ => false,
        };
        if !fits {
            problems.push(not_accepted(written, std::slice::from_ref(read), path));
        }
    }

    /// Where nothing is said of what is written, it may be anything.
    fn fits_content(
        &mut self,
        written: &Text,
        read: &Text,
        path: &str,
        problems: &mut Vec<Incompatibility>,
    ) {
        if let Some(read) = &read.content {
            let written = written.content.as_ref().unwrap_or(&Value::Bool(true));
            self.accepts(written, read, &format!("{path}<>"), problems);
        }
    }

    fn fits_text(&self, written: &Text, read: &Text) -> bool {
        let keeps = |rule: &str, read: &Value| {
            let Some(written) = written.rules.get(rule) else {
                return false;
            };
            let patterns = written.as_str().zip(read.as_str());
            let mut places = [&self.written_by, &self.read_by].into_iter();
            let is_wider =
                patterns.is_some_and(|pair| places.any(|places| places.patterns.contains(&pair)));
            written == read || (rule == "pattern" && is_wider)
        };
        read.rules.iter().all(|(rule, read)| keeps(rule, read))
            && written.min >= read.min
            && read
                .max
                .is_none_or(|most| written.max.is_some_and(|max| max <= most))
    }

    fn fits_array(
        &mut self,
        written: &Array,
        read: &Array,
        path: &str,
        problems: &mut Vec<Incompatibility>,
    ) {
        let is_long_enough = written.min >= read.min;
        let is_short_enough = read
            .max
            .is_none_or(|most| written.max.is_some_and(|max| max <= most));
        if !is_long_enough || !is_short_enough {
            let (written, read) = (range(written.min, written.max), range(read.min, read.max));
            problems.push(problem(
                path,
                format!("has {written} items, and {read} are accepted"),
            ));
        }
        if read.is_unique && !written.is_unique {
            problems.push(problem(path, "may repeat an item, and is read as a set"));
        }
        let anything = Value::Bool(true);
        let last = written.first.len().max(read.first.len());
        for place in 0..=last {
            let is_there = written.max.is_none_or(|max| (place as u64) < max);
            if !is_there {
                break;
            }
            let at = |array: &Array| {
                let item = array.first.get(place).or(array.items.as_ref());
                item.unwrap_or(&anything).clone()
            };
            let path = match place == last {
                true => format!("{path}[]"),
                false => format!("{path}[{place}]"),
            };
            self.accepts(&at(written), &at(read), &path, problems);
        }
    }

    fn fits_object(
        &mut self,
        written: &Object,
        read: &Object,
        path: &str,
        problems: &mut Vec<Incompatibility>,
    ) {
        for name in read.required.difference(&written.required) {
            problems.push(problem(
                &within(path, name),
                "is required, and not always written",
            ));
        }
        for (name, schema) in &written.properties {
            let path = within(path, name);
            match (read.properties.get(name), &read.others) {
                (Some(read), _) | (None, Others::Each(read)) => {
                    self.accepts(schema, read, &path, problems);
                }
                (None, Others::Unsaid) if is_tag_alone(read) => {
                    problems.push(problem(&path, MAYBE_CONTENT));
                }
                (None, Others::Unsaid) => {}
                (None, Others::Denied) => {
                    problems.push(problem(&path, "is written, and unknown fields are denied"));
                }
                (None, Others::Matching(..)) => {
                    problems.push(problem(
                        &path,
                        "is written, and keys of another kind are read",
                    ));
                }
            }
        }
        let Some(others) = written.others_written() else {
            return;
        };
        for (name, read) in &read.properties {
            if !written.properties.contains_key(name) {
                self.accepts(&others, read, &within(path, name), problems);
            }
        }
        let path = within(path, "*");
        match (&read.others, &written.others) {
            (Others::Unsaid, _) if is_tag_alone(read) => {
                problems.push(problem(&path, MAYBE_CONTENT));
            }
            (Others::Unsaid, _) => {}
            (Others::Denied, _) => {
                problems.push(problem(&path, "is written, and unknown fields are denied"));
            }
            (Others::Matching(expected, read), Others::Matching(pattern, _))
                if expected == pattern =>
            {
                self.accepts(&others, read, &path, problems);
            }
            (Others::Matching(..), _) => {
                problems.push(problem(
                    &path,
                    "is written, and keys of another kind are read",
                ));
            }
            (Others::Each(read), _) => {
                self.accepts(&others, read, &path, problems);
            }
        }
    }
}

fn problem(path: &str, rule: impl Into<String>) -> Incompatibility {
    Incompatibility {
        path: path.to_owned(),
        rule: rule.into(),
    }
}

fn not_accepted(written: &Node, readers: &[Node], path: &str) -> Incompatibility {
    let accepted: Vec<String> = readers.iter().map(Node::to_string).collect();
    let rule = match accepted.as_slice() {
        [] => format!("may be {written}, and nothing is accepted"),
        accepted => format!(
            "may be {written}, and only {} is accepted",
            accepted.join(" or ")
        ),
    };
    problem(path, rule)
}

/// Whether an alternative that is read is the one that is meant by one that is written.
fn is_alike(written: &Node, read: &Node) -> bool {
    match (written, read) {
        (Node::Object(written), Node::Object(read)) => {
            let is_tag = |schema: &Value| schema.get("const").is_some();
            let mut tags = written.properties.iter().filter(|(_, one)| is_tag(one));
            let tagged = tags.all(|(name, tag)| read.properties.get(name) == Some(tag));
            // The variant of an enum is the name of its only field.
            let is_variant =
                |object: &Object| object.others == Others::Denied && object.required.len() == 1;
            let other =
                is_variant(written) && is_variant(read) && written.required != read.required;
            tagged && !other
        }
        (Node::Array(_), Node::Array(_)) => true,
        (Node::Text(one), Node::Text(other)) => one.content.is_some() && other.content.is_some(),
        _ => false,
    }
}

fn fits_const(value: &Value, read: &Node) -> bool {
    match read {
        Node::Const(read) => value == read,
        Node::Null => value.is_null(),
        Node::Boolean => value.is_boolean(),
        Node::Text(read) => {
            let length = value.as_str().map(|text| text.chars().count() as u64);
            length.is_some_and(|length| {
                read.rules.is_empty()
                    && read.content.is_none()
                    && length >= read.min
                    && read.max.is_none_or(|max| length <= max)
            })
        }
        Node::Integer(read) => exactly(value).is_some_and(|own| fits_integer(&own, read)),
        Node::Number(read) => exactly(value).is_some_and(|own| fits_exactly(&own, read)),
        _ => false,
    }
}

/// The integers of which there is one.
fn exactly(value: &Value) -> Option<Integer> {
    let signed = value.as_i64().map(i128::from);
    let number = signed.or_else(|| value.as_u64().map(i128::from))?;
    Some(Integer {
        min: Some(number),
        max: Some(number),
        format: None,
    })
}

fn fits_integer(written: &Integer, read: &Integer) -> bool {
    let format = read.format.is_none() || read.format == written.format;
    format && is_within((written.min, written.max), (read.min, read.max))
}

/// Whether a range has nothing that another has not. `None`: it has no end there.
fn is_within<N: PartialOrd>(
    (min, max): (Option<N>, Option<N>),
    (least, most): (Option<N>, Option<N>),
) -> bool {
    least.is_none_or(|least| min.is_some_and(|min| min >= least))
        && most.is_none_or(|most| max.is_some_and(|max| max <= most))
}

/// Whether each of these integers is the same as a number.
fn fits_exactly(written: &Integer, read: &Number) -> bool {
    let exact = match read.format.as_deref() {
        None => return read.min.is_none() && read.max.is_none(),
        Some("double") => EXACT_DOUBLE,
        Some("float") => EXACT_FLOAT,
        Some(_) => return false,
    };
    let within = Integer {
        min: Some(-exact),
        max: Some(exact),
        format: None,
    };
    read.min.is_none() && read.max.is_none() && fits_integer(written, &within)
}

fn fits_number(written: &Number, read: &Number) -> bool {
    let format = match (written.format.as_deref(), read.format.as_deref()) {
        (_, None) | (Some("float"), Some("double")) => true,
        (written, read) => written == read,
    };
    format && is_within((written.min, written.max), (read.min, read.max))
}

fn within(path: &str, name: &str) -> String {
    match path {
        "" => name.to_owned(),
        path => format!("{path}.{name}"),
    }
}

fn range(min: u64, max: Option<u64>) -> String {
    match max {
        Some(max) if max == min => max.to_string(),
        Some(max) => format!("{min} to {max}"),
        None if min == 0 => "any number of".to_owned(),
        None => format!("{min} or more"),
    }
}
