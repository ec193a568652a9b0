//! Keys by which results of conditions and queries can be cached.

use std::fmt;

use chrono::Datelike;
use sha2::{Digest, Sha256};

use super::{
    Comparison, Direction, JsonLeaf, JsonStep, Operand, Predicate, Query, RowLock, Specification,
    TextTest,
};
use crate::mapping::{Entity, Value};

/// What stands at the beginning of all that is hashed; another encoding has another.
const ENCODING: &[u8] = b"cqrs specification 1";

/// A key that stands for a [`Specification`] or a [`Query`]: equal ones have equal keys, others
/// have different ones, in every process and every release of this version.
///
/// It is the SHA-256 of a canonical encoding of the tree and of the table's name: each node is the
/// number of its kind and then its parts, each text and each list has its length in front, and
/// numbers have 8 bytes, the lowest first. Conditions that mean the same and are written in
/// another order, such as `a & b` and `b & a`, have different keys. -0.0 and 0.0 are equal.
///
/// The tenant is not part of it: whoever caches the results of several tenants adds it to the key.
///
/// # Example
///
/// ```
/// # use cqrs_core::*;
/// # #[derive(Clone, ReadModel)]
/// # #[read_model(table = "plan")]
/// # struct Plan { #[read_model(key)] id: i64, priority: i32 }
/// let f = Plan::fields();
/// let key = f.priority.ge(3).cache_key();
/// assert_eq!(key, f.priority.ge(3).cache_key());
/// assert_ne!(key, f.priority.ge(4).cache_key());
/// assert_eq!(key.to_string().len(), 64);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CacheKey([u8; 32]);

impl CacheKey {
    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// In lower-case hexadecimal.
impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CacheKey({self})")
    }
}

impl<T: Entity> Specification<T> {
    /// The key of this condition on `T`'s table.
    #[must_use]
    pub fn cache_key(&self) -> CacheKey {
        let mut encoder = Encoder::new::<T>(b's');
        encoder.predicate(self.predicate());
        encoder.finish()
    }
}

impl<T: Entity> Query<T> {
    /// The key of this query on `T`'s table: of its condition, its order, its limit and its lock.
    #[must_use]
    pub fn cache_key(&self) -> CacheKey {
        let mut encoder = Encoder::new::<T>(b'q');
        encoder.predicate(self.specification().predicate());
        encoder.length(self.order().len());
        for order in self.order() {
            encoder.text(order.column());
            encoder.tag(match order.direction() {
                Direction::Ascending => 0,
                Direction::Descending => 1,
            });
        }
        encoder.tag(self.row_limit().is_some().into());
        encoder.number(self.row_limit().unwrap_or_default());
        if let Some(lock) = self.row_lock() {
            encoder.tag(match lock {
                RowLock::Wait => 1,
                RowLock::SkipLocked => 2,
            });
        }
        encoder.finish()
    }
}

/// Writes the canonical encoding. No number of a kind is ever given another meaning.
struct Encoder(Sha256);

impl Encoder {
    fn new<T: Entity>(what: u8) -> Self {
        let mut encoder = Self(Sha256::new());
        encoder.0.update(ENCODING);
        encoder.tag(what);
        encoder.text(T::table().name());
        encoder
    }

    fn finish(self) -> CacheKey {
        CacheKey(self.0.finalize().into())
    }

    fn tag(&mut self, tag: u8) {
        self.0.update([tag]);
    }

    fn number(&mut self, number: u64) {
        self.0.update(number.to_le_bytes());
    }

