//! What belongs together in the two schemas of a type, and what says the same in two of them.

use std::collections::HashSet;

use serde_json::Value;

use super::comparison::Pair;
use super::node::{definition, variant_of};

/// What belongs together in the two schemas of a type: what is written at a place is read there. A
/// type reads what it writes, whatever the schemas say of it.
#[derive(Debug, Default)]
pub(super) struct Places<'s> {
    pub(super) patterns: HashSet<(&'s str, &'s str)>,
    /// References to types. Each schema has names of its own for them: of two with the same name, a
    /// number is behind that of the second, and one may be in one of the schemas alone.
    pub(super) references: HashSet<(&'s str, &'s str)>,
}

impl<'s> Places<'s> {
    pub(super) fn of(pair: Pair<'s>) -> Self {
        let mut places = Self::default();
        let mut open = vec![(pair.written, pair.read)];
        while let Some((written, read)) = open.pop() {
            let (Some(written), Some(read)) = (written.as_object(), read.as_object()) else {
                continue;
            };
            for (keyword, written) in written {
                match (keyword.as_str(), written, read.get(keyword)) {
                    ("$defs" | "const" | "enum", ..) | (.., None) => {}
                    ("pattern", Value::String(written), Some(Value::String(read))) => {
                        places.patterns.insert((written, read));
                    }
                    ("$ref", Value::String(written), Some(Value::String(read))) => {
                        if places.references.insert((written, read)) {
                            let written = definition(written, pair.written);
                            open.extend(written.zip(definition(read, pair.read)));
                        }
                    }
                    ("oneOf", Value::Array(written), Some(Value::Array(read))) => {
                        open.extend(written.iter().filter_map(|one| {
                            let mut all = read.iter();
                            Some((one, all.find(|other| variant_of(other) == variant_of(one))?))
                        }));
                    }
                    ("anyOf", Value::Array(written), Some(Value::Array(read))) => {
                        open.extend(kin((written, pair.written), (read, pair.read)));
                    }
                    (_, Value::Array(written), Some(Value::Array(read)))
                        if written.len() == read.len() =>
                    {
                        open.extend(written.iter().zip(read));
                    }
                    (_, written, Some(read)) => open.push((written, read)),
                }
            }
        }
        places
    }
}

/// The alternatives without a tag that belong together, with the documents that they are in: types of
/// the same name, and objects with the same fields. Their order tells nothing, since each side leaves
/// out the variants that it skips; what has no name and no fields is of no known variant.
fn kin<'s>(
    written: (&'s [Value], &'s Value),
    read: (&'s [Value], &'s Value),
) -> Vec<(&'s Value, &'s Value)> {
    fn sign<'o>(one: &'o Value, document: &Value) -> Option<Vec<&'o str>> {
        if let Some(reference) = one.get("$ref").and_then(Value::as_str) {
            // A number is part of a name, unless there is one without it: then it tells the two apart.
            let base = reference.trim_end_matches(|end: char| end.is_ascii_digit());
            let is_numbered = definition(base, document).is_some();
            return Some(vec![if is_numbered { base } else { reference }]);
        }
        let fields = one.get("properties")?.as_object()?;
        Some(fields.keys().map(String::as_str).collect())
    }
    fn only<'s>(
        (all, document): (&'s [Value], &'s Value),
        like: &Option<Vec<&str>>,
    ) -> Option<&'s Value> {
        let mut found = all
            .iter()
            .filter(|one| like.is_some() && sign(one, document) == *like);
        found.next().filter(|_| found.next().is_none())
    }
    let (all, document) = written;
    let signs = all.iter().map(|one| sign(one, document));
    signs
        .filter_map(|like| only(written, &like).zip(only(read, &like)))
        .collect()
}

/// Whether two schemas, each with the document that it is in, say the same. Types that they refer to
/// may have other names; a reference to the document itself is to what may differ.
pub(super) fn is_same<'s>(
    (one, in_one): (&'s Value, &'s Value),
    (other, in_other): (&'s Value, &'s Value),
    assumed: &mut HashSet<(&'s str, &'s str)>,
) -> bool {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(keyword, value)| {
                    let Some(like) = other.get(keyword) else {
                        return false;
                    };
                    let ("$ref", Value::String(own), Value::String(like)) =
                        (keyword.as_str(), value, like)
                    else {
                        return is_same((value, in_one), (like, in_other), assumed);
                    };
                    own != "#"
                        && like != "#"
                        && (!assumed.insert((own, like))
                            || definition(own, in_one)
                                .zip(definition(like, in_other))
                                .is_some_and(|(own, like)| {
                                    is_same((own, in_one), (like, in_other), assumed)
                                }))
                })
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .zip(other)
                    .all(|(own, like)| is_same((own, in_one), (like, in_other), assumed))
        }
        (one, other) => one == other,
    }
}
