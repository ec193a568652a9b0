//! Conditions and queries as text for people.

use std::fmt::{self, Display, Formatter, Write};

use super::{
    Comparison, Direction, JsonLeaf, JsonStep, Operand, Predicate, Query, RowLock, Specification,
};
use crate::mapping::Value;

/// Writes a tree; with `?` in place of each value where there are none to be shown.
struct Text<'p> {
    predicate: &'p Predicate,
    with_values: bool,
}

impl<'p> Text<'p> {
    fn of(&self, predicate: &'p Predicate) -> Self {
        Self {
            predicate,
            with_values: self.with_values,
        }
    }

    fn value(&self, f: &mut Formatter<'_>, value: &Value) -> fmt::Result {
        if !self.with_values {
            return f.write_char('?');
        }
        match value {
            Value::Null => f.write_str("null"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Int(value) => write!(f, "{value}"),
            Value::Float(value) => write!(f, "{value:?}"),
            Value::Text(value) | Value::Json(value) => write!(f, "{value:?}"),
            Value::Bytes(value) => {
                f.write_str("0x")?;
                value.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Value::Uuid(value) => write!(f, "{value}"),
            Value::Timestamp(value) => write!(f, "{}", value.format("%Y-%m-%dT%H:%M:%S%.fZ")),
            Value::Date(value) => write!(f, "{value}"),
        }
    }

    /// A term of a list or of a `not`: in parentheses where it is a list itself.
    fn term(&self, f: &mut Formatter<'_>, term: &'p Predicate) -> fmt::Result {
        match term {
            Predicate::And(_) | Predicate::Or(_) => write!(f, "({})", self.of(term)),
            _ => self.of(term).fmt(f),
        }
    }

    fn list(&self, f: &mut Formatter<'_>, terms: &'p [Predicate], word: &str) -> fmt::Result {
        for (index, term) in terms.iter().enumerate() {
            if index > 0 {
                f.write_str(word)?;
            }
            self.term(f, term)?;
        }
        Ok(())
    }
}

impl Display for Text<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.predicate {
            Predicate::All => f.write_str("all"),
            none if none.is_none() => f.write_str("none"),
            Predicate::Compare {
                operand,
                comparison,
                value,
            } => {
                let sign = match comparison {
                    Comparison::Ne => "!=",
                    other => other.operator(),
                };
                write!(f, "{operand} {sign} ")?;
                self.value(f, value)
            }
            Predicate::In { operand, values } => {
                write!(f, "{operand} in ")?;
                if !self.with_values {
                    return f.write_char('?');
                }
                f.write_char('[')?;
                for (index, value) in values.iter().enumerate() {
                    f.write_str(if index > 0 { ", " } else { "" })?;
                    self.value(f, value)?;
                }
                f.write_char(']')
            }
            Predicate::Text {
                operand,
                test,
                text,
            } => {
                write!(f, "{operand} {} ", test.name())?;
                if self.with_values {
                    write!(f, "{text:?}")
                } else {
                    f.write_char('?')
                }
            }
            Predicate::IsNull { operand } => write!(f, "{operand} is null"),
            Predicate::And(terms) => self.list(f, terms, " and "),
            Predicate::Or(terms) => self.list(f, terms, " or "),
            Predicate::Not(inner) => {
                f.write_str("not ")?;
                self.term(f, inner)
            }
            Predicate::AnyChild { table, predicate } => {
                write!(f, "any {table} ({})", self.of(predicate))
            }
            Predicate::Invalid { column, reason } if self.with_values => {
                write!(f, "invalid ({column}: {reason})")
            }
            Predicate::Invalid { column, .. } => write!(f, "invalid ({column})"),
        }
    }
}

/// `details."sizes"[0] as integer`.
impl Display for Operand {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.column())?;
        let Some(place) = self.json() else {
            return Ok(());
        };
        for step in place.steps() {
            match step {
                JsonStep::Key(key) => write!(f, ".{key:?}")?,
                JsonStep::Index(index) => write!(f, "[{index}]")?,
            }
        }
        f.write_str(match place.leaf() {
            JsonLeaf::Any => " as anything",
            JsonLeaf::Null => " as json null",
            JsonLeaf::Text => " as text",
            JsonLeaf::Integer => " as integer",
            JsonLeaf::Float => " as float",
            JsonLeaf::Bool => " as bool",
        })
    }
}

/// With the values, which may be personal data.
impl Display for Predicate {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (predicate, with_values) = (self, true);
        Text {
            predicate,
            with_values,
        }
        .fmt(f)
    }
}

