//! The fold that a table is compared with, a part at a time.

use std::collections::{HashMap, HashSet};

use serde_json::Value as Json;

use super::report::{ColumnDifference, ConsistencyReport, RowDifference, RowDifferenceKind};
use super::{CheckProgress, ConsistencyCheck};
use crate::context::TenantId;
use crate::envelope::{Envelope, Position, RawPayload};
use crate::error::{Error, Result};
use crate::event::EventSet;
use crate::mapping::{
    Column, ColumnError, ColumnRole, ColumnType, Entity, Key, MappingError, Table, Value,
};
use crate::projection::{RowAddress, RowProjection};
use crate::read_model::Owned;
use crate::subscription::EventFilter;

/// The rows whose hash leaves a remainder when it is divided by a power of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    remainder: u64,
    of: u64,
}

impl Part {
    fn holds(self, address: &RowAddress, table: &Table) -> bool {
        if self.of == 1 {
            return true;
        }
        let [a, b, c, d, e, f, g, h, ..] = address.digest(table);
        u64::from_be_bytes([a, b, c, d, e, f, g, h]) % self.of == self.remainder
    }

    fn halves(self) -> [Self; 2] {
        let of = self.of * 2;
        let remainder = self.remainder;
        [
            Self { remainder, of },
            Self {
                remainder: remainder + self.of,
                of,
            },
        ]
    }
}

/// What a store compares its rows with. For authors of backends.
///
/// A store reads, all of one moment: where the subscription stands ([`stands_at`](Self::stands_at))
/// and which events are among its dead letters ([`leave_out`](Self::leave_out)). Then for each
/// [part](Self::next_part): the events that were applied, in the order of the log for each
/// aggregate ([`add`](Self::add)), as long as there is [room](Self::has_room); then the rows of the
/// table ([`compare`](Self::compare)).
pub struct Shadow<'c, P: RowProjection> {
    check: &'c ConsistencyCheck<'c, P>,
    filter: EventFilter,
    left_out: HashSet<Position>,
    /// Those to come, and the one at work.
    parts: Vec<Part>,
    part: Part,
    parts_done: u64,
    rows: HashMap<RowAddress, P::Row>,
    events: u64,
    /// Whether all events of the part were added, and rows are compared.
    compared: bool,
    report: ConsistencyReport,
}

impl<'c, P: RowProjection> Shadow<'c, P> {
    pub(super) fn new(check: &'c ConsistencyCheck<'c, P>) -> Self {
        let whole = Part {
            remainder: 0,
            of: 1,
        };
        Self {
            check,
            filter: EventFilter::of_rows::<P>(),
            left_out: HashSet::new(),
            parts: vec![whole],
            part: whole,
            parts_done: 0,
            rows: HashMap::new(),
            events: 0,
            compared: false,
            report: ConsistencyReport {
                subscription: check.subscription.to_owned(),
                position: Position::START,
                events: 0,
                rows: 0,
                missing: 0,
                extra: 0,
                different: 0,
                differences: Vec::new(),
            },
        }
    }

    /// The name of the subscription.
    #[must_use]
    pub fn subscription(&self) -> &str {
        self.check.subscription
    }

    /// The position after which events are folded.
    #[must_use]
    pub fn after(&self) -> Position {
        self.check.after
    }

    /// The events that it folds; it takes others too.
    #[must_use]
    pub fn filter(&self) -> &EventFilter {
        &self.filter
    }

    /// Where the subscription stands, its last segment.
    pub fn stands_at(&mut self, position: Position) {
        self.report.position = position;
    }

    /// Takes note of an event that was not applied.
    pub fn leave_out(&mut self, position: Position) {
        self.left_out.insert(position);
    }

    /// Whether an event was not applied.
    #[must_use]
    pub fn leaves_out(&self, position: Position) -> bool {
        self.left_out.contains(&position)
    }

    /// Ends a part, if one is under way, and begins the next; `false` where there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Mapping`] where a value fits no column.
    pub fn next_part(&mut self) -> Result<bool> {
        if self.compared {
            self.end_part()?;
        } else if !self.has_room() {
            self.parts.extend(self.part.halves());
        }
        self.rows.clear();
        (self.events, self.compared) = (0, false);
        let Some(part) = self.parts.pop() else {
            return Ok(false);
        };
        self.part = part;
        Ok(true)
    }

