//! The file of orders: a line for each, with the times of its life cycle.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, anyhow, bail, ensure};
use chrono::{DateTime, NaiveDateTime, Utc};

use crate::order::{Status, Step, StepKind};

/// The columns that are read; others may stand beside them.
const COLUMNS: [&str; 8] = [
    "order_id",
    "customer_id",
    "order_status",
    "order_purchase_timestamp",
    "order_approved_at",
    "order_delivered_carrier_date",
    "order_delivered_customer_date",
    "order_estimated_delivery_date",
];

/// A line of the file.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) order: String,
    customer: String,
    status: Status,
    purchased: DateTime<Utc>,
    approved: Option<DateTime<Utc>>,
    shipped: Option<DateTime<Utc>>,
    delivered: Option<DateTime<Utc>>,
    pub(crate) promised: DateTime<Utc>,
}

/// The content of a file of orders.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("opening {}", path.display()))
}

/// Reads orders.
///
/// # Errors
///
/// With the number of the line, where one has other fields than the header, a status or time that is
/// none, no id, or the id of a line before it.
pub(crate) fn parse(text: &[u8]) -> anyhow::Result<Vec<Record>> {
    let mut reader = csv::Reader::from_reader(text);
    let header = reader.headers().map_err(refusal)?.clone();
    let mut columns = [0; COLUMNS.len()];
    for (at, column) in columns.iter_mut().zip(COLUMNS) {
        let found = header.iter().position(|name| name == column);
        *at = found.with_context(|| format!("line 1: the header has no column {column}"))?;
    }
    let mut lines = HashMap::new();
    let mut records = Vec::new();
    for row in reader.records() {
        let row = row.map_err(refusal)?;
        let line = row.position().map_or(0, csv::Position::line);
        let record = Record::of(columns.map(|at| row.get(at).unwrap_or_default()))
            .with_context(|| format!("line {line}"))?;
        if let Some(first) = lines.insert(record.order.clone(), line) {
            bail!("line {line}: order {} is on line {first} too", record.order);
        }
        records.push(record);
    }
    ensure!(!records.is_empty(), "it has no orders");
    Ok(records)
}

/// What is wrong with which line.
fn refusal(error: csv::Error) -> anyhow::Error {
    let line = error.position().map_or(1, csv::Position::line);
    match error.kind() {
        csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => anyhow!("line {line}: {len} fields, where the header has {expected_len}"),
        csv::ErrorKind::Utf8 { err, .. } => anyhow!("line {line}: {err}"),
        _ => error.into(),
    }
}

impl Record {
    fn of(fields: [&str; COLUMNS.len()]) -> anyhow::Result<Self> {
        let [order, customer, status, ..] = fields;
        ensure!(!order.is_empty(), "order_id is empty");
        let time = |at: usize| time(fields[at]).with_context(|| COLUMNS[at]);
        let optional = |at: usize| match fields[at] {
            "" => Ok(None),
            _ => time(at).map(Some),
        };
        let status = status.parse().map_err(anyhow::Error::msg);
        Ok(Self {
            order: order.to_owned(),
            customer: customer.to_owned(),
            status: status.context("order_status")?,
            purchased: time(3)?,
            approved: optional(4)?,
            shipped: optional(5)?,
            delivered: optional(6)?,
            promised: time(7)?,
        })
    }

    /// The steps of the life cycle, none known before the one that it follows. A step that must have
    /// been taken and that the file has no time for is known with the one before it.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let place = StepKind::Place {
            customer: self.customer.clone(),
            promised: self.promised,
        };
        let known = [
            (StepKind::Approve, self.approved),
            (StepKind::Ship, self.shipped),
            (StepKind::Deliver, self.delivered),
        ];
        let mut steps = vec![Step {
            kind: place,
            known_at: self.purchased,
            at: Some(self.purchased),
        }];
        let reached = match self.status {
            Status::Created | Status::Canceled => 0,
            Status::Approved | Status::Invoiced | Status::Processing | Status::Unavailable => 1,
            Status::Shipped => 2,
            Status::Delivered => 3,
        };
        let timed = known.iter().rposition(|(_, at)| at.is_some());
        let taken = timed.map_or(reached, |last| reached.max(last + 1));
        for (kind, at) in known.into_iter().take(taken) {
            push(&mut steps, kind, at);
        }
        let last = match self.status {
            Status::Created | Status::Approved | Status::Shipped | Status::Delivered => None,
            Status::Invoiced => Some(StepKind::Invoice),
            Status::Processing => Some(StepKind::PutIntoWork),
            Status::Unavailable => Some(StepKind::FindUnavailable),
            Status::Canceled => Some(StepKind::Cancel),
        };
        if let Some(kind) = last {
            push(&mut steps, kind, None);
        }
        steps
    }
}

fn push(steps: &mut Vec<Step>, kind: StepKind, at: Option<DateTime<Utc>>) {
    let before = steps.last().map(|before| before.known_at);
    let known_at = before.max(at).unwrap_or_default();
    steps.push(Step { kind, known_at, at });
}

fn time(text: &str) -> anyhow::Result<DateTime<Utc>> {
    let time = NaiveDateTime::parse_from_str(text, "%m/%d/%Y %H:%M");
    let time = time.with_context(|| format!("{text:?} is no time like 7/24/2018 20:41"))?;
    Ok(time.and_utc())
}
