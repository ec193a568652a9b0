//! Finders: conditions, orders, limits.

use super::Harness;
use super::fixtures::{Class, Grams, Parcel, Status};
use super::support::{Bench, assert_refused, begin, err, north, ok, south, time};
use crate::repository::Repository;
use crate::specification::{Query, Specification};
use crate::unit_of_work::UnitOfWork;

/// Saves parcels with these labels in one commit, each changed by `set` with its place.
async fn parcels<H: Harness>(
    bench: &Bench<'_, H>,
    labels: &[&str],
    set: impl Fn(&mut Parcel, usize),
) {
    let mut uow = bench.unit_of_work(&north());
    for (index, label) in labels.iter().enumerate() {
        let mut parcel = Parcel::silent(label);
        set(&mut parcel, index);
        ok(uow.save(parcel));
    }
    assert_eq!(ok(uow.commit().await).events().len(), labels.len());
    // What must never be found.
    bench.parcel(&south(), labels[0]).await;
    let gone = bench.parcel(&north(), labels[0]).await;
    bench.remove(&north(), gone).await;
}

async fn labels<H: Harness>(bench: &Bench<'_, H>, query: impl Into<Query<Parcel>>) -> Vec<String> {
    let mut uow = bench.unit_of_work(&north());
    let found = ok(uow.repository::<Parcel>().query(query.into()).await);
    found.into_iter().map(|parcel| parcel.label).collect()
}

/// The labels found, which are single characters, in the order of the alphabet.
async fn set<H: Harness>(bench: &Bench<'_, H>, specification: Specification<Parcel>) -> String {
    let mut found = labels(bench, specification).await;
    found.sort();
    found.concat()
}

/// Comparisons work on columns of every type that can be compared.
pub async fn conditions_on_every_type<H: Harness>(h: &H) {
    let bench = begin(h).await;
    parcels(&bench, &["a", "b", "c"], |parcel, index| {
        let n = i16::try_from(index).unwrap_or_default();
        parcel.status = [Status::Waiting, Status::Moving, Status::Arrived][index];
        parcel.class = [Class::Letter, Class::Bulky, Class::Bulky][index];
        parcel.shelf = n - 1;
        parcel.priority = i32::from(n) - 1;
        parcel.amount = (1 << 53) + i64::from(n);
        parcel.lane = n.unsigned_abs();
        parcel.pieces = u32::MAX - 2 + u32::from(n.unsigned_abs());
        parcel.total = u64::from(n.unsigned_abs());
        parcel.weight = Grams(u32::from(n.unsigned_abs()));
        parcel.ratio = f64::from(n) * 0.1;
        parcel.factor = f32::from(n) * 0.1;
        parcel.fragile = index == 1;
        parcel.due = time(0) + chrono::Duration::microseconds(i64::from(n));
        parcel.day = parcel.day + chrono::Days::new(u64::from(n.unsigned_abs()));
        parcel.reference = uuid::Uuid::from_u128(u128::from(n.unsigned_abs()) << 120);
        parcel.seal = [vec![], vec![0], vec![0, 255]][index].clone();
    })
    .await;
    let f = Parcel::fields();
    let day = Parcel::silent("").day;
    let cases: Vec<(Specification<Parcel>, &str)> = vec![
        (f.status.eq(Status::Moving), "b"),
        (f.class.ne(Class::Letter), "bc"),
        (f.label.ge("b"), "bc"),
        (f.shelf.lt(0_i16), "a"),
        (f.priority.le(0), "ab"),
        (f.amount.gt(1_i64 << 53), "bc"),
        (f.amount.eq((1_i64 << 53) + 1), "b"),
        (f.lane.eq(2_u16), "c"),
        (f.pieces.ge(u32::MAX - 1), "bc"),
        (f.total.gt(0_u64), "bc"),
        (f.weight.eq(Grams(1)), "b"),
        (f.ratio.eq(0.1), "b"),
        (f.ratio.le(0.1), "ab"),
        (f.ratio.eq(-0.0), "a"),
        (f.factor.eq(0.1_f32), "b"),
        (f.factor.gt(0.1_f32), "c"),
        (f.fragile.eq(true), "b"),
        (f.fragile.ne(true), "ac"),
        (f.due.gt(time(0)), "bc"),
        (f.due.eq(time(0) + chrono::Duration::microseconds(2)), "c"),
        (f.day.le(day), "a"),
        (f.reference.gt(uuid::Uuid::from_u128(1)), "bc"),
        (f.seal.eq(vec![]), "a"),
        (f.seal.lt(vec![0, 254]), "ab"),
    ];
    for (specification, expected) in cases {
        let text = format!("{specification:?}");
        assert_eq!(set(&bench, specification).await, expected, "{text}");
    }
}

