//! What is called readable is read: random pairs of types, and values of one that the other reads.
//!
//! A type here has its schemas as `schemars` derives them, values as serde writes them, and a reader
//! that does what serde's does. The reader knows nothing of schemas.

mod model;

use serde_json::Value;

use self::model::{reads, schema, value};
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

const PAIRS: u64 = 10_000;
const VALUES: usize = 25;

#[test]
fn what_is_called_readable_is_read() {
    let seed = std::env::var("CQRS_SEED")
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
