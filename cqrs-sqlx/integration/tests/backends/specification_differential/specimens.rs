//! Random rows, with values at the edges of their types.

use std::fmt::Debug;

use chrono::{DateTime, Days, NaiveDate, TimeDelta, TimeZone, Utc};
use cqrs_core::{Aggregate, Child, DomainEvent, Root, ValueObject};
use proptest::prelude::*;
use proptest::sample::select;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use uuid::Uuid;

#[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "specimen")]
pub(super) enum SpecimenEvent {
    Made,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueObject)]
pub(super) enum Kind {
    Stone,
    Leaf,
    #[value_object(name = "other % kind")]
    Other,
}

#[derive(Debug, Clone, PartialEq, ValueObject)]
pub(super) struct Name(pub(super) String);

#[derive(Debug, Clone, PartialEq, ValueObject)]
pub(super) struct Spot {
    x: f64,
    label: Option<String>,
    #[mapper(flatten)]
    grid: Grid,
}

#[derive(Debug, Clone, PartialEq, ValueObject)]
pub(super) struct Grid {
    row: i16,
}

/// A column of every type that may be NULL.
#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "specimen", event = SpecimenEvent, tenant)]
pub(super) struct Specimen {
    #[aggregate(id)]
    pub(super) id: i64,
    #[aggregate(root)]
    pub(super) root: Root<SpecimenEvent>,
    flag: Option<bool>,
    small: Option<i16>,
    medium: Option<i32>,
    large: Option<i64>,
    count: Option<u64>,
    single: Option<f32>,
    double: Option<f64>,
    text: Option<String>,
    name: Option<Name>,
    bytes: Option<Vec<u8>>,
    reference: Option<Uuid>,
    at: Option<DateTime<Utc>>,
    day: Option<NaiveDate>,
    kind: Option<Kind>,
    #[mapper(flatten)]
    spot: Option<Spot>,
    document: Option<Json>,
    #[mapper(json)]
    tags: Option<Vec<String>>,
    #[mapper(children(table = "specimen_part", order = "seq"))]
    parts: Vec<Part>,
}

/// A child with columns of the types that the databases keep in different ways.
#[derive(Debug, Clone, Child)]
pub(super) struct Part {
    flag: Option<bool>,
    large: Option<i64>,
    single: Option<f32>,
    double: Option<f64>,
    text: Option<String>,
    bytes: Option<Vec<u8>>,
    reference: Option<Uuid>,
    at: Option<DateTime<Utc>>,
    day: Option<NaiveDate>,
    #[mapper(flatten)]
    spot: Option<Spot>,
}

pub(super) fn mostly<T: Clone + Debug + 'static>(
    listed: Vec<T>,
    any: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<T> {
    prop_oneof![4 => select(listed), 1 => any].boxed()
}

pub(super) const TEXTS: [&str; 30] = [
    "",
    "a",
    "A",
    "b",
    "ab",
    "aB",
    "a b",
    "é",
    "e\u{301}",
    "ß",
    "😀",
    "😀b",
    "a%",
    "a_b",
    "\\",
    "a\\b",
    "*",
    "a*",
    "?",
    "[a]",
    "[",
    "'",
    "\"",
    "\u{1}",
    "\u{d7ff}",
    "\u{e000}",
    "\u{fffd}",
    "\u{ffff}",
    "\u{10ffff}",
    "z\u{10ffff}",
];

pub(super) fn texts() -> BoxedStrategy<String> {
    let any = "[^\0]{0,4}".prop_map(String::from);
    mostly(TEXTS.map(str::to_owned).to_vec(), any)
}

pub(super) fn patterns() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        2 => Just("%".to_owned()),
        2 => Just("_".to_owned()),
        1 => select(vec!["\\%", "\\_", "\\\\", "\\a", "\\"]).prop_map(str::to_owned),
        4 => texts(),
    ];
    prop::collection::vec(part, 0..4).prop_map(|parts| parts.concat())
}

pub(super) fn floats() -> BoxedStrategy<f64> {
    mostly(
        vec![
            0.0,
            -0.0,
            1.0,
            -1.5,
            0.1,
            1e16,
            -1e16,
            1e-80,
            9e-81,
            1.2345678901234567e-80,
            9007199254740991.0,
            9007199254740992.0,
            f64::MAX,
            f64::MIN,
            f64::MIN_POSITIVE,
            5e-324,
            -5e-324,
            1e-310,
            f64::INFINITY,
            f64::NEG_INFINITY,
        ],
        any::<f64>().prop_filter("not stored", |float| !float.is_nan()),
    )
}

pub(super) fn singles() -> BoxedStrategy<f32> {
    mostly(
        vec![
            0.0,
            -0.0,
            0.1,
            -1.5,
            f32::MAX,
            f32::MIN_POSITIVE,
            1e-45,
            f32::INFINITY,
        ],
        any::<f32>().prop_filter("not stored", |float| !float.is_nan()),
    )
}

pub(super) fn larges() -> BoxedStrategy<i64> {
    let edge = 1 << 53;
    mostly(
        vec![
            i64::MIN,
            i64::MAX,
            -1,
            0,
            1,
            2,
            edge - 1,
            edge,
            edge + 1,
            -edge,
            10_i64.pow(18),
        ],
        any::<i64>(),
    )
}