/// Conditions combine with and, or, not, as deep as one likes.
pub async fn conditions_combine<H: Harness>(h: &H) {
    let bench = begin(h).await;
    parcels(&bench, &["a", "b", "c", "d"], |parcel, index| {
        parcel.shelf = i16::from(index >= 2);
        parcel.priority = i32::from(index % 2 == 1);
    })
    .await;
    let f = Parcel::fields();
    let one = || f.shelf.eq(1_i16);
    let odd = || f.priority.eq(1);
    let cases: Vec<(Specification<Parcel>, &str)> = vec![
        (Specification::all(), "abcd"),
        (!Specification::all(), ""),
        (one() & odd(), "d"),
        (one() | odd(), "bcd"),
        (!one(), "ab"),
        (!(one() | odd()), "a"),
        (!(one() & odd()), "abc"),
        ((one() & odd()) | (!one() & !odd()), "ad"),
        (one() & (odd() | f.label.eq("a")), "d"),
        ((one() & odd()) | f.label.eq("a"), "ad"),
        (!!one(), "cd"),
    ];
    for (specification, expected) in cases {
        let text = format!("{specification:?}");
        assert_eq!(set(&bench, specification).await, expected, "{text}");
    }
    let mut deep = f.label.eq("a");
    for _ in 0..60 {
        deep = !(deep & Specification::all());
    }
    assert_eq!(set(&bench, deep).await, "a");
}

/// A comparison with NULL is unknown, and so is its opposite: neither finds the row.
pub async fn null_is_unknown<H: Harness>(h: &H) {
    let bench = begin(h).await;
    parcels(&bench, &["a", "b", "c"], |parcel, index| {
        parcel.note = [None, Some(String::new()), Some("x".to_owned())][index].clone();
        parcel.rank = [None, Some(0), Some(5)][index];
        parcel.seen = [None, Some(time(0)), Some(time(1))][index];
    })
    .await;
    let f = Parcel::fields();
    let cases: Vec<(Specification<Parcel>, &str)> = vec![
        (f.note.is_null(), "a"),
        (!f.note.is_null(), "bc"),
        (f.note.eq("x"), "c"),
        (f.note.ne("x"), "b"),
        (!f.note.eq("x"), "b"),
        (!f.note.ne("x"), "c"),
        (f.note.eq(""), "b"),
        (f.rank.ge(0) | f.rank.lt(0), "bc"),
        (!(f.rank.ge(0) & f.rank.lt(5)), "c"),
        (f.rank.eq(5) | f.note.is_null(), "ac"),
        // Unknown or true is true; unknown and false is false, so its opposite is true.
        (f.rank.eq(5) | f.label.eq("a"), "ac"),
        (!(f.rank.eq(5) & f.label.eq("z")), "abc"),
        (!(f.rank.eq(5) | f.label.eq("z")), "b"),
        (f.seen.le(time(0)), "b"),
    ];
    for (specification, expected) in cases {
        let text = format!("{specification:?}");
        assert_eq!(set(&bench, specification).await, expected, "{text}");
    }
}

/// Text compares and sorts by its UTF-8 bytes, whatever the locale, and matches exactly.
pub async fn text_compares_by_bytes<H: Harness>(h: &H) {
    let sorted = [
        "", " ", "!", "10", "9", "A", "Z", "_", "a", "a ", "a-", "aa", "b", "e\u{301}", "é",
        "\u{ffff}", "😀",
    ];
    let bench = begin(h).await;
    let mut shuffled = sorted;
    shuffled.reverse();
    shuffled.swap(2, 9);
    parcels(&bench, &shuffled, |_, _| {}).await;
    let label = Parcel::fields().label;
    let all = labels(&bench, Query::all().order_by(label.asc())).await;
    assert_eq!(all, sorted);
    for (index, text) in sorted.iter().enumerate() {
        let below = Query::filter(label.lt(*text)).order_by(label.asc());
        assert_eq!(labels(&bench, below).await, sorted[..index], "{text:?}");
        let above = Query::filter(label.gt(*text)).order_by(label.asc());
        assert_eq!(labels(&bench, above).await, sorted[index + 1..], "{text:?}");
        assert_eq!(labels(&bench, label.eq(*text)).await, [*text]);
    }
}

