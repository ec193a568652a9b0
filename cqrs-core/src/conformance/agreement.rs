//! Conditions and orders mean in the store what they mean in memory.

use super::Harness;
use super::fixtures::Parcel;
use super::random::{Random, seed};
use super::support::{begin, north, ok, time};
use crate::mapping::{Entity, Value};
use crate::repository::Repository;
use crate::specification::{Query, Specification};
use crate::unit_of_work::UnitOfWork;

/// What a query finds is what its condition is true for in memory, in the order of the comparison
/// in memory: over random rows and conditions.
pub async fn random_conditions_find_what_they_are_true_for<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut random = Random::new(seed());
    let mut uow = bench.unit_of_work(&north());
    for _ in 0..40 {
        ok(uow.save(random_parcel(&mut random)));
    }
    let _ = ok(uow.commit().await);

    let mut uow = bench.unit_of_work(&north());
    let all = ok(uow.repository::<Parcel>().query(Query::all()).await);
    assert_eq!(all.len(), 40);
    for round in 0..150 {
        let specification = random_condition(&mut random, 4);
        let query = random_query(&mut random, specification.clone());
        let text = format!("round {round}: {query:?}");
        let mut expected: Vec<&Parcel> = all
            .iter()
            .filter(|parcel| ok(specification.is_satisfied_by(parcel)))
            .collect();
        let count = expected.len() as u64;
        expected.sort_by(|a, b| query.compare_rows(&row(a), &row(b)));
        let limit = query.row_limit().and_then(|limit| limit.try_into().ok());
        expected.truncate(limit.unwrap_or(usize::MAX));
        let expected: Vec<_> = expected.iter().map(|parcel| parcel.id).collect();
        let mut repository = uow.repository::<Parcel>();
        let found = ok(repository.query(query).await);
        let found: Vec<_> = found.iter().map(|parcel| parcel.id).collect();
        assert_eq!(found, expected, "{text}");
        assert_eq!(ok(repository.count(specification).await), count, "{text}");
    }
}

fn random_parcel(random: &mut Random) -> Parcel {
    let mut parcel = Parcel::silent(TEXTS[random.below(TEXTS.len())]);
    parcel.id = crate::Id::from_uuid(uuid::Uuid::from_u64_pair(random.next(), random.next()));
    parcel.rank = *random.pick(&[None, Some(-1), Some(0), Some(i32::MAX)]);
    parcel.note = random
        .pick(&[None, Some("a"), Some("é")])
        .map(str::to_owned);
    parcel.ratio = *random.pick(&FLOATS);
    parcel.seen = random.pick(&[None, Some(0), Some(1)]).map(time);
    parcel.fragile = random.once_in(2);
    parcel
}

const TEXTS: [&str; 6] = ["", "A", "a", "b", "é", "😀"];
const FLOATS: [f64; 6] = [-1.5, 0.0, -0.0, 0.1, f64::MAX, f64::NEG_INFINITY];

fn row(parcel: &Parcel) -> Vec<Value> {
    let mut row = parcel.framework_row();
    row.extend(ok(parcel.to_row()));
    row
}

fn random_query(random: &mut Random, specification: Specification<Parcel>) -> Query<Parcel> {
    let f = Parcel::fields();
    let keys = [
        f.rank.asc(),
        f.rank.desc(),
        f.note.asc(),
        f.note.desc(),
        f.label.asc(),
        f.ratio.desc(),
        f.seen.asc(),
        f.fragile.desc(),
    ];
    let mut query = Query::filter(specification);
    for _ in 0..random.below(3) {
        query = query.order_by(*random.pick(&keys));
    }
    if random.once_in(3) {
        query = query.limit(random.below(10) as u64);
    }
    query
}

fn random_condition(random: &mut Random, depth: usize) -> Specification<Parcel> {
    let f = Parcel::fields();
    if depth > 0 && !random.once_in(3) {
        let left = random_condition(random, depth - 1);
        return match random.below(3) {
            0 => !left,
            1 => left & random_condition(random, depth - 1),
            _ => left | random_condition(random, depth - 1),
        };
    }
    let text = *random.pick(&TEXTS);
    let number = *random.pick(&[-1, 0, 1, i32::MAX]);
    let float = *random.pick(&FLOATS);
    match random.below(12) {
        0 => f.rank.is_null(),
        1 => f.note.is_null(),
        2 => f.rank.eq(number),
        3 => f.rank.lt(number),
        4 => f.note.ne(text),
        5 => f.note.ge(text),
        6 => f.label.le(text),
        7 => f.ratio.gt(float),
        8 => f.ratio.eq(float),
        9 => f.seen.ne(time(1)),
        10 => f.fragile.eq(true),
        _ => Specification::all(),
    }
}