/// With the values, which may be personal data.
impl<T> Display for Specification<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.predicate().fmt(f)
    }
}

impl<T> Specification<T> {
    /// The condition as text for logs, with the values in it, which may be personal data:
    /// `(priority >= 3 and city = "Graz") or not priority < 9`.
    ///
    /// The form is for people, and may change.
    #[must_use]
    pub fn describe(&self) -> String {
        self.to_string()
    }

    /// As [`describe`](Self::describe), with `?` in place of the values: `priority >= ?`. The keys
    /// of JSON places are in it.
    #[must_use]
    pub fn shape(&self) -> String {
        let (predicate, with_values) = (self.predicate(), false);
        Text {
            predicate,
            with_values,
        }
        .to_string()
    }
}

/// With the values, which may be personal data.
impl<T> Display for Query<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.specification().fmt(f)?;
        for (index, order) in self.order().iter().enumerate() {
            f.write_str(if index > 0 { ", " } else { " order by " })?;
            f.write_str(order.column())?;
            if order.direction() == Direction::Descending {
                f.write_str(" desc")?;
            }
        }
        if let Some(rows) = self.row_limit() {
            write!(f, " limit {rows}")?;
        }
        match self.row_lock() {
            Some(RowLock::Wait) => f.write_str(" lock"),
            Some(RowLock::SkipLocked) => f.write_str(" lock skip locked"),
            None => Ok(()),
        }
    }
}

impl<T> Query<T> {
    /// The query as text for logs, with the values in it, which may be personal data:
    /// `priority >= 3 order by priority desc limit 20`.
    ///
    /// The form is for people, and may change.
    #[must_use]
    pub fn describe(&self) -> String {
        self.to_string()
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, NaiveDate, TimeZone, Utc};
    use uuid::Uuid;

    use super::super::Field;
    use super::*;

    struct Plan;

    #[test]
    fn conditions_read_like_conditions() {
        let priority = Field::<Plan, i32>::new("priority");
        let city = Field::<Plan, String>::new("city");
        let details = Field::<Plan, serde_json::Value>::new("details");
        let at = Utc.with_ymd_and_hms(2026, 1, 2, 3, 4, 5).unwrap();
        for (condition, text, shape) in [
            (Specification::all(), "all", "all"),
            (Specification::none(), "none", "none"),
            (
                (priority.ge(3) & city.eq("Graz")) | !priority.lt(9),
                r#"(priority >= 3 and city = "Graz") or not priority < 9"#,
                "(priority >= ? and city = ?) or not priority < ?",
            ),
            (
                !(priority.between(1, 2) | city.is_null()),
                "not ((priority >= 1 and priority <= 2) or city is null)",
                "not ((priority >= ? and priority <= ?) or city is null)",
            ),
            (priority.in_([1, 2]), "priority in [1, 2]", "priority in ?"),
            (city.like("G%\n"), r#"city like "G%\n""#, "city like ?"),
            (
                city.starts_with("G"),
                r#"city starts with "G""#,
                "city starts with ?",
            ),
            (
                details.key("a\"b").index(0).as_i64().ne(1),
                r#"details."a\"b"[0] as integer != 1"#,
                r#"details."a\"b"[0] as integer != ?"#,
            ),
            (
                Field::<Plan, DateTime<Utc>>::new("at").gt(at),
                "at > 2026-01-02T03:04:05Z",
                "at > ?",
            ),
            (
                Field::<Plan, NaiveDate>::new("day").le(at.date_naive()),
                "day <= 2026-01-02",
                "day <= ?",
            ),
            (
                Field::<Plan, Vec<u8>>::new("seal").eq(vec![0, 255]),
                "seal = 0x00ff",
                "seal = ?",
            ),
            (
                Field::<Plan, Uuid>::new("id").eq(Uuid::nil()),
                "id = 00000000-0000-0000-0000-000000000000",
                "id = ?",
            ),
            (
                Field::<Plan, f64>::new("x").eq(-0.0) & Field::<Plan, f64>::new("x").ne(f64::NAN),
                "x = -0.0 and invalid (x: NaN cannot be stored)",
                "x = ? and invalid (x)",
            ),
        ] {
            assert_eq!(condition.describe(), text);
            assert_eq!(condition.shape(), shape);
        }
        let query = Query::filter(priority.ge(3))
            .order_by(priority.desc())
            .order_by(city.asc())
            .limit(20);
        assert_eq!(
            query.describe(),
            "priority >= 3 order by priority desc, city limit 20"
        );
    }
}