/// Ascending places NULL last, descending first; keys of an order count from the first on.
pub async fn an_order_places_null_last<H: Harness>(h: &H) {
    let bench = begin(h).await;
    parcels(&bench, &["a", "b", "c", "d"], |parcel, index| {
        parcel.rank = [None, Some(2), Some(1), None][index];
        parcel.shelf = i16::from(index >= 2);
    })
    .await;
    let f = Parcel::fields();
    let order = |first, second| Query::all().order_by(first).order_by(second);
    for (query, expected) in [
        (order(f.rank.asc(), f.label.asc()), "cbad"),
        (order(f.rank.asc(), f.label.desc()), "cbda"),
        (order(f.rank.desc(), f.label.asc()), "adbc"),
        (order(f.shelf.desc(), f.rank.asc()), "cdba"),
        (order(f.shelf.asc(), f.rank.desc()), "abdc"),
    ] {
        let text = format!("{query:?}");
        assert_eq!(labels(&bench, query).await.concat(), expected, "{text}");
    }
}

/// Rows that the order leaves equal come in the order of their key; so do all, without an order.
pub async fn ties_come_in_the_order_of_the_key<H: Harness>(h: &H) {
    let bench = begin(h).await;
    parcels(&bench, &["c", "a", "d", "b"], |parcel, index| {
        let id = [3_u128, 1, 4, 2][index];
        parcel.id = crate::Id::from_uuid(uuid::Uuid::from_u128(id << 64));
        parcel.shelf = i16::from(id > 2);
    })
    .await;
    let f = Parcel::fields();
    assert_eq!(labels(&bench, Query::all()).await.concat(), "abcd");
    let query = Query::all().order_by(f.shelf.desc());
    assert_eq!(labels(&bench, query).await.concat(), "cdab");
    let query = Query::all().order_by(f.priority.asc()).limit(3);
    assert_eq!(labels(&bench, query).await.concat(), "abc");
}

/// A limit cuts what is left after the condition and the order; 0 is none.
pub async fn a_limit_cuts<H: Harness>(h: &H) {
    let bench = begin(h).await;
    parcels(&bench, &["a", "b", "c", "d"], |_, _| {}).await;
    let label = Parcel::fields().label;
    for (limit, expected) in [
        (0, ""),
        (1, "d"),
        (2, "dc"),
        (3, "dcb"),
        (4, "dcb"),
        (u64::MAX, "dcb"),
    ] {
        let query = Query::filter(label.gt("a"))
            .order_by(label.desc())
            .limit(limit);
        assert_eq!(labels(&bench, query).await.concat(), expected, "{limit}");
    }
}

/// Counting and asking whether any exists agree with the query.
pub async fn count_and_exists<H: Harness>(h: &H) {
    let bench = begin(h).await;
    {
        let mut uow = bench.unit_of_work(&north());
        let mut repository = uow.repository::<Parcel>();
        assert_eq!(ok(repository.count(Specification::all()).await), 0);
        assert!(!ok(repository.exists(Specification::all()).await));
    }
    parcels(&bench, &["a", "b", "c"], |_, _| {}).await;
    let label = Parcel::fields().label;
    let mut uow = bench.unit_of_work(&north());
    let mut repository = uow.repository::<Parcel>();
    for (specification, expected) in [
        (Specification::all(), 3),
        (label.gt("a"), 2),
        (label.eq("c"), 1),
        (label.gt("c"), 0),
    ] {
        assert_eq!(ok(repository.count(specification.clone()).await), expected);
        let found = ok(repository.query(specification.clone().into()).await);
        assert_eq!(found.len() as u64, expected);
        assert_eq!(ok(repository.exists(specification).await), expected > 0);
    }
}

/// A condition with a value that no column can hold is refused with its column, also where there
/// is no row to compare.
pub async fn a_condition_that_no_column_can_hold_is_refused<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let f = Parcel::fields();
    let cases = [
        (f.ratio.eq(f64::NAN), "ratio"),
        (f.label.eq("a\0"), "label"),
        (f.total.lt(u64::MAX), "total"),
        (
            f.fragile.eq(true) & !(f.due.gt(chrono::DateTime::<chrono::Utc>::MAX_UTC)),
            "due",
        ),
    ];
    for (specification, column) in cases {
        let mut uow = bench.unit_of_work(&north());
        let mut repository = uow.repository::<Parcel>();
        let error = err(repository.query(specification.clone().into()).await);
        assert_refused(&error, "conformance_parcel", column);
        let error = err(repository.count(specification).await);
        assert_refused(&error, "conformance_parcel", column);
    }
}
