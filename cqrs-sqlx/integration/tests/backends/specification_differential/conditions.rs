//! Random conditions, orders and limits.

use std::fmt::Debug;

use chrono::{DateTime, Utc};
use cqrs_core::{Field, JsonPath, Order, Query, Specification};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::Value as Json;

use super::specimens::*;

pub(super) type Condition = Specification<Specimen>;

/// Each comparison of a field with values.
pub(super) fn compared<T, V, P>(
    field: Field<T, V, P>,
    values: BoxedStrategy<V>,
) -> BoxedStrategy<Specification<T>>
where
    T: 'static,
    V: Clone + Debug + 'static,
    P: cqrs_core::Place + Debug + 'static,
{
    let list = prop::collection::vec(values.clone(), 0..4);
    (0..10_u8, values.clone(), values, list)
        .prop_map(move |(which, value, other, list)| {
            let field = field.clone();
            match which {
                0 => field.eq(value),
                1 => field.ne(value),
                2 => field.lt(value),
                3 => field.le(value),
                4 => field.gt(value),
                5 => field.ge(value),
                6 => field.between(value, other),
                7 => field.is_null(),
                8 => field.is_not_null(),
                _ => field.in_(list),
            }
        })
        .boxed()
}

/// Each test of a field that is text.
pub(super) fn tested<T, V, P>(field: Field<T, V, P>) -> BoxedStrategy<Specification<T>>
where
    T: 'static,
    V: cqrs_core::TextValue + 'static,
    P: cqrs_core::Place + 'static,
{
    (0..5_u8, texts(), patterns())
        .prop_map(move |(which, text, pattern)| {
            let field = field.clone();
            match which {
                0 => field.starts_with(text),
                1 => field.ends_with(text),
                2 => field.contains(text),
                _ => field.like(pattern),
            }
        })
        .boxed()
}

pub(super) fn paths() -> impl Strategy<Value = JsonPath<Specimen>> {
    let step = prop_oneof![
        3 => select(KEYS.to_vec()).prop_map(Ok),
        1 => (0..3_usize).prop_map(Err),
    ];
    let f = Specimen::fields();
    (any::<bool>(), prop::collection::vec(step, 0..4)).prop_map(move |(tags, steps)| {
        let root = if tags && steps.len() < 2 {
            f.tags.document()
        } else {
            f.document.document()
        };
        steps.into_iter().fold(root, |path, step| match step {
            Ok(key) => path.key(key),
            Err(index) => path.index(index),
        })
    })
}

pub(super) fn in_documents() -> BoxedStrategy<Condition> {
    paths()
        .prop_flat_map(|path| {
            prop_oneof![
                Just(path.clone().exists()),
                Just(path.clone().is_json_null()),
                compared(path.clone().as_text(), texts()),
                tested(path.clone().as_text()),
                compared(path.clone().as_i64(), larges()),
                compared(path.clone().as_f64(), floats()),
                compared(path.as_bool(), any::<bool>().boxed()),
            ]
        })
        .boxed()
}

/// What no store takes.
pub(super) fn refused() -> BoxedStrategy<Condition> {
    let f = Specimen::fields();
    select(vec![
        f.double.eq(f64::NAN),
        f.text.in_(["a", "a\0"]),
        f.text.contains("\0"),
        f.text.like("\\"),
        f.count.between(1_u64, u64::MAX),
        f.at.lt(DateTime::<Utc>::MAX_UTC),
        f.document.eq(Json::Null),
        f.document.key("\0").exists(),
        f.document.index(usize::MAX).exists(),
    ])
    .boxed()
}

/// Conditions on any of the parts, which are conditions themselves.
pub(super) fn on_parts() -> BoxedStrategy<Condition> {
    let (parts, f) = (Specimen::fields().parts, Part::fields());
    let leaf = prop_oneof![
        1 => Just(Specification::all()),
        1 => Just(Specification::none()),
        1 => Just(f.double.eq(f64::NAN)),
        5 => compared(f.flag, any::<bool>().boxed()),
        5 => compared(f.large, larges()),
        5 => compared(f.single, singles()),
        5 => compared(f.double, floats()),
        5 => compared(f.text, texts()),
        5 => tested(f.text),
        5 => compared(f.bytes, byte_strings()),
        5 => compared(f.reference, uuids()),
        5 => compared(f.at, times()),
        5 => compared(f.day, days()),
        5 => compared(f.spot.x, floats()),
        5 => compared(f.spot.grid.row, smalls()),
    ];
    let condition = leaf.prop_recursive(3, 6, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|one| !one),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| a & b),
            (inner.clone(), inner).prop_map(|(a, b)| a | b),
        ]
    });
    condition
        .prop_map(move |condition| parts.any_child(condition))
        .boxed()
}

pub(super) fn conditions() -> impl Strategy<Value = Condition> {
    let f = Specimen::fields();
    let leaf = prop_oneof![
        2 => Just(Specification::all()),
        2 => Just(Specification::none()),
        1 => refused(),
        10 => compared(f.flag, any::<bool>().boxed()),
        10 => compared(f.small, smalls()),
        10 => compared(f.medium, mediums()),
        10 => compared(f.large, larges()),
        10 => compared(f.count, counts()),
        10 => compared(f.single, singles()),
        15 => compared(f.double, floats()),
        15 => compared(f.text, texts()),
        10 => compared(f.name, texts().prop_map(Name).boxed()),
        30 => tested(f.text),
        10 => tested(f.name),
        10 => compared(f.bytes, byte_strings()),
        10 => compared(f.reference, uuids()),
        10 => compared(f.at, times()),
        10 => compared(f.day, days()),
        10 => compared(f.kind, kinds()),
        10 => compared(f.spot.x, floats()),
        10 => tested(f.spot.label),
        5 => compared(f.spot.grid.row, smalls()),
        60 => in_documents(),
        60 => on_parts(),
    ];
    leaf.prop_recursive(5, 16, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|one| !one),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| a & b),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| a | b),
            prop::collection::vec(inner.clone(), 0..5).prop_map(Specification::any_of),
            prop::collection::vec(inner, 0..5).prop_map(Specification::all_of),
        ]
    })
}

pub(super) fn orders() -> impl Strategy<Value = Vec<Order<Specimen>>> {
    let f = Specimen::fields();
    let keys = vec![
        f.flag.asc(),
        f.small.desc(),
        f.large.asc(),
        f.single.asc(),
        f.double.desc(),
        f.text.asc(),
        f.text.desc(),
        f.bytes.asc(),
        f.reference.desc(),
        f.at.asc(),
        f.day.desc(),
        f.kind.asc(),
        f.spot.x.asc(),
        f.spot.label.desc(),
    ];
    prop::collection::vec(select(keys), 0..3)
}

pub(super) fn queries() -> impl Strategy<Value = Query<Specimen>> {
    let limit = prop_oneof![3 => Just(None), 1 => (0..5_u64).prop_map(Some)];
    (conditions(), orders(), limit).prop_map(|(condition, orders, limit)| {
        let query = orders
            .into_iter()
            .fold(Query::filter(condition), Query::order_by);
        match limit {
            Some(rows) => query.limit(rows),
            None => query,
        }
    })
}