pub(super) fn times() -> BoxedStrategy<DateTime<Utc>> {
    let first = Utc.with_ymd_and_hms(0, 1, 1, 0, 0, 0).unwrap();
    let end = Utc.with_ymd_and_hms(9999, 12, 31, 23, 59, 59).unwrap();
    let epoch = DateTime::UNIX_EPOCH;
    mostly(
        vec![
            first,
            first + TimeDelta::microseconds(1),
            end + TimeDelta::microseconds(999_999),
            end + TimeDelta::nanoseconds(999_999_999),
            epoch,
            epoch - TimeDelta::nanoseconds(1),
            epoch + TimeDelta::microseconds(1),
        ],
        (0..=(end - first).num_seconds())
            .prop_map(move |seconds| first + TimeDelta::seconds(seconds)),
    )
}

pub(super) fn days() -> BoxedStrategy<NaiveDate> {
    let first = NaiveDate::from_ymd_opt(0, 1, 1).unwrap();
    let listed = [0, 1, 719_468, 3_652_424].map(|days| first + Days::new(days));
    mostly(
        listed.to_vec(),
        (0_u64..3_652_425).prop_map(move |days| first + Days::new(days)),
    )
}

pub(super) fn byte_strings() -> BoxedStrategy<Vec<u8>> {
    mostly(
        vec![vec![], vec![0], vec![0, 0], vec![255], b"a".to_vec()],
        prop::collection::vec(any::<u8>(), 0..4),
    )
}

pub(super) fn uuids() -> BoxedStrategy<Uuid> {
    mostly(
        vec![
            Uuid::nil(),
            Uuid::max(),
            Uuid::from_u128(1),
            Uuid::from_u128(1 << 127),
        ],
        any::<u128>().prop_map(Uuid::from_u128),
    )
}

pub(super) fn kinds() -> BoxedStrategy<Kind> {
    select(vec![Kind::Stone, Kind::Leaf, Kind::Other]).boxed()
}

pub(super) fn smalls() -> BoxedStrategy<i16> {
    mostly(vec![i16::MIN, -1, 0, 1, i16::MAX], any::<i16>())
}

pub(super) fn mediums() -> BoxedStrategy<i32> {
    mostly(vec![i32::MIN, -1, 0, 1, i32::MAX], any::<i32>())
}

pub(super) fn counts() -> BoxedStrategy<u64> {
    mostly(
        vec![0, 1, i64::MAX.cast_unsigned()],
        0..=i64::MAX.cast_unsigned(),
    )
}

pub(super) const KEYS: [&str; 16] = [
    "a", "b", "", "0", "-1", "\"", "\\", "a.b", "[0]", "$", "#", "'", "\n", "é", "😀", "a b",
];

pub(super) fn documents() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        larges().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        floats().prop_map(Json::from),
        texts().prop_map(Json::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Json::from),
            prop::collection::vec((select(KEYS.to_vec()), inner), 0..3).prop_map(|entries| {
                let entries = entries.into_iter();
                entries
                    .map(|(key, value)| (key.to_owned(), value))
                    .collect()
            }),
        ]
    })
}

pub(super) fn maybe<T: Clone + Debug + 'static>(
    values: BoxedStrategy<T>,
) -> BoxedStrategy<Option<T>> {
    prop_oneof![1 => Just(None), 3 => values.prop_map(Some)].boxed()
}

pub(super) fn spots() -> BoxedStrategy<Spot> {
    let spot = (floats(), maybe(texts()), smalls()).prop_map(|(x, label, row)| Spot {
        x,
        label,
        grid: Grid { row },
    });
    spot.boxed()
}

pub(super) fn parts() -> impl Strategy<Value = Part> {
    let numbers = (
        maybe(any::<bool>().boxed()),
        maybe(larges()),
        maybe(singles()),
        maybe(floats()),
    );
    let others = (
        maybe(texts()),
        maybe(byte_strings()),
        maybe(uuids()),
        maybe(times()),
        maybe(days()),
        maybe(spots()),
    );
    (numbers, others).prop_map(|((flag, large, single, double), others)| {
        let (text, bytes, reference, at, day, spot) = others;
        Part {
            flag,
            large,
            single,
            double,
            text,
            bytes,
            reference,
            at,
            day,
            spot,
        }
    })
}

pub(super) fn specimens() -> impl Strategy<Value = Specimen> {
    let numbers = (
        maybe(any::<bool>().boxed()),
        maybe(smalls()),
        maybe(mediums()),
        maybe(larges()),
        maybe(counts()),
        maybe(singles()),
        maybe(floats()),
    );
    let texts_and_bytes = (
        maybe(texts()),
        maybe(texts().prop_map(Name).boxed()),
        maybe(byte_strings()),
        maybe(uuids()),
        maybe(times()),
        maybe(days()),
        maybe(kinds()),
    );
    let others = (
        maybe(spots()),
        maybe(documents().boxed()),
        maybe(prop::collection::vec(texts(), 0..3).boxed()),
        prop::collection::vec(parts(), 0..4),
    );
    (numbers, texts_and_bytes, others).prop_map(|(numbers, texts_and_bytes, others)| {
        let (flag, small, medium, large, count, single, double) = numbers;
        let (text, name, bytes, reference, at, day, kind) = texts_and_bytes;
        let (spot, document, tags, parts) = others;
        Specimen {
            id: 0,
            root: Root::new(),
            flag,
            small,
            medium,
            large,
            count,
            single,
            double,
            text,
            name,
            bytes,
            reference,
            at,
            day,
            kind,
            spot,
            document,
            tags,
            parts,
        }
    })
}