    /// Whether the part fits into memory, as far as it was folded. Where it does not, nothing more
    /// needs to be added or compared; smaller ones come next.
    #[must_use]
    pub fn has_room(&self) -> bool {
        // Beyond this the hash cannot tell rows apart any better.
        self.rows.len() <= self.check.rows_at_once.get() || self.part.of >= 1 << 40
    }

    /// Folds an event.
    ///
    /// # Errors
    ///
    /// [`Error::Undecodable`], and those of the projection.
    pub fn add(&mut self, raw: &Envelope<RawPayload>) -> Result<()> {
        let position = raw.position();
        if !self.filter.wants(raw) || position <= self.check.after || self.leaves_out(position) {
            return Ok(());
        }
        let decoded =
            P::Event::decode(raw).map_err(|reason| Error::Undecodable { position, reason })?;
        let Some(event) = decoded else { return Ok(()) };
        self.events += 1;
        let event = raw.with_payload(event);
        let Some(key) = self.check.projection.key(&event)? else {
            return Ok(());
        };
        let address = RowAddress::of::<P::Row>(event.tenant(), &key)?;
        if !self.part.holds(&address, P::Row::table()) {
            return Ok(());
        }
        let mut row = self.rows.remove(&address);
        self.check.projection.apply(&mut row, &event)?;
        if let Some(row) = row {
            self.rows.insert(address, row);
        }
        Ok(())
    }

    /// Tells the caller how far the part is: at a position, up to another.
    pub fn tell(&self, position: Position, end: Position) {
        if let Some(tell) = &self.check.progress {
            tell(CheckProgress {
                position,
                end,
                parts_done: self.parts_done,
                parts_left: self.parts.len() as u64 + 1,
            });
        }
    }

    /// All events of the part were added; what follows are the rows.
    pub fn folded(&mut self) {
        self.compared = true;
    }

    /// Compares a row of the table, by the values of [all columns](Table::columns).
    ///
    /// # Errors
    ///
    /// [`Error::Mapping`] where a value fits no column.
    pub fn compare(&mut self, found: &[Value]) -> Result<()> {
        let table = P::Row::table();
        let address = address(table, found)?;
        if !self.part.holds(&address, table) {
            return Ok(());
        }
        self.report.rows += 1;
        match self.rows.remove(&address) {
            None => {
                self.report.extra += 1;
                self.name(RowDifferenceKind::Extra, address, None, Some(found));
            }
            Some(row) => {
                let tenant = address.tenant().cloned();
                let expected = Owned { tenant, row }.to_values()?;
                let mut columns = table.columns().iter().zip(expected.iter().zip(found));
                if columns.any(|(column, (a, b))| is_different(column, a, b)) {
                    self.report.different += 1;
                    let kind = RowDifferenceKind::Different;
                    self.name(kind, address, Some(&expected), Some(found));
                }
            }
        }
        Ok(())
    }

    fn end_part(&mut self) -> Result<()> {
        self.parts_done += 1;
        self.report.events = self.events;
        for (address, row) in std::mem::take(&mut self.rows) {
            self.report.missing += 1;
            let tenant = address.tenant().cloned();
            let expected = Owned { tenant, row }.to_values()?;
            self.name(RowDifferenceKind::Missing, address, Some(&expected), None);
        }
        Ok(())
    }

    /// Puts a row into the report, where there is room.
    fn name(
        &mut self,
        kind: RowDifferenceKind,
        address: RowAddress,
        expected: Option<&[Value]>,
        found: Option<&[Value]>,
    ) {
        if self.report.differences.len() >= self.check.report_at_most {
            return;
        }
        let mut columns = Vec::new();
        for (index, column) in P::Row::table().columns().iter().enumerate() {
            let is_address = matches!(column.role(), ColumnRole::Tenant | ColumnRole::Key);
            if is_address || !column.is_written() {
                continue;
            }
            let value = |values: Option<&[Value]>| values.map(|values| values[index].clone());
            let (expected, found) = (value(expected), value(found));
            if let (Some(expected), Some(found)) = (&expected, &found)
                && !is_different(column, expected, found)
            {
                continue;
            }
            columns.push(ColumnDifference {
                column: column.name().to_owned(),
                expected,
                found,
            });
        }
        self.report.differences.push(RowDifference {
            kind,
            tenant: address.tenant().cloned(),
            key: address.key().to_vec(),
            columns,
        });
    }