    fn length(&mut self, length: usize) {
        self.number(length as u64);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.0.update(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn predicate(&mut self, predicate: &Predicate) {
        match predicate {
            Predicate::All => self.tag(0),
            Predicate::Compare {
                operand,
                comparison,
                value,
            } => {
                self.tag(1);
                self.operand(operand);
                self.tag(match comparison {
                    Comparison::Eq => 0,
                    Comparison::Ne => 1,
                    Comparison::Lt => 2,
                    Comparison::Le => 3,
                    Comparison::Gt => 4,
                    Comparison::Ge => 5,
                });
                self.value(value);
            }
            Predicate::In { operand, values } => {
                self.tag(2);
                self.operand(operand);
                self.length(values.len());
                values.iter().for_each(|value| self.value(value));
            }
            Predicate::Text {
                operand,
                test,
                text,
            } => {
                self.tag(3);
                self.operand(operand);
                self.tag(match test {
                    TextTest::Like => 0,
                    TextTest::StartsWith => 1,
                    TextTest::EndsWith => 2,
                    TextTest::Contains => 3,
                });
                self.text(text);
            }
            Predicate::IsNull { operand } => {
                self.tag(4);
                self.operand(operand);
            }
            Predicate::And(terms) => self.list(5, terms),
            Predicate::Or(terms) => self.list(6, terms),
            Predicate::Not(inner) => {
                self.tag(7);
                self.predicate(inner);
            }
            Predicate::Invalid { column, reason } => {
                self.tag(8);
                self.text(column);
                self.text(&reason.to_string());
            }
            Predicate::AnyChild { table, predicate } => {
                self.tag(9);
                self.text(table);
                self.predicate(predicate);
            }
        }
    }

    fn list(&mut self, tag: u8, terms: &[Predicate]) {
        self.tag(tag);
        self.length(terms.len());
        terms.iter().for_each(|term| self.predicate(term));
    }

    fn operand(&mut self, operand: &Operand) {
        self.text(operand.column());
        self.text(operand.column_type().name());
        let Some(place) = operand.json() else {
            return self.tag(0);
        };
        self.tag(match place.leaf() {
            JsonLeaf::Any => 1,
            JsonLeaf::Null => 2,
            JsonLeaf::Text => 3,
            JsonLeaf::Integer => 4,
            JsonLeaf::Float => 5,
            JsonLeaf::Bool => 6,
        });
        self.length(place.steps().len());
        for step in place.steps() {
            match step {
                JsonStep::Key(key) => {
                    self.tag(0);
                    self.text(key);
                }
                JsonStep::Index(index) => {
                    self.tag(1);
                    self.length(*index);
                }
            }
        }
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.tag(0),
            Value::Bool(value) => {
                self.tag(1);
                self.tag((*value).into());
            }
            Value::Int(value) => {
                self.tag(2);
                self.number(value.cast_unsigned());
            }
            Value::Float(value) => {
                self.tag(3);
                // Which makes -0.0, which is equal to 0.0, the same.
                self.number((value + 0.0).to_bits());
            }
            Value::Text(value) => {
                self.tag(4);
                self.text(value);
            }
            Value::Bytes(value) => {
                self.tag(5);
                self.bytes(value);
            }
            Value::Uuid(value) => {
                self.tag(6);
                self.0.update(value.as_bytes());
            }
            Value::Timestamp(value) => {
                self.tag(7);
                self.number(value.timestamp_micros().cast_unsigned());
            }
            Value::Date(value) => {
                self.tag(8);
                self.number(i64::from(value.num_days_from_ce()).cast_unsigned());
            }
            Value::Json(value) => {
                self.tag(9);
                self.text(value);
            }
        }
    }
}

#[cfg(all(test, feature = "conformance"))]
mod tests {
    use super::*;
    use crate::conformance::fixtures::{Counter, Parcel, Status, Stop, Tour};
    use crate::specification::Specification;

    fn query() -> Query<Parcel> {
        let f = Parcel::fields();
        let at = chrono::DateTime::UNIX_EPOCH + chrono::TimeDelta::microseconds(-1);
        let condition = (f.priority.ge(3) & f.label.like("G%") & !f.note.is_null())
            | f.status.in_([Status::Waiting, Status::Moving])
            | f.details.key("sizes").index(2).as_f64().lt(0.5)
            | f.seen.eq(at)
            | f.seal.ne(vec![1, 2])
            | f.reference.eq(uuid::Uuid::from_u128(7))
            | f.fragile.eq(true);
        Query::filter(condition).order_by(f.rank.desc()).limit(20)
    }

    /// These never change: what is cached under them would be lost, or worse.
    #[test]
    fn keys_stay_as_they_are() {
        assert_eq!(
            query().cache_key().to_string(),
            "a3c89ab265ac320123a7fd06a6bca21446eab49205759cd2fa1035693dbb8567"
        );
        assert_eq!(
            Specification::<Parcel>::all().cache_key().to_string(),
            "9f2010a09593ef9c7b715cebfee0667f33c494d0587b4bf05e2660ed54289c3f"
        );
    }

    #[test]
    fn equal_is_equal_and_different_is_different() {
        let f = Parcel::fields();
        assert_eq!(query().cache_key(), query().cache_key());
        assert_eq!(f.ratio.eq(0.0), f.ratio.eq(-0.0));
        assert_eq!(f.ratio.eq(0.0).cache_key(), f.ratio.eq(-0.0).cache_key());
        let (a, b) = (f.label.eq("a"), f.label.eq("b"));
        let (tour, city) = (Tour::fields(), Stop::fields().city);
        let keys = [
            tour.stops.any_child(city.eq("a")).cache_key(),
            tour.stops.any_child(!city.eq("a")).cache_key(),
            (!tour.stops.any_child(city.eq("a"))).cache_key(),
            tour.stops.any_child(Specification::all()).cache_key(),
            tour.tickets.any_child(Specification::all()).cache_key(),
            Specification::<Parcel>::all().cache_key(),
            Specification::<Parcel>::none().cache_key(),
            Specification::<Counter>::all().cache_key(),
            Query::<Parcel>::all().cache_key(),
            Query::<Parcel>::all().limit(0).cache_key(),
            Query::all().order_by(f.label.asc()).cache_key(),
            Query::all().order_by(f.label.desc()).cache_key(),
            a.cache_key(),
            (!a.clone()).cache_key(),
            (a.clone() & b.clone()).cache_key(),
            (a.clone() | b.clone()).cache_key(),
            (b | a).cache_key(),
            f.label.ne("a").cache_key(),
            f.note.eq("a").cache_key(),
            f.label.in_(["a"]).cache_key(),
            f.label.in_(["a", ""]).cache_key(),
            f.label.in_(["", "a"]).cache_key(),
            f.label.like("a").cache_key(),
            f.label.contains("a").cache_key(),
            f.label.is_null().cache_key(),
            f.details.key("a").exists().cache_key(),
            f.details.key("a").key("b").exists().cache_key(),
            f.details.key("ab").exists().cache_key(),
            f.details.index(0).exists().cache_key(),
            f.details.index(0).is_json_null().cache_key(),
            f.details.index(0).as_i64().eq(1).cache_key(),
            f.details.index(0).as_f64().eq(1.0).cache_key(),
        ];
        let distinct: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
    }
}
