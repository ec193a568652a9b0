//! The file of orders: a line for each, with the times of its life cycle.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::Context;
use chrono::{DateTime, NaiveDateTime, Utc};
use serde::{Deserialize, Deserializer};

use crate::order::{Status, Step, StepKind};

/// A line of the file.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Record {
    #[serde(rename = "order_id")]
    pub(crate) order: String,
    #[serde(rename = "customer_id")]
    pub(crate) customer: String,
    #[serde(rename = "order_status")]
    pub(crate) status: Status,
    #[serde(rename = "order_purchase_timestamp", deserialize_with = "time")]
    purchased: DateTime<Utc>,
    #[serde(rename = "order_approved_at", deserialize_with = "optional_time")]
    approved: Option<DateTime<Utc>>,
    #[serde(
        rename = "order_delivered_carrier_date",
        deserialize_with = "optional_time"
    )]
    shipped: Option<DateTime<Utc>>,
    #[serde(
        rename = "order_delivered_customer_date",
        deserialize_with = "optional_time"
    )]
    delivered: Option<DateTime<Utc>>,
    #[serde(rename = "order_estimated_delivery_date", deserialize_with = "time")]
    pub(crate) promised: DateTime<Utc>,
}

/// Reads a file of orders.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<Record>> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    parse(file).with_context(|| format!("reading {}", path.display()))
}

/// Reads orders.
pub(crate) fn parse(from: impl Read) -> anyhow::Result<Vec<Record>> {
    let mut reader = csv::Reader::from_reader(from);
    let records = reader.deserialize().collect::<Result<Vec<Record>, _>>()?;
    Ok(records)
}

impl Record {
    /// The steps of the life cycle, none before the one that it follows. A step that must have been
    /// taken and that the file has no time for is taken when the one before it was.
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
            at: self.purchased,
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
            push(&mut steps, kind, at.unwrap_or(self.purchased));
        }
        let last = match self.status {
            Status::Created | Status::Approved | Status::Shipped | Status::Delivered => None,
            Status::Invoiced => Some(StepKind::Invoice),
            Status::Processing => Some(StepKind::PutIntoWork),
            Status::Unavailable => Some(StepKind::FindUnavailable),
            Status::Canceled => Some(StepKind::Cancel),
        };
        if let Some(kind) = last {
            push(&mut steps, kind, self.purchased);
        }
        steps
    }

    /// Whether it arrived, also where it was cancelled after that.
    pub(crate) fn is_delivered(&self) -> bool {
        let delivers = |step: &Step| step.kind == StepKind::Deliver;
        self.steps().iter().any(delivers)
    }

    /// When it was delivered or cancelled.
    pub(crate) fn closed_at(&self) -> Option<DateTime<Utc>> {
        let closes = |step: &&Step| matches!(step.kind, StepKind::Deliver | StepKind::Cancel);
        self.steps().iter().find(closes).map(|step| step.at)
    }
}

fn push(steps: &mut Vec<Step>, kind: StepKind, at: DateTime<Utc>) {
    let at = steps.last().map_or(at, |before| before.at.max(at));
    steps.push(Step { kind, at });
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DateTime<Utc>, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_time(&text).map_err(serde::de::Error::custom)
}

fn optional_time<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<DateTime<Utc>>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    parse_time(&text)
        .map(Some)
        .map_err(serde::de::Error::custom)
}

fn parse_time(text: &str) -> Result<DateTime<Utc>, String> {
    NaiveDateTime::parse_from_str(text, "%m/%d/%Y %H:%M")
        .map(|time| time.and_utc())
        .map_err(|cause| format!("{text:?} is no time like 7/24/2018 20:41: {cause}"))
}