    pub(super) fn into_report(self) -> ConsistencyReport {
        let mut report = self.report;
        report
            .differences
            .sort_by_cached_key(|row| (row.tenant.clone(), Key::new(row.key.clone())));
        report
    }
}

/// The address of a row of a table.
fn address(table: &Table, values: &[Value]) -> Result<RowAddress> {
    let tenant = match table.index_of(ColumnRole::Tenant) {
        None => None,
        Some(index) => {
            let tenant = match &values[index] {
                Value::Text(tenant) => TenantId::new(tenant.as_str()).map_err(ColumnError::invalid),
                _ => Err(ColumnError::UnexpectedNull),
            };
            Some(tenant.map_err(|reason| {
                Error::Mapping(MappingError {
                    table: table.name().to_owned(),
                    column: table.columns()[index].name().to_owned(),
                    reason,
                })
            })?)
        }
    };
    let columns = table.columns().iter().zip(values);
    let key = columns
        .filter(|(column, _)| column.role() == ColumnRole::Key)
        .map(|(_, value)| value.clone());
    Ok(RowAddress::from_parts(tenant, key.collect()))
}

/// Whether a column differs; those that others fill never do.
fn is_different(column: &Column, one: &Value, other: &Value) -> bool {
    column.is_written() && !is_same(column.column_type(), one, other)
}

/// Whether a column holds the same, however a database writes it.
fn is_same(column_type: ColumnType, one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Json(one), Value::Json(other)) => {
            let parse = |text: &str| serde_json::from_str(text).ok();
            let documents = parse(one).zip(parse(other));
            one == other || documents.is_some_and(|(one, other)| is_same_document(&one, &other))
        }
        (Value::Float(one), Value::Float(other)) => match column_type {
            ColumnType::Float32 => one == other || *one as f32 == *other as f32,
            _ => one == other || (one.is_nan() && other.is_nan()),
        },
        _ => one == other,
    }
}

/// Whether two documents are equal. Databases write numbers their own way: a float without a fraction
/// may come back as an integer.
fn is_same_document(one: &Json, other: &Json) -> bool {
    match (one, other) {
        (Json::Number(a), Json::Number(b)) => {
            a == b || (a.is_f64() != b.is_f64() && a.as_f64() == b.as_f64())
        }
        (Json::Array(a), Json::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same_document(a, b))
        }
        (Json::Object(a), Json::Object(b)) => {
            let is_in_b = |(key, a)| b.get(key).is_some_and(|b| is_same_document(a, b));
            a.len() == b.len() && a.iter().all(is_in_b)
        }
        _ => one == other,
    }
}

impl<P: RowProjection> std::fmt::Debug for Shadow<'_, P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shadow")
            .field("part", &self.part)
            .field("rows", &self.rows.len())
            .field("report", &self.report)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_hold_each_row_once() {
        let whole = Part {
            remainder: 0,
            of: 1,
        };
        let parts: Vec<Part> = whole
            .halves()
            .into_iter()
            .flat_map(Part::halves)
            .flat_map(Part::halves)
            .collect();
        let mut remainders: Vec<u64> = parts.iter().map(|part| part.remainder).collect();
        remainders.sort_unstable();
        assert_eq!(remainders, (0..8).collect::<Vec<_>>());
        assert!(parts.iter().all(|part| part.of == 8));
    }

    #[test]
    fn what_a_database_writes_its_own_way_is_the_same() {
        let json = |text: &str| Value::Json(text.to_owned());
        assert!(is_same(
            ColumnType::Json,
            &json("{\"a\":1,\"b\":[]}"),
            &json("{\"b\": [], \"a\": 1}")
        ));
        assert!(!is_same(ColumnType::Json, &json("[1]"), &json("[2]")));
        // As Postgres writes a number, and as it was given to it.
        let (given, kept) = (json("{\"a\":[1e16]}"), json("{\"a\": [10000000000000000]}"));
        assert!(is_same(ColumnType::Json, &given, &kept));
        let other = json("{\"a\": [10000000000000001]}");
        assert!(!is_same(ColumnType::Json, &kept, &other));
        let (exact, single) = (Value::Float(0.1), Value::Float(f64::from(0.1_f32)));
        assert!(is_same(ColumnType::Float32, &exact, &single));
        assert!(!is_same(ColumnType::Float64, &exact, &single));
        assert!(!is_same(ColumnType::Int64, &Value::Null, &Value::Int(0)));
    }
}
